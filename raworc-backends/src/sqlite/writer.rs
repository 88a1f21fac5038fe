//! The one task that writes.
//!
//! It takes what is queued, and while one batch is being made durable the next one gathers: no commit waits for
//! company, and a busy store syncs once for many. What it has read stays known from batch to batch, since nobody else
//! writes. Where the database refuses a row, the batch is taken back and each of its commits is tried alone.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoints;
use super::config::SqliteOptions;
use super::dialect::{self, Sqlite};
use super::lock::DirectoryLock;
use crate::sql::Shared;
use crate::sql::batch::{Batches, Head, Retention};
use crate::sql::dialect::Dialect;
use crate::sql::fault::Fault;
use crate::sql::queue::{self, Attempt, Job, Jobs, Outcome};

/// Writes until nobody can ask for more, or until it is told to close.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteOptions,
    shared: Arc<Shared<Sqlite>>,
    jobs: Jobs,
    conn: Option<SqliteConnection>,
    checkpoints: Arc<Checkpoints>,
    batches: Batches,
    lock: DirectoryLock,
}

impl Writer {
    pub(super) fn new(
        options: SqliteOptions,
        shared: Arc<Shared<Sqlite>>,
        jobs: Jobs,
        conn: SqliteConnection,
        head: Head,
        lock: DirectoryLock,
    ) -> Self {
        let keep = Retention { events: options.keep_events, commits: options.keep_commits };
        let (batches, checkpoints) = (Batches::new(head, keep), Arc::default());
        Self { options, shared, jobs, conn: Some(conn), checkpoints, batches, lock }
    }

    pub(super) async fn run(mut self) {
        let carrying = CancellationToken::new();
        let (options, place) = (self.options.checkpointer(), self.options.database());
        let checkpoints = Arc::clone(&self.checkpoints).run(options, place, carrying.clone());
        let checkpoints = tokio::spawn(checkpoints);
        while let Some(batch) = self.jobs.next(self.options.batch).await {
            queue::write(&mut self, batch).await;
            if self.checkpoints.is_long() {
                self.finish_checkpoint().await;
            }
        }
        carrying.cancel();
        if let Err(error) = checkpoints.await {
            tracing::error!(%error, "what carries the log over did not end well");
        }
        if let Some(conn) = self.conn.take()
            && let Err(error) = conn.close().await
        {
            tracing::warn!(%error, "the database did not close well");
        }
        drop(self.lock);
    }

    /// Takes what is left of a long log, so that the next batch begins it anew.
    async fn finish_checkpoint(&mut self) {
        if let Some(conn) = &mut self.conn
            && let Err(error) = self.checkpoints.finish(conn).await
        {
            tracing::warn!(%error, "the log of the database could not be carried over");
        }
    }

    async fn reconnect(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        let mut conn = SqliteConnection::connect_with(&self.options.writer()).await?;
        let head = dialect::head(&mut conn).await?;
        if head != self.batches.head {
            self.batches.head = head;
            self.shared.feed.restart(head.revision, head.oldest);
        }
        Ok(conn)
    }
}

impl Attempt for Writer {
    /// Nobody else writes, so that it begins at once, and what comes meanwhile is the next batch.
    async fn attempt(&mut self, jobs: &mut Vec<Job>, _: bool) -> Result<Vec<Outcome>, Fault> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.reconnect().await.map_err(|error| Sqlite::fault(&error, &self.shared.place))?,
        };
        let (shared, batches) = (&self.shared, &mut self.batches);
        let changing = |_, agents: &[_]| shared.recent.forget(agents.iter().copied());
        match batches.write::<Sqlite>(&mut conn, &shared.time, jobs, |_| {}, changing).await {
            Ok(written) => {
                self.conn = Some(conn);
                shared.recent.keep(written.agents.iter().filter_map(|id| batches.rows.agents.get(id)?.as_ref()));
                if batches.rows.next_batch() {
                    shared.recent.clear();
                }
                self.checkpoints.wrote(written.outcomes.len());
                batches.head = written.head;
                shared.feed.publish(written.events, written.head.oldest);
                Ok(written.outcomes)
            }
            Err(error) => {
                batches.rows.clear();
                shared.recent.clear();
                // Closing takes the transaction back. What the disk holds after a failed sync only a new connection
                // can tell.
                if let Err(error) = conn.close().await {
                    tracing::warn!(%error, "the database did not close well");
                }
                Err(Sqlite::fault(&error, &shared.place))
            }
        }
    }
}
