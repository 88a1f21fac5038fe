//! Where the command line keeps who it is logged in as: one file, readable by its owner alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// The server that is spoken to where nothing else is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:9000";

/// The logins of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The server of the latest login.
    #[serde(default)]
    pub server: Option<String>,
    /// Logins by the address of their server. A token is sent nowhere else.
    #[serde(default)]
    pub logins: BTreeMap<String, Login>,
}

/// One login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// As whom.
    pub user: String,
    /// The token.
    pub token: String,
    /// When it expires, where that is known.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The directory of this user's configuration: `RAWORC_CONFIG_DIR`, or `raworc` in `XDG_CONFIG_HOME` or `~/.config`.
///
/// # Errors
/// Where neither is set and there is no home directory.
pub fn config_dir() -> Result<PathBuf, Failure> {
    if let Some(dir) = set("RAWORC_CONFIG_DIR") {
        return Ok(dir);
    }
    under_home("XDG_CONFIG_HOME", ".config", "RAWORC_CONFIG_DIR")
}

/// The directory of an installation of this user: `raworc` in `XDG_DATA_HOME` or `~/.local/share`.
///
/// # Errors
/// Where neither is set and there is no home directory.
pub fn default_data_dir() -> Result<PathBuf, Failure> {
    under_home("XDG_DATA_HOME", ".local/share", "RAWORC_DATA")
}

fn under_home(variable: &str, below: &str, ours: &str) -> Result<PathBuf, Failure> {
    let base = set(variable).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(below)));
    base.map(|base| base.join("raworc")).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory to keep anything in").hint(format!("set {ours}"))
    })
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Session {
    /// Reads the session of this user; an empty one where there is none yet.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn load() -> anyhow::Result<Self> {
        Self::load_from(&config_dir()?)
    }

    /// Reads the session that lies in `dir`.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn load_from(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("session.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; delete it and run `raworc login`", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the session of this user.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        self.save_to(&config_dir()?)
    }

    /// Writes the session into `dir`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save_to(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join("session.json");
        make_private_dir(dir)?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        write_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Notes a login and makes its server the one that is spoken to.
    pub fn put(&mut self, server: &str, login: Login) {
        let server = normalise(server);
        self.server = Some(server.clone());
        self.logins.insert(server, login);
    }

    /// The login at a server.
    #[must_use]
    pub fn login(&self, server: &str) -> Option<&Login> {
        self.logins.get(&normalise(server))
    }

    /// Forgets the login at a server, and says what it was.
    pub fn forget(&mut self, server: &str) -> Option<Login> {
        self.logins.remove(&normalise(server))
    }

    /// The server to speak to: the one asked for, else that of the latest login, else the usual one.
    #[must_use]
    pub fn server(&self, asked: Option<&str>) -> String {
        normalise(asked.or(self.server.as_deref()).unwrap_or(DEFAULT_SERVER))
    }
}

/// An address in one form: with a scheme and without a slash at its end.
#[must_use]
pub fn normalise(server: &str) -> String {
    let server = server.trim().trim_end_matches('/');
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// Makes a directory that only its owner can look into, with all above it.
///
/// # Errors
/// Names the directory.
pub fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))
}

/// What a file is written as before it has its name. Containers may share a directory, and their processes have one number.
pub(crate) fn draft(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", SystemEntropy.uuid(SystemClock.now()).simple()))
}

/// Writes a file that only its owner can read, so that a reader sees the old text or the new one and no piece of it.
///
/// # Errors
/// As the file system has them.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let draft = draft(path);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    if written.is_err() {
        // The draft is of no use to anybody.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reads_back_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut session = Session::default();
        let login = Login { user: "ann".into(), token: "t".into(), expires_at: None };
        session.put("http://127.0.0.1:9000/", login.clone());
        session.save_to(dir.path()).expect("saved");
        let again = Session::load_from(dir.path()).expect("read");
        assert_eq!(again, session);
        assert_eq!(again.login("127.0.0.1:9000"), Some(&login));
        assert_eq!(again.login("http://elsewhere:9000"), None, "a token goes to the server that gave it alone");
        let mode = std::fs::metadata(dir.path().join("session.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_session_names_the_file_and_the_way_out() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("session.json"), "{").expect("written");
        let error = Session::load_from(dir.path()).expect_err("damaged");
        assert!(error.to_string().contains("session.json is damaged; delete it and run `raworc login`"), "{error}");
    }

    #[test]
    fn a_token_never_shows_in_debug_output() {
        let login = Login { user: "ann".into(), token: "very-secret".into(), expires_at: None };
        assert!(!format!("{login:?}").contains("very-secret"));
    }
}
