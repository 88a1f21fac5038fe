//! One process a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use raworc_core::store::StoreError;
use tokio::time::Instant;

/// How long the lock is waited for. Where a store is closed and opened again in one process, a child that another thread forks in
/// between holds a copy of the lock until it executes its program.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// Holds the directory until it is dropped or the process ends, however that ends.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory, readable by its owner alone, and takes it.
    pub(super) async fn take(directory: &Path) -> Result<Self, StoreError> {
        let unusable = |what: &str, error: &std::io::Error| StoreError::Unusable {
            reason: format!(
                "cannot {what} the data directory {}: {error}; make it writable or choose another directory",
                directory.display()
            ),
        };
        make_private(directory).map_err(|error| unusable("make", &error))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("raworc.lock"))
            .map_err(|error| unusable("write to", &error))?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(unusable("lock", &error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                    let holder = if known { format!("process {}", holder.trim()) } else { "another process".into() };
                    return Err(StoreError::Unusable {
                        reason: format!(
                            "{holder} uses the data directory {}; stop that process or choose another directory",
                            directory.display()
                        ),
                    });
                }
            }
        }
        let pid = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(|error| unusable("write to", &error))?;
        Ok(Self { _file: file })
    }
}

/// Makes the database's file, so that it and those that SQLite puts beside it are its owner's alone.
pub(super) fn make_database(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
