//! What the writer lets those know who follow the log and who read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Signals of one store's writer.
#[derive(Debug)]
pub(super) struct Signals {
    /// There is more in the log than it has told.
    pub(super) grown: Notify,
    /// When it last may have come to another server.
    turned: Mutex<Instant>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self { grown: Notify::new(), turned: Mutex::new(Instant::now()) }
    }

    /// Another server may be the one that is written to. The one that was until now need not end connections, and has nothing of
    /// what is new: those from before this are left.
    pub(super) fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.grown.notify_one();
    }

    pub(super) fn turned(&self) -> Instant {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection of this age was there before the last turn.
    pub(super) fn is_old(&self, age: Duration) -> bool {
        age > self.turned().elapsed()
    }
}
