//! The one task of a process that writes to a database server.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{ConnectTo, Server, connect};
use crate::sql::Shared;
use crate::sql::batch::{Batches, Head};
use crate::sql::fault::Fault;
use crate::sql::queue::{self, Attempt, Job, Jobs, Outcome};

/// How long one transaction may take, the wait for its turn among the processes included.
const LIMIT: Duration = Duration::from_secs(10);

/// For how long a batch is tried again where the database does not answer, or has given up on it: a restart or a fail-over
/// takes about that long. Its commits are found by their ids where an attempt was made without an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Between two attempts, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Writes until nobody can ask for more, or until it is told to close.
pub(super) struct Writer<D: Server> {
    shared: Arc<Shared<D>>,
    jobs: Jobs,
    to: ConnectTo<D>,
    conn: Option<D::Connection>,
    batches: Batches,
    /// Commits that a batch has at most: fewer than the largest ones after a batch took too long.
    most: usize,
    largest: usize,
    /// Whether the last batch could not be written: the next ones are not waited for as long, or all would queue up.
    failing: bool,
    /// Others have written before this process did: its own events are not all that is new.
    grown: Arc<Notify>,
}

impl<D: Server> Writer<D> {
    pub(super) const fn new(
        shared: Arc<Shared<D>>,
        jobs: Jobs,
        to: ConnectTo<D>,
        conn: D::Connection,
        batches: Batches,
        most: usize,
        grown: Arc<Notify>,
    ) -> Self {
        Self { shared, jobs, to, conn: Some(conn), batches, most, largest: most, failing: false, grown }
    }

    pub(super) async fn run(mut self) {
        while let Some(batch) = self.jobs.next(self.most).await {
            queue::write(&mut self, batch).await;
        }
        if let Some(conn) = self.conn.take() {
            drop(timeout(super::CONNECT_LIMIT, conn.close()).await);
        }
    }

    /// Does the work in one transaction: all of it, or none. What comes while others write is done with it, and need not wait for
    /// another turn.
    async fn once(&mut self, batch: &mut Vec<Job>, grows: bool) -> Result<Vec<Outcome>, Fault> {
        let fault = |error: sqlx::Error| D::fault(&error, &self.shared.place);
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => connect::<D>(&self.to).await.map_err(fault)?,
        };
        let feed = &self.shared.feed;
        let begun = |head: Head, _: &[_]| {
            // Nobody else writes now, and yet others have been told of more: this is another database than it was.
            if head.revision < feed.head() {
                feed.went_back(head.revision, head.oldest);
            }
        };
        let most = if grows { self.most } else { 1 };
        let more = |batch: &mut Vec<Job>| self.jobs.add_to(batch, most);
        let writing = self.batches.write::<D>(&mut conn, &self.shared.time, batch, more, begun);
        let written = timeout(LIMIT, writing).await;
        // Others write too, so that what was read is true no longer.
        self.batches.rows.clear();
        match written {
            Ok(Ok(written)) => {
                self.conn = Some(conn);
                self.batches.head = written.head;
                self.most = (self.most * 2).min(self.largest);
                if !self.shared.feed.publish(written.events, written.head.oldest) {
                    self.grown.notify_one();
                }
                Ok(written.outcomes)
            }
            Ok(Err(error)) => {
                // Closing takes the transaction back, if it is not committed.
                drop(timeout(super::CONNECT_LIMIT, conn.close()).await);
                Err(D::fault(&error, &self.shared.place))
            }
            Err(_) => {
                self.most = (self.most / 2).max(1);
                let reason =
                    format!("the database {} has not answered within {} s", self.shared.place, LIMIT.as_secs());
                Err(Fault::unavailable(reason))
            }
        }
    }
}

impl<D: Server> Attempt for Writer<D> {
    /// Does the work, again where that may help.
    async fn attempt(&mut self, batch: &mut Vec<Job>, grows: bool) -> Result<Vec<Outcome>, Fault> {
        let patience = if self.failing { Duration::ZERO } else { PATIENCE };
        let (until, mut pause) = (Instant::now() + patience, PAUSES.0);
        loop {
            let fault = match self.once(batch, grows).await {
                Err(fault) if fault.is_passing() => fault,
                done => {
                    self.failing = false;
                    return done;
                }
            };
            self.failing = Instant::now() + pause > until;
            if self.failing {
                return Err(fault);
            }
            tracing::warn!(reason = %fault.reason, "a batch was not written, and is tried again");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
