//! What people do in an agent's computer: run commands, move files, read its log.
//!
//! Each call wakes the agent where it may, keeps it awake for as long as a stream is open, and passes bytes between
//! the caller and the program's link as they come: what one side does not read, the other does not send.

mod exec;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod held;
mod logs;
mod reach;
#[cfg(test)]
mod tests;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ApiState;

/// The routes, relative to an agent: to be nested under `/agents/{name}` and `/tenants/{tenant}/agents/{name}`, and
/// outside of every limit on a body's size or an answer's time, for they are streams.
pub fn computer_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(exec::start))
        .routes(routes!(exec::stdout))
        .routes(routes!(exec::stderr))
        .routes(routes!(exec::stdin))
        .routes(routes!(exec::resize))
        .routes(routes!(exec::wait))
        .routes(routes!(exec::end))
        .routes(routes!(files::read, files::write, files::remove))
        .routes(routes!(files::pack, files::unpack))
        .routes(routes!(logs::logs))
        .routes(routes!(files::stats))
}
