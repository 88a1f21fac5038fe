//! Who calls, and what they say.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::request::Parts;
use raworc_core::control::Call;
use raworc_core::principal::Principal;
use raworc_core::trace;
use serde::de::DeserializeOwned;

use super::AgentsState;
use super::listener::{Place, Room};
use crate::server::error::ApiError;
use crate::server::extract::{bearer, body};

/// The program whose token the request bears. Whether its start is the present one is the control plane's to say.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) call: Call,
}

impl FromRequestParts<AgentsState> for Program {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AgentsState) -> Result<Self, ApiError> {
        let token = state.tokens.verify_agent(bearer(&parts.headers)?)?;
        if let Some(place) = parts.extensions.get::<Place>() {
            place.claim(token.computer)?;
        }
        if let Principal::Agent { agent, .. } = &token.principal {
            trace::note("raworc.agent", agent);
        }
        Ok(Self { call: Call::by(token.principal) })
    }
}

/// Bytes of a report that holds little.
const SHORT: usize = 256 << 10;

/// Reads a body of `limit` bytes at most. A larger one takes room among those of all computers, for as long as the room
/// is held.
pub(super) async fn read(request: Request, limit: usize) -> Result<(Bytes, Option<Room>), ApiError> {
    let (mut parts, body) = request.into_parts();
    let Some(place) = parts.extensions.remove::<Place>() else {
        return Ok((body::read(body, limit, body::BODY_IDLE).await?.freeze(), None));
    };
    let listens = place.limits();
    let limits = body::Limits { bytes: limit, idle: listens.body_idle, total: listens.body_total };
    let (bytes, room) = body::read_in_room(body, &limits, async |size| place.room(size).await).await?;
    Ok((bytes.freeze(), room))
}

/// A body of JSON, whatever the caller says that it is, of so many bytes at most, with the room that it takes where it is
/// large, to be held until what it tells is written.
#[derive(Debug)]
pub(super) struct JsonBody<T, const LIMIT: usize = SHORT>(pub(super) T, pub(super) Option<Room>);

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> FromRequest<S> for JsonBody<T, LIMIT> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (bytes, room) = read(request, LIMIT).await?;
        // Where older programs say nothing.
        let bytes = if bytes.is_empty() { b"null" } else { &bytes[..] };
        serde_json::from_slice(bytes).map(|value| Self(value, room)).map_err(|error| ApiError::invalid("body", error))
    }
}
