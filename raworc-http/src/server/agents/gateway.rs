//! The model gateway.

use axum::Router;

use super::AgentsState;

/// Models.
#[derive(Debug, Clone, Default)]
pub struct Upstreams;

pub(super) fn routes() -> Router<AgentsState> {
    Router::new()
}
