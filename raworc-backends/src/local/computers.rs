//! The computers that run, and a turn for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raworc_core::ids::ComputerId;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::sandbox::Sandbox;

/// The computers that run.
#[derive(Debug, Default)]
pub(crate) struct Computers {
    running: Mutex<HashMap<ComputerId, Arc<Sandbox>>>,
    turns: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Computers {
    pub(crate) fn get(&self, id: ComputerId) -> Option<Arc<Sandbox>> {
        lock(&self.running).get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Sandbox>> {
        lock(&self.running).values().cloned().collect()
    }

    pub(crate) fn insert(&self, id: ComputerId, sandbox: Arc<Sandbox>) {
        lock(&self.running).insert(id, sandbox);
    }

    pub(crate) fn take(&self, id: ComputerId) {
        lock(&self.running).remove(&id);
    }

    /// Waits until no other call makes, starts or removes this computer or volume.
    pub(crate) async fn turn(&self, id: Uuid) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            // Those that nobody holds are forgotten, so that computers that are gone leave nothing.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(id).or_default())
        };
        turn.lock_owned().await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
