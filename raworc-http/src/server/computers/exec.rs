//! Commands.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json as Reply;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use raworc_core::control::ActivityKind;
use raworc_core::program::{ExecRequest, ExecStarted, ExecStatus, TerminalSize};

use super::reach::{ANSWER_LIMIT, Reached, Visit, json_request, link_request};
use crate::api::{ErrorBody, ExecResult, Wait};
use crate::server::ApiError;
use crate::server::extract::{Held, Json, Query};

/// Bytes of each of a command's streams in an answer that holds them.
const CAPTURE_LIMIT: usize = 1 << 20;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartQuery {
    #[serde(default = "yes")]
    wake: bool,
    wait: Option<Wait>,
}

const fn yes() -> bool {
    true
}

/// Run a command.
///
/// Answers its id, for its streams. With `wait` it answers what the command wrote and how it ended instead, in one
/// piece; a command that takes longer is ended.
#[utoipa::path(
    post, path = "/exec", tag = "computers", request_body = ExecRequest,
    params(
        ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent"),
        ("wait" = Option<String>, Query, description = "how long to wait for its end, such as 30s"),
    ),
    responses(
        (status = 201, description = "started", body = ExecStarted),
        (status = 200, description = "with wait: how it ended", body = ExecResult),
        (status = 409, description = "the agent sleeps and wake is false", body = ErrorBody),
        (status = 503, description = "`unreachable`, `busy`, `store_unavailable`", body = ErrorBody),
    ),
)]
pub(super) async fn start(
    visit: Visit,
    Query(query): Query<StartQuery>,
    Held(exec, room): Held<ExecRequest>,
) -> Result<Response, ApiError> {
    if exec.command.first().is_none_or(String::is_empty) {
        return Err(ApiError::invalid("command", "name a program and its arguments, such as [\"ls\", \"-l\"]"));
    }
    if exec.command.iter().chain(exec.env.values()).chain(exec.env.keys()).any(|text| text.contains('\0')) {
        return Err(ApiError::invalid("command", "a NUL character cannot stand in arguments or environment"));
    }
    if query.wait.is_some() && (exec.stdin || exec.terminal.is_some()) {
        let reason = "a command that is waited for has no standard input and no terminal; leave out wait";
        return Err(ApiError::invalid("wait", reason));
    }
    let reached = visit.change("agents.exec", query.wake, ActivityKind::Command).await?;
    let request = json_request(Method::POST, "/exec", &exec)?;
    let started: ExecStarted = match reached.ask_json(request, Some(ANSWER_LIMIT)).await? {
        Ok(started) => started,
        Err(refusal) => return Ok(refusal),
    };
    drop((exec, room));
    match query.wait {
        None => Ok((StatusCode::CREATED, Reply(started)).into_response()),
        Some(Wait(limit)) => Ok(Reply(run(Arc::new(reached), started.id, limit).await?).into_response()),
    }
}

/// Ends the command when it is dropped, unless it has ended.
struct Running {
    reached: Arc<Reached>,
    id: String,
    ended: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (reached, path) = (Arc::clone(&self.reached), format!("/exec/{}", self.id));
        tokio::spawn(async move {
            if let Ok(request) = link_request(Method::DELETE, &path, &[], Body::empty())
                && let Err(error) = reached.ask(request, Some(ANSWER_LIMIT)).await
            {
                tracing::debug!(%error, path, "a command could not be ended");
            }
        });
    }
}

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    more: bool,
}

type Capture = Arc<Mutex<Captured>>;

/// Waits for a command's end, and keeps what it writes.
async fn run(reached: Arc<Reached>, id: String, limit: Duration) -> Result<ExecResult, ApiError> {
    let mut running = Running { reached: Arc::clone(&reached), id: id.clone(), ended: false };
    let (stdout, stderr) = (Capture::default(), Capture::default());
    let wait = async {
        let request = link_request(Method::GET, &format!("/exec/{id}/wait"), &[], Body::empty())?;
        match reached.ask_json::<ExecStatus>(request, None).await? {
            Ok(status) => Ok(status.exit_code),
            Err(_) => Err(reached.broke_off()),
        }
    };
    let whole = async {
        let streams = (capture(&reached, &id, "stdout", &stdout), capture(&reached, &id, "stderr", &stderr));
        futures::try_join!(wait, streams.0, streams.1).map(|(exit_code, (), ())| exit_code)
    };
    let ended = tokio::time::timeout(limit, reached.unless_ended(whole)).await;
    let exit_code = match ended {
        Ok(exit_code) => {
            let exit_code = exit_code?;
            running.ended = true;
            Some(exit_code)
        }
        Err(_) => None,
    };
    let take = |capture: &Capture| std::mem::take(&mut *capture.lock().unwrap_or_else(PoisonError::into_inner));
    let (stdout, stderr) = (take(&stdout), take(&stderr));
    Ok(ExecResult {
        exit_code,
        timed_out: exit_code.is_none(),
        truncated: stdout.more || stderr.more,
        stdout: String::from_utf8_lossy(&stdout.bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr.bytes).into_owned(),
    })
}

/// Keeps the beginning of a stream and reads all of it, so that the command is not held up.
async fn capture(reached: &Reached, id: &str, name: &str, into: &Capture) -> Result<(), ApiError> {
    let request = link_request(Method::GET, &format!("/exec/{id}/{name}"), &[], Body::empty())?;
    let answer = reached.ask(request, Some(ANSWER_LIMIT)).await?;
    if !answer.status().is_success() {
        return Err(reached.broke_off());
    }
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| reached.broke_off())?;
        let Some(data) = frame.data_ref() else { continue };
        let mut captured = into.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CAPTURE_LIMIT - captured.bytes.len();
        captured.more |= data.len() > room;
        captured.bytes.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok(())
}

/// What a command writes to its standard output, as it comes.
#[utoipa::path(
    get, path = "/exec/{id}/stdout", tag = "computers", params(("id" = String, Path, description = "the command")),
    responses((status = 200, description = "bytes", content_type = "application/octet-stream"),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn stdout(visit: Visit) -> Result<Response, ApiError> {
    stream(visit, "/stdout").await
}

/// What a command writes to its standard error, as it comes.
#[utoipa::path(
    get, path = "/exec/{id}/stderr", tag = "computers", params(("id" = String, Path, description = "the command")),
    responses((status = 200, description = "bytes", content_type = "application/octet-stream"),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn stderr(visit: Visit) -> Result<Response, ApiError> {
    stream(visit, "/stderr").await
}

async fn stream(visit: Visit, rest: &str) -> Result<Response, ApiError> {
    let reached = visit.look(false, ActivityKind::Command).await?;
    let request = link_request(Method::GET, &visit.command(rest), &[], Body::empty())?;
    // A program may send its head with the first byte only.
    reached.pass(request, None).await
}

/// Write to a command's standard input, as it comes. Its end closes the input.
#[utoipa::path(
    put, path = "/exec/{id}/stdin", tag = "computers", params(("id" = String, Path, description = "the command")),
    request_body(content_type = "application/octet-stream"),
    responses((status = 204, description = "written"),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn stdin(visit: Visit, request: Request) -> Result<Response, ApiError> {
    let reached = visit.change("exec.input", false, ActivityKind::Command).await?;
    let request = link_request(Method::PUT, &visit.command("/stdin"), &[], request.into_body())?;
    reached.pass(request, None).await
}

/// Tell a command the size of its terminal.
#[utoipa::path(
    post, path = "/exec/{id}/resize", tag = "computers", params(("id" = String, Path, description = "the command")),
    request_body = TerminalSize,
    responses((status = 204, description = "told"),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn resize(visit: Visit, Json(size): Json<TerminalSize>) -> Result<Response, ApiError> {
    // No row: a window that is dragged would write one for each of its sizes.
    let reached = visit.steer(None).await?;
    let request = json_request(Method::POST, &visit.command("/resize"), &size)?;
    reached.pass(request, Some(ANSWER_LIMIT)).await
}

/// Wait for a command's end.
#[utoipa::path(
    get, path = "/exec/{id}/wait", tag = "computers", params(("id" = String, Path, description = "the command")),
    responses((status = 200, description = "how it ended", body = ExecStatus),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn wait(visit: Visit) -> Result<Response, ApiError> {
    stream(visit, "/wait").await
}

/// End a command.
#[utoipa::path(
    delete, path = "/exec/{id}", tag = "computers", params(("id" = String, Path, description = "the command")),
    responses((status = 204, description = "ended"),
              (status = 404, description = "there is no such command", body = ErrorBody)),
)]
pub(super) async fn end(visit: Visit) -> Result<Response, ApiError> {
    let reached = visit.steer(Some("exec.end")).await?;
    let request = link_request(Method::DELETE, &visit.command(""), &[], Body::empty())?;
    reached.pass(request, Some(ANSWER_LIMIT)).await
}
