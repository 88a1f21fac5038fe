//! A store as a whole: what state it is in, all of it out and in, and whether it is sound.
//!
//! An export is one stream of what a database holds at one moment, which any other kind of database can take in. It is
//! counted and summed table by table in a form that is the same for all of them. See [`WholeStore`].

mod check;
mod export;
mod format;
mod import;
pub(crate) mod status;
pub(crate) mod table;
#[cfg(all(test, feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod tests;
pub(crate) mod words;

use std::any::Any;
use std::fmt;

use async_trait::async_trait;
use raworc_core::store::StoreError;
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use tokio::io::{AsyncBufRead, AsyncWrite};

pub use self::status::{LogStatus, Migrated, Status, TableRows};

use self::words::Words;

/// Why something that was asked of a whole store was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WholeError {
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is not in the state for it; nothing was changed.
    #[error("{reason}")]
    Unfit {
        /// What state it is in, and the way out.
        reason: String,
    },
    /// What was to be read is no export of this form, or not a whole one; nothing was changed.
    #[error("the export cannot be taken: {reason}")]
    Export {
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The export could not be read.
    #[error("the export cannot be read")]
    Read(#[source] std::io::Error),
    /// The export could not be written.
    #[error("the export cannot be written")]
    Write(#[source] std::io::Error),
}

/// How many rows a table has, and what they come to: the same on every database for the same rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableSum {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// The SHA-256 of all of them in their order, in hexadecimal digits.
    pub sha256: String,
}

/// What a store holds, table by table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contents {
    /// Its tables, in the order in which they are exported.
    pub tables: Vec<TableSum>,
}

impl Contents {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// A sentence for each table in which these contents of `here` are not those of `there`.
    #[must_use]
    pub fn differences(&self, here: &str, other: &Self, there: &str) -> Vec<String> {
        let mut differences = Vec::new();
        for table in &self.tables {
            let name = &table.table;
            match other.tables.iter().find(|other| other.table == *name) {
                None => differences.push(format!("{name} is not in {there}")),
                Some(other) if other.rows != table.rows => {
                    differences
                        .push(format!("{name} has {} rows in {here}, and {} in {there}", table.rows, other.rows));
                }
                Some(other) if other.sha256 != table.sha256 => {
                    differences.push(format!("{name} has other rows in {here} than in {there}"));
                }
                Some(_) => {}
            }
        }
        let known = |name: &String| self.tables.iter().any(|table| table.table == *name);
        let others = other.tables.iter().filter(|other| !known(&other.table));
        differences.extend(others.map(|other| format!("{} is not in {here}", other.table)));
        differences
    }
}

/// What a look at every row of a store came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verified {
    /// What it holds.
    pub contents: Contents,
    /// What is wrong, a sentence each: the first of it where it is much.
    pub flaws: Vec<String>,
    /// How much is wrong.
    pub flawed: u64,
}

/// Hears of the table that is being worked on, and how many of its rows are done.
pub type Told<'a> = &'a (dyn Fn(&str, u64) + Send + Sync);

/// A store's database, opened for what is done to it as a whole. Its tables may be of any release, or not be there.
///
/// # Contract
/// - What only reads sees the database as it is at one moment, whoever writes meanwhile, and changes nothing.
/// - A call whose future is dropped leaves the database as it was; the connection is not to be used after that.
#[async_trait]
pub trait WholeStore: Send + fmt::Debug {
    /// Where it is, without what is secret.
    fn place(&self) -> &str;

    /// What state it is in, whichever release made its tables.
    ///
    /// # Errors
    /// [`WholeError::Store`] where the database does not answer.
    async fn status(&mut self) -> Result<Status, WholeError>;

    /// Brings its tables up to date, or makes them.
    ///
    /// # Errors
    /// [`WholeError::Store`] with the way out where a newer release made them, or a change of them was cut short.
    async fn migrate(&mut self) -> Result<Migrated, WholeError>;

    /// Writes all that it keeps to `to`, but for leases, which are signs of life. What is sealed stays sealed: without the
    /// installation's master key nobody can use it.
    ///
    /// # Errors
    /// [`WholeError::Unfit`] where its tables are not this release's; [`WholeError::Write`] where the export cannot be written.
    async fn export(
        &mut self,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        told: Told<'_>,
    ) -> Result<Contents, WholeError>;

    /// Takes an export into this store, which has to be empty, in one transaction, and reads it back before that is committed.
    /// Revisions and numbers go on where those of the export ended.
    ///
    /// # Errors
    /// [`WholeError::Export`] says what is wrong with the export; [`WholeError::Unfit`] where the store is not empty.
    async fn import(
        &mut self,
        from: &mut (dyn AsyncBufRead + Send + Unpin),
        told: Told<'_>,
    ) -> Result<Contents, WholeError>;

    /// Reads every row, and looks at whether it is one that this release can read and agrees with the others.
    ///
    /// # Errors
    /// [`WholeError::Unfit`] where its tables are not this release's. What is wrong with rows is no error, see [`Verified`].
    async fn verify(&mut self, told: Told<'_>) -> Result<Verified, WholeError>;

    /// Lets go of the database.
    async fn close(self: Box<Self>);
}

/// Reads an export to its end, and tells what it holds.
///
/// # Errors
/// [`WholeError::Export`] says what is wrong with it; [`WholeError::Read`] where it cannot be read.
pub async fn read_export(from: &mut (dyn AsyncBufRead + Send + Unpin), told: Told<'_>) -> Result<Contents, WholeError> {
    let mut reader = format::Reader::begin(from).await?;
    let mut count = Count::new(told);
    while let Some((table, _)) = reader.next().await? {
        count.row(table.name());
    }
    Ok(reader.contents())
}

/// A database of one kind.
pub(crate) struct Whole<D: Words> {
    place: String,
    conn: D::Connection,
    /// What keeps others away, for as long as it is here.
    held: Option<Box<dyn Any + Send + Sync>>,
}

impl<D: Words> Whole<D> {
    /// Over a connection; `held` is let go of after it.
    pub(crate) fn new(place: String, conn: D::Connection, held: Option<Box<dyn Any + Send + Sync>>) -> Self {
        Self { place, conn, held }
    }

    fn fault(&self, error: &sqlx::Error) -> WholeError {
        fault::<D>(error, &self.place)
    }
}

fn fault<D: Words>(error: &sqlx::Error, place: &str) -> WholeError {
    WholeError::Store(D::fault(error, place).into())
}

impl<D: Words> fmt::Debug for Whole<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("place", &self.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl<D: Words> WholeStore for Whole<D> {
    fn place(&self) -> &str {
        &self.place
    }

    async fn status(&mut self) -> Result<Status, WholeError> {
        status::status::<D>(&mut self.conn, &self.place).await.map_err(|error| self.fault(&error))
    }

    async fn migrate(&mut self) -> Result<Migrated, WholeError> {
        status::migrate::<D>(&mut self.conn, &self.place).await
    }

    async fn export(
        &mut self,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        told: Told<'_>,
    ) -> Result<Contents, WholeError> {
        export::export::<D>(&mut self.conn, &self.place, to, told).await
    }

    async fn import(
        &mut self,
        from: &mut (dyn AsyncBufRead + Send + Unpin),
        told: Told<'_>,
    ) -> Result<Contents, WholeError> {
        import::import::<D>(&mut self.conn, &self.place, from, told).await
    }

    async fn verify(&mut self, told: Told<'_>) -> Result<Verified, WholeError> {
        check::verify::<D>(&mut self.conn, &self.place, told).await
    }

    async fn close(self: Box<Self>) {
        let Self { place, conn, held } = *self;
        if let Err(error) = conn.close().await {
            tracing::warn!(%error, %place, "the database did not close well");
        }
        drop(held);
    }
}

/// Tells of progress, not of every row.
pub(crate) struct Count<'a> {
    told: Told<'a>,
    table: &'static str,
    rows: u64,
}

impl<'a> Count<'a> {
    fn new(told: Told<'a>) -> Self {
        Self { told, table: "", rows: 0 }
    }

    fn row(&mut self, table: &'static str) {
        if self.table != table {
            (self.table, self.rows) = (table, 0);
        }
        self.rows += 1;
        if self.rows == 1 || self.rows.is_multiple_of(EACH) {
            (self.told)(table, self.rows);
        }
    }
}

/// Rows after which progress is told.
const EACH: u64 = 1000;
