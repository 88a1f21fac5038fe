//! What a commit means: from the rows that it touches to the rows that it leaves, without I/O.

mod check;
mod draft;
mod inbox;
mod life;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::draft::Draft;
use super::commit::{
    AgentChange, AgentOp, Answer, AuditRow, Change, Commit, Committed, Conflict, IdempotencyKey, QuotaKind, Record,
    RecordKey,
};
use crate::agent::{Agent, AgentEvent};
use crate::computer::Computer;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::step::Step;

/// Which rows a commit looks at. A store locks and loads these, and only these.
#[derive(Debug, Clone, Default)]
pub struct Footprint {
    /// Agents, and what of theirs.
    pub agents: BTreeMap<AgentId, AgentNeeds>,
    /// Names that must not belong to a living agent.
    pub names: BTreeSet<(TenantName, AgentName)>,
    /// Messages.
    pub messages: BTreeSet<MessageId>,
    /// Computers.
    pub computers: BTreeSet<ComputerId>,
    /// Records.
    pub records: BTreeSet<RecordKey>,
    /// Quotas.
    pub usage: BTreeSet<(TenantName, QuotaKind)>,
    /// A key of idempotency.
    pub idempotency: Option<IdempotencyKey>,
}

/// What belongs to an agent's row and is needed along with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentNeeds {
    /// The message that it holds.
    pub held: bool,
    /// Every message of its inbox that has not ended.
    pub open: bool,
    /// Its present computer.
    pub computer: bool,
}

/// The rows of a footprint, as they are. What is not there is left out.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The store's time.
    pub now: Timestamp,
    /// Agents, deleted ones too.
    pub agents: HashMap<AgentId, Agent>,
    /// Names of the footprint that belong to living agents.
    pub taken: HashSet<(TenantName, AgentName)>,
    /// Messages.
    pub messages: HashMap<MessageId, Message>,
    /// Computers.
    pub computers: HashMap<ComputerId, Computer>,
    /// Records that have not expired.
    pub records: HashMap<RecordKey, Record>,
    /// What is used of quotas.
    pub usage: HashMap<(TenantName, QuotaKind), u64>,
    /// The answer that was given under this key of idempotency, if it has not expired.
    pub answer: Option<Answer>,
}

impl Rows {
    /// No rows, at the store's time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            agents: HashMap::new(),
            taken: HashSet::new(),
            messages: HashMap::new(),
            computers: HashMap::new(),
            records: HashMap::new(),
            usage: HashMap::new(),
            answer: None,
        }
    }
}

/// What a commit leaves: rows to be written as they stand, over what is there.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// The store's time.
    pub now: Timestamp,
    /// Agents, new and changed.
    pub agents: Vec<Agent>,
    /// Messages, new and changed.
    pub messages: Vec<Message>,
    /// Those of them that the caller is not told: the inbox that ended with its agent.
    pub untold: BTreeSet<MessageId>,
    /// Steps, all new.
    pub steps: Vec<Step>,
    /// Computers, new and changed.
    pub computers: Vec<Computer>,
    /// Computers to be taken away.
    pub removed_computers: Vec<ComputerId>,
    /// Records, new and changed; those without a value to be taken away.
    pub records: Vec<(RecordKey, Option<Record>)>,
    /// What is used of quotas after it.
    pub usage: Vec<((TenantName, QuotaKind), u64)>,
    /// Events, numbered from 1 until [`seal`](Self::seal).
    pub events: Vec<Event>,
    /// The audit row.
    pub audit: Option<AuditRow>,
    /// The answer to be kept.
    pub answer: Option<(IdempotencyKey, Answer)>,
    /// What the caller is told.
    pub committed: Committed,
}

impl Evaluated {
    /// Puts the commit in its place in the log: its first event comes right after `head`. An answer that was given
    /// before has its place already.
    pub fn seal(&mut self, head: Revision) {
        if self.committed.replayed {
            return;
        }
        for event in &mut self.events {
            event.revision.0 += head.0;
        }
        // A row that did not change keeps the revision that it had.
        for agent in &mut self.agents {
            let last = self.events.iter().rev().find(|event| event.agent == Some(agent.id));
            if let Some(event) = last {
                agent.revision = event.revision;
            }
        }
        self.committed.revision = Revision(head.0 + self.events.len() as u64);
        self.committed.agents.clone_from(&self.agents);
        let told = self.messages.iter().filter(|message| !self.untold.contains(&message.id));
        self.committed.messages = told.cloned().collect();
        if let Some(row) = &mut self.audit {
            row.revision = self.committed.revision;
        }
        if let Some((_, answer)) = &mut self.answer {
            answer.committed = self.committed.clone();
        }
    }
}

impl Commit {
    /// Which rows the commit looks at.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::default();
        for change in &self.changes {
            match change {
                Change::Agent(change) => change.add_to(&mut footprint),
                Change::Reclaimed(id) => {
                    footprint.computers.insert(*id);
                }
                Change::Record(change) => {
                    footprint.records.insert(change.key.clone());
                }
            }
        }
        footprint.usage.extend(self.quota.iter().map(|delta| (delta.tenant.clone(), delta.kind)));
        footprint.idempotency = self.idempotency.as_ref().map(|record| record.key.clone());
        footprint
    }

    /// What the commit leaves of `rows`, or which precondition does not hold.
    ///
    /// Where an earlier request had the same key of idempotency, the answer is that one's, with nothing to write.
    ///
    /// # Errors
    /// [`Conflict`] names the first precondition that does not hold.
    pub fn evaluate(&self, rows: Rows) -> Result<Evaluated, Conflict> {
        let now = rows.now;
        if let (Some(record), Some(answer)) = (&self.idempotency, &rows.answer) {
            if answer.request != record.request {
                return Err(Conflict::IdempotencyMismatch);
            }
            let mut replay = Draft::new(rows.clone()).finish();
            replay.committed = Committed { replayed: true, ..answer.committed.clone() };
            return Ok(replay);
        }
        let mut draft = Draft::new(rows);
        for change in &self.changes {
            draft.change(change)?;
        }
        for delta in &self.quota {
            draft.quota(delta)?;
        }
        let mut evaluated = draft.finish();
        evaluated.audit =
            self.audit.clone().map(|entry| AuditRow { commit: self.id, revision: Revision::default(), at: now, entry });
        evaluated.answer = self.idempotency.as_ref().map(|record| {
            let answer = Answer {
                request: record.request.clone(),
                expires: later(now, record.ttl),
                committed: evaluated.committed.clone(),
            };
            (record.key.clone(), answer)
        });
        Ok(evaluated)
    }
}

impl AgentChange {
    fn add_to(&self, footprint: &mut Footprint) {
        let needs = footprint.agents.entry(self.agent).or_default();
        for op in &self.ops {
            match op {
                AgentOp::Create(new) => {
                    footprint.names.insert((new.tenant.clone(), new.name.clone()));
                }
                AgentOp::Transition { event, .. } => {
                    needs.held = true;
                    needs.open |= *event == AgentEvent::DeleteAsked;
                    needs.computer |= matches!(event, AgentEvent::DeleteAsked | AgentEvent::Ready);
                }
                AgentOp::Begin { computer, .. } => needs.computer |= computer.is_some(),
                AgentOp::Lease(id)
                | AgentOp::End { message: id, .. }
                | AgentOp::RequestCancel { message: id, .. }
                | AgentOp::CancelQueued { message: id, .. } => {
                    footprint.messages.insert(*id);
                }
                AgentOp::SetSpec(_) => needs.computer = true,
                AgentOp::CancelHeld { .. } => needs.held = true,
                AgentOp::SetDesired { .. }
                | AgentOp::Extend { .. }
                | AgentOp::SetupBegun { .. }
                | AgentOp::Started { .. }
                | AgentOp::Boot { .. }
                | AgentOp::RunEnded { .. }
                | AgentOp::Settled
                | AgentOp::WantLog
                | AgentOp::KeepLog { .. }
                | AgentOp::SetSetup(_)
                | AgentOp::ForgetSetup
                | AgentOp::SetCondition { .. }
                | AgentOp::ClearCondition(_)
                | AgentOp::KeepAwake(_)
                | AgentOp::ClockMoved(_)
                | AgentOp::Accept(_)
                | AgentOp::AddSteps { .. } => {}
            }
        }
    }
}

/// The time `by` after `now`, or the last one that there is.
pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}
