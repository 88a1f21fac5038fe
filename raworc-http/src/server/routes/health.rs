//! How the server is.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json as Reply;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ErrorBody, ReadyReply, VersionReply};
use crate::server::extract::Caller;
use crate::server::{ApiError, ApiState};

/// A store that takes longer than this is not ready.
const STORE_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(version)).routes(routes!(live)).routes(routes!(ready)).routes(routes!(figures))
}

/// What runs.
#[utoipa::path(
    get, path = "/version", operation_id = "version", tag = "health", security(()),
    responses((status = 200, description = "The version.", body = VersionReply))
)]
async fn version() -> Reply<VersionReply> {
    Reply(VersionReply { version: env!("CARGO_PKG_VERSION").to_owned(), api: "v0".to_owned() })
}

/// Whether the server answers at all.
#[utoipa::path(
    get, path = "/livez", operation_id = "live", tag = "health", security(()),
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String))
)]
async fn live() -> &'static str {
    "ok"
}

/// Whether the server can do its work: its store answers, and what runs beside it is up.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "health", security(()),
    responses(
        (status = 200, description = "It can.", body = ReadyReply),
        (status = 503, description = "It cannot now; the checks say why.", body = ReadyReply),
    )
)]
async fn ready(State(state): State<ApiState>) -> (StatusCode, Reply<ReadyReply>) {
    let mut checks = BTreeMap::new();
    let store = match tokio::time::timeout(STORE_LIMIT, state.control().store().head()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store is not ready");
            Err("does not answer".to_owned())
        }
        Err(_) => Err("does not answer in time".to_owned()),
    };
    let closing = if state.options().closing.is_cancelled() { Err("closing".to_owned()) } else { Ok(()) };
    let own = [("store", store), ("server", closing)];
    let others = state.options().checks.iter().map(|check| (check.name, check.look()));
    let mut ready = true;
    for (name, result) in own.into_iter().chain(others) {
        ready &= result.is_ok();
        checks.insert(name.to_owned(), result.err().unwrap_or_else(|| "ok".to_owned()));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Reply(ReadyReply { ready, checks }))
}

/// Figures for Prometheus. For admins, unless the server is told to show them to everybody.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses(
        (status = 200, description = "The figures.", content_type = "text/plain", body = String),
        (status = 403, description = "`forbidden`", body = ErrorBody),
    )
)]
async fn figures(State(state): State<ApiState>, request: Request) -> Result<Response, ApiError> {
    if !state.options().open_metrics {
        let (mut parts, _) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, &state).await?;
        state.control().check_installation(&caller.call)?;
    }
    let Some(handle) = &state.options().metrics else {
        return Err(ApiError::new("not_found", "this server keeps no figures").with_detail("what", "metrics"));
    };
    handle.run_upkeep();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response())
}
