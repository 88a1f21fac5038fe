//! What the parts of the program tell each other.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use raworc_core::ids::MessageId;
use tokio::sync::watch;

use crate::volume::Meter;

/// What the worker, the heartbeat and the link share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    env: RwLock<Arc<BTreeMap<String, String>>>,
    /// What stands in it whatever the agent's own is, unless that says otherwise.
    base: BTreeMap<String, String>,
    cancelled: watch::Sender<Option<MessageId>>,
    /// How much the volume holds.
    pub(crate) meter: Meter,
}

impl Shared {
    /// With what stands in the environment unless the agent's own says otherwise.
    pub(crate) fn with_base(base: BTreeMap<String, String>) -> Self {
        Self { base, ..Self::default() }
    }

    /// The agent's environment as the last lease told it.
    pub(crate) fn env(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.env.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A newer environment.
    pub(crate) fn set_env(&self, env: &BTreeMap<String, String>) {
        let mut whole = self.base.clone();
        whole.extend(env.clone());
        let mut held = self.env.write().unwrap_or_else(PoisonError::into_inner);
        if **held != whole {
            *held = Arc::new(whole);
        }
    }

    /// Somebody asked to give this message up.
    pub(crate) fn cancel(&self, message: MessageId) {
        self.cancelled.send_replace(Some(message));
    }

    /// Waits until somebody asks to give this message up.
    pub(crate) async fn cancelled(&self, message: MessageId) {
        let mut cancelled = self.cancelled.subscribe();
        // The sender lives as long as this.
        let _ = cancelled.wait_for(|asked| *asked == Some(message)).await;
    }
}
