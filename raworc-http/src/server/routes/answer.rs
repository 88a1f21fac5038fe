//! Answers, and the cursors in them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ETAG, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use raworc_core::agent::Agent;
use raworc_core::control::Call;
use raworc_core::message::Message;
use raworc_core::store::Page;
use serde::Serialize;

use crate::api::{self, IDEMPOTENT_REPLAYED, WAIT_INTERRUPTED};
use crate::server::ApiError;
use crate::server::state::Ends;

/// An agent with its generation as `ETag`.
pub(super) fn agent(status: StatusCode, call: &Call, agent: &Agent) -> Response {
    let mut response = (status, Json(agent)).into_response();
    // A number in quotation marks is always a header's value.
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", agent.generation)) {
        response.headers_mut().insert(ETAG, tag);
    }
    replayed(response, call)
}

/// A message.
pub(super) fn message(status: StatusCode, call: &Call, message: &Message) -> Response {
    replayed((status, Json(message)).into_response(), call)
}

/// Tells where what was made is to be found.
pub(super) fn located(mut response: Response, place: &str) -> Response {
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}

/// Tells that it was not waited for to its end, where that was so.
pub(super) fn interrupted(mut response: Response, ended: Option<Ends>) -> Response {
    if ended.is_some() {
        response.headers_mut().insert(HeaderName::from_static(WAIT_INTERRUPTED), HeaderValue::from_static("true"));
    }
    response
}

fn replayed(mut response: Response, call: &Call) -> Response {
    if call.was_replayed() {
        let name = HeaderName::from_static(IDEMPOTENT_REPLAYED);
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// A page whose cursors are numbers that mean something: the last one's.
pub(super) fn numbered<T: Serialize>(page: Page<T>) -> Json<api::Page<T>> {
    Json(api::Page { items: page.items, next: page.next })
}

/// A page whose cursors are nobody's business.
pub(super) fn opaque<T: Serialize>(page: Page<T>) -> Json<api::Page<T>> {
    Json(api::Page { items: page.items, next: page.next.map(|inner| URL_SAFE_NO_PAD.encode(inner)) })
}

/// What an opaque cursor stands for.
pub(super) fn cursor(text: &str) -> Result<String, ApiError> {
    let refused = || ApiError::invalid("after", "this is not the next of an earlier page");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
    String::from_utf8(bytes).map_err(|_| refused())
}
