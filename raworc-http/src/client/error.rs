//! Why a call came to nothing.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use reqwest::{Response, Url};
use serde_json::{Map, Value};

use crate::api::ErrorBody;

/// Characters of an answer that is no error of ours which are shown.
const SHOWN: usize = 200;

/// Why a call came to nothing: what the server said, or why it could not be asked.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClientError {
    /// The server's word for it, or `unreachable_server`, `timed_out`, `invalid`, `unreadable` for what happened here.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The status of the answer, where there was one.
    pub status: Option<StatusCode>,
    /// The things that the sentence speaks of, by name.
    pub details: Map<String, Value>,
    retry_after: Option<Duration>,
    source: Option<reqwest::Error>,
}

impl ClientError {
    pub(crate) fn local(code: &str, message: String) -> Self {
        Self { code: code.to_owned(), message, status: None, details: Map::new(), retry_after: None, source: None }
    }

    pub(crate) fn transport(server: &Url, error: reqwest::Error) -> Self {
        let server = server.as_str().trim_end_matches('/');
        let (code, message) = if error.is_timeout() && !error.is_connect() {
            ("timed_out", format!("{server} did not answer in time"))
        } else if error.is_connect() {
            ("unreachable_server", format!("{server} cannot be reached; is the server up?"))
        } else {
            ("unreachable_server", format!("the connection to {server} broke"))
        };
        Self { source: Some(error.without_url()), ..Self::local(code, message) }
    }

    /// What an answer that is no success says.
    pub(crate) async fn of(response: Response) -> Self {
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.text().await.unwrap_or_default();
        let mut error = match serde_json::from_str::<ErrorBody>(&text) {
            Ok(ErrorBody { error }) => Self { details: error.details, ..Self::local(&error.code, error.message) },
            Err(_) => {
                let shown: String = text.chars().take(SHOWN).collect();
                Self::local("unreadable", format!("the answer {status} is not one of this API: {shown:?}"))
            }
        };
        error.status = Some(status);
        error.retry_after = seconds.map(Duration::from_secs);
        error
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.status {
            None => matches!(self.code.as_str(), "unreachable_server" | "timed_out"),
            Some(
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT,
            ) => true,
            Some(_) => self.code == "contended",
        }
    }

    /// Whether the client sends the call again by itself: where that may help soon, and nobody is to be asked first.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        let connection = self.status.is_none() && self.code == "unreachable_server";
        connection || self.status == Some(StatusCode::SERVICE_UNAVAILABLE) || self.code == "contended"
    }

    /// When the server says that it is worth trying again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
