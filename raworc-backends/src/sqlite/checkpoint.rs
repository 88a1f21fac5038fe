//! Carries what the write-ahead log holds into the database, beside the writer.
//!
//! A commit that did this itself would be the slow one of its neighbours: a thousand pages are written and synced for it.
//! A connection of its own takes the bulk of that away while commits go on. The log can begin anew only once all of it is
//! carried over, which under load no connection but the writer's can see to: when the log is long it is asked to take the
//! rest, which is little by then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::convert::count;
use super::sql;

/// How long the log gathers before it is carried over. Pages in use change again and again and are written once; but the
/// more there are, the longer commits have to share the disk.
const PERIOD: Duration = Duration::from_millis(500);

/// Pages in the log from which on it is to begin anew.
const LONG: u64 = 8192;

/// What the writer and the checkpoints tell each other.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    written: Notify,
    long: AtomicBool,
}

impl Checkpoints {
    /// Something was written.
    pub(super) fn wrote(&self) {
        self.written.notify_one();
    }

    /// Whether the log has become long, so that the writer takes the rest of it. Tells so once.
    pub(super) fn take_long(&self) -> bool {
        self.long.swap(false, Ordering::Relaxed)
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
                tokio::time::sleep(PERIOD).await;
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
        if checkpoint(conn).await? > LONG {
            self.long.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Carries over as much as can be without anybody waiting. Gives the pages in the log.
pub(super) async fn checkpoint(conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    count(&sqlx::query(sql::CHECKPOINT).fetch_one(conn).await?, 1)
}
