//! The agents' side: what programs inside computers call, and the links over which they are called back.
//!
//! Nothing of the API for people is served here, so that a program that is out of its mind can reach no more than its
//! own agent's inbox, steps, replies, heartbeat and model, and what its egress list names.

mod auth;
pub mod egress;
pub mod gateway;
mod link;
mod links;
mod listener;
mod protocol;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upgrade;

pub use links::{LinkBody, Links};
pub use listener::{AgentsListener, AgentsTls, ListenError, ListenerLimits, Listening};

use axum::Router;
use axum::routing::post;
use raworc_core::control::ControlPlane;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::egress::Egress;
use self::gateway::Upstreams;
use super::error::ApiError;
use super::tokens::Tokens;
use super::{layers, unread};

/// What the agents' side is made of.
#[derive(Debug, Clone)]
pub struct AgentsState {
    /// The use cases.
    pub control: ControlPlane,
    /// Issues programs their tokens and checks them.
    pub tokens: Tokens,
    /// The programs that are linked here. The API calls them through the same.
    pub links: Links,
    /// The models behind the gateway.
    pub upstreams: Upstreams,
    /// The way out of closed computers.
    pub egress: Egress,
    /// Ends what only waits, so that the listener is not held up by it.
    pub closing: CancellationToken,
}

/// What programs call, for an [`AgentsListener`] to serve. Its paths begin with `/agent/v0`.
pub fn agents_router(state: AgentsState) -> Router {
    let calls = Router::new()
        .route("/boot", post(protocol::boot))
        .route("/token", post(protocol::token))
        .route("/setup", post(protocol::setup))
        .route("/lease", post(protocol::lease))
        .route("/deltas", post(protocol::deltas))
        .route("/heartbeat", post(protocol::heartbeat))
        .route("/steps", post(protocol::steps))
        .route("/end", post(protocol::end));
    // The bodies of these last as long as what they are for.
    let ways = Router::new().route("/link", post(link::link)).route("/egress", post(egress::egress));
    let calls = calls.merge(gateway::routes()).layer(axum::middleware::from_fn(unread::take_of_program));
    Router::new()
        .nest("/agent/v0", calls.merge(ways))
        .fallback(async || ApiError::new("not_found", "there is no such address here"))
        .method_not_allowed_fallback(async || ApiError::new("method_not_allowed", "this address has other methods"))
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(axum::middleware::from_fn(layers::observe_program))
        .with_state(state)
}
