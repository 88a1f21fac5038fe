//! Which agent a request is about. The tenant is in the path, or is the caller's own.

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use raworc_core::control::{Call, TokenRecord};
use raworc_core::ids::{AgentName, MessageId, TenantName};

use super::Caller;
use crate::server::{ApiError, ApiState};

/// The agents of a tenant: `/agents`, or `/tenants/{tenant}/agents`.
#[derive(Debug, Clone)]
pub struct AgentsOf {
    /// Who calls.
    pub caller: Caller,
    /// Whose agents.
    pub tenant: TenantName,
}

/// One agent: `/agents/{name}`.
#[derive(Debug, Clone)]
pub struct AgentAt {
    /// Who calls.
    pub call: Call,
    /// Their token.
    pub token: TokenRecord,
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name.
    pub name: AgentName,
}

/// One message of an agent: `/agents/{name}/messages/{id}`.
#[derive(Debug, Clone)]
pub struct MessageAt {
    /// Who calls.
    pub call: Call,
    /// Their token.
    pub token: TokenRecord,
    /// The tenant of its agent.
    pub tenant: TenantName,
    /// The name of its agent.
    pub name: AgentName,
    /// Its id.
    pub id: MessageId,
}

/// The parameters of a path, for a caller who is known.
async fn look(parts: &mut Parts, state: &ApiState) -> Result<(Caller, TenantName, RawPathParams), ApiError> {
    let caller = Caller::from_request_parts(parts, state).await?;
    let params = params(parts).await?;
    let tenant = match get(&params, "tenant") {
        Some(name) => TenantName::new(name).map_err(|error| ApiError::invalid("tenant", error))?,
        None => caller.call.principal.tenant().clone(),
    };
    Ok((caller, tenant, params))
}

/// What stands in a path for this parameter.
///
/// # Errors
/// Where it is not UTF-8.
pub(in crate::server) async fn segment(parts: &mut Parts, wanted: &str) -> Result<Option<String>, ApiError> {
    Ok(get(&params(parts).await?, wanted).map(str::to_owned))
}

async fn params(parts: &mut Parts) -> Result<RawPathParams, ApiError> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    params.map_err(|_| ApiError::new("malformed", "the path is not UTF-8"))
}

fn get<'a>(params: &'a RawPathParams, wanted: &str) -> Option<&'a str> {
    params.iter().find_map(|(name, value)| (name == wanted).then_some(value))
}

fn agent(params: &RawPathParams) -> Result<AgentName, ApiError> {
    AgentName::new(get(params, "name").unwrap_or_default()).map_err(|error| ApiError::invalid("name", error))
}

impl FromRequestParts<ApiState> for AgentsOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let (caller, tenant, _) = look(parts, state).await?;
        Ok(Self { caller, tenant })
    }
}

impl FromRequestParts<ApiState> for AgentAt {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let (caller, tenant, params) = look(parts, state).await?;
        Ok(Self { call: caller.call, token: caller.token, tenant, name: agent(&params)? })
    }
}

impl FromRequestParts<ApiState> for MessageAt {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let (caller, tenant, params) = look(parts, state).await?;
        let id = get(&params, "id").unwrap_or_default().parse();
        let id = id.map_err(|_| ApiError::invalid("id", "a message's id is a UUID"))?;
        Ok(Self { call: caller.call, token: caller.token, tenant, name: agent(&params)?, id })
    }
}
