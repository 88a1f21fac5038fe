//! Who calls: logging in, out, and asking.

use axum::Json as Reply;
use axum::extract::State;
use http::StatusCode;
use raworc_core::control::LoginRequest;
use raworc_core::error::Error;
use raworc_core::principal::Principal;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ErrorBody, LoginReply, WhoAmI};
use crate::server::extract::{Caller, NoIdempotencyKey, StrangersJson};
use crate::server::{ApiError, ApiState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout)).routes(routes!(who))
}

/// Trades a user's name and password for a token.
#[utoipa::path(
    post, path = "/auth/login", operation_id = "login", tag = "auth",
    request_body = LoginRequest, security(()),
    responses(
        (status = 200, description = "The token.", body = LoginReply),
        (status = 401, description = "`unauthenticated`: wrong user or password", body = ErrorBody),
    )
)]
async fn login(
    State(state): State<ApiState>,
    _: NoIdempotencyKey,
    StrangersJson(request): StrangersJson<LoginRequest>,
) -> Result<Reply<LoginReply>, ApiError> {
    // Each takes some 20 MB and a core for a while.
    let turn = state.logins().acquire().await;
    let principal = state.control().login(request).await?;
    drop(turn);
    let issued = state.tokens().issue(&principal, state.options().token_ttl)?;
    let Principal::User { name, tenant, admin } = principal else {
        return Err(Error::Internal("somebody logged in who is no user".into()).into());
    };
    let expires_at = issued.record.expires_at;
    Ok(Reply(LoginReply { token: issued.token, expires_at, user: name, tenant, admin }))
}

/// From now on the token of this call is refused, on every server.
#[utoipa::path(
    post, path = "/auth/logout", operation_id = "logout", tag = "auth",
    responses((status = 204, description = "It is revoked."))
)]
async fn logout(State(state): State<ApiState>, caller: Caller, _: NoIdempotencyKey) -> Result<StatusCode, ApiError> {
    state.control().revoke(&caller.call).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whose token this is.
#[utoipa::path(
    get, path = "/auth", operation_id = "who_am_i", tag = "auth",
    responses((status = 200, description = "The user.", body = WhoAmI))
)]
async fn who(Caller { call, token }: Caller) -> Result<Reply<WhoAmI>, ApiError> {
    let Principal::User { name, tenant, admin } = call.principal else {
        return Err(Error::Internal("a token of the API is no user's".into()).into());
    };
    Ok(Reply(WhoAmI { user: name, tenant, admin, token: token.id, expires_at: token.expires_at }))
}
