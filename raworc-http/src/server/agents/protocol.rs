//! What programs call: each handler reads, makes one call of the control plane, and answers.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use raworc_core::principal::Principal;
use raworc_core::program::{
    BootReply, BootRequest, DeltaReport, EndReport, HeartbeatReply, HeartbeatReport, SetupReport, StepsReport,
    TokenReply,
};
use serde::Deserialize;

use super::AgentsState;
use super::auth::{JsonBody, Program};
use crate::server::error::ApiError;

/// Bytes of a request for a token, which a stranger sends.
const BOOT_BODY: usize = 16 << 10;

/// Bytes of a sign of life.
const HEARTBEAT_BODY: usize = 4 << 10;

/// Bytes of a report of steps or of an end. Programs send steps as they go, far fewer at once.
const REPORT_BODY: usize = 8 << 20;

/// The longest that one lease waits for a message.
const LEASE_LIMIT: u64 = 60;

/// How long a program's token is good. Programs renew theirs long before it is over.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

fn issue(state: &AgentsState, principal: &Principal) -> Result<TokenReply, ApiError> {
    let issued = state.tokens.issue(principal, TOKEN_TTL)?;
    Ok(TokenReply { token: issued.token, expires_at: issued.record.expires_at })
}

pub(super) async fn boot(
    State(state): State<AgentsState>,
    JsonBody(request, _room): JsonBody<BootRequest, BOOT_BODY>,
) -> Result<Json<BootReply>, ApiError> {
    let booted = state.control.boot(&request).await?;
    Ok(Json(BootReply { token: issue(&state, &booted.principal)?, spec: booted.spec }))
}

pub(super) async fn token(State(state): State<AgentsState>, program: Program) -> Result<Json<TokenReply>, ApiError> {
    state.control.check_program(&program.call).await?;
    Ok(Json(issue(&state, &program.call.principal)?))
}

pub(super) async fn setup(
    State(state): State<AgentsState>,
    program: Program,
    JsonBody(report, _room): JsonBody<SetupReport>,
) -> Result<StatusCode, ApiError> {
    state.control.end_setup(&program.call, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseQuery {
    #[serde(default)]
    wait: u64,
}

pub(super) async fn lease(
    State(state): State<AgentsState>,
    program: Program,
    query: Result<Query<LeaseQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(LeaseQuery { wait }) = query.map_err(|error| ApiError::invalid("wait", error.body_text()))?;
    let wait = Duration::from_secs(wait.min(LEASE_LIMIT));
    let leased = tokio::select! {
        biased;
        leased = state.control.lease(&program.call, wait) => leased?,
        // The program asks the next server. What was leased to it in this moment it is told there.
        () = state.closing.cancelled() => None,
    };
    Ok(match leased {
        Some(reply) => Json(reply).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub(super) async fn steps(
    State(state): State<AgentsState>,
    program: Program,
    JsonBody(report, _room): JsonBody<StepsReport, REPORT_BODY>,
) -> Result<StatusCode, ApiError> {
    state.control.add_steps(&program.call, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn deltas(
    State(state): State<AgentsState>,
    program: Program,
    JsonBody(report, _room): JsonBody<DeltaReport>,
) -> Result<StatusCode, ApiError> {
    state.control.add_delta(&program.call, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn end(
    State(state): State<AgentsState>,
    program: Program,
    JsonBody(report, _room): JsonBody<EndReport, REPORT_BODY>,
) -> Result<StatusCode, ApiError> {
    state.control.end(&program.call, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn heartbeat(
    State(state): State<AgentsState>,
    program: Program,
    JsonBody(report, _room): JsonBody<Option<HeartbeatReport>, HEARTBEAT_BODY>,
) -> Result<Json<HeartbeatReply>, ApiError> {
    Ok(Json(state.control.heartbeat(&program.call, report).await?))
}
