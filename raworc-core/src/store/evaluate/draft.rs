//! A commit while it is worked out.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{Evaluated, Rows, later};
use crate::agent::{Agent, AgentEvent, ConditionKind, Desired, Inbox, State, Status};
use crate::event::{Event, EventKind};
use crate::ids::{AgentId, ComputerId, MessageId, Revision, TenantName};
use crate::step::Step;
use crate::store::commit::{
    AgentChange, AgentOp, Change, Check, Committed, Conflict, NewAgent, QuotaDelta, QuotaKind, Record, RecordChange,
    RecordCheck, RecordKey,
};

/// Bytes of JSON that one text in an event's summary may take, so that the whole stays under 1 KiB.
const WORDS: usize = 300;

/// The rows of a commit as it leaves them so far, and which of them it changed.
pub(super) struct Draft {
    pub(super) rows: Rows,
    pub(super) messages: BTreeSet<MessageId>,
    pub(super) untold: BTreeSet<MessageId>,
    pub(super) steps: Vec<Step>,
    pub(super) computers: BTreeSet<ComputerId>,
    agents: BTreeSet<AgentId>,
    removed_computers: Vec<ComputerId>,
    records: Vec<(RecordKey, Option<Record>)>,
    usage: BTreeSet<(TenantName, QuotaKind)>,
    events: Vec<Event>,
}

impl Draft {
    pub(super) const fn new(rows: Rows) -> Self {
        Self {
            rows,
            messages: BTreeSet::new(),
            untold: BTreeSet::new(),
            steps: Vec::new(),
            computers: BTreeSet::new(),
            agents: BTreeSet::new(),
            removed_computers: Vec::new(),
            records: Vec::new(),
            usage: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn finish(mut self) -> Evaluated {
        let now = self.rows.now;
        let agents: Vec<_> = self.agents.iter().filter_map(|id| self.rows.agents.remove(id)).collect();
        let mut messages: Vec<_> = self.messages.iter().filter_map(|id| self.rows.messages.remove(id)).collect();
        messages.sort_by_key(|message| message.seq);
        let committed =
            Committed { revision: Revision::default(), now, agents: Vec::new(), messages: Vec::new(), replayed: false };
        Evaluated {
            now,
            agents,
            messages,
            untold: self.untold,
            steps: self.steps,
            computers: self.computers.iter().filter_map(|id| self.rows.computers.remove(id)).collect(),
            removed_computers: self.removed_computers,
            records: self.records,
            usage: self.usage.into_iter().map(|key| (key.clone(), self.rows.usage[&key])).collect(),
            events: self.events,
            audit: None,
            answer: None,
            committed,
        }
    }

    pub(super) fn change(&mut self, change: &Change) -> Result<(), Conflict> {
        match change {
            Change::Agent(change) => self.agent(change),
            Change::Reclaimed(id) => self.reclaimed(*id),
            Change::Record(change) => self.record(change),
        }
    }

    pub(super) fn tell(
        &mut self,
        agent: &Agent,
        kind: EventKind,
        message: Option<MessageId>,
        summary: serde_json::Value,
    ) {
        self.log(Event {
            revision: Revision::default(),
            at: self.rows.now,
            tenant: Some(agent.tenant.clone()),
            kind,
            agent: Some(agent.id),
            name: Some(agent.name.clone()),
            message,
            summary,
        });
    }

    fn log(&mut self, mut event: Event) {
        event.revision = Revision(self.events.len() as u64 + 1);
        self.events.push(event);
    }

    pub(super) fn status_changed(&mut self, agent: &mut Agent, summary: serde_json::Value) {
        agent.status.version += 1;
        self.tell(agent, EventKind::AgentStatus, None, summary);
    }

    fn agent(&mut self, change: &AgentChange) -> Result<(), Conflict> {
        if change.when.is_empty() {
            return Err(Conflict::Unconditional(change.agent));
        }
        let absent = change.when.contains(&Check::Absent);
        let (mut agent, ops) = match (self.rows.agents.remove(&change.agent), change.ops.split_first()) {
            (Some(agent), _) if absent => return Err(Conflict::NameTaken(agent.name)),
            (Some(agent), _) => (agent, &change.ops[..]),
            (None, Some((AgentOp::Create(new), ops))) if absent => (self.create(change.agent, new)?, ops),
            (None, _) => return Err(Conflict::NoAgent(change.agent)),
        };
        for check in &change.when {
            check.on(&agent, self.rows.now)?;
        }
        for op in ops {
            self.op(&mut agent, op)?;
        }
        self.agents.insert(agent.id);
        self.rows.agents.insert(agent.id, agent);
        Ok(())
    }

    fn create(&mut self, id: AgentId, new: &NewAgent) -> Result<Agent, Conflict> {
        if !self.rows.taken.insert((new.tenant.clone(), new.name.clone())) {
            return Err(Conflict::NameTaken(new.name.clone()));
        }
        let now = self.rows.now;
        let agent = Agent {
            id,
            tenant: new.tenant.clone(),
            name: new.name.clone(),
            owner: new.owner.clone(),
            spec: new.spec.clone(),
            desired: Desired::Awake,
            status: Status::new(now),
            generation: 1,
            revision: Revision::default(),
            created_at: now,
            inbox: Inbox::default(),
        };
        self.tell(&agent, EventKind::AgentCreated, None, json!({}));
        Ok(agent)
    }

    fn op(&mut self, agent: &mut Agent, op: &AgentOp) -> Result<(), Conflict> {
        let now = self.rows.now;
        match op {
            // It is there already, or it would have been made.
            AgentOp::Create(_) => return Err(Conflict::NameTaken(agent.name.clone())),
            AgentOp::SetSpec(spec) => self.set_spec(agent, spec)?,
            AgentOp::SetDesired { desired, retry } => self.desire(agent, *desired, *retry)?,
            AgentOp::Lease(id) => self.lease(agent, *id)?,
            // A message is taken up by its own op, or nobody would hold it.
            AgentOp::Transition { event: AgentEvent::Leased(id), .. } => return Err(Conflict::NotHeld(*id)),
            AgentOp::Transition { event, reason, message, backoff } => {
                self.transition(agent, event, reason, message, *backoff)?;
            }
            AgentOp::Begin { operator, computer, key_hash, deadline, generation } => {
                self.begin(agent, *operator, computer.as_ref(), key_hash, *deadline, *generation)?;
            }
            AgentOp::Extend { deadline } => {
                if let Some(run) = &mut agent.status.run {
                    run.deadline = later(now, *deadline);
                    self.status_changed(agent, json!({ "deadline_in": deadline.as_secs() }));
                }
            }
            AgentOp::SetupBegun { hash, deadline } => self.setup_begun(agent, hash, *deadline)?,
            AgentOp::Settled => {
                if let Some(run) = agent.status.run.as_mut().filter(|run| !run.settled) {
                    run.settled = true;
                    self.status_changed(agent, json!({ "settled": agent.status.incarnation }));
                }
            }
            AgentOp::Started { start_id } => {
                if let Some(run) = &mut agent.status.run {
                    agent.status.unsettled = false;
                    run.start_id = Some(start_id.clone());
                    self.status_changed(agent, json!({ "started": short(&start_id.0) }));
                }
            }
            AgentOp::Boot { key_hash } => {
                let run = agent.status.run.as_mut().filter(|run| !run.ending).ok_or(Conflict::BootKey)?;
                if run.key_hash.as_ref() != Some(key_hash) {
                    return Err(Conflict::BootKey);
                }
                run.key_hash = None;
                run.booted_at = Some(now);
                agent.status.has_booted = true;
                agent.status.unsettled = false;
                agent.status.heard_at = Some(now);
                self.status_changed(agent, json!({ "booted": agent.status.incarnation }));
            }
            AgentOp::RunEnded { incarnation } => {
                if agent.status.run.as_ref().is_some_and(|run| run.incarnation == *incarnation) {
                    agent.status.unsettled = agent.status.is_unsettled();
                    agent.status.run = None;
                    agent.status.heard_at = None;
                    self.status_changed(agent, json!({ "stopped": incarnation }));
                }
            }
            AgentOp::WantLog => {
                if let Some(run) = agent.status.run.as_mut().filter(|run| !run.log_wanted) {
                    run.log_wanted = true;
                    self.status_changed(agent, json!({ "log_wanted": agent.status.incarnation }));
                }
            }
            AgentOp::KeepLog { incarnation, bytes, told } => self.keep_log(agent, *incarnation, *bytes, told),
            AgentOp::SetSetup(record) => {
                agent.check_run()?;
                agent.status.setup = Some(record.clone());
                let how = if record.failure.is_some() { "failed" } else { "done" };
                self.status_changed(agent, json!({ "setup": how }));
            }
            AgentOp::ForgetSetup => {
                agent.check_run()?;
                agent.status.setup = None;
                self.status_changed(agent, json!({ "setup": "forgotten" }));
            }
            AgentOp::SetCondition { kind, status, reason, message } => {
                self.set_condition(agent, *kind, *status, reason, message);
            }
            AgentOp::ClearCondition(kind) => self.clear_condition(agent, *kind),
            AgentOp::KeepAwake(time) => self.keep_awake(agent, *time)?,
            AgentOp::ClockMoved(moves) => {
                if let Some(times) = agent.times_after(moves, now) {
                    agent.set_times(&times);
                    let ahead: Duration = moves.iter().map(|by| by.ahead).sum();
                    self.status_changed(agent, json!({ "clock_ahead": ahead.as_secs() }));
                }
            }
            AgentOp::Accept(new) => self.accept(agent, new)?,
            AgentOp::End { message, ending, reply } => self.end(agent, *message, ending, reply.as_ref())?,
            AgentOp::RequestCancel { message, obey } => self.request_cancel(agent, *message, *obey)?,
            AgentOp::CancelQueued { message, reason } => self.cancel_queued(agent, *message, reason)?,
            AgentOp::CancelHeld { obey } => {
                if let Some(held) = agent.status.message {
                    self.request_cancel(agent, held, *obey)?;
                }
            }
            AgentOp::AddSteps { message, attempt, steps } => self.add_steps(agent, *message, *attempt, steps)?,
        }
        Ok(())
    }

    pub(super) fn set_condition(
        &mut self,
        agent: &mut Agent,
        kind: ConditionKind,
        status: bool,
        reason: &str,
        message: &str,
    ) {
        let same = agent
            .status
            .conditions
            .get(kind)
            .is_some_and(|there| there.status == status && there.reason == reason && there.message == message);
        // What an engine did for it may come late, and is told to nobody any more.
        let deleted = agent.status.state() == State::Deleted;
        if !same && !deleted {
            agent.status.set_condition(kind, status, reason, message, self.rows.now);
            self.status_changed(agent, json!({ "condition": kind, "status": status, "reason": short(reason) }));
        }
    }

    pub(super) fn clear_condition(&mut self, agent: &mut Agent, kind: ConditionKind) {
        if agent.status.conditions.get(kind).is_some() && agent.status.state() != State::Deleted {
            agent.status.conditions.clear(kind);
            self.status_changed(agent, json!({ "cleared": kind }));
        }
    }

    fn reclaimed(&mut self, id: ComputerId) -> Result<(), Conflict> {
        let computer = self.rows.computers.remove(&id).filter(|computer| computer.reclaim_since.is_some());
        let computer = computer.ok_or(Conflict::NotReclaimable(id))?;
        self.computers.remove(&id);
        self.removed_computers.push(id);
        self.log(Event {
            revision: Revision::default(),
            at: self.rows.now,
            tenant: Some(computer.tenant),
            kind: EventKind::AgentStatus,
            agent: Some(computer.agent),
            name: None,
            message: None,
            summary: json!({ "reclaimed": id }),
        });
        Ok(())
    }

    fn record(&mut self, change: &RecordChange) -> Result<(), Conflict> {
        let found = self.rows.records.get(&change.key).map_or(0, |record| record.version);
        let wanted = match change.when {
            RecordCheck::Absent => 0,
            RecordCheck::Version(version) => version,
        };
        if found != wanted {
            return Err(Conflict::Record { kind: change.key.kind.as_str(), name: change.key.name.clone(), found });
        }
        let record = change.body.clone().map(|body| Record {
            key: change.key.clone(),
            version: found + 1,
            body,
            expires: change.ttl.map(|ttl| later(self.rows.now, ttl)),
        });
        match &record {
            Some(record) => self.rows.records.insert(change.key.clone(), record.clone()),
            None => self.rows.records.remove(&change.key),
        };
        self.records.push((change.key.clone(), record));
        if !change.key.kind.is_told() {
            return Ok(());
        }
        self.log(Event {
            revision: Revision::default(),
            at: self.rows.now,
            tenant: change.key.tenant.clone(),
            kind: EventKind::AccessChanged,
            agent: None,
            name: None,
            message: None,
            summary: json!({ "kind": change.key.kind, "name": short(&change.key.name) }),
        });
        Ok(())
    }

    pub(super) fn quota(&mut self, delta: &QuotaDelta) -> Result<(), Conflict> {
        let key = (delta.tenant.clone(), delta.kind);
        let used = self.rows.usage.get(&key).copied().unwrap_or(0).saturating_add_signed(delta.delta);
        match delta.limit {
            Some(limit) if delta.delta > 0 && used > limit => {
                return Err(Conflict::Quota { tenant: delta.tenant.clone(), kind: delta.kind, limit });
            }
            Some(_) | None => {}
        }
        self.rows.usage.insert(key.clone(), used);
        self.usage.insert(key);
        Ok(())
    }
}

/// The beginning of a text that has its place in a summary, cut between characters.
pub(super) fn short(text: &str) -> &str {
    let mut room = WORDS;
    for (at, c) in text.char_indices() {
        let takes = match c {
            '"' | '\\' => 2,
            // Written as \u0000.
            _ if c.is_control() => 6,
            _ => c.len_utf8(),
        };
        if takes > room {
            return &text[..at];
        }
        room -= takes;
    }
    text
}
