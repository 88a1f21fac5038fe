//! `POST /cancel`: a message is given up.

use http::Response;
use raworc_core::program::CancelRequest;

use super::reply::{Body, LinkError, done};
use crate::shared::Shared;

/// Gives a message up. One that is not in hand may be soon, and is given up then.
pub(super) fn cancel(shared: &Shared, request: CancelRequest) -> Result<Response<Body>, LinkError> {
    shared.cancel(request.message);
    Ok(done())
}
