//! Connections that programs hand over: HTTP/1.1 upgrades to protocols of our own.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use crate::server::error::ApiError;

/// The connection of a request that asks for `protocol`, once [`switching`] was answered.
///
/// # Errors
/// Where it does not ask for it.
pub(super) fn asked(request: &mut Request, protocol: &'static str) -> Result<OnUpgrade, ApiError> {
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let asks = upgrade.is_some_and(|value| value.trim().eq_ignore_ascii_case(protocol));
    request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks).ok_or_else(|| {
        let message = format!("this address is for a program's own connection: HTTP/1.1 with `Upgrade: {protocol}`");
        ApiError::new("upgrade_required", message)
    })
}

/// The answer that makes the connection one of `protocol`.
pub(super) fn switching(protocol: &'static str) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(protocol)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
