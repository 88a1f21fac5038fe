//! Who calls, and what they say.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use raworc_core::control::Call;
use raworc_core::error::Error;
use serde::de::DeserializeOwned;

use super::AgentsState;
use crate::server::error::ApiError;

/// The program whose token the request bears. Whether its start is the present one is the control plane's to say.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) call: Call,
}

impl FromRequestParts<AgentsState> for Program {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AgentsState) -> Result<Self, ApiError> {
        const MISSING: Error = Error::Unauthenticated { reason: "a program's token is needed: Authorization: Bearer" };
        let header = parts.headers.get(http::header::AUTHORIZATION).ok_or(MISSING)?;
        let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(MISSING)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(MISSING.into());
        }
        let token = state.tokens.verify_agent(token.trim())?;
        Ok(Self { call: Call::by(token.principal) })
    }
}

/// A body of JSON, whatever the caller says that it is.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::new("too_large", "the body is larger than this address takes")
            } else {
                ApiError::invalid("body", rejection.body_text())
            }
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| ApiError::invalid("body", error.to_string()))
    }
}
