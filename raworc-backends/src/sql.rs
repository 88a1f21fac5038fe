//! What the stores in databases have in common.
//!
//! One task writes, in batches that are made durable together; a pool of connections reads. What a commit means is worked out
//! by [`Commit::evaluate`](raworc_core::store::Commit::evaluate), never in SQL, over rows that nobody else changes
//! meanwhile. A [`Dialect`](dialect::Dialect) has all that differs from database to database.

pub(crate) mod batch;
mod blobs;
#[cfg(test)]
pub(crate) mod commits;
pub(crate) mod convert;
pub(crate) mod dialect;
pub(crate) mod fault;
pub(crate) mod feed;
mod pending;
mod purge;
#[cfg(test)]
pub(crate) mod purging;
pub(crate) mod queue;
mod read;
mod recent;
mod rowset;
pub(crate) mod schema;
pub(crate) mod script;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod server;
pub(crate) mod statements;
pub(crate) mod store;
pub(crate) mod time;
pub(crate) mod whole;

pub(crate) use recent::Recent;
pub(crate) use store::Shared;
