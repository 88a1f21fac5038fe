//! What state a store is in, whichever release made its tables.

use std::collections::BTreeSet;

use raworc_core::store::StoreError;
use serde::Serialize;

use super::table::{HEAD, LEFT, TABLES};
use super::words::Words;
use super::{WholeError, fault};
use crate::sql::batch::Head;
use crate::sql::convert::{self, number, text};
use crate::sql::dialect::Columns;
use crate::sql::fault::{self, Fault};
use crate::sql::schema;
use crate::sql::script::{Script, Step};
use crate::sql::statements as sql;

/// What state a store is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The database, with its version.
    pub database: String,
    /// Where it is, without what is secret.
    pub place: String,
    /// Its schema; none where it has no tables yet.
    pub schema: Option<i64>,
    /// This release's schema.
    pub newest: i64,
    /// Whether a change of its tables was cut short.
    pub cut_short: bool,
    /// Its log; none where it has no tables yet.
    pub log: Option<LogStatus>,
    /// Bytes that it takes, where the database tells.
    pub bytes: Option<u64>,
    /// Its tables, as far as they are there.
    pub tables: Vec<TableRows>,
}

/// Where a log ends and begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogStatus {
    /// The last revision.
    pub head: u64,
    /// The oldest one that is kept.
    pub oldest: u64,
    /// Commits that were made, ever.
    pub commits: u64,
}

/// A table and how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableRows {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
}

/// What bringing tables up to date came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Migrated {
    /// The schema before; none where there were no tables.
    pub from: Option<i64>,
    /// The schema now.
    pub to: i64,
}

/// Where the migrations of a database have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) version: Option<i64>,
    pub(super) cut_short: bool,
}

/// Where migrations are noted.
pub(crate) const NOTES: &str = "_sqlx_migrations";

/// This release's schema.
pub(super) fn newest<D: Words>() -> i64 {
    schema::newest(D::MIGRATIONS)
}

pub(super) async fn status<D: Words>(conn: &mut D::Connection, place: &str) -> Result<Status, sqlx::Error> {
    run::<D>(conn, D::PATIENT).await?;
    let database = match run::<D>(conn, D::SERVER).await?.first() {
        Some(row) => text(row, 0)?.into_owned(),
        None => String::new(),
    };
    // Not every user may ask.
    let bytes = match run::<D>(conn, D::SIZE).await {
        Ok(rows) => rows.first().map(|row| number(row, 0)).transpose()?.and_then(|bytes| u64::try_from(bytes).ok()),
        Err(_) => None,
    };
    run::<D>(conn, D::SNAPSHOT).await?;
    let there = there::<D>(conn).await?;
    let schema = schema::<D>(conn, &there).await?;
    let mut tables = Vec::new();
    let all = TABLES.iter().map(|table| table.name()).filter(|name| *name != HEAD).chain(LEFT.iter().copied());
    for name in all.filter(|name| there.contains(*name)) {
        let rows = count::<D>(conn, name, "").await?;
        tables.push(TableRows { table: name.to_owned(), rows });
    }
    let log = if there.contains(HEAD) { head::<D>(conn, "").await? } else { None };
    let log = log.map(|head| LogStatus { head: head.revision.0, oldest: head.oldest.0, commits: head.commits });
    run::<D>(conn, D::ROLLBACK).await?;
    let Schema { version, cut_short } = schema;
    let (place, newest) = (place.to_owned(), newest::<D>());
    Ok(Status { database, place, schema: version, newest, cut_short, log, bytes, tables })
}

pub(super) async fn migrate<D: Words>(conn: &mut D::Connection, place: &str) -> Result<Migrated, WholeError> {
    let before = async {
        let there = there::<D>(conn).await?;
        schema::<D>(conn, &there).await
    };
    let from = before.await.map_err(|error| fault::<D>(&error, place))?.version;
    D::migrate(conn, D::MIGRATIONS, place).await?;
    Ok(Migrated { from, to: newest::<D>() })
}

/// Whether the tables are those of this release; they are to be looked at in the transaction that reads them.
pub(super) async fn fit<D: Words>(conn: &mut D::Connection, place: &str) -> Result<(), WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    let there = there::<D>(conn).await.map_err(failed)?;
    let Schema { version, cut_short } = schema::<D>(conn, &there).await.map_err(failed)?;
    let newest = newest::<D>();
    let unfit = |reason: String| Err(WholeError::Unfit { reason });
    match version {
        Some(version) if cut_short => unfit(fault::cut_short(place, version)),
        None => {
            unfit(format!("there is no store in {place} yet; its first start makes one, or `raworc store migrate`"))
        }
        Some(version) if version < newest => unfit(format!(
            "the tables of the database {place} are those of an older release (schema {version}, and {newest} is needed); \
             `raworc store migrate` brings them up to date"
        )),
        Some(version) if version > newest => Err(StoreError::from(Fault::newer(place, version, newest)).into()),
        Some(_) => Ok(()),
    }
}

/// The names of the tables that are there.
pub(super) async fn there<D: Words>(conn: &mut D::Connection) -> Result<BTreeSet<String>, sqlx::Error> {
    let rows = run::<D>(conn, D::TABLES).await?;
    rows.iter().map(|row| Ok(text(row, 0)?.into_owned())).collect()
}

async fn schema<D: Words>(conn: &mut D::Connection, there: &BTreeSet<String>) -> Result<Schema, sqlx::Error> {
    if !there.contains(NOTES) {
        return Ok(Schema { version: None, cut_short: false });
    }
    let rows = run::<D>(conn, "SELECT MAX(version) FROM _sqlx_migrations").await?;
    let version = rows.first().map(|row| row.int(0)).transpose()?.flatten();
    let cut_short = count::<D>(conn, NOTES, " WHERE NOT success").await? > 0;
    Ok(Schema { version, cut_short })
}

async fn count<D: Words>(conn: &mut D::Connection, table: &str, only: &str) -> Result<u64, sqlx::Error> {
    let rows = run::<D>(conn, &format!("SELECT COUNT(*) FROM {table}{only}")).await?;
    rows.first().map_or(Ok(0), |row| convert::count(row, 0))
}

/// The head, where there is one, held as `hold` says.
pub(super) async fn head<D: Words>(conn: &mut D::Connection, hold: &str) -> Result<Option<Head>, sqlx::Error> {
    let rows = run::<D>(conn, &format!("{}{hold}", sql::HEAD)).await?;
    rows.first().map(Head::of).transpose()
}

/// Runs one statement, or several that give no rows.
pub(crate) async fn run<D: Words>(conn: &mut D::Connection, statement: &str) -> Result<Vec<D::Row>, sqlx::Error> {
    let mut script = Script::default();
    script.0.push(Step::Plain(statement.to_owned().into(), Vec::new()));
    D::run(conn, script).await
}
