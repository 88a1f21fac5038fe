//! [`Store`]: narrow reads, and one atomic write whose preconditions are data.
//!
//! A commit names what must hold and what is to change. What that means is written once, in [`Commit::evaluate`]:
//! a pure function from the rows that the commit touches to the rows that it leaves. A store locks and loads the
//! rows of [`Commit::footprint`], evaluates, and writes what comes out, in one transaction.

mod clock;
mod commit;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod evaluate;
mod memory;
mod query;
mod retention;

pub use clock::StoreClock;
pub use commit::{
    AgentChange, AgentOp, Answer, AuditEntry, AuditRow, Backoff, Change, Check, Commit, Committed, Conflict, Ending,
    IdempotencyKey, IdempotencyRecord, NewAgent, NewComputer, NewMessage, QuotaDelta, QuotaKind, Record, RecordChange,
    RecordCheck, RecordKey, RecordKind, Reply,
};
pub use evaluate::{AgentNeeds, Evaluated, Footprint, Rows};
pub use memory::MemoryStore;
pub use query::{
    AgentQuery, AuditQuery, ComputerQuery, Due, DueQuery, EventFilter, LEASE_KEPT, Lease, LeaseClaim, MAX_PAGE,
    MAX_PAGE_BYTES, MessageQuery, Page, PageRows, Stamped, StepQuery, Touch,
};
pub use retention::{Cutoffs, PURGE_LOOKS, Purge, PurgeFrom, Purged, PurgedRows, Retention, is_past};

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::agent::Agent;
use crate::computer::Computer;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::step::Step;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition did not hold; nothing was changed.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The log no longer goes back that far: read the rows anew and watch from the head.
    #[error("the log begins at revision {oldest}")]
    Gone {
        /// The oldest revision that is still there.
        oldest: Revision,
    },
    /// The store does not answer now. A commit's outcome is unknown: send the same commit again.
    #[error("the store does not answer: {reason}")]
    Unavailable {
        /// What is the matter.
        reason: String,
    },
    /// There is no room for what was to be written; nothing was changed. The same commit goes through once there is.
    #[error("the store has no room left: {reason}")]
    Full {
        /// What is full, and the way out.
        reason: String,
    },
    /// The store is well and cannot keep these rows, such as one that is too long for it; nothing was changed.
    #[error("the store refused it: {reason}")]
    Refused {
        /// What is wrong with the rows.
        reason: String,
    },
    /// The store cannot be used until somebody mends it.
    #[error("the store cannot be used: {reason}")]
    Unusable {
        /// What is the matter, and the way out.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Full { .. } => true,
            Self::Conflict(_) | Self::Gone { .. } | Self::Refused { .. } | Self::Unusable { .. } => false,
        }
    }
}

/// Where everything is kept that must not be lost.
///
/// # Contract
/// - `S1` A commit that returned survives the end of every process.
/// - `S2` A commit changes all that it names or nothing.
/// - `S3` A commit whose precondition does not hold changes nothing and says which one; others beside it go through.
/// - `S4` Preconditions and changes of one agent's row are serial: of two commits that both saw the same status, one fails.
/// - `S5` Revisions are dense from 1 on and in commit order, over all writers.
/// - `S6` A commit that is sent again gets its first result and changes nothing more.
/// - `S7` Message numbers of an agent are dense from 1 on, in commit order.
/// - `S8` Step numbers of an agent are dense from 1 on, in commit order.
/// - `S9` A name is free again once its agent is deleted, and no two living agents of a tenant share one.
/// - `S10` A key of idempotency gives the first answer again to the same request, and a conflict to another.
/// - `S11` Every change bears its audit row in the same commit, exactly once.
/// - `S12` Quotas are never exceeded, whoever commits at the same time; a commit that fails leaves them as they were.
/// - `S13` `agent` and `agents` show no deleted agent; `agent_by_id` shows it.
/// - `S14` Reads of a tenant show no other tenant's rows.
/// - `S15` Pages follow each other without a gap and without a repetition, whatever is written meanwhile.
/// - `S16` A selector and every other filter leave out what does not match, and nothing else.
/// - `S17` `due` tells every agent whose [`due_at`](Agent::due_at) is at or before the given time, the earliest first.
/// - `S18` `watch` tells every event after a revision, once each, in order, whatever commits meanwhile.
/// - `S19` `watch` from before the start of the log is `Gone`.
/// - `S20` `touch` moves `awake_until` and the heartbeat of a present incarnation forward, never back, and nothing of an older one.
/// - `S21` `touch` of a slept agent changes nothing and says so.
/// - `S22` A lease has one holder until it expires or is given back; a new holder gets a higher epoch. One
///   that ended [`LEASE_KEPT`] ago may be forgotten.
/// - `S23` A record changes only against the version that the writer saw.
/// - `S24` Times of rows are the store's own, and `now` of a read is not before the times of the rows that it shows.
/// - `S25` Text comes back as it was written: every Unicode character, every length up to its limit.
/// - `S26` A commit that deletes an agent ends its whole inbox and tells none of it, however much that is.
/// - `S27` A page ends with the row that makes it [`MAX_PAGE_BYTES`] long, and its cursor leads on from there.
/// - `S28` `purge` takes away what is older than it is to be kept, by the store's time, and nothing that is younger.
/// - `S29` `purge` takes an agent's messages and steps from the oldest on and ends before the first that stays. A message
///   that has not ended stays, with its steps; numbers go on as if nothing was taken away.
/// - `S30` One `purge` takes away [`Purge::limit`] rows at most, and calls that go on where the last one ended come to an end.
/// - `S31` `purge` takes a deleted agent with all that is its own, and not while its computer is to be reclaimed.
/// - `S32` `purge` takes a blob of the same store once nothing has referred to it for its time, and no other.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Changes rows, all or none.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Notes heartbeats and activity, outside the log. Returns the agents that it had no effect on.
    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError>;

    /// Takes, renews or (with a time of zero) gives back a lease. Returns the lease as it is then, whoever holds it.
    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError>;

    /// The leases whose key begins with `prefix` and that have not expired.
    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError>;

    /// Takes away some of what is old. Begin at the beginning, and go on where the answer says. Where several do so at
    /// once, or one does again, that does no harm.
    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError>;

    /// The living agent of this name.
    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError>;

    /// An agent, living or deleted.
    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError>;

    /// Living agents, by name.
    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError>;

    /// The agents of some runtimes for which the operator has something to do.
    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError>;

    /// A message of this agent.
    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError>;

    /// Messages of an agent, by number.
    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError>;

    /// Steps of an agent, by number.
    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError>;

    /// A computer.
    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError>;

    /// Computers, by id.
    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError>;

    /// A record.
    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError>;

    /// The records of a kind in a tenant, or in the installation, by name.
    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError>;

    /// What a tenant uses of a quota.
    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError>;

    /// Audit rows, by revision.
    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError>;

    /// The last revision, and that the store answers.
    async fn head(&self) -> Result<Stamped<Revision>, StoreError>;

    /// Every event after `since` that matches, for as long as the stream is read. Events come in bursts, in order.
    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError>;
}
