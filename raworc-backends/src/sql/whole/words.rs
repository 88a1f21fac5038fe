//! What a database has to say of itself as a whole.

use raworc_core::store::StoreError;

use crate::sql::dialect::Dialect;
use crate::sql::schema::Migrations;

/// The words for a database as a whole, beside what it has to say as a [`Dialect`].
pub trait Words: Dialect {
    /// Asks for what it is, with its version, as people are told.
    const SERVER: &'static str;

    /// Asks for the names of its tables.
    const TABLES: &'static str;

    /// Asks for how many bytes it takes.
    const SIZE: &'static str;

    /// Lets a connection, or the transaction in which it says so, take as long as it takes.
    const PATIENT: &'static str;

    /// Begins a transaction that writes.
    const BEGIN: &'static str;

    /// What follows the question for the head, so that nobody else writes until the transaction ends.
    const HOLD: &'static str;

    /// What is to be done after many rows were written.
    const SETTLE: &'static str;

    /// Asks for each table's columns in their order: the table, the column, 0 where it may be NULL, and its type.
    #[cfg(test)]
    const CATALOG: &'static str;

    /// What its tables came about by.
    const MIGRATIONS: Migrations;

    /// Brings the tables of the database at `place` up to date. Where several do at once, one does and the others wait.
    fn migrate(
        conn: &mut Self::Connection,
        migrations: Migrations,
        place: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
