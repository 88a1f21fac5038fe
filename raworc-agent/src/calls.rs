//! The calls that the program makes to the agents' listener.

mod gateway;
mod upgrade;

use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use raworc_core::program::{
    BootReply, BootRequest, DeltaReport, EndReport, HeartbeatReply, HeartbeatReport, LeaseReply, PROTOCOL, SetupReport,
    StepsReport, TokenReply,
};
use raworc_core::runtime::Boot;
use raworc_core::trace::{self, TraceParent};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::server::{Away, Server};

pub(crate) use gateway::Answer;

/// Seconds that one request for a message waits.
const LEASE_WAIT: u64 = 25;

/// How long a call may take beside what it waits for on purpose.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Bytes that an answer may hold: a message and its predecessors' steps.
const ANSWER_LIMIT: usize = 64 << 20;

/// The longest pause between two attempts while the server is away.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

/// Why a call did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server is away or overloaded; the same call may succeed later.
    #[error("the server does not answer: {0}")]
    Away(String),
    /// A newer incarnation of this computer has begun: this one has to end.
    #[error("this run of the program is over: a newer one has begun")]
    Stale,
    /// The server said no.
    #[error("the server refused {path}: {message} ({code}, HTTP {status})")]
    Refused {
        /// What was asked.
        path: String,
        /// The status.
        status: u16,
        /// What kind of no.
        code: String,
        /// In words.
        message: String,
    },
}

impl CallError {
    /// Whether the same call may succeed later.
    const fn is_retryable(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Stale | Self::Refused { .. } => false,
        }
    }
}

impl From<Away> for CallError {
    fn from(away: Away) -> Self {
        Self::Away(chain(&away))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// A client with the token of this incarnation.
#[derive(Debug)]
pub(crate) struct Calls {
    server: Server,
    token: RwLock<String>,
    /// Where in which trace the message in hand goes on.
    traceparent: RwLock<Option<TraceParent>>,
    /// Cancelled once the server has said that this incarnation is over.
    stale: CancellationToken,
}

impl Calls {
    /// A client that has no token yet.
    pub(crate) fn new(server: Server) -> Self {
        Self { server, token: RwLock::default(), traceparent: RwLock::default(), stale: CancellationToken::new() }
    }

    /// Has what is done from now on belong to this trace, or to none: to that of the message in hand.
    pub(crate) fn trace(&self, parent: Option<TraceParent>) {
        *self.traceparent.write().unwrap_or_else(PoisonError::into_inner) = parent;
    }

    /// Has a request belong to the trace of the message in hand.
    fn traced(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        let parent = *self.traceparent.read().unwrap_or_else(PoisonError::into_inner);
        let header = parent.and_then(|parent| http::HeaderValue::try_from(parent.to_string()).ok());
        if let Some(header) = header {
            request.headers_mut().insert(trace::HEADER, header);
        }
        request
    }

    /// Waits until the server has said that this incarnation is over.
    pub(crate) async fn stale(&self) {
        self.stale.cancelled().await;
    }

    /// What stands in `Authorization`.
    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Trades the one-time key for a token, and all that the program has to know.
    pub(crate) async fn boot(&self, boot: &Boot) -> Result<BootReply, CallError> {
        let request = BootRequest {
            computer: boot.computer,
            incarnation: boot.incarnation,
            key: boot.key.expose_secret().into(),
            protocol: PROTOCOL,
        };
        let reply: BootReply = self.persist(|| self.post("boot", &request)).await?;
        self.keep(&reply.token);
        Ok(reply)
    }

    /// Renews the token.
    pub(crate) async fn renew(&self) -> Result<TokenReply, CallError> {
        let reply = self.persist(|| self.post("token", &())).await?;
        self.keep(&reply);
        Ok(reply)
    }

    fn keep(&self, reply: &TokenReply) {
        self.token.write().unwrap_or_else(PoisonError::into_inner).clone_from(&reply.token);
    }

    /// How the setup ended. The program takes messages from now on, unless it failed.
    pub(crate) async fn setup(&self, report: &SetupReport) -> Result<(), CallError> {
        self.persist(|| self.tell("setup", report)).await
    }

    /// Waits for a message; none if there is none for a while.
    pub(crate) async fn lease(&self) -> Result<Option<LeaseReply>, CallError> {
        let path = format!("lease?wait={LEASE_WAIT}");
        let limit = CALL_LIMIT + Duration::from_secs(LEASE_WAIT);
        self.persist(|| async {
            let body = self.call(&path, self.request(Method::POST, &path, Bytes::new()), limit).await?;
            if body.is_empty() { Ok(None) } else { parse(&path, &body).map(Some) }
        })
        .await
    }

    /// Reports steps. What is sent again is recorded once.
    pub(crate) async fn steps(&self, report: &StepsReport) -> Result<(), CallError> {
        self.persist(|| self.tell_traced("steps", report)).await
    }

    /// Shows words as they come: once, and no matter whether they arrive.
    pub(crate) async fn deltas(&self, report: &DeltaReport) -> Result<(), CallError> {
        self.tell("deltas", report).await
    }

    /// Ends the message in hand. What is sent again is recorded once.
    pub(crate) async fn end(&self, report: &EndReport) -> Result<(), CallError> {
        self.persist(|| self.tell_traced("end", report)).await
    }

    /// Says that the program lives. Not repeated: the next one comes soon.
    pub(crate) async fn heartbeat(&self, report: &HeartbeatReport) -> Result<HeartbeatReply, CallError> {
        self.post("heartbeat", report).await
    }

    async fn post<T: Serialize + Sync, R: DeserializeOwned>(&self, path: &str, body: &T) -> Result<R, CallError> {
        self.read(path, self.json(path, body)?, CALL_LIMIT).await
    }

    async fn tell<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<(), CallError> {
        self.call(path, self.json(path, body)?, CALL_LIMIT).await.map(drop)
    }

    async fn tell_traced<T: Serialize + Sync>(&self, path: &str, body: &T) -> Result<(), CallError> {
        self.call(path, self.traced(self.json(path, body)?), CALL_LIMIT).await.map(drop)
    }

    async fn read<R: DeserializeOwned>(
        &self,
        path: &str,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<R, CallError> {
        parse(path, &self.call(path, request, limit).await?)
    }

    fn json<T: Serialize>(&self, path: &str, body: &T) -> Result<Request<Bytes>, CallError> {
        let json = serde_json::to_vec(body).map_err(|error| unreadable(path, &error.to_string()))?;
        let mut request = self.request(Method::POST, path, json.into());
        request.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Ok(request)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // Paths are the program's own and always valid.
        *request.uri_mut() = format!("/agent/v0/{path}").parse().unwrap_or_default();
        if let Ok(mut bearer) = http::HeaderValue::try_from(self.bearer()) {
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        request
    }

    async fn call(&self, path: &str, request: Request<Bytes>, limit: Duration) -> Result<Bytes, CallError> {
        let turns = self.server.turns();
        let whole = async {
            let response = self.server.send(request).await?;
            let status = response.status();
            let body = whole(response.into_body()).await?;
            if status.is_server_error() {
                self.server.turn(turns);
            }
            if status.is_success() { Ok(body) } else { Err(self.refusal(path, status, &body)) }
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(result) => result,
            Err(_) => {
                self.server.turn(turns);
                Err(CallError::Away(format!("no answer to {path} within {limit:?}")))
            }
        }
    }

    fn refusal(&self, path: &str, status: StatusCode, body: &[u8]) -> CallError {
        let (code, message) = crate::errors::read(body);
        if code == "stale_incarnation" {
            self.stale.cancel();
            return CallError::Stale;
        }
        if code == "contended"
            || status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
        {
            return CallError::Away(format!("{message} (HTTP {})", status.as_u16()));
        }
        CallError::Refused { path: path.into(), status: status.as_u16(), code, message }
    }

    /// Makes a call again and again while the server is away.
    async fn persist<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, CallError> {
        let mut pauses = pauses();
        loop {
            match call().await {
                Err(error) if error.is_retryable() => {
                    let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
                    tracing::info!("{error}; trying again in {pause:?}");
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }
}

/// Pauses between attempts: short at first, never longer than what lets a reconnection take two seconds.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}

async fn whole(body: Incoming) -> Result<Bytes, CallError> {
    match Limited::new(body, ANSWER_LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(CallError::Away(format!("the answer broke off: {error}"))),
    }
}

fn parse<R: DeserializeOwned>(path: &str, body: &[u8]) -> Result<R, CallError> {
    // What stands there may be a token, and is not repeated: where it goes wrong is enough.
    let place = |error: serde_json::Error| format!("{:?} error at byte {}", error.classify(), error.column());
    serde_json::from_slice(body).map_err(|error| unreadable(path, &place(error)))
}

fn unreadable(path: &str, error: &str) -> CallError {
    CallError::Refused { path: path.into(), status: 200, code: "unreadable".into(), message: error.into() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// A listener that gives every request the same answer.
    fn answering(path: &std::path::Path, answer: &'static str) {
        let listener = UnixListener::bind(path).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                        stream.write_all(answer.as_bytes()).await.expect("answered");
                    }
                });
            }
        });
    }

    #[tokio::test]
    async fn a_program_whose_server_cannot_serve_goes_on_at_another() {
        let directory = tempfile::tempdir().expect("a directory");
        answering(&directory.path().join("1.sock"), "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        answering(&directory.path().join("2.sock"), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let url = format!("unix:{}", directory.path().display());
        let report = SetupReport { hash: "1".into(), failure: None };
        // Each begins at either of them.
        for _ in 0..10 {
            let calls = Calls::new(Server::new(&url, None).expect("an address"));
            let told = tokio::time::timeout(Duration::from_secs(10), calls.setup(&report)).await;
            told.expect("not left with the one that cannot serve").expect("told");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told_without_what_stands_there() {
        let read = parse::<BootReply>("boot", br#"{"token":"eyJsecret"}"#);
        let error = read.expect_err("that is no answer to a boot").to_string();
        assert!(error.contains("boot") && !error.contains("eyJ"), "{error}");
    }
}
