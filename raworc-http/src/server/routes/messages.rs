//! Messages and steps.

use std::num::NonZeroUsize;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use raworc_core::control::{History, SendMessage};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::message::Message;
use raworc_core::step::Step;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::{Waiting, seen};
use super::answer;
use crate::api::{BASE, ErrorBody, Page};
use crate::server::extract::{AgentAt, Held, MessageAt, Query};
use crate::server::openapi::{IdempotencyHeader, WaitQuery};
use crate::server::state::Ends;
use crate::server::{ApiError, ApiState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(send, history))
        .routes(routes!(read))
        .routes(routes!(cancel))
        .routes(routes!(steps_for))
        .routes(routes!(steps))
}

/// Says something to an agent, and wakes it.
///
/// 202 means that the message survives whatever happens, and will be done, failed or cancelled. `wait` waits for that;
/// the state tells which it is. A single text that begins with `!` is a shell command, run without a model.
#[utoipa::path(
    post, path = "/{name}/messages", operation_id = "send_message", tag = "messages",
    request_body = SendMessage,
    params(("name" = AgentName, Path, description = "The agent's name."), IdempotencyHeader, WaitQuery),
    responses(
        (status = 202, description = "The message.", body = Message),
        (status = 409, description = "`agent_state`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
        (status = 429, description = "`inbox_full`", body = ErrorBody),
    )
)]
async fn send(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(Waiting { wait }): Query<Waiting>,
    Held(request, room): Held<SendMessage>,
) -> Result<Response, ApiError> {
    let AgentAt { call, token, tenant, name } = at;
    let mut ended = None;
    let mut message = state.control().send(&call, &tenant, &name, request).await?.message;
    // It is written. What a caller who waits still has of it is one message.
    drop(room);
    if !wait.0.is_zero() {
        let waiting = state.control().wait_for_message(&call, &tenant, &name, message.id, wait.0);
        match state.unless_it_ends(&token, waiting).await {
            Ok(waited) => message = seen(waited).unwrap_or(message),
            Err(ends) => ended = Some(ends),
        }
    }
    let place = format!("{BASE}/tenants/{tenant}/agents/{name}/messages/{}", message.id);
    Ok(answer::interrupted(answer::located(answer::message(StatusCode::ACCEPTED, &call, &message), &place), ended))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// From the newest to the oldest.
    #[serde(default)]
    newest_first: bool,
    /// Beyond the message of this number, in the direction of reading: the `next` of an earlier page.
    after: Option<u64>,
    /// At most so many, up to 500.
    #[param(value_type = Option<usize>)]
    limit: Option<NonZeroUsize>,
}

/// Messages to and from an agent, by number.
#[utoipa::path(
    get, path = "/{name}/messages", operation_id = "list_messages", tag = "messages",
    params(("name" = AgentName, Path, description = "The agent's name."), HistoryQuery),
    responses((status = 200, description = "Some of them.", body = Page<Message>))
)]
async fn history(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(query): Query<HistoryQuery>,
) -> Result<axum::Json<Page<Message>>, ApiError> {
    let history =
        History { newest_first: query.newest_first, after: query.after, limit: query.limit.map(NonZeroUsize::get) };
    Ok(answer::numbered(state.control().history(&at.call, &at.tenant, &at.name, history).await?))
}

/// A message. `wait` waits until it has ended.
#[utoipa::path(
    get, path = "/{name}/messages/{id}", operation_id = "get_message", tag = "messages",
    params(
        ("name" = AgentName, Path, description = "The agent's name."),
        ("id" = MessageId, Path, description = "The message's id."),
        WaitQuery,
    ),
    responses((status = 200, description = "The message.", body = Message))
)]
async fn read(
    State(state): State<ApiState>,
    at: MessageAt,
    Query(Waiting { wait }): Query<Waiting>,
) -> Result<Response, ApiError> {
    let MessageAt { call, token, tenant, name, id } = at;
    let mut ended = None;
    if !wait.0.is_zero() {
        let waiting = state.control().wait_for_message(&call, &tenant, &name, id, wait.0);
        match state.unless_it_ends(&token, waiting).await {
            Ok(message) => return Ok(answer::message(StatusCode::OK, &call, &message?)),
            Err(Ends::Closing) => ended = Some(Ends::Closing),
            Err(ends) => return Err(ends.into()),
        }
    }
    let message = state.control().get_message(&call, &tenant, &name, id).await?;
    Ok(answer::interrupted(answer::message(StatusCode::OK, &call, &message), ended))
}

/// Cancels a message: at once where it is queued, by its program where it is held.
#[utoipa::path(
    post, path = "/{name}/messages/{id}/cancel", operation_id = "cancel_message", tag = "messages",
    params(
        ("name" = AgentName, Path, description = "The agent's name."),
        ("id" = MessageId, Path, description = "The message's id."),
        IdempotencyHeader,
    ),
    responses(
        (status = 200, description = "The message.", body = Message),
        (status = 409, description = "`message_state`: it has ended", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn cancel(State(state): State<ApiState>, at: MessageAt) -> Result<Response, ApiError> {
    let message = state.control().cancel_message(&at.call, &at.tenant, &at.name, at.id).await?;
    Ok(answer::message(StatusCode::OK, &at.call, &message))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StepsQuery {
    /// After the step of this number: the `next` of an earlier page.
    #[serde(default)]
    after: u64,
    /// At most so many, up to 500.
    #[param(value_type = Option<usize>)]
    limit: Option<NonZeroUsize>,
}

/// What an agent did for a message, by number.
#[utoipa::path(
    get, path = "/{name}/messages/{id}/steps", operation_id = "list_message_steps", tag = "messages",
    params(
        ("name" = AgentName, Path, description = "The agent's name."),
        ("id" = MessageId, Path, description = "The message's id."),
        StepsQuery,
    ),
    responses((status = 200, description = "Some of it.", body = Page<Step>))
)]
async fn steps_for(
    State(state): State<ApiState>,
    at: MessageAt,
    Query(query): Query<StepsQuery>,
) -> Result<axum::Json<Page<Step>>, ApiError> {
    let (after, limit) = (query.after, query.limit.map(NonZeroUsize::get));
    Ok(answer::numbered(state.control().steps(&at.call, &at.tenant, &at.name, Some(at.id), after, limit).await?))
}

/// What an agent did, its setup included, by number.
#[utoipa::path(
    get, path = "/{name}/steps", operation_id = "list_steps", tag = "messages",
    params(("name" = AgentName, Path, description = "The agent's name."), StepsQuery),
    responses((status = 200, description = "Some of it.", body = Page<Step>))
)]
async fn steps(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(query): Query<StepsQuery>,
) -> Result<axum::Json<Page<Step>>, ApiError> {
    let (after, limit) = (query.after, query.limit.map(NonZeroUsize::get));
    Ok(answer::numbered(state.control().steps(&at.call, &at.tenant, &at.name, None, after, limit).await?))
}
