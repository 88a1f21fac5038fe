//! Embedded migrations, forward only.

use raworc_core::store::StoreError;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::fault::Fault;

/// A migration: its version, what it does, and its statements.
pub(crate) type Migrations = &'static [(i64, &'static str, &'static str)];

pub(crate) fn migrator(migrations: Migrations) -> Migrator {
    let migration = |&(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// Brings the tables of the database at `place` up to date. Where several do at once, one does and the others wait.
pub(crate) async fn migrate<C: Migrate>(
    conn: &mut C,
    migrations: Migrations,
    place: &str,
    of: impl FnOnce(&sqlx::Error, &str) -> Fault,
) -> Result<(), StoreError> {
    let newest = migrations.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    let done = migrator(migrations).run_direct(None, conn, false).await;
    done.map_err(|error| Fault::of_migration(&error, place, newest, of).into())
}
