//! The master key in its file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use raworc_core::entropy::SystemEntropy;
use raworc_core::seal::MasterKey;
use secrecy::ExposeSecret;

use super::Role;
use crate::exit::{Exit, Failure};
use crate::session::draft;
use crate::settings::Settings;

/// Reads the master key. `raworc up` makes it where there is neither key nor database; of several processes, each has to be
/// given the same.
pub(super) fn load(settings: &Settings, role: Role, fresh: bool) -> Result<MasterKey, Failure> {
    if let Some(text) = &settings.master_key {
        let key = MasterKey::from_text(text.expose_secret());
        return key.map_err(|error| Failure::new(Exit::Usage, "master_key cannot be used").because(error));
    }
    let path = settings.master_key_path();
    match read(&path)? {
        Some(key) => Ok(key),
        None if fresh && role == Role::Both => make(&path),
        None if fresh => Err(Failure::new(Exit::Failed, format!("the master key {} is missing", path.display()))
            .hint("make it once, by `(umask 077; head -c 32 /dev/urandom | base64 > master.key)`, and give it to every server and operator")
            .hint("name its file with --master-key-file, or give the key itself in RAWORC_MASTER_KEY")),
        None => Err(Failure::new(
            Exit::Failed,
            format!("the master key {} is missing, and the database was made under it", path.display()),
        )
        .hint("put the key back from a backup or from another process of this installation, or name its file with --master-key-file")
        .hint("or begin anew, with another data directory or an empty database: what is sealed in this one stays shut without the key")),
    }
}

fn read(path: &Path) -> Result<Option<MasterKey>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => MasterKey::from_text(&text)
            .map(Some)
            .map_err(|error| Failure::new(Exit::Failed, format!("{} cannot be used", path.display())).because(error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::new(Exit::Failed, format!("cannot read the master key {}", path.display())).because(error))
        }
    }
}

fn make(path: &Path) -> Result<MasterKey, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot write the master key {}", path.display()))
            .because(error)
            .hint("make its directory writable, or choose another one with --data DIR or RAWORC_DATA")
    };
    let key = MasterKey::generate(&SystemEntropy);
    let draft = draft(path);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all((key.to_text() + "\n").as_bytes())?;
        file.sync_all()?;
        // Unlike a rename, a link leaves alone a key that another process made meanwhile.
        std::fs::hard_link(&draft, path)
    };
    let written = write();
    // Only its other name is of use.
    let _ = std::fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => read(path)?.ok_or_else(|| failed(error)),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::args::AssemblyArgs;

    fn settings(dir: &Path) -> Settings {
        let args = AssemblyArgs { data: Some(dir.to_owned()), ..AssemblyArgs::default() };
        Settings::read(&args, None, Default::default()).expect("defaults")
    }

    #[test]
    fn the_first_start_makes_a_key_that_only_its_owner_can_read() {
        let dir = tempfile::tempdir().expect("temp dir");
        let settings = settings(dir.path());
        let key = load(&settings, Role::Both, true).expect("made");
        let mode = std::fs::metadata(settings.master_key_path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(&settings, Role::Both, false).expect("read").id(), key.id());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1, "no draft is left");
    }

    #[test]
    fn a_lost_key_is_not_replaced_by_another() {
        let dir = tempfile::tempdir().expect("temp dir");
        let error = load(&settings(dir.path()), Role::Both, false).expect_err("missing");
        assert!(error.to_string().contains("is missing"), "{error}");
        assert!(!dir.path().join("master.key").exists());
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("master.key"), "secret").expect("written");
        let error = load(&settings(dir.path()), Role::Both, false).expect_err("no key");
        assert!(error.to_string().contains("master.key cannot be used"), "{error}");
    }

    #[test]
    fn one_process_of_several_makes_no_key_of_its_own() {
        let dir = tempfile::tempdir().expect("temp dir");
        for role in [Role::Server, Role::Operator] {
            let error = load(&settings(dir.path()), role, true).expect_err("missing");
            assert!(error.to_string().contains("is missing"), "{error}");
        }
        assert!(!dir.path().join("master.key").exists());
    }
}
