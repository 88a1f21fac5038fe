//! What handlers take out of a request. Every refusal is an [`ApiError`].

pub(super) mod body;
mod path;

pub(super) use body::Held;
pub use body::{Json, StrangersJson};
pub(super) use path::segment;
pub use path::{AgentAt, AgentsOf, MessageAt};

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::{AUTHORIZATION, IF_MATCH};
use http::request::Parts;
use raworc_core::control::{Call, TokenRecord};
use raworc_core::error::Error;
use raworc_core::principal::Principal;
use serde::de::DeserializeOwned;

use super::layers::RequestId;
use super::listen::Place;
use super::places::Full;
use super::{ApiError, ApiState};
use crate::api::IDEMPOTENCY_KEY;

/// Who calls, known by their token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The call, to be handed to a use case.
    pub call: Call,
    /// Their token.
    pub token: TokenRecord,
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers)?;
        let (principal, token) = state.authenticate(token).await?;
        if let (Some(place), Principal::User { name, .. }) = (parts.extensions.get::<Place>(), &principal) {
            place.claim(name).map_err(|full| {
                let message = match full {
                    Full::Own(limit) => format!("{limit} connections are open for {principal} already; close some"),
                    Full::All(limit) => format!("users have {limit} connections open already; try again in a moment"),
                };
                ApiError::new("too_many_requests", message).with_detail("limit", full.limit()).with_retry_after(5)
            })?;
        }
        parts.extensions.insert(Whose(principal.to_string()));
        let mut call = Call::by(principal).with_token(token);
        if let Some(RequestId(id)) = parts.extensions.get() {
            call = call.with_request_id(id.clone());
        }
        if let Some(parent) = parts.extensions.get() {
            call = call.with_traceparent(*parent);
        }
        if let Some(key) = parts.headers.get(IDEMPOTENCY_KEY) {
            let key = key.to_str().ok().filter(|key| !key.contains('\t'));
            let key = key.ok_or_else(|| {
                ApiError::invalid("Idempotency-Key", "use ASCII characters that can be seen, and blanks between them")
            })?;
            call = call.with_idempotency_key(key);
        }
        Ok(Self { call, token })
    }
}

/// Who calls, for what is looked at after they are known.
#[derive(Debug, Clone)]
pub(super) struct Whose(pub(super) String);

/// The token of a request.
///
/// # Errors
/// [`Error::Unauthenticated`] where there is none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(Error::Unauthenticated {
            reason: "send a token as Authorization: Bearer; /auth/login gives people one",
        });
    };
    let parts = value.to_str().ok().and_then(|value| value.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Error::Unauthenticated { reason: "the Authorization header is not of the form: Bearer TOKEN" }),
    }
}

/// What stands after the `?`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let cause = std::error::Error::source(&rejection).map_or(rejection.to_string(), ToString::to_string);
                Err(ApiError::invalid("query", cause))
            }
        }
    }
}

/// The generation that a change is for, from `If-Match`.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<u64>);

impl FromRequestParts<ApiState> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IF_MATCH) else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        match number.parse() {
            Ok(generation) if number.bytes().all(|c| c.is_ascii_digit()) => Ok(Self(Some(generation))),
            Ok(_) | Err(_) => Err(ApiError::invalid("If-Match", "use the ETag of the agent, which is its generation")),
        }
    }
}

/// Refuses a key of idempotency where an answer cannot be given twice.
#[derive(Debug, Clone, Copy)]
pub struct NoIdempotencyKey;

impl FromRequestParts<ApiState> for NoIdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, ApiError> {
        if parts.headers.contains_key(IDEMPOTENCY_KEY) {
            return Err(ApiError::invalid("Idempotency-Key", "this call takes none; leave the header out"));
        }
        Ok(Self)
    }
}
