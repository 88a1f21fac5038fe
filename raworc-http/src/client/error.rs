//! Why a call came to nothing.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use reqwest::{Response, Url};
use serde_json::{Map, Value};

use crate::api::ErrorBody;

/// Characters of an answer that is no error of ours which are shown.
const SHOWN: usize = 200;

const UNREACHABLE: &str = "unreachable_server";
const LOST: &str = "connection_lost";
const TIMED_OUT: &str = "timed_out";
const UNREADABLE: &str = "unreadable";

/// Why a call came to nothing: what the server said, or why it could not be asked.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClientError {
    /// The server's word for it; where [`status`](Self::status) is absent, one for what happened here:
    ///
    /// - `unreachable_server`: no connection came about, so that nothing was done;
    /// - `connection_lost`: it broke before the whole answer was there; the call may have been done;
    /// - `timed_out`: the answer did not come in time; the call may still be done;
    /// - `unreadable`: the answer is none that is known here (it has a status too where that is no success);
    /// - `invalid`: what was given to the client cannot be sent; `details.field` names it;
    /// - `output`: what a command wrote could not be written here;
    /// - `internal`: the client cannot be set up on this machine, or is wrong.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The status of the answer, where there was one that is no success.
    pub status: Option<StatusCode>,
    /// The things that the sentence speaks of, by name.
    pub details: Map<String, Value>,
    server: Option<Arc<Url>>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ClientError {
    pub(crate) fn local(code: &str, message: String) -> Self {
        Self {
            code: code.to_owned(),
            message,
            status: None,
            details: Map::new(),
            server: None,
            retry_after: None,
            source: None,
        }
    }

    /// With what the message speaks of.
    pub(crate) fn with_details(mut self, details: Map<String, serde_json::Value>) -> Self {
        self.details = details;
        self
    }

    /// Something that was given and cannot be sent.
    pub(crate) fn invalid(field: &str, message: String) -> Self {
        let details = Map::from_iter([("field".to_owned(), field.into())]);
        Self { details, ..Self::local("invalid", message) }
    }

    /// What happened here, because of something.
    pub(crate) fn because(code: &str, message: String, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::local(code, message) }
    }

    fn at(self, server: &Arc<Url>) -> Self {
        Self { server: Some(Arc::clone(server)), ..self }
    }

    pub(crate) fn transport(server: &Arc<Url>, error: reqwest::Error) -> Self {
        let address = address(server);
        let (code, message) = if error.is_builder() {
            ("internal", format!("{address} cannot be called from this machine"))
        } else if error.is_connect() {
            (UNREACHABLE, format!("no server answers at {address}"))
        } else if error.is_timeout() {
            (TIMED_OUT, format!("{address} did not answer in time"))
        } else {
            (LOST, format!("the connection to {address} was lost"))
        };
        Self::because(code, message, error.without_url()).at(server)
    }

    pub(crate) fn late(server: &Arc<Url>) -> Self {
        Self::local(TIMED_OUT, format!("{} did not answer in time", address(server))).at(server)
    }

    pub(crate) fn unreadable(server: &Arc<Url>, error: serde_json::Error) -> Self {
        let message = format!("{} answered something else than this release understands", address(server));
        Self::because(UNREADABLE, message, error).at(server)
    }

    /// What an answer that is no success says.
    pub(crate) async fn of(server: &Arc<Url>, response: Response) -> Self {
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = response.text().await.unwrap_or_default();
        Self { retry_after: seconds.map(Duration::from_secs), ..Self::told(server, status, &text) }
    }

    /// What the body of an answer that is no success says.
    pub(crate) fn told(server: &Arc<Url>, status: StatusCode, text: &str) -> Self {
        let error = match serde_json::from_str::<ErrorBody>(text) {
            Ok(ErrorBody { error }) => Self { details: error.details, ..Self::local(&error.code, error.message) },
            Err(_) => {
                let shown: String = text.trim().chars().take(SHOWN).collect();
                let shown = if shown.is_empty() { shown } else { format!(": {shown:?}") };
                Self::local(UNREADABLE, format!("{} answered {status}{shown}", address(server)))
            }
        };
        Self { status: Some(status), ..error.at(server) }
    }

    /// The address of the server that was called; absent where it never came to that.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref().map(address)
    }

    pub(crate) fn is_unreachable(&self) -> bool {
        self.status.is_none() && self.code == UNREACHABLE
    }

    /// Whether something was sent and the connection broke before all of the answer was there.
    pub(crate) fn is_lost(&self) -> bool {
        self.status.is_none() && self.code == LOST
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.status {
            None => matches!(self.code.as_str(), UNREACHABLE | LOST | TIMED_OUT),
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
        self.is_unreachable()
            || self.is_lost()
            || self.status == Some(StatusCode::SERVICE_UNAVAILABLE)
            || self.is_of_balancer()
            || self.code == "contended"
    }

    /// Whether something between says that the server did not answer it.
    fn is_of_balancer(&self) -> bool {
        self.code == UNREADABLE && matches!(self.status, Some(StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT))
    }

    /// How long to wait before the call is sent again, with the jittered time of a backoff: beside what the server says as
    /// well, so that those whom it sent away together do not come back together.
    pub(crate) fn pause(&self, backoff: Duration) -> Duration {
        self.retry_after.unwrap_or_default() + backoff
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

impl StdError for ClientError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

/// A server's address, as it is told to people.
pub(crate) fn address(server: &Url) -> &str {
    server.as_str().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_whom_a_server_sends_away_together_do_not_come_back_together() {
        let told = ClientError { retry_after: Some(Duration::from_secs(1)), ..ClientError::local("busy", "m".into()) };
        assert_eq!(told.pause(Duration::from_millis(150)), Duration::from_millis(1150));
        let untold = ClientError::local("busy", "m".into());
        assert_eq!(untold.pause(Duration::from_millis(150)), Duration::from_millis(150));
    }
}
