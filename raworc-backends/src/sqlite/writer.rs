//! The one task that writes.
//!
//! It takes what is queued, and while one batch is being made durable the next one gathers: no commit waits for
//! company, and a busy store syncs once for many. A batch is one transaction. Its rows are loaded at once, each commit
//! is evaluated in memory over what those before it left, and what remains is written at the end, so that a commit
//! whose precondition fails has written nothing. Where the database refuses a row, the batch is taken back and each of
//! its commits is tried alone.

mod job;
mod pending;
mod rowset;
mod script;

use std::collections::VecDeque;
use std::sync::Arc;

use raworc_core::event::Event;
use raworc_core::ids::{AgentId, Revision};
use raworc_core::store::{AgentNeeds, Commit, Footprint, LEASE_KEPT, LeaseClaim, Stamped, StoreError, Touch};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(super) use self::job::{Outcome, Work};

use self::job::Job;
use self::pending::Pending;
use self::rowset::{Rowset, Wanted};
use super::checkpoint::Checkpoints;
use super::config::SqliteOptions;
use super::convert::{count, micros};
use super::error::{Fault, FaultKind};
use super::lock::DirectoryLock;
use super::{Shared, blobs, sql};

/// Commits after which something old is taken away, a little at a time.
const TIDY_EVERY: u64 = 128;

/// Events that are taken away at one time at most.
const TIDY_EVENTS: u64 = 1024;

/// Where the log ends and begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: Revision,
    pub(super) oldest: Revision,
    /// Commits that were made, ever.
    pub(super) commits: u64,
}

impl Head {
    pub(super) async fn load(conn: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let row: SqliteRow = sqlx::query(sql::HEAD).fetch_one(conn).await?;
        Ok(Self { revision: Revision(count(&row, 0)?), oldest: Revision(count(&row, 1)?), commits: count(&row, 2)? })
    }
}

/// What a transaction has written.
#[derive(Debug, Default)]
struct Written {
    events: Vec<Event>,
    agents: Vec<AgentId>,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Queue(mpsc::Sender<Job>);

impl Queue {
    /// Waits until the work is durable, or refused.
    pub(super) async fn write(&self, work: Work) -> Result<Outcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job { work, reply }).await.map_err(|_| Fault::closed())?;
        answer.await.map_err(|_| Fault::closed())?
    }
}

/// Writes until nobody can ask for more, or until it is told to close.
#[derive(Debug)]
pub(super) struct Writer {
    options: SqliteOptions,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
    closing: CancellationToken,
    grown: watch::Sender<Revision>,
    conn: Option<SqliteConnection>,
    checkpoints: Arc<Checkpoints>,
    head: Head,
    rows: Rowset,
    tidied: u64,
    lock: DirectoryLock,
}

impl Writer {
    pub(super) fn new(
        options: SqliteOptions,
        shared: Arc<Shared>,
        conn: SqliteConnection,
        head: Head,
        grown: watch::Sender<Revision>,
        lock: DirectoryLock,
    ) -> (Queue, CancellationToken, Self) {
        let (sender, jobs) = mpsc::channel(options.queue.max(1));
        let closing = CancellationToken::new();
        let tidied = head.commits;
        let writer = Self {
            options,
            shared,
            jobs,
            closing: closing.clone(),
            grown,
            conn: Some(conn),
            checkpoints: Arc::default(),
            head,
            rows: Rowset::default(),
            tidied,
            lock,
        };
        (Queue(sender), closing, writer)
    }

    pub(super) async fn run(mut self) {
        let carrying = CancellationToken::new();
        let (options, place) = (self.options.checkpointer(), self.options.database());
        let checkpoints = Arc::clone(&self.checkpoints).run(options, place, carrying.clone());
        let checkpoints = tokio::spawn(checkpoints);
        while let Some(first) = self.next().await {
            let mut batch = VecDeque::from([first]);
            while batch.len() < self.options.batch
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push_back(job);
            }
            self.write(batch).await;
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

    async fn next(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.jobs.recv() => return job,
            () = self.closing.cancelled() => {}
        }
        // What was queued before is still written.
        self.jobs.close();
        self.jobs.recv().await
    }

    async fn write(&mut self, mut batch: VecDeque<Job>) {
        match self.attempt(batch.make_contiguous()).await {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.answer(Ok(outcome));
                }
            }
            Err(fault) if fault.kind == FaultKind::OfRow && batch.len() > 1 => {
                for job in batch {
                    let outcome = self.attempt(std::slice::from_ref(&job)).await;
                    job.answer(outcome.and_then(|mut outcomes| outcomes.pop().ok_or_else(Fault::closed)));
                }
            }
            Err(fault) => {
                tracing::warn!(reason = %fault.reason, "a batch was not written");
                for job in batch {
                    job.answer(Err(fault.clone()));
                }
            }
        }
    }

    /// Does the work in one transaction: all of it, or none.
    async fn attempt(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, Fault> {
        let place = self.options.database();
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.reconnect().await.map_err(|error| Fault::of(&error, &place))?,
        };
        match self.transact(&mut conn, jobs).await {
            Ok((outcomes, head, written)) => {
                self.conn = Some(conn);
                self.shared.recent.keep(written.agents.iter().filter_map(|id| self.rows.agents.get(id)?.as_ref()));
                if self.rows.next_batch() {
                    self.shared.recent.clear();
                }
                self.checkpoints.wrote(jobs.len());
                let grown = head.revision != self.head.revision;
                self.head = head;
                self.shared.feed.publish(written.events, head.oldest);
                if grown {
                    self.grown.send_replace(head.revision);
                }
                Ok(outcomes)
            }
            Err(error) => {
                self.rows = Rowset::default();
                self.shared.recent.clear();
                // Closing takes the transaction back. What the disk holds after a failed sync only a new connection
                // can tell.
                if let Err(error) = conn.close().await {
                    tracing::warn!(%error, "the database did not close well");
                }
                Err(Fault::of(&error, &place))
            }
        }
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
        let head = Head::load(&mut conn).await?;
        if head != self.head {
            self.head = head;
            self.shared.feed.restart(head.oldest);
            self.grown.send_replace(head.revision);
        }
        Ok(conn)
    }

    async fn transact(
        &mut self,
        conn: &mut SqliteConnection,
        jobs: &[Job],
    ) -> Result<(Vec<Outcome>, Head, Written), sqlx::Error> {
        let footprints = self.begin(conn, jobs).await?;
        let mut head = self.head;
        let mut pending = Pending::default();
        let mut outcomes = Vec::with_capacity(jobs.len());
        for (job, footprint) in jobs.iter().zip(&footprints) {
            let outcome = match &job.work {
                Work::Commit(commit) => match self.rows.made.get(&commit.id).and_then(|n| outcomes.get(*n)) {
                    Some(Outcome::Committed(first)) => Outcome::Committed(first.clone()),
                    Some(_) | None => {
                        let outcome = self.commit(conn, commit, footprint, &mut head, &mut pending).await?;
                        if matches!(outcome, Outcome::Committed(_)) {
                            self.rows.made.insert(commit.id, outcomes.len());
                        }
                        outcome
                    }
                },
                Work::Touch(touches) => self.touch(touches, &mut pending),
                Work::Claim(claim) => self.claim(claim, &mut pending),
                Work::Put { tenant, id, content } => {
                    pending.other = true;
                    blobs::write(conn, tenant, *id, content).await?;
                    Outcome::Done
                }
                Work::Unlink { tenant, id } => {
                    pending.other = true;
                    blobs::delete(conn, tenant, *id).await?;
                    Outcome::Done
                }
                Work::ForgetLog { upto } => {
                    pending.other = true;
                    head.oldest = head.oldest.max(upto.next().min(head.revision.next()));
                    sqlx::query(sql::FORGET_LOG).bind(super::convert::int(head.oldest.0)).execute(&mut *conn).await?;
                    Outcome::Done
                }
            };
            outcomes.push(outcome);
        }
        if pending.is_empty() {
            sqlx::query("ROLLBACK").execute(&mut *conn).await?;
            return Ok((outcomes, head, Written::default()));
        }
        if head.commits >= self.tidied + TIDY_EVERY {
            self.tidy(&mut pending, &mut head);
        }
        let agents: Vec<_> = pending.agents().collect();
        self.shared.recent.forget(agents.iter().copied());
        let events = pending.write(conn, &self.rows, &head).await?;
        Ok((outcomes, head, Written { events, agents }))
    }

    /// Begins the transaction, and loads what the whole batch looks at. Gives the footprint of each job.
    async fn begin(&mut self, conn: &mut SqliteConnection, jobs: &[Job]) -> Result<Vec<Footprint>, sqlx::Error> {
        let mut wanted = Wanted::default();
        let mut footprints = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut footprint = Footprint::default();
            match &job.work {
                Work::Commit(commit) => {
                    wanted.commits.push(commit.id);
                    footprint = commit.footprint();
                    join(&mut wanted.footprint, &footprint);
                    wanted.answers.extend(footprint.idempotency.clone());
                }
                Work::Touch(touches) => {
                    for touch in touches {
                        wanted.footprint.agents.entry(touch.agent).or_default();
                    }
                }
                Work::Claim(claim) => wanted.leases.push(claim.key.clone()),
                Work::Put { .. } | Work::Unlink { .. } | Work::ForgetLog { .. } => {}
            }
            footprints.push(footprint);
        }
        self.rows.begin(conn, wanted).await?;
        Ok(footprints)
    }

    async fn commit(
        &mut self,
        conn: &mut SqliteConnection,
        commit: &Commit,
        footprint: &Footprint,
        head: &mut Head,
        pending: &mut Pending,
    ) -> Result<Outcome, sqlx::Error> {
        if let Some(Some(first)) = self.rows.commits.get(&commit.id) {
            return Ok(Outcome::Committed(Box::new(first.clone())));
        }
        // Earlier commits of the batch may have changed what it needs, such as the message that an agent holds.
        let moving = |needs: &AgentNeeds| needs.held || needs.open || needs.computer;
        if footprint.agents.values().any(moving) {
            self.rows.load(conn, footprint).await?;
        }
        let now = self.shared.clock.now();
        let mut evaluated = match commit.evaluate(self.rows.rows(footprint, now)) {
            Ok(evaluated) => evaluated,
            Err(conflict) => return Ok(Outcome::Refused(conflict)),
        };
        if evaluated.committed.replayed {
            return Ok(Outcome::Committed(Box::new(evaluated.committed)));
        }
        evaluated.seal(head.revision);
        head.revision = evaluated.committed.revision;
        head.commits += 1;
        pending.commit(commit.id, head.commits, &mut evaluated, &mut self.rows)?;
        Ok(Outcome::Committed(Box::new(self.rows.apply(evaluated))))
    }

    fn touch(&mut self, touches: &[Touch], pending: &mut Pending) -> Outcome {
        let now = self.shared.clock.now();
        let mut untouched = Vec::new();
        for touch in touches {
            match self.rows.agents.get_mut(&touch.agent).and_then(Option::as_mut) {
                Some(agent) => {
                    if touch.apply(agent, now) {
                        pending.touch(agent);
                    } else {
                        untouched.push(touch.agent);
                    }
                }
                None => untouched.push(touch.agent),
            }
        }
        Outcome::Untouched(untouched)
    }

    fn claim(&mut self, claim: &LeaseClaim, pending: &mut Pending) -> Outcome {
        let now = self.shared.clock.now();
        let there = self.rows.leases.get(&claim.key).and_then(Option::as_ref);
        let lease = claim.decide(there, now);
        if there != Some(&lease) {
            pending.lease(&lease);
            self.rows.leases.insert(claim.key.clone(), Some(lease.clone()));
        }
        Outcome::Claimed(Stamped { value: lease, now })
    }

    /// Takes away a little of what is too old.
    fn tidy(&mut self, pending: &mut Pending, head: &mut Head) {
        self.tidied = head.commits;
        // Before this batch's own events, which are not written yet.
        let wanted = self.head.revision.0.saturating_sub(self.options.keep_events) + 1;
        let oldest = wanted.min(head.oldest.0 + TIDY_EVENTS);
        if oldest > head.oldest.0 {
            head.oldest = Revision(oldest);
            pending.forget(sql::FORGET_LOG, super::convert::int(oldest));
        }
        let now = micros(self.shared.clock.now());
        let kept = i64::try_from(self.options.keep_commits.as_micros()).unwrap_or(i64::MAX);
        pending.forget(sql::FORGET_COMMITS, now.saturating_sub(kept));
        pending.forget(sql::FORGET_ANSWERS, now);
        pending.forget(sql::FORGET_RECORDS, now);
        let kept = i64::try_from(LEASE_KEPT.as_micros()).unwrap_or(i64::MAX);
        pending.forget(sql::FORGET_LEASES, now.saturating_sub(kept));
    }
}

/// Adds what one commit looks at to what a batch looks at, but for its key of idempotency.
fn join(all: &mut Footprint, one: &Footprint) {
    for (id, needs) in &one.agents {
        let union = all.agents.entry(*id).or_default();
        union.held |= needs.held;
        union.open |= needs.open;
        union.computer |= needs.computer;
    }
    all.names.extend(one.names.iter().cloned());
    all.messages.extend(one.messages.iter().copied());
    all.computers.extend(one.computers.iter().copied());
    all.records.extend(one.records.iter().cloned());
    all.usage.extend(one.usage.iter().cloned());
}
