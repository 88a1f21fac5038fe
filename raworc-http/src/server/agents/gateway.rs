//! The model gateway: programs speak to their agent's model through it, and know neither its address nor its key.
//!
//! It adds the key, passes the answer on as it comes, counts tokens on the way, and keeps the agent awake until the
//! answer has ended. When the program hangs up, so does the gateway.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ollama;
mod openai;
mod question;
mod relay;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;

pub use ollama::{DiscoveredModel, OLLAMA_URL, discover_ollama};
pub use upstream::{GatewayLimits, InvalidUpstream, ModelFault, Probe, UpstreamConfig, UpstreamModel, Upstreams};
pub use usage::ModelUsage;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use raworc_core::control::ActivityKind;
use raworc_core::program::ModelWire;

use self::question::{Asked, Question};
use super::AgentsState;
use super::auth::{Program, read};
use crate::server::error::ApiError;

/// Bytes of a request: a long conversation with some pictures.
const REQUEST_LIMIT: usize = 32 << 20;

pub(super) fn routes() -> Router<AgentsState> {
    Router::new().route("/gateway/api/chat", post(ollama_chat)).route("/gateway/v1/chat/completions", post(openai_chat))
}

async fn ollama_chat(
    State(state): State<AgentsState>,
    program: Program,
    request: Request,
) -> Result<Response, ApiError> {
    ask(&state, &program, ModelWire::Ollama, request).await
}

async fn openai_chat(
    State(state): State<AgentsState>,
    program: Program,
    request: Request,
) -> Result<Response, ApiError> {
    ask(&state, &program, ModelWire::Openai, request).await
}

async fn ask(state: &AgentsState, program: &Program, wire: ModelWire, request: Request) -> Result<Response, ApiError> {
    let (agent, guard) = state.control.hold_own(&program.call, ActivityKind::ModelCall).await?;
    let models = &state.control.settings().models;
    let model = models.get(agent.spec.model.as_deref()).ok_or_else(|| {
        ApiError::new("model_unavailable", "this installation has no model; configure one and start the server again")
    })?;
    // Before the body, which may be large: a program has so many open and no more.
    let open = state.upstreams.open(agent.id)?;
    let (body, room) = read(request, REQUEST_LIMIT).await?;
    let asked = Asked::read(&body).map_err(|error| ApiError::invalid("body", error))?;
    if asked.model.as_deref() != Some(model.name.as_str()) {
        let message = format!("this agent's model is {:?}; it may use no other", model.name);
        return Err(ApiError::new("model_forbidden", message));
    }
    if model.wire != wire {
        let address = match model.wire {
            ModelWire::Ollama => "/agent/v0/gateway/api/chat",
            ModelWire::Openai => "/agent/v0/gateway/v1/chat/completions",
        };
        return Err(ApiError::invalid("model", format!("{:?} is spoken to at {address}", model.name)));
    }
    let (streams, body) = asked.onward(wire, body)?;
    let question = Question { model: &model.name, streams, body, open: Some(open), room, guard: Some(guard) };
    Ok(state.upstreams.ask(question).await?)
}
