//! Agents: make, list, read, change, delete.

use std::num::NonZeroUsize;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use raworc_core::agent::{Agent, ConditionKind, State as AgentState};
use raworc_core::control::{Call, CreateAgent, EditAgent, Explanation, ListAgents, TokenRecord};
use raworc_core::ids::AgentName;
use raworc_core::labels::Selector;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer;
use crate::api::{BASE, EgressCount, ErrorBody, Page, Wait};
use crate::server::extract::{AgentAt, AgentsOf, Caller, Held, IfMatch, Query};
use crate::server::openapi::{IdempotencyHeader, IfMatchHeader, WaitQuery};
use crate::server::state::Ends;
use crate::server::{ApiError, ApiState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, edit, delete))
        .routes(routes!(explain))
        .routes(routes!(egress))
}

/// How long a call waits.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    #[serde(default)]
    pub(super) wait: Wait,
}

/// The agent once it is as `done` says, or as it is when the time is over; as it was, where that ended before, and why. What was
/// asked is done by then: where it cannot be seen any more, it is told as it was too.
pub(super) async fn await_agent(
    state: &ApiState,
    (call, token): (&Call, &TokenRecord),
    agent: Agent,
    wait: Wait,
    done: impl Fn(&Agent) -> bool + Send + Sync,
) -> (Agent, Option<Ends>) {
    if wait.0.is_zero() || done(&agent) {
        return (agent, None);
    }
    match state.unless_it_ends(token, state.control().wait_for_agent(call, &agent, wait.0, done)).await {
        Ok(waited) => (seen(waited).unwrap_or(agent), None),
        Err(ends) => (agent, Some(ends)),
    }
}

/// What was waited for. With an error it would be taken for not done, and be asked for again.
pub(super) fn seen<T>(waited: Result<T, impl std::fmt::Display>) -> Option<T> {
    waited.inspect_err(|error| tracing::info!(%error, "what was done on request cannot be waited for")).ok()
}

/// Whether it takes messages, or its start has failed since there were `restarts` of them.
pub(super) fn is_up_or_failed(agent: &Agent, restarts: u32) -> bool {
    let status = &agent.status;
    match status.state() {
        AgentState::Idle | AgentState::Busy | AgentState::Slept | AgentState::Deleted => true,
        AgentState::Init => {
            status.restarts > restarts && status.conditions.get(ConditionKind::Ready).is_some_and(|ready| !ready.status)
        }
    }
}

/// Makes an agent.
///
/// It is `init` then, and becomes `idle` as soon as its computer is up: `wait` waits for that, or for a start that
/// fails.
#[utoipa::path(
    post, path = "/", operation_id = "create_agent", tag = "agents",
    request_body = CreateAgent,
    params(IdempotencyHeader, WaitQuery),
    responses(
        (status = 201, description = "The agent.", body = Agent, headers(("etag" = String, description = "Its generation."))),
        (status = 403, description = "`quota_exceeded`", body = ErrorBody),
        (status = 409, description = "`name_taken`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn create(
    State(state): State<ApiState>,
    AgentsOf { caller, tenant }: AgentsOf,
    Query(Waiting { wait }): Query<Waiting>,
    Held(request, room): Held<CreateAgent>,
) -> Result<Response, ApiError> {
    let Caller { call, token } = caller;
    let agent = state.control().create_agent(&call, &tenant, request).await?;
    drop(room);
    let (agent, ended) = await_agent(&state, (&call, &token), agent, wait, |agent| is_up_or_failed(agent, 0)).await;
    let place = format!("{BASE}/tenants/{tenant}/agents/{}", agent.name);
    Ok(answer::interrupted(answer::located(answer::agent(StatusCode::CREATED, &call, &agent), &place), ended))
}

/// Which agents to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// In this state.
    #[param(inline)]
    state: Option<AgentState>,
    /// With such labels, up to 16 requirements: `app=web,tier!=db,beta,!old`.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// The `next` of an earlier page.
    after: Option<String>,
    /// At most so many, up to 500.
    #[param(value_type = Option<usize>)]
    limit: Option<NonZeroUsize>,
}

/// Agents that the caller may see, by name.
#[utoipa::path(
    get, path = "/", operation_id = "list_agents", tag = "agents", params(ListQuery),
    responses((status = 200, description = "Some of them.", body = Page<Agent>))
)]
async fn list(
    State(state): State<ApiState>,
    AgentsOf { caller, tenant }: AgentsOf,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Agent>>, ApiError> {
    let after = match query.after.as_deref().map(answer::cursor).transpose()? {
        Some(inner) => {
            let name = AgentName::new(inner);
            Some(name.map_err(|_| ApiError::invalid("after", "this is not the next of an earlier page"))?.to_string())
        }
        None => None,
    };
    let list = ListAgents {
        state: query.state,
        selector: query.selector.unwrap_or_default(),
        after,
        limit: query.limit.map(NonZeroUsize::get),
    };
    Ok(answer::opaque(state.control().list_agents(&caller.call, &tenant, list).await?))
}

/// An agent.
#[utoipa::path(
    get, path = "/{name}", operation_id = "get_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name.")),
    responses(
        (status = 200, description = "The agent.", body = Agent, headers(("etag" = String, description = "Its generation."))),
    )
)]
async fn read(State(state): State<ApiState>, at: AgentAt) -> Result<Response, ApiError> {
    let agent = state.control().get_agent(&at.call, &at.tenant, &at.name).await?;
    Ok(answer::agent(StatusCode::OK, &at.call, &agent))
}

/// Changes an agent's spec.
///
/// What is absent stays, and null takes a field back to its default (RFC 7396). What an engine cannot change in place
/// takes effect at the next start; the condition `RestartNeeded` says so.
#[utoipa::path(
    patch, path = "/{name}", operation_id = "edit_agent", tag = "agents",
    request_body = EditAgent,
    params(("name" = AgentName, Path, description = "The agent's name."), IfMatchHeader, IdempotencyHeader),
    responses(
        (status = 200, description = "The agent.", body = Agent, headers(("etag" = String, description = "Its generation."))),
        (status = 409, description = "`agent_state`, `contended`", body = ErrorBody),
        (status = 412, description = "`generation_mismatch`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn edit(
    State(state): State<ApiState>,
    at: AgentAt,
    IfMatch(generation): IfMatch,
    Held(request, _room): Held<EditAgent>,
) -> Result<Response, ApiError> {
    let agent = state.control().edit_agent(&at.call, &at.tenant, &at.name, &request, generation).await?;
    Ok(answer::agent(StatusCode::OK, &at.call, &agent))
}

/// Deletes an agent.
///
/// Nothing of it is served from then on, its messages are cancelled, and its computer and files go as soon as the
/// engine can. `wait` waits until its name is free.
#[utoipa::path(
    delete, path = "/{name}", operation_id = "delete_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name."), IdempotencyHeader, WaitQuery),
    responses(
        (status = 200, description = "The agent as it was last.", body = Agent),
        (status = 409, description = "`agent_state`", body = ErrorBody),
        (status = 422, description = "`idempotency_mismatch`", body = ErrorBody),
    )
)]
async fn delete(
    State(state): State<ApiState>,
    at: AgentAt,
    Query(Waiting { wait }): Query<Waiting>,
) -> Result<Response, ApiError> {
    let agent = state.control().delete(&at.call, &at.tenant, &at.name).await?;
    let deleted = |agent: &Agent| agent.status.state() == AgentState::Deleted;
    let (agent, ended) = await_agent(&state, (&at.call, &at.token), agent, wait, deleted).await;
    Ok(answer::interrupted(answer::agent(StatusCode::OK, &at.call, &agent), ended))
}

/// Why an agent is as it is, and what comes next.
#[utoipa::path(
    get, path = "/{name}/explain", operation_id = "explain_agent", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name.")),
    responses((status = 200, description = "The reasons.", body = Explanation))
)]
async fn explain(State(state): State<ApiState>, at: AgentAt) -> Result<axum::Json<Explanation>, ApiError> {
    Ok(axum::Json(state.control().explain(&at.call, &at.tenant, &at.name).await?))
}

/// What an agent's computers reached, and were refused.
///
/// By host and port, as far as the server that answers has seen since it began.
#[utoipa::path(
    get, path = "/{name}/egress", operation_id = "agent_egress", tag = "agents",
    params(("name" = AgentName, Path, description = "The agent's name.")),
    responses((status = 200, description = "A count for each host and port.", body = Page<EgressCount>))
)]
async fn egress(State(state): State<ApiState>, at: AgentAt) -> Result<axum::Json<Page<EgressCount>>, ApiError> {
    let agent = state.control().get_agent(&at.call, &at.tenant, &at.name).await?;
    let items = state.options().egress.as_ref().map(|egress| egress.counts(agent.id)).unwrap_or_default();
    Ok(axum::Json(Page { items, next: None }))
}
