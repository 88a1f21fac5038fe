//! [`SqliteStore`]: everything in one SQLite file, for one process.
//!
//! One task writes, in batches that are made durable together (write-ahead log, `synchronous=FULL`); a few connections
//! read. The data directory is locked for as long as the store is open, by a lock that the operating system takes back
//! when the process ends.

mod checkpoint;
mod config;
mod dialect;
mod lock;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::any::Any;
use std::sync::Arc;

use raworc_core::store::StoreError;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Connection, SqliteConnection};
use tokio_util::sync::CancellationToken;

pub use self::config::SqliteOptions;

pub(crate) use self::dialect::Sqlite;
use self::lock::DirectoryLock;
use self::writer::Writer;
use crate::sql::Shared;
use crate::sql::dialect::Dialect;
use crate::sql::feed::Feed;
use crate::sql::store::SqlStore;
use crate::sql::time::Time;
use crate::sql::whole::{Whole, WholeStore};

/// A [`Store`](raworc_core::store::Store) and a [`BlobStore`](raworc_core::blob::BlobStore) in a SQLite file.
pub type SqliteStore = SqlStore<Sqlite>;

impl SqliteStore {
    /// Opens the store in a data directory, which is made if it is not there, and brings its tables up to date.
    /// To be called within a Tokio runtime, on which the store's writer then runs.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names the directory and the way out: in use by another process, not writable,
    /// damaged, or written by a newer release.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let lock = DirectoryLock::take(&options.directory).await?;
        let place = options.place();
        let fault = |error: sqlx::Error| Sqlite::fault(&error, &place);
        let mut conn = schema::prepare(&options).await?;
        if options.void_leases {
            sqlx::query("DELETE FROM leases").execute(&mut conn).await.map_err(fault)?;
        }
        let head = dialect::head(&mut conn).await.map_err(fault)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.reader())
            .await
            .map_err(fault)?;
        let shared = Arc::new(Shared {
            time: Arc::new(Time::of_machine(Arc::clone(&options.clock))),
            readers,
            feed: Feed::new(head.revision, head.oldest),
            recent: crate::sql::Recent::default(),
            closed: CancellationToken::new(),
            place: place.clone(),
            pooled: false,
        });
        let queue = options.queue;
        Ok(Self::new(shared, queue, |shared, jobs, _closing| {
            Writer::new(options, shared, jobs, conn, head, lock).run()
        }))
    }

    /// Opens the database in a data directory as a whole. To read it, beside a process that may have it open as a store, and
    /// without making anything; or to write it, as the only process.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the release that made its tables.
    pub async fn whole(options: &SqliteOptions, access: Access) -> Result<Box<dyn WholeStore>, StoreError> {
        let place = options.place();
        let fault = |error: sqlx::Error| Sqlite::fault(&error, &place);
        let (conn, held): (_, Option<Box<dyn Any + Send + Sync>>) = match access {
            Access::Read => {
                let is_there = options.database().try_exists().map_err(|error| StoreError::Unusable {
                    reason: format!("cannot look for the database {place}: {error}; make its directory readable"),
                })?;
                let to = if is_there { options.reader() } else { SqliteOptions::nothing() };
                (SqliteConnection::connect_with(&to).await.map_err(fault)?, None)
            }
            Access::Write => {
                let lock = DirectoryLock::take(&options.directory).await?;
                (schema::open(options).await?, Some(Box::new(lock)))
            }
        };
        Ok(Box::new(Whole::<Sqlite>::new(place, conn, held)))
    }
}

/// What a database is opened as a whole for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read it, whoever has it open.
    Read,
    /// To write it, alone.
    Write,
}
