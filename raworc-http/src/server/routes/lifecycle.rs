//! Wake, sleep, cancel, keep awake.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use raworc_core::agent::{Agent, Desired, State as AgentState};
use raworc_core::control::SleepMode;
use raworc_core::ids::AgentName;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::{await_agent, is_up_or_failed};
use super::answer;
use crate::api::{ErrorBody, KeepAwake, Wait};
use crate::server::extract::{AgentAt, Json, Query};
use crate::server::openapi::IdempotencyHeader;
use crate::server::{ApiError, ApiState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(wake))
        .routes(routes!(sleep))
        .routes(routes!(cancel))
        .routes(routes!(keep_awake, let_sleep))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WakeQuery {
    /// Try again at once what waits to be tried: a setup that failed, an image that was missing.
    #[serde(default)]
    retry: bool,
    /// How long to wait until it is up or its start has failed: `30s`, `500ms`, `2m` or seconds, 10 minutes at most.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Wait,
}

/// Wakes an agent.
#[utoipa::path(
    post, path = "/{name}/wake", operation_id = "wake_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name."), WakeQuery, IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = 409, description = "`agent_state`, `contended`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn wake(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(query): Query<WakeQuery>,
) -> Result<Response, ApiError> {
    let agent = state.control().wake(&at.call, &at.tenant, &at.name, query.retry).await?;
    // It is still slept until an operator has seen what is wanted of it.
    let restarts = agent.status.restarts;
    let done = move |agent: &Agent| match agent.status.state() {
        AgentState::Slept => agent.desired != Desired::Awake,
        AgentState::Init | AgentState::Idle | AgentState::Busy | AgentState::Deleted => {
            is_up_or_failed(agent, restarts)
        }
    };
    let (agent, ended) = await_agent(&state, (&at.call, &at.token), agent, query.wait, done).await;
    Ok(answer::interrupted(answer::agent(StatusCode::OK, &at.call, &agent), ended))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SleepQuery {
    /// Cancel the message in hand first, instead of waiting until it has ended.
    #[serde(default)]
    now: bool,
    /// How long to wait until its computer has stopped: `30s`, `500ms`, `2m` or seconds, 10 minutes at most.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    wait: Wait,
}

/// Puts an agent to sleep.
///
/// Its files stay. Messages that are queued stay queued, and the next message or wake runs them.
#[utoipa::path(
    post, path = "/{name}/sleep", operation_id = "sleep_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name."), SleepQuery, IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = 409, description = "`agent_state`, `contended`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn sleep(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(query): Query<SleepQuery>,
) -> Result<Response, ApiError> {
    let mode = if query.now { SleepMode::Now } else { SleepMode::AfterMessage };
    let agent = state.control().sleep(&at.call, &at.tenant, &at.name, mode).await?;
    // Somebody else may want it awake meanwhile.
    let done = |agent: &Agent| {
        let status = &agent.status;
        agent.desired != Desired::Asleep || (status.state() == AgentState::Slept && status.run.is_none())
    };
    let (agent, ended) = await_agent(&state, (&at.call, &at.token), agent, query.wait, done).await;
    Ok(answer::interrupted(answer::agent(StatusCode::OK, &at.call, &agent), ended))
}

/// Cancels the message that an agent works on, or does nothing where it works on none.
#[utoipa::path(
    post, path = "/{name}/cancel", operation_id = "cancel_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name."), IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = 409, description = "`message_state`, `contended`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn cancel(State(state): State<ApiState>, at: AgentAt) -> Result<Response, ApiError> {
    let agent = state.control().cancel(&at.call, &at.tenant, &at.name).await?;
    Ok(answer::agent(StatusCode::OK, &at.call, &agent))
}

/// Keeps an agent awake for so long from now.
#[utoipa::path(
    put, path = "/{name}/keep-awake", operation_id = "keep_agent_awake", tag = "agents",
    request_body = KeepAwake,
    params(("name" = AgentName, Path, description = "The agent's name."), IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = 409, description = "`agent_asleep`, `agent_state`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn keep_awake(
    State(state): State<ApiState>,
    at: AgentAt,
    Json(KeepAwake { seconds }): Json<KeepAwake>,
) -> Result<Response, ApiError> {
    let time = Some(Duration::from_secs(seconds));
    let agent = state.control().keep_awake(&at.call, &at.tenant, &at.name, time).await?;
    Ok(answer::agent(StatusCode::OK, &at.call, &agent))
}

/// Keeps an agent awake no longer than its idle time.
#[utoipa::path(
    delete, path = "/{name}/keep-awake", operation_id = "let_agent_sleep", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name."), IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent),
        (status = 409, description = "`agent_asleep`, `agent_state`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn let_sleep(State(state): State<ApiState>, at: AgentAt) -> Result<Response, ApiError> {
    let agent = state.control().keep_awake(&at.call, &at.tenant, &at.name, None).await?;
    Ok(answer::agent(StatusCode::OK, &at.call, &agent))
}
