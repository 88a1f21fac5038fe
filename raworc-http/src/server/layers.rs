//! What is done around every request: its id, its spans, its figures, and what becomes of a panic.

use std::any::Any;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use raworc_core::trace::{self, TraceParent};
use tokio::time::Instant;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::ApiError;
use super::error::Fault;
use crate::api::{BASE, REQUEST_ID};

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
    let traced = match route.starts_with(BASE) {
        true => trace::begin(&format!("{method} {route}"), traceparent(request.headers())),
        // Whoever asks how a process is asks again and again.
        false => Span::none(),
    };
    note(&traced, method, &route);
    // Where nobody traces here, somebody else may.
    if let Some(parent) = trace::of(&traced).or_else(|| traceparent(request.headers())) {
        request.extensions_mut().insert(parent);
    }
    let (header, is_head) = (HeaderValue::from_str(&id), request.method() == Method::HEAD);
    // Neither queries nor headers: they may hold what is secret.
    // Of the highest level, or a fault would be logged without it where less is logged.
    let span = tracing::error_span!("request", request_id = %id, method, path = request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(traced.clone()).instrument(span.clone()).await;
    if let Some(fault) = response.extensions_mut().remove::<Fault>().filter(|_| !is_head) {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(fault.of_request(&id));
    }
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    let (status, took) = (response.status(), began.elapsed());
    note_status(&traced, status);
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "answered"));
    metrics::counter!(
        "raworc_http_requests_total",
        "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("raworc_http_request_seconds", "method" => method, "route" => route).record(took.as_secs_f64());
    response
}

/// Has the call of a program that is at work on a message belong to that message's trace, and counts it.
pub(super) async fn observe_program(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let traced = trace::part(&format!("{method} {route}"), traceparent(request.headers()));
    note(&traced, method, &route);
    let response = next.run(request).instrument(traced.clone()).await;
    let status = response.status();
    note_status(&traced, status);
    metrics::counter!(
        "raworc_program_calls_total", "route" => route.clone(), "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("raworc_program_call_seconds", "route" => route).record(began.elapsed().as_secs_f64());
    response
}

/// Where in which trace a request goes on. What is none is as if it were not there, and so are several.
fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut given = headers.get_all(trace::HEADER).iter();
    let (Some(one), None) = (given.next(), given.next()) else { return None };
    one.to_str().ok()?.parse().ok()
}

fn note(traced: &Span, method: &str, route: &str) {
    traced.record("otel.kind", "server");
    traced.record("http.request.method", method);
    traced.record("http.route", route);
}

fn note_status(traced: &Span, status: StatusCode) {
    traced.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        traced.record("otel.status_code", "ERROR");
    }
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_fault_of_the_server_bears_the_id_of_its_request_and_a_callers_mistake_does_not() {
        let fault = || async { ApiError::new("internal", "its log says what") };
        let mistake = || async { ApiError::invalid("name", "use letters") };
        let router = Router::new().route("/fault", get(fault)).route("/mistake", get(mistake)).layer(from_fn(observe));
        for (method, path, told) in
            [("GET", "/fault", Some("mine-1")), ("GET", "/mistake", None), ("HEAD", "/fault", None)]
        {
            let request = Request::builder().method(method).uri(path).header(REQUEST_ID, "mine-1");
            let answer =
                router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
            assert_eq!(answer.headers()[REQUEST_ID], "mine-1");
            let length = answer.headers().get(CONTENT_LENGTH).map(|length| length.to_str().expect("text").to_owned());
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert!(method == "HEAD" || length.is_none_or(|length| length == body.len().to_string()));
            assert_eq!(body.is_empty(), method == "HEAD", "{body:?}");
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            assert_eq!(body["error"]["details"]["request_id"].as_str(), told, "{body:#}");
        }
    }
}
