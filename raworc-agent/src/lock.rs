//! One program at a time works in a home.
//!
//! An engine that is killed can lose track of a container that goes on, and say that it has stopped. The start after it must
//! not write beside it. The kernel gives the lock to one of them, and takes it back however that one ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long the program before this one may take to end: it hears that it is over with its next heartbeat. An operator gives a
/// start some more time than this.
const LIMIT: Duration = Duration::from_secs(90);

/// Time between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Another program has the home.
#[derive(Debug, thiserror::Error)]
#[error(
    "another program of this agent still works in {home}, of which the engine does not know any more; find what has that \
     volume mounted, and end it"
)]
pub struct InUse {
    home: String,
}

/// A home that this program has for itself, until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked(#[expect(dead_code, reason = "the lock goes when it is closed")] Option<File>);

/// Makes the home where it is not there, and waits until no other program has it.
///
/// A home that cannot be locked, since its disk is full or it knows no locks, is worked in without.
pub(crate) async fn take(home: &Path) -> Result<Locked, InUse> {
    match tokio::time::timeout(LIMIT, wait(home)).await {
        Ok(Ok(file)) => Ok(Locked(Some(file))),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the home {} cannot be locked", home.display());
            Ok(Locked(None))
        }
        Err(_) => Err(InUse { home: home.display().to_string() }),
    }
}

async fn wait(home: &Path) -> io::Result<File> {
    std::fs::create_dir_all(home)?;
    // The directory itself, which the agent cannot take away: it is where its volume is.
    let file = File::open(home)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {}
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for the program before this one to end");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_home_that_another_one_keeps_is_not_worked_in() {
        let home = tempfile::tempdir().expect("a directory");
        let first = take(home.path()).await.expect("free");
        let refused = take(home.path()).await.expect_err("in use");
        assert!(refused.to_string().contains(&home.path().display().to_string()), "{refused}");
        drop(first);
        take(home.path()).await.expect("free again");
    }

    #[tokio::test]
    async fn a_home_that_cannot_be_locked_is_worked_in() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("file"), "no directory").expect("written");
        take(&home.path().join("file")).await.expect("without a lock");
    }
}
