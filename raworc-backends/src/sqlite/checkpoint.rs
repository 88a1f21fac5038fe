//! Carries what the write-ahead log holds into the database, beside the writer.
//!
//! A commit that did this itself would be the slow one of its neighbours: a thousand pages are written and synced for it.
//! A connection of its own takes the bulk of that away while commits go on. The log can begin anew only once all of it is
//! carried over, which under load no connection but the writer's can see to: when the log is long it is asked to take the
//! rest, which is little by then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long the log gathers at most before it is carried over. Pages in use change again and again, and are written once.
const PERIOD: Duration = Duration::from_secs(5);

/// Commits after which it is carried over at once: the more pages there are, the longer commits share the disk with that.
const MANY: usize = 1024;

/// Pages in the log from which on it is to begin anew.
const LONG: i64 = 8192;

/// What the writer and the checkpoints tell each other.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Since the log was carried over.
    commits: AtomicUsize,
    written: Notify,
    long: AtomicBool,
}

impl Checkpoints {
    /// So much was written.
    pub(super) fn wrote(&self, commits: usize) {
        self.commits.fetch_add(commits, Ordering::Relaxed);
        self.written.notify_one();
    }

    /// Whether the log has become long, so that the writer is to take the rest of it.
    pub(super) fn is_long(&self) -> bool {
        self.long.load(Ordering::Relaxed)
    }

    /// Takes that rest on the writer's connection, so that the next batch begins the log anew.
    pub(super) async fn finish(&self, conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // Where the other connection is at it, the next batch is followed by another try.
        if checkpoint(conn).await?.is_some() {
            self.long.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Carries over what is written, again and again, until `closing`.
    pub(super) async fn run(
        self: Arc<Self>,
        options: SqliteConnectOptions,
        place: PathBuf,
        closing: CancellationToken,
    ) {
        let mut conn = None;
        let rounds = async {
            loop {
                self.written.notified().await;
                drop(tokio::time::timeout(PERIOD, self.until_many()).await);
                self.commits.store(0, Ordering::Relaxed);
                match self.round(&mut conn, &options).await {
                    Ok(()) => {}
                    Err(error) => {
                        // What was committed is safe in the log; it is carried over when there is room again.
                        let place = place.display();
                        tracing::warn!(%error, %place, "the log of the database could not be carried over");
                        conn = None;
                    }
                }
            }
        };
        closing.run_until_cancelled(rounds).await;
        // The writer's connection is the last, so that it takes the log away.
        if let Some(conn) = conn.take() {
            drop(conn.close().await);
        }
    }

    async fn until_many(&self) {
        while self.commits.load(Ordering::Relaxed) < MANY {
            self.written.notified().await;
        }
    }

    async fn round(
        &self,
        conn: &mut Option<SqliteConnection>,
        options: &SqliteConnectOptions,
    ) -> Result<(), sqlx::Error> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(SqliteConnection::connect_with(options).await?),
        };
        checkpoint(conn).await?;
        // What was written meanwhile; the writer has that much less to do.
        if checkpoint(conn).await?.is_some_and(|pages| pages > LONG) {
            self.long.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Carries over as much as can be without anybody waiting. Gives the pages in the log, or nothing where another connection
/// is at it.
async fn checkpoint(conn: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(conn).await?;
    let (busy, pages): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok((busy == 0).then_some(pages))
}
