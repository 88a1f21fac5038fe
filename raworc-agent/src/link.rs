//! The link: one connection that the program dials and then serves HTTP/2 on, so that the server can open requests
//! into the computer.

mod archive;
mod cancel;
mod exec;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod logs;
mod reply;
mod stats;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::calls::{Calls, pauses};
use crate::log::Log;
use crate::shared::Shared;
use exec::Execs;
use reply::{Body, LinkError};

/// How often a quiet link is tried.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long the answer to a try may take.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Streams that the server may have open at once.
const STREAMS: u32 = 1024;

/// What the link serves.
#[derive(Debug)]
pub(crate) struct Hands {
    home: PathBuf,
    shared: Arc<Shared>,
    log: Log,
}

impl Hands {
    /// Serves the computer as the agent's user sees it.
    pub(crate) fn new(home: &Path, shared: Arc<Shared>, log: Log) -> Self {
        Self { home: home.to_owned(), shared, log }
    }

    /// A path as the server names it: relative ones begin in the agent's home.
    fn path(&self, path: &str) -> Result<PathBuf, LinkError> {
        if path.contains('\0') {
            return Err(LinkError::invalid("the path contains a NUL character"));
        }
        Ok(crate::home::resolve(&self.home, path))
    }
}

/// Keeps the link up for as long as the program runs.
pub(crate) async fn keep(calls: Arc<Calls>, hands: Arc<Hands>) {
    let mut waits = pauses();
    loop {
        match calls.upgrade("link").await {
            Ok(upgraded) => {
                tracing::info!("the link is up");
                waits = pauses();
                serve(upgraded, Arc::clone(&hands)).await;
                tracing::info!("the link is lost");
            }
            Err(error) => tracing::info!("the link cannot be dialled: {error}"),
        }
        tokio::time::sleep(waits.next().unwrap_or(Duration::from_secs(1))).await;
    }
}

/// Serves the link until it is lost. Commands that were started over it end with it, for nobody could read them.
pub(crate) async fn serve(io: impl Read + Write + Unpin + Send + 'static, hands: Arc<Hands>) {
    let execs = Arc::new(Execs::default());
    let service = {
        let execs = Arc::clone(&execs);
        service_fn(move |request| {
            let (hands, execs) = (Arc::clone(&hands), Arc::clone(&execs));
            async move { Ok::<_, Infallible>(answer(request, &hands, &execs).await) }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(64 << 10);
    if let Err(error) = builder.serve_connection(io, service).await {
        tracing::debug!(%error, "the link ended");
    }
    execs.end_all();
}

async fn answer(request: Request<Incoming>, hands: &Hands, execs: &Arc<Execs>) -> Response<Body> {
    route(request, hands, execs).await.unwrap_or_else(LinkError::into_response)
}

async fn route(request: Request<Incoming>, hands: &Hands, execs: &Arc<Execs>) -> Result<Response<Body>, LinkError> {
    let (parts, body) = request.into_parts();
    let query = reply::Query::of(&parts.uri);
    let segments: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
    let method = &parts.method;
    let written = |done| {
        hands.shared.meter.written();
        done
    };
    match segments.as_slice() {
        ["exec"] if method == Method::POST => {
            let request = reply::json(body).await?;
            execs.start(request, &hands.home, &hands.shared)
        }
        ["exec", id] if method == Method::DELETE => execs.end(id),
        ["exec", id, "stdout"] if method == Method::GET => execs.stdout(id),
        ["exec", id, "stderr"] if method == Method::GET => execs.stderr(id),
        ["exec", id, "stdin"] if method == Method::PUT => execs.stdin(id, body).await,
        ["exec", id, "resize"] if method == Method::POST => execs.resize(id, reply::json(body).await?),
        ["exec", id, "wait"] if method == Method::GET => execs.wait(id).await,
        ["files"] if method == Method::GET => files::read(hands.path(query.need("path")?)?).await,
        ["files"] if method == Method::PUT => {
            written(files::write(hands.path(query.need("path")?)?, query.mode()?, body).await)
        }
        ["files"] if method == Method::DELETE => {
            written(files::remove(hands.path(query.need("path")?)?, query.flag("recursive")).await)
        }
        ["archive"] if method == Method::GET => archive::pack(hands.path(query.need("path")?)?).await,
        ["archive"] if method == Method::PUT => written(archive::unpack(hands.path(query.need("path")?)?, body).await),
        ["logs"] if method == Method::GET => logs::read(&hands.log, query.number("tail")?, query.flag("follow")),
        ["stats"] if method == Method::GET => stats::read(&hands.home).await,
        ["cancel"] if method == Method::POST => cancel::cancel(&hands.shared, reply::json(body).await?),
        ["exec" | "files" | "archive" | "logs" | "stats" | "cancel", ..] => Err(LinkError::method(method)),
        _ => Err(LinkError::not_found(format!("there is no {}", parts.uri.path()))),
    }
}
