//! What can be asked of a store.

use std::time::Duration;

use jiff::Timestamp;

use super::evaluate::later;
use crate::agent::{Agent, State};
use crate::ids::{AgentId, ComputerId, Incarnation, MessageId, ProcessId, RuntimeName, TenantName, UserName};
use crate::labels::Selector;

/// Rows that one page may hold.
pub const MAX_PAGE: usize = 500;

/// Bytes of rows at which a page ends, however few rows those are.
pub const MAX_PAGE_BYTES: usize = 8 << 20;

/// A value and the store's time when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped<T> {
    /// The value.
    pub value: T,
    /// The store's time.
    pub now: Timestamp,
}

/// Some rows, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; none on the last.
    pub next: Option<String>,
}

/// A page while a store reads its rows one by one.
#[derive(Debug)]
pub struct PageRows<T> {
    rows: Vec<T>,
    limit: usize,
    bytes: usize,
    more: bool,
}

impl<T> PageRows<T> {
    /// A page of so many rows; at least one, so that every page makes headway, and never more than [`MAX_PAGE`].
    #[must_use]
    pub fn new(asked: usize) -> Self {
        Self { rows: Vec::new(), limit: asked.clamp(1, MAX_PAGE), bytes: 0, more: false }
    }

    /// Rows that it reads at most: the one too many only tells that there is a next page.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// Takes the next row, which takes about so many bytes. Whether it reads on.
    pub fn take(&mut self, row: T, bytes: usize) -> bool {
        self.more = self.rows.len() == self.limit || self.bytes >= MAX_PAGE_BYTES;
        if !self.more {
            self.bytes = self.bytes.saturating_add(bytes);
            self.rows.push(row);
        }
        !self.more
    }

    /// The page, with the cursor of its last row where there is a next page.
    pub fn page(self, cursor: impl Fn(&T) -> String) -> Page<T> {
        let next = if self.more { self.rows.last().map(cursor) } else { None };
        Page { items: self.rows, next }
    }
}

/// Which agents.
#[derive(Debug, Clone)]
pub struct AgentQuery {
    /// Of this tenant.
    pub tenant: TenantName,
    /// Of this owner.
    pub owner: Option<UserName>,
    /// In this state.
    pub state: Option<State>,
    /// With such labels.
    pub selector: Selector,
    /// After this cursor, which is an agent's name.
    pub after: Option<String>,
    /// At most so many, and never more than [`MAX_PAGE`]; fewer where they are large ([`MAX_PAGE_BYTES`]).
    pub limit: usize,
}

impl AgentQuery {
    /// The first page of all agents of a tenant.
    #[must_use]
    pub fn of(tenant: TenantName) -> Self {
        Self { tenant, owner: None, state: None, selector: Selector::default(), after: None, limit: MAX_PAGE }
    }
}

/// Which messages.
#[derive(Debug, Clone)]
pub struct MessageQuery {
    /// Of this agent.
    pub agent: AgentId,
    /// Only those that have not ended, replies left out.
    pub open: bool,
    /// From the newest to the oldest.
    pub newest_first: bool,
    /// Beyond this number, in the direction of the query.
    pub after: Option<u64>,
    /// At most so many, and never more than [`MAX_PAGE`]; fewer where they are large ([`MAX_PAGE_BYTES`]).
    pub limit: usize,
}

impl MessageQuery {
    /// The first page of an agent's messages, the oldest first.
    #[must_use]
    pub const fn of(agent: AgentId) -> Self {
        Self { agent, open: false, newest_first: false, after: None, limit: MAX_PAGE }
    }
}

/// Which steps.
#[derive(Debug, Clone)]
pub struct StepQuery {
    /// Of this agent.
    pub agent: AgentId,
    /// Taken for this message; of all, setup included, where absent.
    pub message: Option<MessageId>,
    /// After this number.
    pub after: u64,
    /// At most so many, and never more than [`MAX_PAGE`]; fewer where they are large ([`MAX_PAGE_BYTES`]).
    pub limit: usize,
}

/// Which computers.
#[derive(Debug, Clone)]
pub struct ComputerQuery {
    /// Of this runtime.
    pub runtime: RuntimeName,
    /// Only those on the reclaim list.
    pub reclaim: bool,
    /// After this id.
    pub after: Option<ComputerId>,
    /// At most so many, and never more than [`MAX_PAGE`]; fewer where they are large ([`MAX_PAGE_BYTES`]).
    pub limit: usize,
}

/// Which audit rows.
#[derive(Debug, Clone)]
pub struct AuditQuery {
    /// Of this tenant; of all where absent.
    pub tenant: Option<TenantName>,
    /// After this cursor.
    pub after: Option<String>,
    /// At most so many, and never more than [`MAX_PAGE`]; fewer where they are large ([`MAX_PAGE_BYTES`]).
    pub limit: usize,
}

/// Which agents the operator has something to do for.
#[derive(Debug, Clone)]
pub struct DueQuery {
    /// Of these runtimes.
    pub runtimes: Vec<RuntimeName>,
    /// At or before this time; before the store's now where absent.
    pub before: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

/// An agent that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Which one.
    pub agent: AgentId,
    /// Since when.
    pub at: Timestamp,
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Of this tenant; of all and of the installation where absent.
    pub tenant: Option<TenantName>,
    /// Of this agent.
    pub agent: Option<AgentId>,
}

impl EventFilter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &crate::event::Event) -> bool {
        (self.tenant.is_none() || self.tenant == event.tenant) && (self.agent.is_none() || self.agent == event.agent)
    }
}

/// A sign of life from an agent, or of activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// Which agent.
    pub agent: AgentId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Whether its program was heard.
    pub heartbeat: bool,
    /// It is not put to sleep by time for so long from now.
    pub awake_for: Option<Duration>,
}

impl Touch {
    /// Notes the touch in the agent's row, which keeps its revision and its status's version. Whether it had an effect:
    /// a start that is over, or is being ended, is touched by nothing.
    pub fn apply(&self, agent: &mut Agent, now: Timestamp) -> bool {
        let status = &mut agent.status;
        let serving = match status.state() {
            State::Init | State::Idle | State::Busy => true,
            State::Slept | State::Deleted => false,
        };
        let present = status.run.as_ref().is_some_and(|run| run.incarnation == self.incarnation && !run.ending);
        if !serving || !present {
            return false;
        }
        if self.heartbeat {
            status.heard_at = status.heard_at.max(Some(now));
        }
        status.awake_until = status.awake_until.max(self.awake_for.map(|time| later(now, time)));
        true
    }
}

/// How long an expired lease is kept at least, so that the next holder's epoch is higher than the last one's. Most keys
/// bear the id of a process, and are never wanted again once it has ended.
pub const LEASE_KEPT: Duration = Duration::from_hours(24);

/// A wish to hold something for a time.
#[derive(Debug, Clone)]
pub struct LeaseClaim {
    /// What is to be held, such as `shard/local/7` or `server/ID`.
    pub key: String,
    /// Who wants it.
    pub holder: ProcessId,
    /// For how long from now; zero to give it back.
    pub ttl: Duration,
}

impl LeaseClaim {
    /// The lease after this claim, whoever holds it then, given the one that is there.
    #[must_use]
    pub fn decide(&self, there: Option<&Lease>, now: Timestamp) -> Lease {
        let expires = later(now, self.ttl);
        match there {
            Some(there) if there.expires > now && there.holder != self.holder => there.clone(),
            Some(there) if there.expires > now => Lease { expires, ..there.clone() },
            Some(there) if self.ttl.is_zero() => there.clone(),
            _ => Lease {
                key: self.key.clone(),
                holder: self.holder,
                epoch: there.map_or(0, |there| there.epoch) + u64::from(!self.ttl.is_zero()),
                since: now,
                expires,
            },
        }
    }
}

/// Something that is held for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What.
    pub key: String,
    /// Who holds it, or held it last.
    pub holder: ProcessId,
    /// Grows with each new holder, and with each time that it had expired between; begins anew once the store has forgotten
    /// the lease, [`LEASE_KEPT`] after its end or later.
    pub epoch: u64,
    /// Since when this holder has held it without a break.
    pub since: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}
