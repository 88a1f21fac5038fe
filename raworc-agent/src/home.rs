//! The agent's home, by whatever name it is called.

use std::path::{Path, PathBuf};

/// What `path` means to the agent: relative paths begin in its home.
pub(crate) fn resolve(home: &Path, path: &str) -> PathBuf {
    resolve_in(home, home, path)
}

/// What `path` means where relative paths begin in `directory`.
///
/// `/agent` is the home also where a computer is no more than a directory of the machine: what the machine itself may
/// have of that name is none of the agent's.
pub(crate) fn resolve_in(home: &Path, directory: &Path, path: &str) -> PathBuf {
    match Path::new(path).strip_prefix("/agent") {
        Ok(rest) => home.join(rest),
        Err(_) => directory.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_home_and_absolute_ones_stay() {
        let home = Path::new("/some/where");
        assert_eq!(resolve(home, "a/b"), Path::new("/some/where/a/b"));
        assert_eq!(resolve(home, "/etc/passwd"), Path::new("/etc/passwd"));
        assert_eq!(resolve(Path::new("/agent"), "/agent/a"), Path::new("/agent/a"));
        assert_eq!(resolve(home, "/agents"), Path::new("/agents"));
        assert_eq!(resolve_in(home, Path::new("/tmp"), "a"), Path::new("/tmp/a"));
    }

    #[test]
    fn agent_is_the_home_wherever_that_lies() {
        let home = Path::new("/some/where");
        assert_eq!(resolve(home, "/agent"), home);
        assert_eq!(resolve_in(home, Path::new("/tmp"), "/agent/a/b"), Path::new("/some/where/a/b"));
    }
}
