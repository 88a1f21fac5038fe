//! Bodies: JSON, up to the limit, as long as they come on.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Version};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::Whose;
use crate::server::rooms::SMALL_BODY;
use crate::server::state::BodyRoom;
use crate::server::{ApiError, ApiState};

/// How long a body may make no progress.
pub(in crate::server) const BODY_IDLE: Duration = Duration::from_secs(20);

/// Bytes of a body from somebody who is not known yet.
const STRANGERS_BODY: usize = 64 << 10;

/// How long it may take in all.
const STRANGERS_TIME: Duration = Duration::from_secs(30);

/// How long a large body waits for room. On a connection that others of its caller's requests share it would keep those from
/// being heard, and does not wait.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// How long a body may take in all.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A body of JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        Held::from_request(request, state).await.map(|Held(value, _room)| Self(value))
    }
}

/// A body of JSON with the room that it takes where it is large, to be held until what was asked for is done.
#[derive(Debug)]
pub(in crate::server) struct Held<T>(pub(in crate::server) T, pub(in crate::server) Option<BodyRoom>);

impl<T: DeserializeOwned> FromRequest<ApiState> for Held<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let whose = parts.extensions.get::<Whose>().map(|whose| whose.0.clone());
        must_be_json(&parts.headers)?;
        let bytes = state.options().body_limit;
        let limits = Limits { bytes, idle: BODY_IDLE, total: BODY_TIME };
        let wait = if parts.version < Version::HTTP_2 { ROOM_WAIT } else { Duration::ZERO };
        let (bytes, room) = read_in_room(body, &limits, async |size| state.room(whose, size, wait).await).await?;
        Ok(Self(parsed(&bytes)?, room))
    }
}

/// A body of JSON from somebody who is not known yet: a small one, which has to come at once.
#[derive(Debug, Clone, Copy)]
pub struct StrangersJson<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for StrangersJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let limit = state.options().body_limit.min(STRANGERS_BODY);
        in_time(STRANGERS_TIME, json(request, limit)).await.map(Self)
    }
}

/// Reads what may take so long in all.
pub(in crate::server) async fn in_time<T>(
    limit: Duration,
    reading: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
        let message = format!("the body took longer than {} s", limit.as_secs_f64());
        Err(ApiError::new("request_timeout", message))
    })
}

async fn json<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    must_be_json(&parts.headers)?;
    parsed(&read(body, limit, BODY_IDLE).await?)
}

fn must_be_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_json(headers) {
        return Ok(());
    }
    let message = "the body has to be JSON, with Content-Type: application/json";
    Err(ApiError::new("unsupported_media_type", message))
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::invalid("body", error),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            ApiError::new("malformed", format!("the body is not JSON: {error}"))
        }
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What a body may be.
#[derive(Debug)]
pub(in crate::server) struct Limits {
    pub(in crate::server) bytes: usize,
    /// How long it may make no progress.
    pub(in crate::server) idle: Duration,
    /// How long it may take in all, once it has room.
    pub(in crate::server) total: Duration,
}

/// Reads a body. One that is larger than most takes room first, by its length, and as the longest where it does not tell that.
///
/// # Errors
/// Where there is no room for it, or it is longer than it may be, takes longer or stands still, or ends early.
pub(in crate::server) async fn read_in_room<R>(
    body: Body,
    limits: &Limits,
    take: impl AsyncFnOnce(usize) -> Result<R, ApiError>,
) -> Result<(BytesMut, Option<R>), ApiError> {
    let limit = limits.bytes;
    let size = body.size_hint().upper().map_or(limit, |bytes| usize::try_from(bytes).unwrap_or(limit).min(limit));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let room = if size > SMALL_BODY { Some(take(size).await?) } else { None };
    Ok((in_time(limits.total, read(body, limit, limits.idle)).await?, room))
}

/// Reads a body of `limit` bytes at most that never stands still for `idle`.
///
/// # Errors
/// Where it is longer, stands still, or ends early.
pub(in crate::server) async fn read(mut body: Body, limit: usize, idle: Duration) -> Result<BytesMut, ApiError> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(limit).min(limit));
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
            ApiError::new("request_timeout", format!("nothing of the body came for {} s", idle.as_secs_f64()))
        })?;
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|_| ApiError::new("malformed", "the body ended before it was whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&data);
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new("too_large", format!("the body is longer than {limit} bytes")).with_detail("limit", limit)
}
