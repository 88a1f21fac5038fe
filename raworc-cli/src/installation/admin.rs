//! The first admin, and the login of whoever started the installation.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raworc_core::control::ControlPlane;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::UserName;
use secrecy::{ExposeSecret, SecretString};

use super::Installation;
use crate::exit::{Exit, Failure};
use crate::session::{Login, Session};
use crate::settings::Settings;

/// Letters of a password that is made up: none that are taken for one another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// For how long the command line of whoever started the installation is logged in: they hold its master key anyway.
const LOGIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The first admin, who was made just now.
#[derive(Debug)]
pub struct FirstAdmin {
    /// Their name.
    pub name: UserName,
    /// Where their password is.
    pub password: Password,
}

impl FirstAdmin {
    /// The file with the password, where one was made up and written down.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        match &self.password {
            Password::Written(path) => Some(path),
            Password::Given | Password::Shown(_) => None,
        }
    }
}

/// Where the first admin's password is.
#[derive(Debug)]
pub enum Password {
    /// It was given.
    Given,
    /// It was made up, and is to be shown once.
    Shown(SecretString),
    /// It was made up, and lies in this file.
    Written(PathBuf),
}

impl Installation {
    /// Makes the first admin where there is no user yet. `show` says whether a person reads what is printed; else a
    /// password that was made up is written to a file.
    ///
    /// # Errors
    /// Where the password is too short, or cannot be read or written.
    pub async fn ensure_first_admin(&self, show: bool) -> anyhow::Result<Option<FirstAdmin>> {
        if self.control.system().has_users().await? {
            return Ok(None);
        }
        let name = self.settings.admin.clone();
        let (secret, password) = match given(&self.settings)? {
            Some(secret) => (secret, Password::Given),
            None if show => {
                let secret = made_up();
                (secret.clone(), Password::Shown(secret))
            }
            None => {
                let path = self.settings.data.join("admin-password");
                // Before the user is made, so that no password is ever lost. Another server may have the same directory.
                let secret = kept(&path).map_err(|error| {
                    Failure::new(Exit::Failed, format!("cannot write {}", path.display())).because(error)
                })?;
                (secret, Password::Written(path))
            }
        };
        let made = self.control.system().ensure_first_admin(&name, secret).await?;
        Ok(made.then_some(FirstAdmin { name, password }))
    }

    /// Logs this user's command line in as the admin, if there is one of that name.
    ///
    /// # Errors
    /// Where the session cannot be written.
    pub async fn log_in(&self) -> anyhow::Result<Option<Login>> {
        let Some(login) = self.token(&self.settings.admin, &self.control).await? else {
            return Ok(None);
        };
        let Some(url) = self.url() else { return Ok(None) };
        let mut session = Session::load()?;
        session.put(&url, login.clone());
        session.save()?;
        Ok(Some(login))
    }

    async fn token(&self, name: &UserName, control: &ControlPlane) -> anyhow::Result<Option<Login>> {
        let Ok(principal) = control.system().user_principal(name).await else {
            return Ok(None);
        };
        let Some(serving) = &self.serving else { return Ok(None) };
        let issued = serving.tokens.issue(&principal, LOGIN)?;
        Ok(Some(Login { user: name.to_string(), token: issued.token, expires_at: Some(issued.record.expires_at) }))
    }
}

fn given(settings: &Settings) -> Result<Option<SecretString>, Failure> {
    let Some(path) = &settings.admin_password_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read the admin's password from {}", path.display())).because(error)
    })?;
    Ok(Some(SecretString::from(text.trim_end_matches(['\n', '\r']).to_owned())))
}

/// A password that is made up, in a file that only its owner can read; or what stands there already.
fn kept(path: &Path) -> std::io::Result<SecretString> {
    let secret = made_up();
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(format!("{}\n", secret.expose_secret()).as_bytes())?;
            file.sync_all()?;
            Ok(secret)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let there = std::fs::read_to_string(path)?;
            Ok(SecretString::from(there.trim_end_matches(['\n', '\r']).to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// 120 random bits.
fn made_up() -> SecretString {
    let bytes: [u8; 24] = SystemEntropy.bytes();
    let letters: Vec<_> = bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    let groups: Vec<String> = letters.chunks(6).map(|group| group.iter().collect()).collect();
    SecretString::from(groups.join("-"))
}
