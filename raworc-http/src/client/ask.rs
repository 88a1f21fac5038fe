//! What is asked along with a call.

use std::time::Duration;

use reqwest::RequestBuilder;
use uuid::Uuid;

use crate::api::{WAIT_LIMIT, Wait};

/// What is asked along with a call that changes something.
#[derive(Debug, Clone)]
pub struct Ask {
    key: String,
    wait: Option<Duration>,
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
        Self { key: Uuid::now_v7().to_string(), wait: None }
    }

    /// With a key of the caller's, so that the same request has one effect even if this program starts anew.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Wait so long for what comes of it, 10 minutes at most. The answer is what is then.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.wait = Some(time.min(WAIT_LIMIT));
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
        self.wait.unwrap_or_default()
    }

    pub(crate) fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self.wait {
            Some(time) => request.query(&[("wait", Wait(time).to_string())]),
            None => request,
        }
    }
}
