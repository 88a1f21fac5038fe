//! How a call reaches a computer, and how its answer comes back.

use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use raworc_core::agent::Agent;
use raworc_core::control::{ActivityGuard, ActivityKind, Call, Errand, TokenRecord};
use raworc_core::error::Error;
use raworc_core::ids::{AgentName, TenantName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::held::Held;
use crate::api::{ErrorBody, ErrorInfo};
use crate::server::agents::LinkBody;
use crate::server::extract::{AgentAt, NoIdempotencyKey, segment};
use crate::server::state::OpenPlace;
use crate::server::{ApiError, ApiState, StreamGuard};

/// How long a call waits for a computer that has to be started: as long as a start may take, and its setup begins.
const START_LIMIT: Duration = Duration::from_secs(150);

/// How long a program may take to begin its answer, where it does not wait for something on purpose.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a program's answer that is read as a whole: an error, or what is parsed here.
const WHOLE_LIMIT: usize = 1 << 20;

/// Characters of a program's error that are passed on.
const MESSAGE_LIMIT: usize = 2000;

/// Whether a call counts among its caller's streams and among its computer's calls.
#[derive(Debug, Clone, Copy)]
enum Counts {
    Yes,
    No,
}

/// Who calls, and which agent they mean.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) state: ApiState,
    pub(super) call: Call,
    token: TokenRecord,
    pub(super) tenant: TenantName,
    pub(super) name: AgentName,
    /// The id of the command, in paths that hold one.
    pub(super) id: Option<String>,
}

impl FromRequestParts<ApiState> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let AgentAt { call, token, tenant, name } = AgentAt::from_request_parts(parts, state).await?;
        // What was sent twice is done twice.
        NoIdempotencyKey::from_request_parts(parts, state).await?;
        let id = segment(parts, "id").await?;
        if let Some(id) = &id
            && (id.is_empty() || id.len() > 64 || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'))
        {
            return Err(ApiError::new("not_found", "there is no such command"));
        }
        Ok(Self { state: state.clone(), call, token, tenant, name, id })
    }
}

impl Visit {
    /// The computer, up and kept awake for as long as what is returned is held, to look at something in it.
    pub(super) async fn look(&self, wake: bool, kind: ActivityKind) -> Result<Reached, ApiError> {
        self.reach(Errand::look(wake, START_LIMIT), Some(kind), Counts::Yes).await
    }

    /// The computer, up for now, to watch it: that alone keeps no agent awake.
    pub(super) async fn watch(&self, wake: bool) -> Result<Reached, ApiError> {
        self.reach(Errand::look(wake, START_LIMIT), None, Counts::Yes).await
    }

    /// The same, to change something. It is in the audit by `verb` then, without what exactly: commands, paths and
    /// content may hold what is secret.
    pub(super) async fn change(&self, verb: &'static str, wake: bool, kind: ActivityKind) -> Result<Reached, ApiError> {
        self.reach(Errand::change(verb, wake, START_LIMIT), Some(kind), Counts::Yes).await
    }

    /// The computer, where it is up, to end or steer a command in it: also where no other call finds a place. It is in
    /// the audit where there is a `verb`.
    pub(super) async fn steer(&self, verb: Option<&'static str>) -> Result<Reached, ApiError> {
        let errand = match verb {
            Some(verb) => Errand::change(verb, false, START_LIMIT),
            None => Errand::look(false, START_LIMIT),
        };
        self.reach(errand, Some(ActivityKind::Command), Counts::No).await
    }

    async fn reach(&self, errand: Errand, kind: Option<ActivityKind>, counts: Counts) -> Result<Reached, ApiError> {
        tokio::select! {
            reached = self.arrive(errand, kind, counts) => reached,
            ends = self.state.ends(&self.token) => Err(ends.into()),
        }
    }

    async fn arrive(
        &self,
        mut errand: Errand,
        kind: Option<ActivityKind>,
        counts: Counts,
    ) -> Result<Reached, ApiError> {
        let stream = match counts {
            Counts::Yes => Some(self.state.open_stream(&self.call.principal)?),
            Counts::No => None,
        };
        let control = self.state.control();
        let agent = control.rouse(&self.call, &self.tenant, &self.name, &mut errand).await?;
        // Taken once it is known that the caller may: it tells how many others call.
        let place = match counts {
            Counts::Yes => self.state.open_call(&agent)?,
            Counts::No => self.state.open_steering(&agent)?,
        };
        let held = (stream, place);
        let Some(kind) = kind else { return Ok(self.reached(agent, None, held)) };
        match control.system().hold(&agent, kind).await {
            Ok(guard) => Ok(self.reached(agent, Some(guard), held)),
            // It went to sleep in between: it is woken again.
            Err(Error::AgentAsleep(_)) => {
                let agent = control.rouse(&self.call, &self.tenant, &self.name, &mut errand).await?;
                let guard = control.system().hold(&agent, kind).await?;
                Ok(self.reached(agent, Some(guard), held))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn reached(&self, agent: Agent, guard: Option<ActivityGuard>, held: (Option<StreamGuard>, OpenPlace)) -> Reached {
        Reached { state: self.state.clone(), token: self.token, agent, guard, held }
    }

    /// The answer that `body`, which does not come over a link, is to become. It counts among the caller's streams, and
    /// ends with their login.
    pub(super) async fn without_link<T, F>(
        &self,
        body: F,
        into: impl FnOnce(T) -> Response,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let stream = self.state.open_stream(&self.call.principal)?;
        let response = tokio::select! {
            opened = body => into(opened?),
            ends = self.state.ends(&self.token) => return Err(ends.into()),
        };
        Ok(response.map(|body| {
            let holds = (Some(stream), None, None);
            Body::new(Held::new(self.state.clone(), self.token, self.name.clone(), body, holds))
        }))
    }

    /// The path of this command on the link.
    pub(super) fn command(&self, rest: &str) -> String {
        format!("/exec/{}{rest}", self.id.as_deref().unwrap_or_default())
    }
}

/// A computer that is up, and kept awake where it is used.
#[derive(Debug)]
pub(super) struct Reached {
    state: ApiState,
    token: TokenRecord,
    pub(super) agent: Agent,
    guard: Option<ActivityGuard>,
    held: (Option<StreamGuard>, OpenPlace),
}

/// A request as it goes over a link.
pub(super) fn link_request(
    method: Method,
    path: &str,
    query: &[(&str, &str)],
    body: Body,
) -> Result<Request<Body>, ApiError> {
    let base = format!("http://computer{path}");
    let url = if query.is_empty() { reqwest::Url::parse(&base) } else { reqwest::Url::parse_with_params(&base, query) };
    let url = url.map_err(|error| ApiError::invalid("path", error))?;
    let request = Request::builder().method(method).uri(url.as_str()).body(body);
    request.map_err(|error| ApiError::invalid("path", error))
}

/// A request with a body of JSON.
pub(super) fn json_request(method: Method, path: &str, body: &impl Serialize) -> Result<Request<Body>, ApiError> {
    let body = serde_json::to_vec(body).map_err(|error| Error::Internal(error.to_string()))?;
    let mut request = link_request(method, path, &[], Body::from(body))?;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

impl Reached {
    /// Asks the program. The head of its answer has to come within `limit`, where one is given.
    pub(super) async fn ask(
        &self,
        request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<http::Response<LinkBody>, ApiError> {
        let answer = self.state.links().request(&self.agent, request);
        let answer = match limit {
            None => answer.await?,
            Some(limit) => match tokio::time::timeout(limit, answer).await {
                Ok(answer) => answer?,
                Err(_) => return Err(Error::TimedOut { what: "an answer of the agent's program", limit }.into()),
            },
        };
        Ok(answer)
    }

    /// Asks the program and reads its answer as a whole.
    pub(super) async fn ask_json<T: DeserializeOwned>(
        &self,
        request: Request<Body>,
        limit: Option<Duration>,
    ) -> Result<Result<T, Response>, ApiError> {
        let answer = self.ask(request, limit).await?;
        if !answer.status().is_success() {
            return Ok(Err(refusal(answer).await));
        }
        let body = whole(answer.into_body()).await.ok_or_else(|| self.broke_off())?;
        let value = serde_json::from_slice(&body).map_err(|error| {
            tracing::warn!(agent = %self.agent.id, %error, "a program's answer cannot be read");
            ApiError::new("program_failed", "the program in the computer gave an answer that cannot be read")
        })?;
        Ok(Ok(value))
    }

    pub(super) fn broke_off(&self) -> ApiError {
        let reason = "the connection to its program was lost during the call".to_owned();
        Error::Unreachable { name: self.agent.name.clone(), reason }.into()
    }

    /// What comes of `work`, unless this visit has to end before.
    pub(super) async fn unless_ended<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        tokio::select! {
            done = work => done,
            ends = self.state.ends(&self.token) => Err(ends.into()),
        }
    }

    /// Asks the program and passes its answer on as it comes. An agent that is used is kept awake until its end.
    pub(super) async fn pass(self, request: Request<Body>, limit: Option<Duration>) -> Result<Response, ApiError> {
        let answer = self.unless_ended(self.ask(request, limit)).await?;
        if !answer.status().is_success() {
            return Ok(refusal(answer).await);
        }
        let (parts, body) = answer.into_parts();
        // A program's word is not taken for more than it is needed: what it sends must not become a page, or a
        // cookie, of this server's address.
        let json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
        let kind = if json { "application/json" } else { "application/octet-stream" };
        let status = if parts.status == StatusCode::NO_CONTENT { StatusCode::NO_CONTENT } else { StatusCode::OK };
        let (stream, place) = self.held;
        let holds = (stream, Some(place), self.guard);
        let held = Held::new(self.state, self.token, self.agent.name, Body::new(body), holds);
        let mut response = Response::new(Body::new(held));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(length) = parts.headers.get(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, length.clone());
            }
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok(response)
    }
}

async fn whole(body: LinkBody) -> Option<Bytes> {
    let body = tokio::time::timeout(ANSWER_LIMIT, Limited::new(body, WHOLE_LIMIT).collect()).await.ok()?;
    body.ok().map(http_body_util::Collected::to_bytes)
}

#[derive(Deserialize)]
struct ProgramError {
    error: ProgramErrorInfo,
}

#[derive(Deserialize)]
struct ProgramErrorInfo {
    code: String,
    message: String,
}

/// What a program refused, in this API's shape and with a status that means the same here.
async fn refusal(answer: http::Response<LinkBody>) -> Response {
    let (parts, body) = answer.into_parts();
    let said = whole(body).await.and_then(|body| serde_json::from_slice::<ProgramError>(&body).ok());
    let status = match parts.status {
        status @ (StatusCode::BAD_REQUEST
        | StatusCode::NOT_FOUND
        | StatusCode::CONFLICT
        | StatusCode::FORBIDDEN
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::INSUFFICIENT_STORAGE) => status,
        _ => StatusCode::BAD_GATEWAY,
    };
    let word = |code: &str| (1..=40).contains(&code.len()) && code.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    let Some(ProgramError { error }) = said.filter(|said| word(&said.error.code)) else {
        let message = format!("the program in the computer failed (status {})", parts.status.as_u16());
        return ApiError::new("program_failed", message).into_response();
    };
    let info = ErrorInfo {
        code: error.code,
        message: error.message.chars().take(MESSAGE_LIMIT).collect(),
        details: serde_json::Map::new(),
    };
    (status, Json(ErrorBody { error: info })).into_response()
}
