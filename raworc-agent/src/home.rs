//! The agent's home, by whatever name it is called.

use std::path::{Path, PathBuf};

/// What `path` means to the agent: relative paths begin in its home, and `/agent` is its home also where the computer
/// is no more than a directory and has no place of that name.
pub(crate) fn resolve(home: &Path, path: &str) -> PathBuf {
    const NAME: &str = "/agent";
    let path = Path::new(path);
    match path.strip_prefix(NAME) {
        Ok(rest) if home != Path::new(NAME) && !Path::new(NAME).exists() => home.join(rest),
        Ok(_) | Err(_) => home.join(path),
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
    }
}
