//! What a commit means: from the rows that it touches to the rows that it leaves, without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::commit::{
    AgentChange, AgentOp, Answer, AuditRow, Backoff, Change, Check, Commit, Committed, Conflict, Ending,
    IdempotencyKey, NewMessage, QuotaKind, Record, RecordChange, RecordCheck, RecordKey, Reply,
};
use crate::agent::{
    Agent, AgentEvent, Condition, ConditionKind, Decision, Denial, Desired, Effect, Run, State, Status,
};
use crate::computer::Computer;
use crate::event::{Event, EventKind};
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::{Message, MessageDecision, MessageEvent, MessageState, Role};
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
        self.committed.messages.clone_from(&self.messages);
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
            match change {
                Change::Agent(change) => draft.agent_change(change)?,
                Change::Reclaimed(id) => draft.reclaimed(*id)?,
                Change::Record(change) => draft.record_change(change)?,
            }
        }
        for delta in &self.quota {
            let key = (delta.tenant.clone(), delta.kind);
            let used = draft.rows.usage.get(&key).copied().unwrap_or(0).saturating_add_signed(delta.delta);
            if let Some(limit) = delta.limit
                && delta.delta > 0
                && used > limit
            {
                return Err(Conflict::Quota { tenant: delta.tenant.clone(), kind: delta.kind, limit });
            }
            draft.rows.usage.insert(key.clone(), used);
            draft.usage.insert(key);
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
                    needs.computer |= *event == AgentEvent::DeleteAsked;
                }
                AgentOp::Begin { computer, .. } => needs.computer |= computer.is_some(),
                AgentOp::Lease(id) | AgentOp::End { message: id, .. } | AgentOp::RequestCancel { message: id, .. } => {
                    footprint.messages.insert(*id);
                }
                AgentOp::SetSpec(_)
                | AgentOp::SetDesired { .. }
                | AgentOp::Extend { .. }
                | AgentOp::Started { .. }
                | AgentOp::Boot { .. }
                | AgentOp::RunEnded { .. }
                | AgentOp::SetSetup(_)
                | AgentOp::SetCondition { .. }
                | AgentOp::ClearCondition(_)
                | AgentOp::KeepAwake(_)
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

/// The rows of a commit while it is worked out, and which of them it changed.
struct Draft {
    rows: Rows,
    agents: BTreeSet<AgentId>,
    messages: BTreeSet<MessageId>,
    steps: Vec<Step>,
    computers: BTreeSet<ComputerId>,
    removed_computers: Vec<ComputerId>,
    records: Vec<(RecordKey, Option<Record>)>,
    usage: BTreeSet<(TenantName, QuotaKind)>,
    events: Vec<Event>,
}

impl Draft {
    const fn new(rows: Rows) -> Self {
        Self {
            rows,
            agents: BTreeSet::new(),
            messages: BTreeSet::new(),
            steps: Vec::new(),
            computers: BTreeSet::new(),
            removed_computers: Vec::new(),
            records: Vec::new(),
            usage: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    fn finish(mut self) -> Evaluated {
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

    fn tell(&mut self, agent: &Agent, kind: EventKind, message: Option<MessageId>, summary: serde_json::Value) {
        self.events.push(Event {
            revision: Revision(self.events.len() as u64 + 1),
            at: self.rows.now,
            tenant: Some(agent.tenant.clone()),
            kind,
            agent: Some(agent.id),
            name: Some(agent.name.clone()),
            message,
            summary,
        });
    }

    fn agent_change(&mut self, change: &AgentChange) -> Result<(), Conflict> {
        if change.when.is_empty() {
            return Err(Conflict::Unconditional(change.agent));
        }
        let found = self.rows.agents.remove(&change.agent);
        let mut agent = match (found, change.ops.first()) {
            (None, Some(AgentOp::Create(new))) if change.when.contains(&Check::Absent) => {
                if !self.rows.taken.insert((new.tenant.clone(), new.name.clone())) {
                    return Err(Conflict::NameTaken(new.name.clone()));
                }
                new_agent(change.agent, new, self.rows.now)
            }
            (None, _) => return Err(Conflict::NoAgent(change.agent)),
            (Some(agent), _) if change.when.contains(&Check::Absent) => {
                return Err(Conflict::NameTaken(agent.name));
            }
            (Some(agent), _) => agent,
        };
        for check in &change.when {
            check.on(&agent, self.rows.now)?;
        }
        for op in &change.ops {
            self.op(&mut agent, op)?;
        }
        self.agents.insert(agent.id);
        self.rows.agents.insert(agent.id, agent);
        Ok(())
    }

    fn op(&mut self, agent: &mut Agent, op: &AgentOp) -> Result<(), Conflict> {
        let now = self.rows.now;
        match op {
            AgentOp::Create(_) => self.tell(agent, EventKind::AgentCreated, None, json!({})),
            AgentOp::SetSpec(spec) => {
                agent.spec = (**spec).clone();
                agent.generation += 1;
                self.tell(agent, EventKind::AgentEdited, None, json!({ "generation": agent.generation }));
            }
            AgentOp::SetDesired { desired, retry } => self.desire(agent, *desired, *retry),
            AgentOp::Transition { event, reason, message, backoff } => {
                self.transition(agent, event, reason, message, *backoff)?;
            }
            AgentOp::Begin { computer, key_hash, deadline, generation } => {
                if let Some(new) = computer {
                    self.new_computer(agent, new);
                }
                let status = &mut agent.status;
                status.incarnation = status.incarnation.next();
                status.observed_generation = *generation;
                status.retry_at = None;
                status.heard_at = None;
                status.run = Some(Run {
                    incarnation: status.incarnation,
                    began_at: now,
                    deadline: later(now, *deadline),
                    start_id: None,
                    key_hash: Some(key_hash.clone()),
                    booted_at: None,
                    ready_at: None,
                    ending: false,
                });
                self.status_changed(agent, json!({ "incarnation": agent.status.incarnation }));
            }
            AgentOp::Extend { deadline } => {
                if let Some(run) = &mut agent.status.run {
                    run.deadline = later(now, *deadline);
                }
                self.status_changed(agent, json!({ "deadline_in": deadline.as_secs() }));
            }
            AgentOp::Started { start_id } => {
                if let Some(run) = &mut agent.status.run {
                    run.start_id = Some(start_id.clone());
                }
                self.status_changed(agent, json!({ "started": start_id }));
            }
            AgentOp::Boot { key_hash } => {
                let run = agent.status.run.as_mut().filter(|run| !run.ending).ok_or(Conflict::BootKey)?;
                if run.key_hash.as_ref() != Some(key_hash) {
                    return Err(Conflict::BootKey);
                }
                run.key_hash = None;
                run.booted_at = Some(now);
                agent.status.heard_at = Some(now);
                self.status_changed(agent, json!({ "booted": agent.status.incarnation }));
            }
            AgentOp::RunEnded { incarnation } => {
                if agent.status.run.as_ref().is_some_and(|run| run.incarnation == *incarnation) {
                    agent.status.run = None;
                    agent.status.heard_at = None;
                    self.status_changed(agent, json!({ "stopped": incarnation }));
                }
            }
            AgentOp::SetSetup(record) => {
                agent.status.setup = Some(record.clone());
                self.status_changed(
                    agent,
                    json!({ "setup": if record.failure.is_some() { "failed" } else { "done" } }),
                );
            }
            AgentOp::SetCondition { kind, status, reason, message } => {
                let same = agent.status.conditions.get(*kind).is_some_and(|there| {
                    there.status == *status && there.reason == *reason && there.message == *message
                });
                if !same {
                    set_condition(&mut agent.status, *kind, *status, reason, message, now);
                    self.status_changed(agent, json!({ "condition": kind, "status": status, "reason": reason }));
                }
            }
            AgentOp::ClearCondition(kind) => {
                if agent.status.conditions.get(*kind).is_some() {
                    agent.status.conditions.clear(*kind);
                    self.status_changed(agent, json!({ "cleared": kind }));
                }
            }
            AgentOp::KeepAwake(time) => {
                let idle = Duration::from_secs(agent.spec.idle_timeout.into());
                let until = time.map(|time| later(now, time));
                agent.status.keep_awake_until = until;
                agent.status.awake_until = until.max(Some(later(now, idle)));
                self.status_changed(agent, json!({ "keep_awake_until": until }));
            }
            AgentOp::Accept(new) => self.accept(agent, new),
            AgentOp::Lease(id) => self.lease(agent, *id)?,
            AgentOp::End { message, ending, reply } => self.end(agent, *message, ending, reply.as_ref())?,
            AgentOp::RequestCancel { message, obey } => self.request_cancel(agent, *message, *obey)?,
            AgentOp::AddSteps { message, attempt, steps } => {
                let first = agent.inbox.last_step + 1;
                for new in steps {
                    agent.inbox.last_step += 1;
                    self.steps.push(Step {
                        tenant: agent.tenant.clone(),
                        agent: agent.id,
                        seq: agent.inbox.last_step,
                        message: *message,
                        attempt: *attempt,
                        incarnation: agent.status.incarnation,
                        kind: new.kind,
                        tool: new.tool.clone(),
                        text: new.text.clone(),
                        at: now,
                    });
                }
                let summary = json!({ "first": first, "last": agent.inbox.last_step });
                self.tell(agent, EventKind::StepsAdded, *message, summary);
            }
        }
        Ok(())
    }

    fn status_changed(&mut self, agent: &mut Agent, summary: serde_json::Value) {
        agent.status.version += 1;
        self.tell(agent, EventKind::AgentStatus, None, summary);
    }

    fn desire(&mut self, agent: &mut Agent, desired: Desired, retry: bool) {
        if agent.desired == desired && !retry {
            return;
        }
        agent.desired = desired;
        agent.generation += 1;
        self.tell(agent, EventKind::AgentDesired, None, json!({ "desired": desired, "retry": retry }));
    }

    fn transition(
        &mut self,
        agent: &mut Agent,
        event: &AgentEvent,
        reason: &str,
        message: &str,
        backoff: Option<Backoff>,
    ) -> Result<(), Conflict> {
        let now = self.rows.now;
        let from = agent.status.state();
        // A run that is being ended can report what it likes.
        if *event == AgentEvent::Ready && agent.status.run.as_ref().is_none_or(|run| run.ending) {
            return Err(Conflict::Denied { state: from, denial: Denial::NotUp });
        }
        let (to, effects) = match from.on(event) {
            Decision::Ignore => return Ok(()),
            Decision::Deny(denial) => {
                return Err(Conflict::Denied { state: from, denial });
            }
            Decision::Move { to, effects } => (to, effects),
        };
        for effect in effects {
            match effect {
                Effect::EndRun => {
                    if let Some(run) = &mut agent.status.run {
                        run.ending = true;
                        run.key_hash = None;
                    }
                }
                Effect::BackOff => match backoff.unwrap_or(Backoff::None) {
                    Backoff::None => agent.status.retry_at = None,
                    Backoff::After(wait) => {
                        agent.status.restarts += 1;
                        agent.status.retry_at = Some(later(now, wait));
                    }
                    Backoff::UntilChanged => {
                        agent.status.restarts += 1;
                        agent.status.retry_at = Some(Timestamp::MAX);
                    }
                },
                Effect::RequeueMessage => {
                    let requeue = MessageEvent::Requeue { reason: message.to_owned() };
                    self.held_message(agent, requeue)?;
                }
                Effect::FailMessage => {
                    let fail = MessageEvent::Fail { reason: message.to_owned() };
                    self.held_message(agent, fail)?;
                }
                Effect::CancelMessage => {
                    let cancel = MessageEvent::Cancel { reason: message.to_owned() };
                    self.held_message(agent, cancel)?;
                }
                Effect::CancelInbox => self.cancel_inbox(agent, message)?,
                Effect::Reclaim => {
                    let computer = agent.status.computer.take();
                    if let Some(computer) = computer.and_then(|id| self.rows.computers.get_mut(&id)) {
                        computer.reclaim_since = Some(now);
                        let id = computer.id();
                        self.computers.insert(id);
                    }
                }
            }
        }
        let status = &mut agent.status;
        if from != to {
            status.since = now;
        }
        if to != State::Busy {
            status.message = None;
            status.busy_until = None;
            status.cancel_by = None;
        }
        match to {
            State::Idle => {
                let quiet = later(now, Duration::from_secs(agent.spec.idle_timeout.into()));
                status.awake_until = status.awake_until.max(status.keep_awake_until).max(Some(quiet));
                status.heard_at = Some(now);
                status.retry_at = None;
                if let Some(run) = &mut status.run {
                    run.ready_at.get_or_insert(now);
                }
                set_condition(status, ConditionKind::Ready, true, reason, message, now);
            }
            State::Busy => {}
            State::Init | State::Slept => {
                status.awake_until = None;
                set_condition(status, ConditionKind::Ready, false, reason, message, now);
            }
            State::Deleted => {
                status.awake_until = None;
                status.retry_at = None;
                // The computer's run is ended from the reclaim list.
                status.run = None;
            }
        }
        if matches!(to, State::Slept | State::Deleted) {
            status.keep_awake_until = None;
            status.restarts = 0;
            status.retry_at = None;
            status.conditions.clear(ConditionKind::SleepPending);
        }
        status.state_moved(to);
        let summary = json!({ "from": from, "to": to, "reason": reason });
        self.tell(agent, EventKind::AgentState, None, summary);
        Ok(())
    }

    fn held_message(&mut self, agent: &mut Agent, event: MessageEvent) -> Result<(), Conflict> {
        match agent.status.message {
            Some(id) => self.message_event(agent, id, event),
            None => Ok(()),
        }
    }

    fn cancel_inbox(&mut self, agent: &mut Agent, why: &str) -> Result<(), Conflict> {
        let mut open: Vec<_> = self
            .rows
            .messages
            .values()
            .filter(|message| message.agent == agent.id && !message.state.is_ended())
            .map(|message| (message.seq, message.id))
            .collect();
        open.sort_unstable();
        for (_, id) in open {
            self.message_event(agent, id, MessageEvent::Cancel { reason: why.to_owned() })?;
        }
        Ok(())
    }

    fn message_event(&mut self, agent: &mut Agent, id: MessageId, event: MessageEvent) -> Result<(), Conflict> {
        let now = self.rows.now;
        let mut message =
            self.rows.messages.remove(&id).filter(|m| m.agent == agent.id).ok_or(Conflict::NoMessage(id))?;
        let from = message.state;
        let to = match from.on(&event, message.attempt) {
            MessageDecision::Deny => return Err(Conflict::MessageState { id, state: from }),
            MessageDecision::Ignore => from,
            MessageDecision::Move(to) => to,
        };
        if to != from {
            message.state = to;
            match event {
                MessageEvent::Lease(incarnation) => {
                    message.attempt += 1;
                    message.incarnation = Some(incarnation);
                    message.leased_at = Some(now);
                }
                MessageEvent::Resume(incarnation) => message.incarnation = Some(incarnation),
                MessageEvent::Requeue { reason } if to == MessageState::Failed => message.reason = Some(reason),
                MessageEvent::Fail { reason } | MessageEvent::Cancel { reason } => message.reason = Some(reason),
                MessageEvent::Requeue { .. } | MessageEvent::Park | MessageEvent::Finish => {}
            }
            if to.is_ended() {
                message.ended_at = Some(now);
            }
            if to == MessageState::Queued {
                agent.inbox.queued += 1;
            }
            if from == MessageState::Queued {
                agent.inbox.queued -= 1;
            }
            let summary = json!({
                "from": from, "to": to, "seq": message.seq, "attempt": message.attempt,
                "reason": message.reason.as_deref().map(|reason| short(reason, 300)),
            });
            self.tell(agent, EventKind::MessageState, Some(id), summary);
            self.messages.insert(id);
        }
        self.rows.messages.insert(id, message);
        Ok(())
    }

    fn accept(&mut self, agent: &mut Agent, new: &NewMessage) {
        agent.inbox.last_seq += 1;
        agent.inbox.queued += 1;
        let message = Message {
            id: new.id,
            tenant: agent.tenant.clone(),
            agent: agent.id,
            seq: agent.inbox.last_seq,
            role: new.role,
            author: new.author.clone(),
            parts: new.parts.clone(),
            reply_to: None,
            state: MessageState::Queued,
            attempt: 0,
            incarnation: None,
            cancel_requested: false,
            reason: None,
            created_at: self.rows.now,
            leased_at: None,
            ended_at: None,
        };
        let summary = json!({ "seq": message.seq, "role": message.role });
        self.messages.insert(message.id);
        self.rows.messages.insert(message.id, message);
        self.tell(agent, EventKind::MessageAccepted, Some(new.id), summary);
        self.desire(agent, Desired::Awake, false);
    }

    fn lease(&mut self, agent: &mut Agent, id: MessageId) -> Result<(), Conflict> {
        let incarnation = agent.status.incarnation;
        self.transition(agent, &AgentEvent::Leased(id), "MessageLeased", "works on a message", None)?;
        self.message_event(agent, id, MessageEvent::Lease(incarnation))?;
        agent.status.message = Some(id);
        agent.status.busy_until = Some(later(self.rows.now, Duration::from_secs(agent.spec.busy_timeout.into())));
        Ok(())
    }

    fn end(
        &mut self,
        agent: &mut Agent,
        id: MessageId,
        ending: &Ending,
        reply: Option<&Reply>,
    ) -> Result<(), Conflict> {
        if agent.status.message != Some(id) {
            return Err(Conflict::NotHeld(id));
        }
        let event = match ending {
            Ending::Done => MessageEvent::Finish,
            Ending::Failed { reason } => MessageEvent::Fail { reason: reason.clone() },
            Ending::Cancelled => MessageEvent::Cancel { reason: "cancelled by request".into() },
            Ending::Parked => MessageEvent::Park,
        };
        self.message_event(agent, id, event)?;
        if let Some(reply) = reply {
            agent.inbox.last_seq += 1;
            let now = self.rows.now;
            let message = Message {
                id: reply.id,
                tenant: agent.tenant.clone(),
                agent: agent.id,
                seq: agent.inbox.last_seq,
                role: Role::Agent,
                author: format!("agent:{}", agent.name),
                parts: reply.parts.clone(),
                reply_to: Some(id),
                state: MessageState::Done,
                attempt: 0,
                incarnation: Some(agent.status.incarnation),
                cancel_requested: false,
                reason: None,
                created_at: now,
                leased_at: None,
                ended_at: Some(now),
            };
            let summary = json!({ "seq": message.seq, "reply_to": id });
            self.messages.insert(message.id);
            self.rows.messages.insert(message.id, message);
            self.tell(agent, EventKind::MessageReply, Some(reply.id), summary);
        }
        agent.status.restarts = 0;
        self.transition(agent, &AgentEvent::Ended, "Waiting", "waits for a message", None)
    }

    fn request_cancel(&mut self, agent: &mut Agent, id: MessageId, obey: Duration) -> Result<(), Conflict> {
        let message = self.rows.messages.get_mut(&id).filter(|m| m.agent == agent.id).ok_or(Conflict::NoMessage(id))?;
        if agent.status.message != Some(id) {
            let cancel = MessageEvent::Cancel { reason: "cancelled by request".into() };
            return self.message_event(agent, id, cancel);
        }
        if message.cancel_requested {
            return Ok(());
        }
        message.cancel_requested = true;
        self.messages.insert(id);
        agent.status.cancel_by = Some(later(self.rows.now, obey));
        agent.status.version += 1;
        self.tell(agent, EventKind::MessageCancel, Some(id), json!({}));
        Ok(())
    }

    fn new_computer(&mut self, agent: &mut Agent, new: &super::commit::NewComputer) {
        let now = self.rows.now;
        if let Some(old) = agent.status.computer.and_then(|id| self.rows.computers.get_mut(&id)) {
            old.reclaim_since = Some(now);
            old.keep_volume = old.spec.volume == new.spec.volume;
            let id = old.id();
            self.computers.insert(id);
        }
        let computer = Computer {
            tenant: agent.tenant.clone(),
            agent: agent.id,
            runtime: new.runtime.clone(),
            spec: new.spec.clone(),
            reclaim_since: None,
            keep_volume: false,
        };
        agent.status.computer = Some(computer.id());
        self.computers.insert(computer.id());
        self.rows.computers.insert(computer.id(), computer);
    }

    fn reclaimed(&mut self, id: ComputerId) -> Result<(), Conflict> {
        let computer = self.rows.computers.remove(&id).filter(|computer| computer.reclaim_since.is_some());
        let computer = computer.ok_or(Conflict::NotReclaimable(id))?;
        self.computers.remove(&id);
        self.removed_computers.push(id);
        self.events.push(Event {
            revision: Revision(self.events.len() as u64 + 1),
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

    fn record_change(&mut self, change: &RecordChange) -> Result<(), Conflict> {
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
        self.events.push(Event {
            revision: Revision(self.events.len() as u64 + 1),
            at: self.rows.now,
            tenant: change.key.tenant.clone(),
            kind: EventKind::AccessChanged,
            agent: None,
            name: None,
            message: None,
            summary: json!({ "kind": change.key.kind, "name": short(&change.key.name, 300) }),
        });
        Ok(())
    }
}

/// The first `limit` bytes of a text at most, cut between characters.
fn short(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

fn set_condition(status: &mut Status, kind: ConditionKind, holds: bool, reason: &str, message: &str, now: Timestamp) {
    status.conditions.set(Condition {
        kind,
        status: holds,
        reason: reason.to_owned(),
        message: message.to_owned(),
        since: now,
    });
}

fn new_agent(id: AgentId, new: &super::commit::NewAgent, now: Timestamp) -> Agent {
    Agent {
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
        inbox: crate::agent::Inbox::default(),
    }
}

impl Check {
    fn on(&self, agent: &Agent, now: Timestamp) -> Result<(), Conflict> {
        let status = &agent.status;
        match *self {
            Self::Absent => Ok(()),
            Self::Alive if status.state() == State::Deleted || agent.desired == Desired::Deleted => {
                Err(Conflict::NoAgent(agent.id))
            }
            Self::Generation(wanted) if wanted != agent.generation => {
                Err(Conflict::Generation { wanted, found: agent.generation })
            }
            Self::Status(wanted) if wanted != status.version => Err(Conflict::Status { wanted, found: status.version }),
            Self::Incarnation(wanted) if wanted != status.incarnation => {
                Err(Conflict::StaleIncarnation { wanted, found: status.incarnation })
            }
            Self::Desired(wanted) if wanted != agent.desired => Err(Conflict::Desired { found: agent.desired }),
            Self::InboxEmpty if agent.inbox.queued > 0 => Err(Conflict::InboxNotEmpty(agent.inbox.queued)),
            Self::InboxBelow(limit) if agent.inbox.queued >= limit => Err(Conflict::InboxFull(limit)),
            Self::Quiet => match status.awake_until {
                Some(until) if until > now => Err(Conflict::NotQuiet(until)),
                _ => Ok(()),
            },
            Self::Holds(id) if status.message != Some(id) => Err(Conflict::NotHeld(id)),
            _ => Ok(()),
        }
    }
}
