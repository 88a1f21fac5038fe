//! The tables: embedded migrations, forward only, and whether a file holds them.

use std::path::Path;

use raworc_core::store::StoreError;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use super::config::SqliteOptions;
use super::error::Fault;
use super::lock::make_database;

/// Databases up to this size are read whole when they are opened; damage of larger ones shows when it is met.
const CHECKED_SIZE: u64 = 64 << 20;

pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tables", include_str!("migrations/0001_tables.sql")),
    (2, "fewer indexes", include_str!("migrations/0002_fewer_indexes.sql")),
];

pub(super) fn migrator(migrations: &'static [(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// Opens the database's file for writing, and brings its tables up to date.
pub(super) async fn prepare(options: &SqliteOptions) -> Result<SqliteConnection, StoreError> {
    let place = options.database();
    make_database(&place).map_err(|error| StoreError::Unusable {
        reason: format!(
            "the database {} cannot be made or opened ({error}); make the directory and its files writable for this user",
            place.display()
        ),
    })?;
    let fault = |error: sqlx::Error| Fault::of(&error, &place);
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.map_err(fault)?;
    check(&mut conn, &place).await?;
    let newest = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    migrator(MIGRATIONS)
        .run_direct(None, &mut conn, false)
        .await
        .map_err(|error| Fault::of_migration(&error, &place, newest))?;
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
        Ok(verdict) => Err(Fault::damaged(place, verdict.trim()).into()),
        Err(error) => Err(Fault::of(&error, place).into()),
    }
}
