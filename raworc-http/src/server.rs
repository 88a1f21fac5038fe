//! The server: the API's router, and what it stands on.
//!
//! [`router`] is the whole API of a control plane as an axum router; [`serve`] answers with it on a listener. Both are
//! conveniences over [`ApiState`] and the routes, for applications that mount them in their own way.

mod acts;
pub mod agents;
mod alive;
mod authority;
pub mod computers;
pub mod error;
pub mod extract;
#[cfg(feature = "failpoints")]
mod failpoints;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod internal;
mod layers;
mod listen;
pub mod metrics;
pub mod openapi;
mod options;
mod places;
#[cfg(feature = "failpoints")]
pub mod remote;
mod rooms;
mod routes;
mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokens;
mod unread;

pub use error::ApiError;
pub use layers::RequestId;
pub use listen::{ConnectionLimits, serve, serve_within};
pub use options::{CALLS_PER_COMPUTER, Options, ReadyCheck, STREAMS_PER_PRINCIPAL};
pub use routes::{document, health_router, router, router_of};
pub use state::{ApiState, StreamGuard};
pub use tokens::Tokens;
