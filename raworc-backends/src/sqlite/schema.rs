//! The tables, and whether a file holds them.

use std::path::Path;

use raworc_core::store::StoreError;
use sqlx::{Connection, SqliteConnection};

use super::config::SqliteOptions;
use super::dialect::Sqlite;
use super::lock::make_database;
use crate::sql::dialect::Dialect;
use crate::sql::fault::Fault;
use crate::sql::schema::{Migrations, bring_up_to_date};

/// Databases up to this size are read whole when they are opened; damage of larger ones shows when it is met.
const CHECKED_SIZE: u64 = 64 << 20;

pub(super) const MIGRATIONS: Migrations = &[
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (2, "fewer indexes", include_str!("migrations/0002_fewer_indexes.sql")),
    (3, "references, beside", include_str!("migrations/0003_references.sql")),
];

/// Opens the database's file for writing, and brings its tables up to date.
pub(super) async fn prepare(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    let mut conn = open(options).await?;
    bring_up_to_date::<Sqlite>(&mut conn, &options.place()).await?;
    Ok(conn)
}

/// Opens the database's file for writing, as it is, or makes it.
pub(super) async fn open(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    let place = options.database();
    make_database(&place).map_err(|error| StoreError::Unusable {
        reason: format!(
            "the database {} cannot be made or opened ({error}); make the directory and its files writable for this user",
            place.display()
        ),
    })?;
    let fault = |error: sqlx::Error| Sqlite::fault(&error, &options.place());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.map_err(fault)?;
    check(&mut conn, &place).await?;
    Ok(conn)
}

async fn check(conn: &mut SqliteConnection, place: &Path) -> Result<(), StoreError> {
    let size = std::fs::metadata(place).map_or(0, |file| file.len());
    if size > CHECKED_SIZE {
        return Ok(());
    }
    let result: Result<String, _> = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(conn).await;
    match result {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(Fault::damaged(&place.display().to_string(), verdict.trim()).into()),
        Err(error) => Err(Sqlite::fault(&error, &place.display().to_string()).into()),
    }
}
