//! Every route of the API, and the router that is made of them.

mod agents;
mod answer;
mod auth;
mod events;
mod health;
mod lifecycle;
mod messages;
mod users;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{Method, Uri};
use raworc_core::control::ControlPlane;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::computers::computer_routes;
use super::{ApiError, ApiState, Options, layers, openapi, unread};
use crate::api::BASE;

/// The API of a control plane, from `/api/v0` on, with `/version`, `/livez`, `/readyz` and `/metrics` beside it.
pub fn router(control: ControlPlane, options: Options) -> Router {
    router_of(ApiState::new(control, options))
}

/// The same over a state that something else shares.
pub fn router_of(state: ApiState) -> Router {
    let (router, document) = parts();
    // A document of types that serialize cannot fail to.
    let document = bytes::Bytes::from(document.to_json().unwrap_or_default());
    let serve = move || std::future::ready(([(CONTENT_TYPE, "application/json")], document.clone()).into_response());
    router
        .route(&format!("{BASE}/openapi.json"), get(serve))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(axum::middleware::from_fn(layers::observe))
        .layer(axum::middleware::from_fn(unread::take))
        .with_state(state)
}

/// `/version`, `/livez`, `/readyz` and `/metrics` alone, for a process that serves no API.
pub fn health_router(control: ControlPlane, options: Options) -> Router {
    let (router, _) = health::routes().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(axum::middleware::from_fn(layers::observe))
        .with_state(ApiState::new(control, options))
}

/// The description of the API, as `/api/v0/openapi.json` serves it.
#[must_use]
pub fn document() -> OpenApi {
    parts().1
}

fn parts() -> (Router<ApiState>, OpenApi) {
    let of_agents =
        agents::routes().merge(lifecycle::routes()).merge(messages::routes()).nest("/{name}", computer_routes());
    let of_tenant = || OpenApiRouter::new().nest("/agents", of_agents.clone()).merge(events::routes());
    let of_tenants = of_tenant().nest("/tenants/{tenant}", of_tenant());
    let api = of_tenants.merge(auth::routes()).merge(users::routes()).merge(health::api_routes());
    let all = OpenApiRouter::with_openapi(openapi::base()).nest(BASE, api).merge(health::routes());
    let (router, mut document) = all.split_for_parts();
    openapi::complete(&mut document);
    (router, document)
}

async fn no_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new("not_found", format!("there is no route {path:?}; {BASE}/openapi.json lists them"))
        .with_detail("what", "route")
        .with_detail("name", path)
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let method: String = method.as_str().chars().take(40).collect();
    ApiError::new("method_not_allowed", format!("{path:?} does not take {method}; the Allow header says what it takes"))
}

#[cfg(test)]
mod tests;
