//! Embedded migrations, forward only.

use raworc_core::store::StoreError;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::convert::{number, text};
use super::fault::Fault;
use super::whole::status::{NOTES, run};
use super::whole::words::Words;

/// How the name of a migration ends that leaves the release before it at work: what it adds, that one need not know of.
const BESIDE: &str = ", beside";

/// A migration: its version, what it does, and its statements. One whose name ends with `, beside` is taken for what an
/// earlier release can work with. A release that writes documents, or kinds of events, that the one before cannot read has one
/// without that name, if only one that changes nothing.
pub(crate) type Migrations = &'static [(i64, &'static str, &'static str)];

pub(crate) fn migrator(migrations: Migrations) -> Migrator {
    let migration = |&(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// Brings the tables of a store that is to be opened up to date. Those of a later release are taken as they are where that left
/// this one at work: one process after another is brought to a new release.
pub(crate) async fn bring_up_to_date<D: Words>(conn: &mut D::Connection, place: &str) -> Result<(), StoreError> {
    let fault = |error: sqlx::Error| StoreError::from(D::fault(&error, place));
    let later = later_migrations::<D>(conn).await.map_err(fault)?;
    match later.last() {
        None => D::migrate(conn, D::MIGRATIONS, place).await,
        Some(_) if later.iter().all(|(_, name)| name.ends_with(BESIDE)) => {
            let (ours, theirs) = (newest(D::MIGRATIONS), later.last().map(|(version, _)| *version));
            tracing::info!(%place, ours, theirs, "the tables are those of a later release, which leave this one at work");
            Ok(())
        }
        Some((version, _)) => Err(Fault::newer(place, *version, newest(D::MIGRATIONS)).into()),
    }
}

/// The migrations that this release does not know, with their names, in their order.
async fn later_migrations<D: Words>(conn: &mut D::Connection) -> Result<Vec<(i64, String)>, sqlx::Error> {
    let tables = run::<D>(conn, D::TABLES).await?;
    let names = tables.iter().map(|row| text(row, 0)).collect::<Result<Vec<_>, _>>()?;
    if !names.iter().any(|name| name == NOTES) {
        return Ok(Vec::new());
    }
    let newest = newest(D::MIGRATIONS);
    let later = format!("SELECT version, description FROM {NOTES} WHERE version > {newest} ORDER BY version");
    let rows = run::<D>(conn, &later).await?;
    rows.iter().map(|row| Ok((number(row, 0)?, text(row, 1)?.into_owned()))).collect()
}

/// The version that the last of them leads to.
pub(crate) fn newest(migrations: Migrations) -> i64 {
    migrations.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

/// Brings the tables of the database at `place` up to date. Where several do at once, one does and the others wait.
pub(crate) async fn migrate<C: Migrate>(
    conn: &mut C,
    migrations: Migrations,
    place: &str,
    of: impl FnOnce(&sqlx::Error, &str) -> Fault,
) -> Result<(), StoreError> {
    let newest = newest(migrations);
    let done = migrator(migrations).run_direct(None, conn, false).await;
    done.map_err(|error| Fault::of_migration(&error, place, newest, of).into())
}
