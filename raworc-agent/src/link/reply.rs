//! Bodies, queries and errors of what the link serves.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{Method, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes that a JSON body may hold.
const JSON_LIMIT: usize = 1 << 20;

/// Why the link did not do what it was asked.
#[derive(Debug)]
pub(super) struct LinkError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl LinkError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn method(method: &Method) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{method} is not served here"))
    }

    /// What an error of the file system means.
    pub(super) fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let (status, code) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => (StatusCode::FORBIDDEN, "permission_denied"),
            Kind::IsADirectory => (StatusCode::CONFLICT, "is_directory"),
            Kind::NotADirectory => (StatusCode::CONFLICT, "not_directory"),
            Kind::DirectoryNotEmpty => (StatusCode::CONFLICT, "directory_not_empty"),
            Kind::AlreadyExists => (StatusCode::CONFLICT, "exists"),
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                (StatusCode::INSUFFICIENT_STORAGE, "no_space")
            }
            Kind::InvalidInput | Kind::InvalidFilename => (StatusCode::BAD_REQUEST, "invalid"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "io"),
        };
        Self::new(status, code, format!("{what}: {error}"))
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = crate::errors::body(self.code, &self.message).to_string();
        respond(self.status, "application/json", full(body))
    }
}

/// A body that is there as a whole.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes as it goes.
pub(super) fn streamed(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

/// An answer.
pub(super) fn respond(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
    response
}

/// An answer of bytes as they come.
pub(super) fn bytes(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    respond(StatusCode::OK, "application/octet-stream", streamed(stream))
}

/// An answer in JSON.
pub(super) fn respond_json(value: &impl Serialize) -> Result<Response<Body>, LinkError> {
    let json = serde_json::to_vec(value)
        .map_err(|error| LinkError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    Ok(respond(StatusCode::OK, "application/json", full(json)))
}

/// An answer without a body.
pub(super) fn done() -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Reads a body of JSON.
pub(super) async fn json<T: DeserializeOwned>(body: Incoming) -> Result<T, LinkError> {
    let whole = Limited::new(body, JSON_LIMIT).collect().await;
    let whole = whole.map_err(|error| LinkError::invalid(format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&whole.to_bytes()).map_err(|error| LinkError::invalid(error.to_string()))
}

/// The query of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key).into_owned(), decode(value).into_owned())
                })
                .collect(),
        )
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn need(&self, key: &str) -> Result<&str, LinkError> {
        let value = self.get(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| LinkError::invalid(format!("the query names no {key}")))
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("" | "true" | "1"))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, LinkError> {
        let number = self.get(key).map(str::parse).transpose();
        number.map_err(|_| LinkError::invalid(format!("{key} is no number")))
    }

    /// Permission bits, in octal digits.
    pub(super) fn mode(&self) -> Result<Option<u32>, LinkError> {
        let mode = self.get("mode").map(|digits| u32::from_str_radix(digits, 8)).transpose();
        let mode = mode.map_err(|_| LinkError::invalid("mode is no octal number"))?;
        Ok(mode.map(|mode| mode & 0o777))
    }
}

/// Undoes percent-encoding; `+` is a blank.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut n = 0;
    while n < bytes.len() {
        let hex = bytes.get(n + 1..n + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[n], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                n += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        n += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned().into()
}
