//! What an installation, and a place with computers in it, is called: names that labels and records bear.

use std::path::Path;

use raworc_core::control;
use raworc_core::entropy::{EntropyExt, SystemEntropy};

use super::store::Opened;
use crate::exit::{Exit, Failure};
use crate::session::write_private;
use crate::settings::Settings;

/// The name of this installation among others whose computers an engine has. One data directory is one, made at its first
/// start; where processes share a database, it is what that says.
pub(super) async fn of(settings: &Settings, store: &Opened) -> anyhow::Result<String> {
    let path = settings.data.join("installation");
    let here = read(&path)?;
    if !store.is_shared() {
        return Ok(here.map_or_else(|| made(&path), Ok)?);
    }
    let proposed = here.clone().unwrap_or_else(made_up);
    let name = control::installation_name(&*store.store(), &proposed).await?;
    match here {
        Some(here) if here != name => Err(Failure::new(
            Exit::Failed,
            format!("the data directory {} is of another installation than the database", settings.data.display()),
        )
        .hint(format!(
            "this one is {here}, the database is of {name}; choose another one with --data DIR or RAWORC_DATA"
        ))
        .into()),
        Some(_) => Ok(name),
        None => {
            write(&path, &name)?;
            Ok(name)
        }
    }
}

/// The name of the computers that are kept in a directory of this machine, made at the first start with it.
pub(super) fn of_directory(directory: &Path) -> Result<String, Failure> {
    let path = directory.join("engine");
    read(&path)?.map_or_else(|| made(&path), Ok)
}

fn made_up() -> String {
    format!("{:016x}", u64::from_le_bytes(SystemEntropy.bytes()))
}

fn made(path: &Path) -> Result<String, Failure> {
    let name = made_up();
    write(path, &name)?;
    Ok(name)
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

fn write(path: &Path, name: &str) -> Result<(), Failure> {
    write_private(path, &format!("{name}\n")).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot keep {}", path.display())).because(error)
}
