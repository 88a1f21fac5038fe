//! What other processes may ask of this one.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use raworc_core::ids::{AgentId, ComputerId, Incarnation, RuntimeName};
use raworc_core::runtime::LogsOptions;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::InternalState;

/// The longest that somebody may wait for a link.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn router(state: InternalState, closing: CancellationToken) -> Router {
    Router::new()
        .route("/v0/links/{agent}/{incarnation}", get(has_link))
        .route("/v0/links/{agent}/{incarnation}/computer/{*path}", any(pass))
        .route("/v0/deltas/{agent}", get(deltas))
        .route("/v0/logs/{runtime}/{computer}", get(log))
        // What has no end of its own ends with the listener.
        .layer(Extension(closing))
        .with_state(state)
}

#[derive(Debug, Deserialize)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

/// Whether a program is linked here, or is within the time that is waited.
async fn has_link(
    State(state): State<InternalState>,
    Path((agent, incarnation)): Path<(AgentId, Incarnation)>,
    Query(Wait { wait_ms }): Query<Wait>,
) -> StatusCode {
    let until = Instant::now() + Duration::from_millis(wait_ms).min(WAIT_LIMIT);
    match &state.links {
        Some(links) if links.comes(agent, incarnation, until).await => StatusCode::NO_CONTENT,
        Some(_) | None => StatusCode::NOT_FOUND,
    }
}

/// Passes a call on to a program that is linked here, and its answer back, as they come.
async fn pass(
    State(state): State<InternalState>,
    Path((agent, incarnation, _)): Path<(AgentId, Incarnation, String)>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // As it was written: what is escaped in it stays so.
    let path = parts.uri.path_and_query().and_then(|path| path.as_str().split_once("/computer/"));
    let uri = path.and_then(|(_, path)| format!("http://computer/{path}").parse().ok());
    let (Some(uri), Some(links)) = (uri, &state.links) else { return StatusCode::MISDIRECTED_REQUEST.into_response() };
    parts.uri = uri;
    parts.headers.remove(http::header::HOST);
    parts.extensions = http::Extensions::new();
    match links.request_here(agent, incarnation, Request::from_parts(parts, body)).await {
        Some(answer) => answer.map(Body::new),
        None => StatusCode::MISDIRECTED_REQUEST.into_response(),
    }
}

/// What the program of an agent tells this process of its model's words, a line of JSON each, for as long as it is read.
async fn deltas(
    State(state): State<InternalState>,
    Extension(closing): Extension<CancellationToken>,
    Path(agent): Path<AgentId>,
) -> Body {
    let deltas = state.control.system().feed().deltas().told_here(agent);
    let deltas = stream::unfold(deltas, |mut deltas| async {
        let delta = deltas.next().await;
        let line = serde_json::to_vec(&*delta).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        Some((line, deltas))
    });
    Body::from_stream(deltas.take_until(closing.cancelled_owned()))
}

#[derive(Debug, Deserialize)]
struct Log {
    tail: Option<u64>,
    #[serde(default)]
    follow: bool,
}

/// The log of a computer, from an engine that this process reaches.
async fn log(
    State(state): State<InternalState>,
    Extension(closing): Extension<CancellationToken>,
    Path((runtime, computer)): Path<(RuntimeName, ComputerId)>,
    Query(Log { tail, follow }): Query<Log>,
) -> Response {
    let options = tail.into_iter().fold(LogsOptions::default().with_follow(follow), LogsOptions::with_tail);
    match state.control.system().engine_log(&runtime, computer, options).await {
        Some(log) => {
            let log = log.map(|piece| piece.map_err(std::io::Error::other));
            Body::from_stream(log.take_until(closing.cancelled_owned())).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
