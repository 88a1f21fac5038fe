//! The directory of an installation: its computers, its volumes, and what is being thrown away.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use raworc_core::ids::{ComputerId, VolumeId};
use raworc_core::runtime::{ComputerSpec, LimitsReached, RuntimeError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{At, refused};
use super::process::Identity;

/// How long another process may take to let go of the directory.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// A start, written down before anything of it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    /// The helper's first stage.
    pub(crate) process: Identity,
    /// Its control groups.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// How a start ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    /// In words.
    pub(crate) reason: String,
    /// Which limits it had run into.
    #[serde(default)]
    pub(crate) reached: LimitsReached,
}

/// The directory of an installation, held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    place: String,
    _lock: File,
}

impl Home {
    /// Makes the directory where it is not there, and holds it against other processes.
    pub(crate) async fn open(state_dir: &Path, installation: &str) -> Result<Self, RuntimeError> {
        let what = "open the computers' directory";
        let name_fits = !installation.is_empty()
            && installation.len() <= 64
            && installation.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
        if !name_fits {
            return Err(refused(
                what,
                format!("{installation:?} is no name for an installation: use 1 to 64 letters, digits, - and _"),
            ));
        }
        private_directory(state_dir).at(what, state_dir)?;
        let state_dir = state_dir.canonicalize().at(what, state_dir)?;
        let root = state_dir.join(installation);
        for directory in [root.clone(), root.join("computers"), root.join("volumes"), root.join("trash")] {
            private_directory(&directory).at(what, &directory)?;
        }
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).at(what, &path)?;
        let deadline = tokio::time::Instant::now() + LOCK_LIMIT;
        loop {
            match lock.try_lock() {
                Ok(()) => {
                    let data = fs::metadata(&root).at(what, &root)?;
                    // The only directory of the machine of which this is true, and it tells nobody where that is.
                    let place = format!("raworc-{:x}-{:x}-", data.dev(), data.ino());
                    return Ok(Self { root, place, _lock: lock });
                }
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(refused(
                        what,
                        format!("{} is in use by another process; end it first", root.display()),
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(error).at(what, &path),
            }
        }
    }

    /// How the marks of all processes of this installation begin.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The mark of a computer's processes.
    pub(crate) fn mark(&self, id: impl std::fmt::Display) -> String {
        format!("{}{id}", self.place)
    }

    pub(crate) fn computer(&self, id: ComputerId) -> PathBuf {
        self.root.join("computers").join(id.to_string())
    }

    pub(crate) fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string())
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// All computers that were made and not removed.
    pub(crate) fn computers(&self) -> Result<Vec<ComputerId>, RuntimeError> {
        let path = self.root.join("computers");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&path).at("list computers", &path)? {
            let entry = entry.at("list computers", &path)?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.spec(id) {
                Ok(Some(_)) => ids.push(id),
                Ok(None) => {}
                // One that is damaged must not keep all others from being served.
                Err(error) => tracing::error!(%error, computer = %id, "a computer is left out"),
            }
        }
        Ok(ids)
    }

    /// What a computer was made from; none where it was not.
    pub(crate) fn spec(&self, id: ComputerId) -> Result<Option<ComputerSpec>, RuntimeError> {
        read(&self.computer(id).join("spec.json"))
    }

    pub(crate) fn write_spec(&self, spec: &ComputerSpec) -> Result<(), RuntimeError> {
        write(&self.computer(spec.id).join("spec.json"), spec, Lasting::BeyondPower)
    }

    pub(crate) fn start(&self, id: ComputerId) -> Result<Option<StartRecord>, RuntimeError> {
        Ok(read_if_whole(&self.computer(id).join("start.json")))
    }

    /// Writes down a start, and forgets how the one before it ended.
    pub(crate) fn write_start(&self, id: ComputerId, start: &StartRecord) -> Result<(), RuntimeError> {
        let end = self.computer(id).join("end.json");
        match fs::remove_file(&end) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("start", &end),
            Ok(()) | Err(_) => {}
        }
        write(&self.computer(id).join("start.json"), start, Lasting::BeyondProcesses)
    }

    pub(crate) fn end(&self, id: ComputerId) -> Result<Option<EndRecord>, RuntimeError> {
        Ok(read_if_whole(&self.computer(id).join("end.json")))
    }

    /// Writes down how the last start ended, and that nothing of it is left.
    pub(crate) fn write_end(&self, id: ComputerId, reason: &str, reached: LimitsReached) -> Result<(), RuntimeError> {
        let end = EndRecord { reason: reason.to_owned(), reached };
        write(&self.computer(id).join("end.json"), &end, Lasting::BeyondProcesses)?;
        let start = self.computer(id).join("start.json");
        match fs::remove_file(&start) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("record an end", &start),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Makes a directory that only its owner enters.
pub(crate) fn private_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A record that a loss of power may have cut short, which is as good as none: nothing that it tells of lives on.
fn read_if_whole<T: DeserializeOwned>(path: &Path) -> Option<T> {
    read(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "a record is left out");
        None
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read a record", path),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| refused("read a record", format!("{} is damaged: {error}", path.display())))
}

/// What a record has to outlast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// The end of every process. Starts and ends mean nothing after a loss of power.
    BeyondProcesses,
    /// A loss of power.
    BeyondPower,
}

/// Writes a record whole or not at all.
fn write<T: Serialize>(path: &Path, record: &T, lasting: Lasting) -> Result<(), RuntimeError> {
    let what = "write a record";
    let bytes = serde_json::to_vec(record).map_err(|error| refused(what, error.to_string()))?;
    let new = path.with_extension("new");
    fs::write(&new, bytes).at(what, &new)?;
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    if lasting == Lasting::BeyondPower {
        sync(&new).at(what, &new)?;
    }
    fs::rename(&new, path).at(what, path)?;
    match path.parent() {
        Some(directory) if lasting == Lasting::BeyondPower => sync(directory).at(what, directory),
        Some(_) | None => Ok(()),
    }
}
