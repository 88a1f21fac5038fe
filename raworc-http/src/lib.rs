//! Raworc over HTTP.
//!
//! - Feature `server`: [`router`](server::router) makes an axum router of a control plane, to be served with
//!   [`serve`](server::serve) or mounted in an application of one's own. The agents' listener is beside it.
//! - Feature `client`: [`Client`](client::Client) calls such a server.
//! - [`api`]: what both say to each other beside the types of `raworc-core`.

pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;
