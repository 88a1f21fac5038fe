//! Calls to the other processes of the installation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use futures::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use raworc_core::control::{ControlPlane, EngineLogs, LogStream, Peer};
use raworc_core::ids::{AgentId, ComputerId, Incarnation, ProcessId, RuntimeName};
use raworc_core::runtime::{LogsOptions, RuntimeError};
use raworc_core::trace;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{CONNECTION_WINDOW, InternalTls, KEEP_ALIVE, STREAM_WINDOW};

/// How long a connection to another process may take.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// How long an operator may take to begin with a log.
const LOG_LIMIT: Duration = Duration::from_secs(12);

/// Where requests to other processes seem to go; the connection decides.
const BASE: &str = "https://raworc.internal/v0";

/// The other processes of the installation. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Peers {
    control: ControlPlane,
    tls: InternalTls,
    connections: Arc<Mutex<HashMap<ProcessId, SendRequest<Body>>>>,
}

/// Why another process gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Away {
    #[error("it cannot be reached: {0}")]
    Dial(#[from] std::io::Error),
    #[error("it cannot be reached within {DIAL_LIMIT:?}")]
    Slow,
    #[error("the connection to it was lost: {0}")]
    Lost(#[from] hyper::Error),
}

/// A server that has the link of a program.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    peers: Peers,
    peer: Peer,
    path: String,
}

impl Peers {
    /// The processes beside this one.
    #[must_use]
    pub fn new(control: &ControlPlane, tls: InternalTls) -> Self {
        Self { control: control.clone(), tls, connections: Arc::default() }
    }

    /// The server that has the link of this start of an agent, or gets it before `until`. All others are asked at once, and
    /// the first that has it is it.
    pub(crate) async fn holder(&self, agent: AgentId, incarnation: Incarnation, until: Instant) -> Option<Holder> {
        let servers = match self.control.system().other_servers().await {
            Ok(servers) => servers,
            Err(error) => {
                tracing::warn!(%error, "the other servers cannot be read");
                return None;
            }
        };
        let path = format!("/links/{agent}/{incarnation}");
        let mut asked: FuturesUnordered<_> =
            servers.into_iter().map(|peer| self.has_link(peer, &path, until)).collect();
        let mut found = None;
        while found.is_none()
            && let Some(answer) = asked.next().await
        {
            found = answer;
        }
        drop(asked);
        found.map(|peer| Holder { peers: self.clone(), peer, path })
    }

    /// The server itself, where it has the link.
    async fn has_link(&self, peer: Peer, path: &str, until: Instant) -> Option<Peer> {
        let wait = until.saturating_duration_since(Instant::now());
        let question = request(&format!("{path}?wait_ms={}", wait.as_millis()))?;
        match tokio::time::timeout_at(until, self.send("has_link", &peer, question)).await.ok()? {
            Ok(answer) => (answer.status() == StatusCode::NO_CONTENT).then_some(peer),
            Err(error) => {
                tracing::debug!(server = %peer.process, address = peer.address, %error, "a server was not asked for a link");
                None
            }
        }
    }

    pub(super) const fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// Asks another process, until its answer begins.
    pub(super) async fn send(
        &self,
        call: &'static str,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Away> {
        let mut told = Told::begin(call);
        let answer = self.try_send(peer, request).instrument(told.span.clone()).await;
        told.outcome = match &answer {
            Ok(_) => "answered",
            Err(_) => "failed",
        };
        answer
    }

    async fn try_send(&self, peer: &Peer, mut request: Request<Body>) -> Result<Response<Incoming>, Away> {
        let kept = self.connections().get(&peer.process).filter(|kept| !kept.is_closed()).cloned();
        if let Some(mut kept) = kept {
            match kept.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message() {
                    // It was never sent: a new connection takes it.
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let dialled = tokio::time::timeout(DIAL_LIMIT, self.dial(peer)).await;
        let mut sender = dialled.unwrap_or(Err(Away::Slow))?;
        Ok(sender.send_request(request).await?)
    }

    async fn dial(&self, peer: &Peer) -> Result<SendRequest<Body>, Away> {
        let stream = TcpStream::connect(&peer.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connector.connect(InternalTls::name(), stream).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await?;
        let (process, peers) = (peer.process, Arc::downgrade(&self.connections));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%process, %error, "a connection to another process ended in an error");
            }
            // Those that are gone for good are not kept in mind.
            if let Some(connections) = peers.upgrade() {
                let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
                connections.retain(|_, kept| !kept.is_closed());
            }
        });
        self.connections().insert(peer.process, sender.clone());
        Ok(sender)
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<ProcessId, SendRequest<Body>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call to another process, which is told when it is over or given up.
struct Told {
    call: &'static str,
    began: Instant,
    span: Span,
    outcome: &'static str,
}

impl Told {
    fn begin(call: &'static str) -> Self {
        let span = trace::within(&format!("internal {call}"));
        span.record("otel.kind", "client");
        Self { call, began: Instant::now(), span, outcome: "cut_short" }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let Self { call, outcome, .. } = *self;
        self.span.record("raworc.outcome", outcome);
        let took = self.began.elapsed().as_secs_f64();
        metrics::histogram!("raworc_internal_call_seconds", "call" => call, "outcome" => outcome).record(took);
    }
}

pub(super) fn request(path: &str) -> Option<Request<Body>> {
    Request::get(format!("{BASE}{path}")).body(Body::empty()).ok()
}

impl Holder {
    /// Asks the program over the link that this server has. None where that is lost meanwhile.
    pub(crate) async fn request(&self, request: Request<Body>) -> Result<Option<Response<Incoming>>, Away> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // Both parts are addresses already.
        parts.uri = format!("{BASE}{}/computer{path}", self.path).parse::<Uri>().unwrap_or_default();
        let answer = self.peers.send("computer", &self.peer, Request::from_parts(parts, body)).await?;
        Ok(Some(answer).filter(|answer| answer.status() != StatusCode::MISDIRECTED_REQUEST))
    }
}

#[async_trait]
impl EngineLogs for Peers {
    async fn engine_log(&self, runtime: &RuntimeName, computer: ComputerId, options: LogsOptions) -> Option<LogStream> {
        let operators = self.control.system().other_operators(runtime).await.ok()?;
        let tail = options.tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
        let path = format!("/logs/{runtime}/{computer}?follow={}{tail}", options.follow);
        for operator in operators {
            let answer = tokio::time::timeout(LOG_LIMIT, self.send("logs", &operator, request(&path)?)).await;
            match answer {
                Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
                    let log = answer.into_body().into_data_stream();
                    let broke = |error: hyper::Error| RuntimeError::Unavailable(format!("the log broke off: {error}"));
                    return Some(log.map(move |piece| piece.map_err(broke)).boxed());
                }
                // Its engine keeps none: nor does that of another one, which is the same.
                Ok(Ok(answer)) if answer.status() == StatusCode::NOT_FOUND => return None,
                Ok(Ok(answer)) => tracing::debug!(status = %answer.status(), "an operator gave no log"),
                Ok(Err(error)) => tracing::debug!(%error, operator = %operator.process, "an operator gave no log"),
                Err(_) => tracing::debug!(operator = %operator.process, "an operator did not answer for a log"),
            }
        }
        None
    }
}
