//! [`Listening`]: whether programs are accepted.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use raworc_core::ids::ComputerId;
use tokio::time::Instant;

use super::unix::SocketFile;
use crate::server::places::Places;

/// What fails to accept does so again at once while the cause lasts; a failure longer ago than this is over.
const MEMORY: Duration = Duration::from_secs(2);

/// Whether an [`AgentsListener`](super::AgentsListener) accepts programs. Clones tell of the same one.
#[derive(Debug, Clone, Default)]
pub struct Listening {
    phase: Arc<Mutex<Phase>>,
    socket: Option<Weak<SocketFile>>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Begins,
    Accepts(Weak<Places<ComputerId>>),
    Failed(Instant, String),
    Ended,
}

impl Listening {
    pub(super) fn at(socket: &Arc<SocketFile>) -> Self {
        Self { phase: Arc::default(), socket: Some(Arc::downgrade(socket)) }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is served, until what this returns is dropped.
    pub(super) fn begin(self, places: Weak<Places<ComputerId>>) -> Serving {
        let serving = Serving(self, places);
        serving.accepts();
        serving
    }

    /// Whether programs are accepted.
    ///
    /// # Errors
    /// Says why they are not.
    pub fn check(&self) -> Result<(), String> {
        match &*self.phase() {
            Phase::Begins => return Err("is not served yet".to_owned()),
            Phase::Accepts(places) if places.upgrade().is_some_and(|places| places.is_full()) => {
                return Err(
                    "computers have all places that they may have; more of their connections are refused".into()
                );
            }
            Phase::Accepts(_) => {}
            Phase::Failed(at, _) if at.elapsed() > MEMORY => {}
            Phase::Failed(_, error) => return Err(format!("cannot accept connections: {error}")),
            Phase::Ended => return Err("has stopped".to_owned()),
        }
        match &self.socket {
            Some(socket) if !socket.upgrade().is_some_and(|socket| socket.is_there()) => {
                Err("its socket is gone; start the server again".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Tells how the serving goes. Its end is the end of that, also where it panics.
#[derive(Debug)]
pub(super) struct Serving(Listening, Weak<Places<ComputerId>>);

impl Serving {
    pub(super) fn accepts(&self) {
        *self.0.phase() = Phase::Accepts(Weak::clone(&self.1));
    }

    pub(super) fn failed(&self, error: &io::Error) {
        *self.0.phase() = Phase::Failed(Instant::now(), error.to_string());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        *self.0.phase() = Phase::Ended;
    }
}
