//! What of the machine every computer is shown, and that nothing private lies below it.

use std::io;
use std::path::{Component, Path, PathBuf};

use raworc_core::runtime::RuntimeError;

use super::error::{At, refused};

/// Directories of the machine that are shown read-only, where they exist.
pub(crate) const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store", "/etc/alternatives"];

/// Directories of `/etc` that are shown read-only. None of them holds a key or a password.
pub(crate) const ETC: [&str; 11] = [
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust",
    "/etc/ld.so.conf.d",
    "/etc/fonts",
    "/etc/terminfo",
    "/etc/profile.d",
    "/etc/skel",
    "/etc/perl",
    "/etc/vim",
];

/// That computers are not shown `path`, which need not be there yet.
///
/// Rights would not do: where the server is an ordinary user, its agents are that user outside, and read what it reads.
pub(crate) fn keeps_out(path: &Path) -> Result<(), RuntimeError> {
    let what = "keep files from computers";
    let lies_at = resolve(path).at(what, path)?;
    for shown in SYSTEM.into_iter().chain(ETC) {
        // One that is not there is not shown.
        let Ok(directory) = Path::new(shown).canonicalize() else { continue };
        if lies_at.starts_with(&directory) {
            return Err(refused(
                what,
                format!(
                    "{} lies below {}, which every computer is shown, so that agents could read it; choose a place \
                     elsewhere, such as below your home directory or /var/lib",
                    path.display(),
                    directory.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Where `path` lies, or will lie once the directories that it is missing are made.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        let mut place = match ancestor.canonicalize() {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for component in path.strip_prefix(ancestor).unwrap_or(Path::new("")).components() {
            match component {
                Component::ParentDir => {
                    place.pop();
                }
                other => place.push(other),
            }
        }
        return Ok(place);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_lies_where_it_will_be_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path().canonicalize().expect("there");
        std::os::unix::fs::symlink("/usr", directory.join("link")).expect("linked");
        let at = |path: &str| resolve(&directory.join(path)).expect("resolved");
        assert_eq!(at("a/b"), directory.join("a/b"));
        assert_eq!(at("a/../../b"), directory.with_file_name("b"));
        assert_eq!(at("link/none/here"), Path::new("/usr/none/here"));
        assert_eq!(at("link/../none"), Path::new("/none"));
    }

    #[test]
    fn only_what_lies_below_a_shown_directory_is_refused() {
        for path in ["/usr", "/usr/none/here", "/usr/../usr/none", "/bin/none", "/none/../usr/none"] {
            keeps_out(Path::new(path)).expect_err(path);
        }
        for path in ["/usrx", "/var/lib/raworc", "/usr/../none"] {
            keeps_out(Path::new(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
