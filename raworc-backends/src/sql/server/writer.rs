//! The one task of a process that writes to a database server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout};

use super::most::Most;
use super::signals::Signals;
use super::{ConnectTo, Server, connect};
use crate::sql::Shared;
use crate::sql::batch::{Batches, Head};
use crate::sql::fault::{Fault, FaultKind};
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
    most: Most,
    /// Whether the last batch could not be written: the next ones are not waited for as long, or all would queue up.
    failing: bool,
    signals: Arc<Signals>,
}

impl<D: Server> Writer<D> {
    pub(super) const fn new(
        shared: Arc<Shared<D>>,
        jobs: Jobs,
        to: ConnectTo<D>,
        conn: D::Connection,
        batches: Batches,
        most: usize,
        signals: Arc<Signals>,
    ) -> Self {
        let most = Most::new(most);
        Self { shared, jobs, to, conn: Some(conn), batches, most, failing: false, signals }
    }

    pub(super) async fn run(mut self) {
        while let Some(batch) = self.jobs.next(self.most.now()).await {
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
        let (mut conn, is_new) = match self.conn.take() {
            Some(conn) => (conn, false),
            None => (connect::<D>(&self.to).await.map_err(fault)?, true),
        };
        let (feed, signals) = (&self.shared.feed, &self.signals);
        let begun = |head: Head, _: &[_]| {
            // Nobody else writes now, and yet others have been told of more: this is another database than it was.
            let known = feed.known();
            if head.revision < known.revision {
                feed.went_back(known, head.revision, head.oldest);
                signals.turn();
            }
        };
        let most = if grows { self.most.now() } else { 1 };
        let has_its_turn = AtomicBool::new(false);
        let more = |batch: &mut Vec<Job>| {
            has_its_turn.store(true, Ordering::Relaxed);
            self.jobs.add_to(batch, most);
        };
        let writing = async {
            // Before anything is told that follows: it may be another server.
            if is_new {
                self.batches.begin_anew();
                if self.shared.look_over(&mut conn).await?.went_back {
                    signals.turn();
                }
            }
            self.batches.write::<D>(&mut conn, &self.shared.time, batch, more, begun).await
        };
        let written = timeout(LIMIT, writing).await;
        let has_its_turn = has_its_turn.into_inner();
        // Others write too, so that what was read is true no longer.
        self.batches.rows.clear();
        match written {
            Ok(Ok(written)) => {
                self.conn = Some(conn);
                self.batches.head = written.head;
                self.most.went_well(written.outcomes.len());
                if is_new {
                    // Before anything is told that only this server has. It may be another one, and the one before may live on.
                    self.signals.turn();
                }
                if !self.shared.feed.publish(written.events, written.head.oldest) {
                    // Others have written before: its own events are not all that is new.
                    self.signals.grown.notify_one();
                }
                Ok(written.outcomes)
            }
            Ok(Err(error)) => {
                // Closing takes the transaction back, if it is not committed.
                drop(timeout(super::CONNECT_LIMIT, conn.close()).await);
                let fault = fault(error);
                if fault.kind == FaultKind::Unavailable && has_its_turn {
                    queue::not_answered(batch);
                }
                Err(fault)
            }
            Err(_) => {
                // Before that it waited for others, and has done nothing.
                if has_its_turn {
                    self.most.took_too_long(batch.len());
                    queue::not_answered(batch);
                }
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
        let mut grows = grows;
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
            // What comes meanwhile is not to share what becomes of it.
            grows = false;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
