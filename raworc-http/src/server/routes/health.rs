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

/// What takes longer than this to say that it is well is not.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(version)).routes(routes!(live)).routes(routes!(ready)).routes(routes!(figures))
}

/// Those that stand among the API's own.
pub(super) fn api_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(api_version))
}

/// What runs.
#[utoipa::path(
    get, path = "/version", operation_id = "version", tag = "health", security(()),
    responses((status = 200, description = "The version.", body = VersionReply))
)]
async fn version() -> Reply<VersionReply> {
    Reply(VersionReply { version: env!("CARGO_PKG_VERSION").to_owned(), api: "v0".to_owned() })
}

/// What runs, where clients that know this API alone look for it.
#[utoipa::path(
    get, path = "/version", operation_id = "api_version", tag = "health", security(()),
    responses((status = 200, description = "The version.", body = VersionReply))
)]
async fn api_version() -> Reply<VersionReply> {
    version().await
}

/// Whether the server answers at all.
#[utoipa::path(
    get, path = "/livez", operation_id = "live", tag = "health", security(()),
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String))
)]
async fn live() -> &'static str {
    "ok"
}

/// Whether the server can do its work.
///
/// `store`: it answers. `server`: it is not closing. Where the server looks at them: `operator`: for each runtime one
/// lives, in this process or in another; `agents_listener`: it accepts programs.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "health", security(()),
    responses(
        (status = 200, description = "It can.", body = ReadyReply),
        (status = 503, description = "It cannot now; the checks say why.", body = ReadyReply),
    )
)]
async fn ready(State(state): State<ApiState>) -> (StatusCode, Reply<ReadyReply>) {
    let store = async {
        state.control().system().store().head().await.map(drop).map_err(|error| {
            tracing::warn!(%error, "the store is not ready");
            "does not answer".to_owned()
        })
    };
    let others = state.options().checks.iter().map(|check| async move { (check.name, in_time(check.look()).await) });
    let (store, others) = tokio::join!(in_time(store), futures::future::join_all(others));
    let closing = if state.options().closing.is_cancelled() { Err("closing".to_owned()) } else { Ok(()) };
    let own = [("store", store), ("server", closing)];
    let (mut checks, mut ready) = (BTreeMap::new(), true);
    for (name, result) in own.into_iter().chain(others) {
        ready &= result.is_ok();
        checks.insert(name.to_owned(), result.err().unwrap_or_else(|| "ok".to_owned()));
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Reply(ReadyReply { ready, checks }))
}

async fn in_time(check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::time::timeout(CHECK_LIMIT, check).await.unwrap_or_else(|_| Err("does not answer in time".to_owned()))
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
        state.control().check_installation(&caller.call).await?;
    }
    let Some(handle) = &state.options().metrics else {
        return Err(ApiError::new("not_found", "this server keeps no figures").with_detail("what", "metrics"));
    };
    handle.run_upkeep();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response())
}
