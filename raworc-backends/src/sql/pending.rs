//! What a batch is to write, collected row by row and written in few statements.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use raworc_core::agent::{Agent, State};
use raworc_core::computer::Computer;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, CommitId, ComputerId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{AuditRow, Committed, Evaluated, IdempotencyKey, Lease, QuotaKind, Record, RecordKey};

use super::batch::Head;
use super::convert::{int, micros, quota_word, tenant_key, to_doc};
use super::dialect::Dialect;
use super::rowset::Rowset;
use super::script::{Cell, Script};
use super::statements::{self as sql, Insert};

/// How much of an agent's row differs from what stands in the database, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Differs {
    Doc,
    Due,
    State,
    All,
    New,
}

impl Differs {
    /// In the order in which they are written: a name is free before another agent has it.
    const EACH: [(Self, &Insert); 5] = [
        (Self::All, sql::PUT_AGENTS),
        (Self::State, sql::PUT_AGENTS_STATE),
        (Self::Due, sql::PUT_AGENTS_DUE),
        (Self::Doc, sql::PUT_AGENTS_DOC),
        (Self::New, sql::PUT_NEW_AGENTS),
    ];

    fn between(before: Option<&Agent>, agent: &Agent) -> Self {
        let Some(before) = before else { return Self::New };
        let state = |agent: &Agent| agent.status.state();
        let ends = state(before) != state(agent) && state(agent) == State::Deleted;
        if ends || before.spec.runtime != agent.spec.runtime {
            Self::All
        } else if state(before) != state(agent) {
            Self::State
        } else if before.due_at() != agent.due_at() {
            Self::Due
        } else {
            Self::Doc
        }
    }
}

/// What the database has of a message that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing.
    Nothing,
    /// It, open as it still is.
    Open,
    /// It, open as it is no more.
    Ended,
}

impl Has {
    const EACH: [(Self, &Insert); 3] = [
        (Self::Nothing, sql::PUT_NEW_MESSAGES),
        (Self::Open, sql::PUT_OPEN_MESSAGES),
        (Self::Ended, sql::PUT_MESSAGES),
    ];
}

/// Rows to write, the latest of each key.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// What is too old goes with what is written.
    forgotten: Script,
    agents: BTreeMap<AgentId, (Differs, Vec<Cell>)>,
    touched: BTreeSet<AgentId>,
    gone: BTreeSet<AgentId>,
    unlabelled: BTreeSet<AgentId>,
    labels: BTreeMap<AgentId, Vec<(String, String)>>,
    messages: BTreeMap<(AgentId, u64), (Has, Vec<Cell>)>,
    /// Blobs that a message refers to, and which message does.
    used: Script,
    references: Vec<Cell>,
    steps: Vec<Cell>,
    computers: BTreeMap<ComputerId, Option<Vec<Cell>>>,
    records: BTreeMap<RecordKey, Option<Vec<Cell>>>,
    usage: BTreeMap<(TenantName, QuotaKind), Vec<Cell>>,
    answers: BTreeMap<IdempotencyKey, Vec<Cell>>,
    leases: BTreeMap<String, Vec<Cell>>,
    log: Vec<Cell>,
    commits: Vec<Cell>,
    audit: Vec<Cell>,
    pub(crate) events: Vec<Event>,
    /// About how many bytes the documents of commits have, with those of their agents and messages.
    pub(crate) bytes: usize,
    /// Blobs were written, or something is to be taken away: all else may be empty.
    pub(crate) other: bool,
}

impl Pending {
    /// Whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        !self.other && self.commits.is_empty() && self.touched.is_empty() && self.leases.is_empty()
    }

    /// Takes away what is too old, by one of the statements for that.
    pub(crate) fn forget<const N: usize>(&mut self, statement: &'static str, bounds: [i64; N]) {
        self.forgotten.add(statement, bounds.map(Cell::from));
    }

    /// Takes rows away before others are written.
    pub(crate) fn take_away(&mut self, rows: Script) {
        self.other = true;
        self.forgotten.0.extend(rows.0);
    }

    /// Takes an agent's row away, whatever was to be written of it.
    pub(crate) fn forget_agent(&mut self, agent: AgentId) {
        self.other = true;
        self.agents.remove(&agent);
        self.touched.remove(&agent);
        self.gone.insert(agent);
        self.forgotten.add(sql::FORGET_AGENT, [agent.to_string().into()]);
    }

    /// The agents whose rows change.
    pub(crate) fn agents(&self) -> impl Iterator<Item = AgentId> {
        self.agents.keys().chain(&self.touched).chain(&self.gone).copied()
    }

    /// Adds what a commit leaves, over the rows as they were before it. Takes its events.
    pub(crate) fn commit(
        &mut self,
        id: CommitId,
        seq: u64,
        evaluated: &mut Evaluated,
        before: &mut Rowset,
    ) -> Result<(), sqlx::Error> {
        let mut agents = Vec::with_capacity(evaluated.agents.len());
        for agent in &evaluated.agents {
            let doc = to_doc(agent)?;
            before.weigh(agent.id, doc.len());
            self.labels(agent, before.agents.get(&agent.id).and_then(Option::as_ref));
            agents.push((agent, doc));
        }
        let messages = evaluated.messages.iter().map(|message| Ok((message, to_doc(message)?)));
        let messages: Vec<_> = messages.collect::<Result<_, sqlx::Error>>()?;
        let told = messages.iter().filter(|(message, _)| !evaluated.untold.contains(&message.id));
        let doc = committed_doc(&evaluated.committed, &agents, told.map(|(_, doc)| doc.as_str()))?;
        let at = micros(evaluated.now);
        self.bytes += doc.len();
        self.commits.extend([int(seq).into(), id.to_string().into(), at.into(), doc.into()]);
        for (agent, doc) in agents {
            let differs = Differs::between(before.agents.get(&agent.id).and_then(Option::as_ref), agent);
            let so_far = self.agents.get(&agent.id).map_or(differs, |(so_far, _)| *so_far);
            let bytes = doc.len();
            if self.agents.insert(agent.id, (differs.max(so_far), agent_row(agent, doc))).is_none() {
                self.bytes += bytes;
            }
        }
        for (message, doc) in messages {
            if !before.has(message) {
                self.references(message);
            }
            let place = (message.agent, message.seq);
            let has = match (before.has(message), self.messages.get(&place)) {
                (false, _) | (true, Some((Has::Nothing, _))) => Has::Nothing,
                (true, _) if message.state.is_ended() => Has::Ended,
                (true, _) => Has::Open,
            };
            self.bytes += doc.len();
            self.messages.insert(place, (has, message_row(message, doc)));
        }
        for step in &evaluated.steps {
            self.steps.extend(step_row(step)?);
        }
        for computer in &evaluated.computers {
            self.computers.insert(computer.id(), Some(computer_row(computer)?));
        }
        self.computers.extend(evaluated.removed_computers.iter().map(|id| (*id, None)));
        for (key, record) in &evaluated.records {
            self.records.insert(key.clone(), record.as_ref().map(record_row).transpose()?);
        }
        for (key, used) in &evaluated.usage {
            let row = vec![key.0.to_string().into(), quota_word(key.1)?.into(), int(*used).into()];
            self.usage.insert(key.clone(), row);
        }
        if let Some((key, answer)) = &evaluated.answer {
            let (principal, name) = (key.principal.clone().into(), key.key.clone().into());
            let doc = to_doc(answer)?;
            self.bytes += doc.len();
            let row = vec![principal, name, micros(answer.expires).into(), doc.into()];
            self.answers.insert(key.clone(), row);
        }
        if let Some(row) = &evaluated.audit {
            self.audit.extend(audit_row(row, seq)?);
        }
        for event in std::mem::take(&mut evaluated.events) {
            self.log.extend([
                int(event.revision.0).into(),
                tenant_key(event.tenant.as_ref()).into(),
                event.agent.map(|agent| agent.to_string()).into(),
                to_doc(&event)?.into(),
            ]);
            self.events.push(event);
        }
        Ok(())
    }

    /// Notes that an agent's hot columns moved. A row that a commit before it leaves is written after all touches, so it
    /// takes them up itself.
    pub(crate) fn touch(&mut self, agent: &Agent) {
        match self.agents.get_mut(&agent.id) {
            Some((differs, row)) => {
                if let Some(Cell::Text(Some(doc))) = row.pop() {
                    *row = agent_row(agent, doc);
                    *differs = Differs::Due.max(*differs);
                }
            }
            None => {
                self.touched.insert(agent.id);
            }
        }
    }

    pub(crate) fn lease(&mut self, lease: &Lease) {
        let row = vec![
            lease.key.clone().into(),
            lease.holder.to_string().into(),
            int(lease.epoch).into(),
            micros(lease.since).into(),
            micros(lease.expires).into(),
        ];
        self.leases.insert(lease.key.clone(), row);
    }

    /// Notes what a new message refers to.
    fn references(&mut self, message: &Message) {
        let (agent, tenant) = (message.agent.to_string(), message.tenant.to_string());
        for blob in message.blobs() {
            let (tenant, blob) = (Cell::from(tenant.clone()), Cell::from(blob.to_string()));
            self.used.add(sql::USE_BLOB, [tenant.clone(), blob.clone()]);
            self.references.extend([agent.clone().into(), int(message.seq).into(), tenant, blob]);
        }
    }

    fn labels(&mut self, agent: &Agent, before: Option<&Agent>) {
        let deleted = agent.status.state() == State::Deleted;
        if before.is_some_and(|before| before.spec.labels == agent.spec.labels) && !deleted {
            return;
        }
        let labels = if deleted { Vec::new() } else { agent.spec.labels.clone().into_iter().collect() };
        if before.is_some_and(|before| !before.spec.labels.is_empty()) {
            self.unlabelled.insert(agent.id);
        }
        self.labels.insert(agent.id, labels);
    }

    /// Writes everything, the head last, and commits the transaction.
    pub(crate) async fn write<D: Dialect>(
        self,
        conn: &mut D::Connection,
        rows: &Rowset,
        head: &Head,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let mut first = Script::default();
        first.ask(D::TOUCH_AGENTS, touches(&self.touched, rows));
        first.ask(D::DELETE_LABELS, self.unlabelled.iter().map(|id| id.to_string().into()).collect());
        let gone = self.computers.iter().filter(|(_, row)| row.is_none());
        first.ask(D::DELETE_COMPUTERS, gone.map(|(id, _)| id.to_string().into()).collect());
        for (key, _) in self.records.iter().filter(|(_, row)| row.is_none()) {
            let tenant = tenant_key(key.tenant.as_ref()).into();
            first.add(sql::DELETE_RECORD, [key.kind.as_str().into(), tenant, key.name.clone().into()]);
        }
        if !first.is_empty() {
            D::run(conn, first).await?;
        }
        let mut last = self.forgotten;
        last.0.extend(self.used.0);
        last.put(sql::PUT_REFERENCES, self.references);
        let mut agents: Vec<_> = self.agents.into_values().collect();
        for (how, insert) in Differs::EACH {
            let some = agents.extract_if(.., |(differs, _)| *differs == how);
            last.put(insert, some.flat_map(|(_, row)| row));
        }
        let labels = self.labels.into_iter().flat_map(|(id, labels)| {
            labels.into_iter().flat_map(move |(name, value)| [id.to_string(), name, value].map(Cell::from))
        });
        last.put(sql::PUT_LABELS, labels);
        let mut messages: Vec<_> = self.messages.into_values().collect();
        for (what, insert) in Has::EACH {
            let some = messages.extract_if(.., |(has, _)| *has == what);
            last.put(insert, some.flat_map(|(_, row)| row));
        }
        last.put(sql::PUT_STEPS, self.steps);
        last.put(sql::PUT_COMPUTERS, self.computers.into_values().flatten().flatten());
        last.put(sql::PUT_RECORDS, self.records.into_values().flatten().flatten());
        last.put(sql::PUT_USAGE, self.usage.into_values().flatten());
        last.put(sql::PUT_ANSWERS, self.answers.into_values().flatten());
        last.put(sql::PUT_LEASES, self.leases.into_values().flatten());
        last.put(sql::PUT_LOG, self.log);
        last.put(sql::PUT_AUDIT, self.audit);
        last.put(sql::PUT_COMMITS, self.commits);
        last.add(sql::SET_HEAD, [head.revision.0, head.oldest.0, head.commits].map(|count| int(count).into()));
        last.0.push(D::commit((!self.events.is_empty()).then_some(head.revision)));
        D::run(conn, last).await?;
        Ok(self.events)
    }
}

/// The hot columns of agents, as [`Dialect::TOUCH_AGENTS`] takes them.
fn touches(touched: &BTreeSet<AgentId>, rows: &Rowset) -> Vec<Cell> {
    let agents = touched.iter().filter_map(|id| rows.agents.get(id)?.as_ref());
    let keys = agents.flat_map(|agent| {
        let status = &agent.status;
        let [awake, heard, due] = [status.awake_until, status.heard_at, agent.due_at()].map(|time| time.map(micros));
        [agent.id.to_string().into(), awake.into(), heard.into(), due.into()]
    });
    keys.collect()
}

/// The JSON of a [`Committed`], from documents that are there already.
fn committed_doc<'a>(
    committed: &Committed,
    agents: &[(&Agent, String)],
    messages: impl Iterator<Item = &'a str>,
) -> Result<String, sqlx::Error> {
    fn list<'a>(docs: impl Iterator<Item = &'a str>) -> String {
        docs.collect::<Vec<_>>().join(",")
    }
    let Committed { revision: Revision(revision), now, agents: _, messages: _, replayed } = committed;
    Ok(format!(
        r#"{{"revision":{revision},"now":{now},"agents":[{agents}],"messages":[{messages}],"replayed":{replayed}}}"#,
        now = to_doc(now)?,
        agents = list(agents.iter().map(|(_, doc)| doc.as_str())),
        messages = list(messages),
    ))
}

pub(crate) fn agent_row(agent: &Agent, doc: String) -> Vec<Cell> {
    let status = &agent.status;
    let living = status.state() != State::Deleted;
    let time = |time: Option<Timestamp>| Cell::from(time.map(micros));
    vec![
        agent.id.to_string().into(),
        agent.tenant.to_string().into(),
        living.then(|| agent.name.to_string()).into(),
        agent.owner.to_string().into(),
        status.state().as_str().into(),
        agent.spec.runtime.as_ref().map_or_else(String::new, ToString::to_string).into(),
        time(agent.due_at()),
        time(status.awake_until),
        time(status.heard_at),
        doc.into(),
    ]
}

pub(crate) fn message_row(message: &Message, doc: String) -> Vec<Cell> {
    let seq = int(message.seq);
    vec![
        message.agent.to_string().into(),
        seq.into(),
        message.tenant.to_string().into(),
        message.id.to_string().into(),
        (!message.state.is_ended()).then_some(seq).into(),
        doc.into(),
    ]
}

pub(crate) fn step_row(step: &Step) -> Result<[Cell; 5], sqlx::Error> {
    Ok([
        step.agent.to_string().into(),
        int(step.seq).into(),
        step.tenant.to_string().into(),
        step.message.map(|message| message.to_string()).into(),
        to_doc(step)?.into(),
    ])
}

pub(crate) fn computer_row(computer: &Computer) -> Result<Vec<Cell>, sqlx::Error> {
    Ok(vec![
        computer.id().to_string().into(),
        computer.tenant.to_string().into(),
        computer.runtime.to_string().into(),
        i64::from(computer.reclaim_since.is_some()).into(),
        to_doc(computer)?.into(),
    ])
}

pub(crate) fn record_row(record: &Record) -> Result<Vec<Cell>, sqlx::Error> {
    Ok(vec![
        record.key.kind.as_str().into(),
        tenant_key(record.key.tenant.as_ref()).into(),
        record.key.name.clone().into(),
        int(record.version).into(),
        record.expires.map(micros).into(),
        to_doc(&record.body)?.into(),
    ])
}

pub(crate) fn audit_row(row: &AuditRow, seq: u64) -> Result<[Cell; 5], sqlx::Error> {
    Ok([
        int(seq).into(),
        tenant_key(row.entry.tenant.as_ref()).into(),
        int(row.revision.0).into(),
        micros(row.at).into(),
        to_doc(row)?.into(),
    ])
}
