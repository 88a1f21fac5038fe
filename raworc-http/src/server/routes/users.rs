//! Users.

use axum::Json as Reply;
use axum::extract::State;
use http::StatusCode;
use raworc_core::control::{NewUser, User};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::ErrorBody;
use crate::server::extract::{Caller, Json, NoIdempotencyKey};
use crate::server::{ApiError, ApiState};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Makes a user. For admins.
#[utoipa::path(
    post, path = "/users", operation_id = "create_user", tag = "users",
    request_body = NewUser,
    responses(
        (status = 201, description = "The user.", body = User),
        (status = 403, description = "`forbidden`", body = ErrorBody),
    )
)]
async fn create(
    State(state): State<ApiState>,
    caller: Caller,
    _: NoIdempotencyKey,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Reply<User>), ApiError> {
    Ok((StatusCode::CREATED, Reply(state.control().create_user(&caller.call, new).await?)))
}
