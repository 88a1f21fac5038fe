//! `POST /agent/v0/link`: the upgrade that turns a program's connection around.

use axum::extract::{Request, State};
use axum::response::Response;

use super::auth::Program;
use super::listener::Place;
use super::{AgentsState, upgrade};
use crate::server::error::ApiError;

/// What stands in `Upgrade`.
pub(crate) const LINK_PROTOCOL: &str = "raworc-link";

pub(super) async fn link(
    State(state): State<AgentsState>,
    program: Program,
    mut request: Request,
) -> Result<Response, ApiError> {
    let agent = state.control.check_program(&program.call).await?;
    let on_upgrade = upgrade::asked(&mut request, LINK_PROTOCOL)?;
    let place = request.extensions_mut().remove::<Place>();
    tokio::spawn(async move {
        // A link is a connection among those that are allowed, for as long as it lasts.
        let _place = place;
        match on_upgrade.await {
            Ok(upgraded) => state.links.serve(&state.control, &agent, upgraded).await,
            Err(error) => tracing::debug!(agent = %agent.id, %error, "a program's connection was lost in its upgrade"),
        }
    });
    Ok(upgrade::switching(LINK_PROTOCOL))
}
