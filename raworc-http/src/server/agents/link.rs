//! `POST /agent/v0/link`: the upgrade that turns a program's connection around.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use super::AgentsState;
use super::auth::Program;
use super::listener::Place;
use crate::server::error::ApiError;

/// What stands in `Upgrade`.
pub(crate) const LINK_PROTOCOL: &str = "raworc-link";

pub(super) async fn link(
    State(state): State<AgentsState>,
    program: Program,
    mut request: Request,
) -> Result<Response, ApiError> {
    let agent = state.control.check_program(&program.call).await?;
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks_for_link(request.headers()));
    let Some(on_upgrade) = on_upgrade else {
        let message = "this address is for a program's own connection: HTTP/1.1 with `Upgrade: raworc-link`";
        return Err(ApiError::new("upgrade_required", message));
    };
    let place = request.extensions_mut().remove::<Place>();
    tokio::spawn(async move {
        // A link is a connection among those that are allowed, for as long as it lasts.
        let _place = place;
        match on_upgrade.await {
            Ok(upgraded) => state.links.serve(&state.control, &agent, upgraded).await,
            Err(error) => tracing::debug!(agent = %agent.id, %error, "a program's connection was lost in its upgrade"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(LINK_PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn asks_for_link(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.trim().eq_ignore_ascii_case(LINK_PROTOCOL))
}
