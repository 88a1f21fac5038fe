//! What is done around every request: its id, its span, its figures, and what becomes of a panic.

use std::any::Any;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::ApiError;
use crate::api::REQUEST_ID;

/// The id of a request: the caller's, or one that was made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

const HEADER: HeaderName = HeaderName::from_static(REQUEST_ID);

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_graphic()) => id.to_owned(),
        _ => Uuid::now_v7().to_string(),
    }
}

/// Names the request, tells the log of it, and counts it.
pub(super) async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let header = HeaderValue::from_str(&id);
    // Neither queries nor headers: they may hold what is secret.
    let span = tracing::info_span!("request", %id, method, path = request.uri().path());
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    let (status, took) = (response.status(), began.elapsed());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "answered"));
    metrics::counter!(
        "raworc_http_requests_total",
        "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("raworc_http_request_seconds", "method" => method, "route" => route).record(took.as_secs_f64());
    response
}

/// Methods that somebody invents are counted as one.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// What the caller is told where a handler panicked. What it said is for the log alone.
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("without a text"), "a handler panicked");
    ApiError::new("internal", "something is wrong on the server; its log says what").into_response()
}
