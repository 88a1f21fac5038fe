//! A batch: many commits in one transaction.
//!
//! Its rows are loaded at once, each commit is evaluated in memory over what those before it left, and what remains is
//! written at the end, so that a commit whose precondition fails has written nothing. Nobody else writes between the
//! beginning of the transaction and its end, whichever database it is.

use std::time::Duration;

use raworc_core::event::Event;
use raworc_core::ids::{AgentId, Revision};
use raworc_core::store::{AgentNeeds, Commit, Footprint, LEASE_KEPT, LeaseClaim, Stamped, Touch};

use super::convert::{count, int, micros};
use super::dialect::{Columns, Dialect};
use super::pending::Pending;
use super::queue::{Job, Outcome, Work};
use super::read::plain;
use super::rowset::{Rowset, Wanted};
use super::script::Script;
use super::time::Time;
use super::{blobs, statements as sql};

/// Commits after which something old is taken away, a little at a time.
const TIDY_EVERY: u64 = 128;

/// Events that are taken away at one time at most.
const TIDY_EVENTS: u64 = 1024;

/// The same of commits.
const TIDY_COMMITS: i64 = 512;

/// Bytes of documents from which on a batch is large enough, whatever of it is left: a line to an agent writes all of the agent,
/// and once more what the commit came to. Those of the texts that a batch may have fit in.
const DOCUMENTS: usize = 24 << 20;

/// Where the log ends and begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub(crate) revision: Revision,
    pub(crate) oldest: Revision,
    /// Commits that were made, ever.
    pub(crate) commits: u64,
}

impl Head {
    /// From a row of [`sql::HEAD`].
    pub(crate) fn of(row: &impl Columns) -> Result<Self, sqlx::Error> {
        Ok(Self { revision: Revision(count(row, 0)?), oldest: Revision(count(row, 1)?), commits: count(row, 2)? })
    }
}

/// What is kept of what is old.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Events that the log keeps by their number, however young those before them are.
    pub(crate) events: u64,
    /// For how long a commit that is sent again is recognised at least.
    pub(crate) commits: Duration,
}

/// What a batch has written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) head: Head,
    pub(crate) events: Vec<Event>,
    pub(crate) agents: Vec<AgentId>,
}

/// Writes batches, one after another.
#[derive(Debug)]
pub(crate) struct Batches {
    /// The head as the last batch left it.
    pub(crate) head: Head,
    pub(crate) rows: Rowset,
    keep: Retention,
    tidied: u64,
    /// The number of the oldest commit that was there when it was last asked for.
    forgotten: u64,
}

impl Batches {
    pub(crate) fn new(head: Head, keep: Retention) -> Self {
        Self { head, rows: Rowset::default(), keep, tidied: head.commits, forgotten: 0 }
    }

    /// Over another connection. It may be another server's, which may have what was taken away at the one before.
    pub(crate) fn begin_anew(&mut self) {
        self.forgotten = 0;
    }

    /// Does the work in one transaction: all of it, or none; or as many of the first jobs as have outcomes, where all of them would
    /// write too much. `more` may add jobs once nobody else can write any more.
    /// `changing` hears of the head as it was then, and of the agents whose rows change before anybody can see that.
    pub(crate) async fn write<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        time: &Time,
        jobs: &mut Vec<Job>,
        more: impl FnOnce(&mut Vec<Job>),
        changing: impl FnOnce(Head, &[AgentId]),
    ) -> Result<Written, sqlx::Error> {
        let (wanted, mut footprints) = looks_at(jobs);
        let begun = self.rows.begin::<D>(conn, self.head, time, wanted).await?;
        let first = jobs.len();
        more(jobs);
        if let Some(added @ [_, ..]) = jobs.get(first..) {
            let (wanted, theirs) = looks_at(added);
            self.rows.load_more::<D>(conn, wanted).await?;
            footprints.extend(theirs);
        }
        let mut head = begun;
        let mut pending = Pending::default();
        let mut outcomes = Vec::with_capacity(jobs.len());
        for (job, footprint) in jobs.iter().zip(&footprints) {
            if pending.bytes >= DOCUMENTS {
                break;
            }
            let outcome = match &job.work {
                Work::Commit(commit) => match self.rows.made.get(&commit.id).and_then(|n| outcomes.get(*n)) {
                    Some(Outcome::Committed(first)) => Outcome::Committed(first.clone()),
                    Some(_) | None => {
                        let outcome = self.commit::<D>(conn, time, commit, footprint, &mut head, &mut pending).await?;
                        if matches!(outcome, Outcome::Committed(_)) {
                            self.rows.made.insert(commit.id, outcomes.len());
                        }
                        outcome
                    }
                },
                Work::Touch(touches) => self.touch(time, touches, &mut pending),
                Work::Claim(claim) => self.claim(time, claim, &mut pending),
                Work::Put { tenant, id, content } => {
                    pending.other = true;
                    blobs::write::<D>(conn, tenant, *id, content, time.now()).await?;
                    Outcome::Done
                }
                Work::Unlink { tenant, id } => {
                    pending.other = true;
                    blobs::delete::<D>(conn, tenant, *id).await?;
                    Outcome::Done
                }
                Work::ForgetLog { upto } => {
                    forget_log(*upto, &mut head, &mut pending);
                    Outcome::Done
                }
                Work::Forget(stale) => {
                    if let Some(upto) = stale.log {
                        forget_log(upto, &mut head, &mut pending);
                    }
                    if !D::BESIDE {
                        pending.take_away(stale.rows());
                    }
                    pending.take_away(stale.references(time.now()));
                    for agent in &stale.agents {
                        pending.forget_agent(*agent);
                        self.rows.forget_agent(*agent);
                    }
                    Outcome::Done
                }
            };
            outcomes.push(outcome);
        }
        if pending.is_empty() {
            let mut script = Script::default();
            script.add(D::ROLLBACK, []);
            D::run(conn, script).await?;
            return Ok(Written { outcomes, head, events: Vec::new(), agents: Vec::new() });
        }
        if head.commits >= self.tidied + TIDY_EVERY {
            self.tidy::<D>(conn, time, begun, &mut pending, &mut head).await?;
        }
        let agents: Vec<_> = pending.agents().collect();
        changing(begun, &agents);
        let events = pending.write::<D>(conn, &self.rows, &head).await?;
        Ok(Written { outcomes, head, events, agents })
    }

    async fn commit<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        time: &Time,
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
            self.rows.load::<D>(conn, footprint).await?;
        }
        self.rows.readable(footprint)?;
        let mut evaluated = match commit.evaluate(self.rows.rows(footprint, time.now())) {
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

    fn touch(&mut self, time: &Time, touches: &[Touch], pending: &mut Pending) -> Outcome {
        let now = time.now();
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

    fn claim(&mut self, time: &Time, claim: &LeaseClaim, pending: &mut Pending) -> Outcome {
        let now = time.now();
        let there = self.rows.leases.get(&claim.key).and_then(Option::as_ref);
        let lease = claim.decide(there, now);
        if there != Some(&lease) {
            pending.lease(&lease);
            self.rows.leases.insert(claim.key.clone(), Some(lease.clone()));
        }
        Outcome::Claimed(Stamped { value: lease, now })
    }

    /// Takes away a little of what is too old. The log is `begun`, but for what this batch adds, which is not written yet.
    async fn tidy<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        time: &Time,
        begun: Head,
        pending: &mut Pending,
        head: &mut Head,
    ) -> Result<(), sqlx::Error> {
        self.tidied = head.commits;
        let wanted = begun.revision.0.saturating_sub(self.keep.events) + 1;
        let oldest = wanted.min(head.oldest.0 + TIDY_EVENTS);
        if oldest > head.oldest.0 {
            pending.forget(sql::FORGET_LOG, [head.oldest.0, oldest].map(int));
            head.oldest = Revision(oldest);
        }
        let now = micros(time.now());
        let before = |kept: Duration| now.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX));
        let rows = D::run(conn, Script(vec![plain(sql::OLDEST_COMMIT, [int(self.forgotten).into()])])).await?;
        if let Some(oldest) = rows.first().map(|row| row.int(0)).transpose()?.flatten() {
            pending.forget(sql::FORGET_COMMITS, [oldest, oldest + TIDY_COMMITS, before(self.keep.commits)]);
            self.forgotten = u64::try_from(oldest).unwrap_or(0);
        }
        for statement in D::FORGET_EXPIRED {
            pending.forget(statement, [now]);
        }
        pending.forget(sql::FORGET_LEASES, [before(LEASE_KEPT)]);
        Ok(())
    }
}

/// Cuts the log after a revision, as far as it goes.
fn forget_log(upto: Revision, head: &mut Head, pending: &mut Pending) {
    pending.other = true;
    let oldest = head.oldest.max(upto.next().min(head.revision.next()));
    pending.forget(sql::FORGET_LOG, [head.oldest, oldest].map(|revision| int(revision.0)));
    head.oldest = oldest;
}

/// What jobs look at, all of them and each.
fn looks_at(jobs: &[Job]) -> (Wanted, Vec<Footprint>) {
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
            Work::Put { .. } | Work::Unlink { .. } | Work::ForgetLog { .. } | Work::Forget(_) => {}
        }
        footprints.push(footprint);
    }
    (wanted, footprints)
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
