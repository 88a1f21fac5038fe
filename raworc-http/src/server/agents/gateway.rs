//! The model gateway: programs speak to their agent's model through it, and know neither its address nor its key.
//!
//! It adds the key, passes the answer on as it comes, counts tokens on the way, and keeps the agent awake until the
//! answer has ended. When the program hangs up, so does the gateway.

mod ollama;
mod openai;
mod relay;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;

pub use ollama::{DiscoveredModel, OLLAMA_URL, discover_ollama};
pub use upstream::{GatewayLimits, InvalidUpstream, ModelFault, Probe, UpstreamConfig, UpstreamModel, Upstreams};
pub use usage::ModelUsage;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use http::StatusCode;
use raworc_core::control::ActivityKind;
use raworc_core::program::ModelWire;
use serde_json::Value;

use self::upstream::Question;
use super::AgentsState;
use super::auth::Program;
use crate::server::error::ApiError;

/// Bytes of a request: a long conversation with some pictures.
const REQUEST_LIMIT: usize = 32 << 20;

pub(super) fn routes() -> Router<AgentsState> {
    Router::new()
        .route("/gateway/api/chat", post(ollama_chat))
        .route("/gateway/v1/chat/completions", post(openai_chat))
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT))
}

async fn ollama_chat(
    State(state): State<AgentsState>,
    program: Program,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask(&state, &program, ModelWire::Ollama, body).await
}

async fn openai_chat(
    State(state): State<AgentsState>,
    program: Program,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    ask(&state, &program, ModelWire::Openai, body).await
}

async fn ask(
    state: &AgentsState,
    program: &Program,
    wire: ModelWire,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new("too_large", "a request to a model takes 32 MiB at most"),
        _ => ApiError::invalid("body", rejection.body_text()),
    })?;
    let body: Value = serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?;
    let (agent, guard) = state.control.hold_own(&program.call, ActivityKind::ModelCall).await?;
    let models = &state.control.settings().models;
    let model = models.get(agent.spec.model.as_deref()).ok_or_else(|| {
        ApiError::new("model_unavailable", "this installation has no model; configure one and start the server again")
    })?;
    if body.get("model").and_then(Value::as_str) != Some(model.name.as_str()) {
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
    let question = Question { agent: Some(agent.id), model: &model.name, body, guard: Some(guard) };
    Ok(state.upstreams.ask(question).await?)
}
