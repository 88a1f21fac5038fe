//! [`PostgresStore`]: in a PostgreSQL database, which many processes share.

mod dialect;
#[cfg(test)]
mod tests;

pub use self::dialect::Postgres;

/// A [`Store`](raworc_core::store::Store) and a [`BlobStore`](raworc_core::blob::BlobStore) in PostgreSQL 15 or newer.
pub type PostgresStore = crate::sql::store::SqlStore<Postgres>;
