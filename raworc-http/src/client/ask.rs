//! What is asked along with a call.

use std::time::Duration;

use uuid::Uuid;

/// Servers remember a key for a day, and a call is asked again under it.
const LONGEST: Duration = Duration::from_secs(23 * 3600);

/// What is asked along with a call that changes something.
#[derive(Debug, Clone)]
pub struct Ask {
    key: String,
    wait: Duration,
}

impl Default for Ask {
    fn default() -> Self {
        Self::new()
    }
}

impl Ask {
    /// Nothing but a key of its own, so that a call whose answer is lost can be sent again and has one effect.
    #[must_use]
    pub fn new() -> Self {
        Self { key: Uuid::now_v7().to_string(), wait: Duration::ZERO }
    }

    /// With a key of the caller's, so that the same request has one effect even if this program starts anew.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Wait so long for what comes of it, 23 hours at most; no time is the default. The answer is what is then.
    ///
    /// A server waits 10 minutes at most in one call; the client asks again under the same key, for which the server has
    /// to remember it that long.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.wait = time.min(LONGEST);
        self
    }

    /// Wait so many seconds.
    #[must_use]
    pub fn wait_secs(self, seconds: u64) -> Self {
        self.wait(Duration::from_secs(seconds))
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn wait_time(&self) -> Duration {
        self.wait
    }
}
