//! [`MysqlStore`]: in a MySQL or MariaDB database, which many processes share.

mod dialect;
#[cfg(test)]
mod tests;

pub use self::dialect::Mysql;

/// A [`Store`](raworc_core::store::Store) and a [`BlobStore`](raworc_core::blob::BlobStore) in MySQL 9 or newer, or in MariaDB
/// 10.11 or newer.
pub type MysqlStore = crate::sql::store::SqlStore<Mysql>;
