//! Errors as callers see them: always JSON, always of one shape.

use std::error::Error as _;
use std::fmt;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use raworc_core::error::Error;
use serde_json::{Map, Value, json};

use crate::api::{ErrorBody, ErrorInfo};

/// Codes of errors that the HTTP layer itself finds, beside those of [`Error::code`], and their status.
pub const HTTP_CODES: [(&str, StatusCode); 17] = [
    ("malformed", StatusCode::BAD_REQUEST),
    ("not_found", StatusCode::NOT_FOUND),
    ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
    ("request_timeout", StatusCode::REQUEST_TIMEOUT),
    ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
    ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("too_many_requests", StatusCode::TOO_MANY_REQUESTS),
    ("busy", StatusCode::SERVICE_UNAVAILABLE),
    ("upgrade_required", StatusCode::UPGRADE_REQUIRED),
    ("program_failed", StatusCode::BAD_GATEWAY),
    ("model_forbidden", StatusCode::FORBIDDEN),
    ("model_busy", StatusCode::TOO_MANY_REQUESTS),
    ("model_rejected", StatusCode::BAD_REQUEST),
    ("model_too_long", StatusCode::BAD_REQUEST),
    ("model_refused", StatusCode::FAILED_DEPENDENCY),
    ("model_unavailable", StatusCode::BAD_GATEWAY),
    ("model_timeout", StatusCode::GATEWAY_TIMEOUT),
];

/// The status that an error of this [code](Error::code) is answered with.
#[must_use]
pub fn status_of(code: &str) -> Option<StatusCode> {
    Some(match code {
        "not_found" => StatusCode::NOT_FOUND,
        "forbidden" | "quota_exceeded" => StatusCode::FORBIDDEN,
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "invalid" => StatusCode::BAD_REQUEST,
        "generation_mismatch" => StatusCode::PRECONDITION_FAILED,
        "stale_incarnation" | "name_taken" | "agent_asleep" | "start_failed" | "agent_state" | "message_state"
        | "not_held" | "contended" => StatusCode::CONFLICT,
        "inbox_full" => StatusCode::TOO_MANY_REQUESTS,
        "idempotency_mismatch" => StatusCode::UNPROCESSABLE_ENTITY,
        "timed_out" => StatusCode::GATEWAY_TIMEOUT,
        "unreachable" | "store_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
        "gone" => StatusCode::GONE,
        "internal" => StatusCode::INTERNAL_SERVER_ERROR,
        other => return HTTP_CODES.iter().find(|(code, _)| *code == other).map(|&(_, status)| status),
    })
}

/// What is told of a fault of the server, before it is known which request it is of.
#[derive(Debug, Clone)]
pub(super) struct Fault(ErrorInfo);

impl Fault {
    /// The body of the answer to this request. Who reports a fault says by it which lines of the log it is about.
    pub(super) fn of_request(mut self, id: &str) -> Vec<u8> {
        self.0.details.insert("request_id".to_owned(), id.into());
        serde_json::to_vec(&ErrorBody { error: self.0 }).unwrap_or_default()
    }
}

/// An error on its way to a caller.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Map<String, Value>,
    retry_after: Option<u64>,
    source: Option<Box<Error>>,
}

impl ApiError {
    /// An error that the HTTP layer itself found, with one of [`HTTP_CODES`] or of [`Error::code`].
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: status_of(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message: message.into(),
            details: Map::new(),
            retry_after: None,
            source: None,
        }
    }

    /// Something in the request that cannot be taken, and what would be.
    pub fn invalid(field: &str, reason: impl fmt::Display) -> Self {
        Self::new("invalid", format!("{field}: {reason}")).with_detail("field", field)
    }

    /// With something that the message speaks of, by name.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// With the seconds after which it may be worth trying again.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The status that it is answered with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// As a caller is told, without the inner causes.
    pub(super) fn into_info(self) -> ErrorInfo {
        ErrorInfo { code: self.code.to_owned(), message: self.message, details: self.details }
    }

    /// The inner causes are for the log alone.
    fn log(&self) {
        let Some(source) = &self.source else { return };
        if !self.status.is_server_error() {
            return;
        }
        let mut causes = source.to_string();
        let mut next = source.source();
        while let Some(cause) = next {
            causes = format!("{causes}: {cause}");
            next = cause.source();
        }
        if source.is_retryable() {
            tracing::warn!(code = self.code, error = causes, "a call failed for now");
        } else {
            tracing::error!(code = self.code, error = causes, "a call failed");
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let code = error.code();
        let message = match &error {
            Error::Internal(_) => "something is wrong on the server; its log says what".to_owned(),
            other => other.to_string(),
        };
        let mut answer = Self::new(code, message);
        answer.details = details(&error);
        if error.is_retryable() {
            answer.retry_after = Some(1);
        }
        answer.source = Some(Box::new(error));
        answer
    }
}

/// What an error speaks of. An error without an arm has no details.
fn details(error: &Error) -> Map<String, Value> {
    let value = match error {
        Error::NotFound { what, name } => json!({ "what": what, "name": name }),
        Error::Forbidden { principal, action, resource } => {
            json!({ "principal": principal, "action": action, "resource": resource })
        }
        Error::StaleIncarnation { present } => json!({ "present": present }),
        Error::Invalid { field, .. } => json!({ "field": field }),
        Error::NameTaken(name) | Error::AgentAsleep(name) | Error::Unreachable { name, .. } => json!({ "name": name }),
        Error::StartFailed { name, reason, .. } => json!({ "name": name, "reason": reason }),
        Error::NotHeld(id) => json!({ "id": id }),
        Error::GenerationMismatch { wanted, found } => json!({ "wanted": wanted, "found": found }),
        Error::AgentState { state, .. } => json!({ "state": state }),
        Error::MessageState { id, state } => json!({ "id": id, "state": state }),
        Error::InboxFull { name, limit, unit } => json!({ "name": name, "limit": limit, "unit": unit }),
        Error::QuotaExceeded { tenant, kind, limit } => json!({ "tenant": tenant, "kind": kind, "limit": limit }),
        Error::Gone { oldest } => json!({ "oldest": oldest }),
        _ => Value::Null,
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let (status, retry_after) = (self.status, self.retry_after);
        let info = self.into_info();
        let fault = status.is_server_error().then(|| Fault(info.clone()));
        let mut response = (status, Json(ErrorBody { error: info })).into_response();
        if let Some(fault) = fault {
            response.extensions_mut().insert(fault);
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"raworc\""));
        }
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
