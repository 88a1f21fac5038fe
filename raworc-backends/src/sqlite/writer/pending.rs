//! What a batch is to write, collected row by row and written in few statements.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use raworc_core::agent::{Agent, State};
use raworc_core::computer::Computer;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, CommitId, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{AuditRow, Committed, Evaluated, IdempotencyKey, Lease, QuotaKind, Record, RecordKey};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::Head;
use super::rowset::Rowset;
use super::script::{Cell, Script};
use crate::sqlite::convert::{int, micros, quota_word, tenant_key, to_doc};
use crate::sqlite::sql::{self, Insert};

/// Rows that one statement writes at most. Others are powers of two below, so that few statements are prepared.
const ROWS: usize = 64;

/// How much of an agent's row differs from what stands in the database, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Differs {
    Doc,
    Due,
    State,
    All,
}

impl Differs {
    const EACH: [(Self, &Insert); 4] = [
        (Self::All, &sql::PUT_AGENTS),
        (Self::State, &sql::PUT_AGENTS_STATE),
        (Self::Due, &sql::PUT_AGENTS_DUE),
        (Self::Doc, &sql::PUT_AGENTS_DOC),
    ];

    fn between(before: Option<&Agent>, agent: &Agent) -> Self {
        let Some(before) = before else { return Self::All };
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

/// Rows to write, the latest of each key.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What is too old goes with what is written.
    forgotten: Script,
    agents: BTreeMap<AgentId, (Differs, Vec<Cell>)>,
    touched: BTreeSet<AgentId>,
    unlabelled: BTreeSet<AgentId>,
    labels: BTreeMap<AgentId, Vec<(String, String)>>,
    /// Whether each is open, and its row.
    messages: BTreeMap<MessageId, (bool, Vec<Cell>)>,
    steps: Vec<Cell>,
    computers: BTreeMap<ComputerId, Option<Vec<Cell>>>,
    records: BTreeMap<RecordKey, Option<Vec<Cell>>>,
    usage: BTreeMap<(TenantName, QuotaKind), Vec<Cell>>,
    answers: BTreeMap<IdempotencyKey, Vec<Cell>>,
    leases: BTreeMap<String, Vec<Cell>>,
    log: Vec<Cell>,
    commits: Vec<Cell>,
    audit: Vec<Cell>,
    pub(super) events: Vec<Event>,
    /// Blobs were written, or the log is to be cut: all else may be empty.
    pub(super) other: bool,
}

impl Pending {
    /// Whether there is anything to write.
    pub(super) fn is_empty(&self) -> bool {
        !self.other && self.commits.is_empty() && self.touched.is_empty() && self.leases.is_empty()
    }

    /// Takes away what is older than `at`, by one of the statements for that.
    pub(super) fn forget(&mut self, statement: &'static str, at: i64) {
        self.forgotten.add(statement, [Cell::Int(at)]);
    }

    /// The agents whose rows change.
    pub(super) fn agents(&self) -> impl Iterator<Item = AgentId> {
        self.agents.keys().chain(&self.touched).copied()
    }

    /// Adds what a commit leaves, over the rows as they were before it. Takes its events.
    pub(super) fn commit(
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
        self.commits.extend([Cell::Int(int(seq)), Cell::Text(id.to_string()), Cell::Int(at), Cell::Text(doc)]);
        for (agent, doc) in agents {
            let differs = Differs::between(before.agents.get(&agent.id).and_then(Option::as_ref), agent);
            let so_far = self.agents.get(&agent.id).map_or(differs, |(so_far, _)| *so_far);
            self.agents.insert(agent.id, (differs.max(so_far), agent_row(agent, doc)));
        }
        for (message, doc) in messages {
            self.messages.insert(message.id, (!message.state.is_ended(), message_row(message, doc)));
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
            let row = vec![Cell::Text(key.0.to_string()), Cell::Text(quota_word(key.1)?), Cell::Int(int(*used))];
            self.usage.insert(key.clone(), row);
        }
        if let Some((key, answer)) = &evaluated.answer {
            let (principal, name) = (Cell::Text(key.principal.clone()), Cell::Text(key.key.clone()));
            let row = vec![principal, name, Cell::Int(micros(answer.expires)), Cell::Text(to_doc(answer)?)];
            self.answers.insert(key.clone(), row);
        }
        if let Some(row) = &evaluated.audit {
            self.audit.extend(audit_row(row, seq)?);
        }
        for event in std::mem::take(&mut evaluated.events) {
            self.log.extend([
                Cell::Int(int(event.revision.0)),
                Cell::Text(tenant_key(event.tenant.as_ref())),
                Cell::Maybe(event.agent.map(|agent| agent.to_string())),
                Cell::Text(to_doc(&event)?),
            ]);
            self.events.push(event);
        }
        Ok(())
    }

    /// Notes that an agent's hot columns moved. A row that a commit before it leaves is written after all touches, so it
    /// takes them up itself.
    pub(super) fn touch(&mut self, agent: &Agent) {
        match self.agents.get_mut(&agent.id) {
            Some((differs, row)) => {
                if let Some(Cell::Text(doc)) = row.pop() {
                    *row = agent_row(agent, doc);
                    *differs = Differs::Due.max(*differs);
                }
            }
            None => {
                self.touched.insert(agent.id);
            }
        }
    }

    pub(super) fn lease(&mut self, lease: &Lease) {
        let row = vec![
            Cell::Text(lease.key.clone()),
            Cell::Text(lease.holder.to_string()),
            Cell::Int(int(lease.epoch)),
            Cell::Int(micros(lease.since)),
            Cell::Int(micros(lease.expires)),
        ];
        self.leases.insert(lease.key.clone(), row);
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
    pub(super) async fn write(
        self,
        conn: &mut SqliteConnection,
        rows: &Rowset,
        head: &Head,
    ) -> Result<Vec<Event>, sqlx::Error> {
        touch(conn, &self.touched, rows).await?;
        by_list(conn, sql::DELETE_LABELS, self.unlabelled.iter().map(|id| json!(id)).collect()).await?;
        let gone = self.computers.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| json!(id)).collect();
        by_list(conn, sql::DELETE_COMPUTERS, gone).await?;
        for (key, _) in self.records.iter().filter(|(_, row)| row.is_none()) {
            sqlx::query(sql::DELETE_RECORD)
                .bind(key.kind.as_str())
                .bind(tenant_key(key.tenant.as_ref()))
                .bind(key.name.clone())
                .execute(&mut *conn)
                .await?;
        }
        let mut last = self.forgotten;
        let mut agents: Vec<_> = self.agents.into_values().collect();
        for (how, insert) in Differs::EACH {
            let some = agents.extract_if(.., |(differs, _)| *differs == how);
            put(conn, &mut last, insert, some.flat_map(|(_, row)| row)).await?;
        }
        let labels = self.labels.into_iter().flat_map(|(id, labels)| {
            labels.into_iter().flat_map(move |(name, value)| [id.to_string(), name, value].map(Cell::Text))
        });
        put(conn, &mut last, &sql::PUT_LABELS, labels).await?;
        let (open, ended): (Vec<_>, Vec<_>) = self.messages.into_values().partition(|(open, _)| *open);
        for (messages, insert) in [(open, &sql::PUT_OPEN_MESSAGES), (ended, &sql::PUT_MESSAGES)] {
            put(conn, &mut last, insert, messages.into_iter().flat_map(|(_, row)| row)).await?;
        }
        put(conn, &mut last, &sql::PUT_STEPS, self.steps.into_iter()).await?;
        put(conn, &mut last, &sql::PUT_COMPUTERS, self.computers.into_values().flatten().flatten()).await?;
        put(conn, &mut last, &sql::PUT_RECORDS, self.records.into_values().flatten().flatten()).await?;
        put(conn, &mut last, &sql::PUT_USAGE, self.usage.into_values().flatten()).await?;
        put(conn, &mut last, &sql::PUT_ANSWERS, self.answers.into_values().flatten()).await?;
        put(conn, &mut last, &sql::PUT_LEASES, self.leases.into_values().flatten()).await?;
        put(conn, &mut last, &sql::PUT_LOG, self.log.into_iter()).await?;
        put(conn, &mut last, &sql::PUT_AUDIT, self.audit.into_iter()).await?;
        put(conn, &mut last, &sql::PUT_COMMITS, self.commits.into_iter()).await?;
        let head = [head.revision.0, head.oldest.0, head.commits].map(|count| Cell::Int(int(count)));
        last.add(sql::SET_HEAD, head);
        last.add("COMMIT", []);
        last.run(conn).await?;
        Ok(self.events)
    }
}

async fn touch(conn: &mut SqliteConnection, touched: &BTreeSet<AgentId>, rows: &Rowset) -> Result<(), sqlx::Error> {
    let touched = touched.iter().filter_map(|id| rows.agents.get(id)?.as_ref()).map(|agent| {
        let status = &agent.status;
        let times = [status.awake_until, status.heard_at, agent.due_at()].map(|time| time.map(micros));
        json!([agent.id, times[0], times[1], times[2]])
    });
    by_list(conn, sql::TOUCH_AGENTS, touched.collect()).await
}

async fn by_list(conn: &mut SqliteConnection, statement: &'static str, keys: Vec<Value>) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(statement).bind(Value::Array(keys).to_string()).execute(conn).await?;
    Ok(())
}

/// Writes rows, whose cells come one after another. An odd one is left to the last script.
async fn put(
    conn: &mut SqliteConnection,
    last: &mut Script,
    insert: &Insert,
    cells: impl Iterator<Item = Cell>,
) -> Result<(), sqlx::Error> {
    let cells: Vec<_> = cells.collect();
    let mut rows = cells.len() / insert.columns;
    let mut cells = cells.into_iter();
    while rows > 1 {
        let some = ROWS.min(1 << rows.ilog2());
        let mut script = Script::default();
        script.add(&insert.text(some), cells.by_ref().take(some * insert.columns));
        script.run(conn).await?;
        rows -= some;
    }
    if rows == 1 {
        last.add(&insert.text(1), cells);
    }
    Ok(())
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

fn agent_row(agent: &Agent, doc: String) -> Vec<Cell> {
    let status = &agent.status;
    let living = status.state() != State::Deleted;
    let time = |time: Option<Timestamp>| Cell::Time(time.map(micros));
    vec![
        Cell::Text(agent.id.to_string()),
        Cell::Text(agent.tenant.to_string()),
        Cell::Maybe(living.then(|| agent.name.to_string())),
        Cell::Text(agent.owner.to_string()),
        Cell::Text(status.state().as_str().to_owned()),
        Cell::Text(agent.spec.runtime.as_ref().map_or_else(String::new, ToString::to_string)),
        time(agent.due_at()),
        time(status.awake_until),
        time(status.heard_at),
        Cell::Text(doc),
    ]
}

fn message_row(message: &Message, doc: String) -> Vec<Cell> {
    let seq = int(message.seq);
    vec![
        Cell::Text(message.agent.to_string()),
        Cell::Int(seq),
        Cell::Text(message.tenant.to_string()),
        Cell::Text(message.id.to_string()),
        Cell::Time((!message.state.is_ended()).then_some(seq)),
        Cell::Text(doc),
    ]
}

fn step_row(step: &Step) -> Result<[Cell; 5], sqlx::Error> {
    Ok([
        Cell::Text(step.agent.to_string()),
        Cell::Int(int(step.seq)),
        Cell::Text(step.tenant.to_string()),
        Cell::Maybe(step.message.map(|message| message.to_string())),
        Cell::Text(to_doc(step)?),
    ])
}

fn computer_row(computer: &Computer) -> Result<Vec<Cell>, sqlx::Error> {
    Ok(vec![
        Cell::Text(computer.id().to_string()),
        Cell::Text(computer.tenant.to_string()),
        Cell::Text(computer.runtime.to_string()),
        Cell::Int(computer.reclaim_since.is_some().into()),
        Cell::Text(to_doc(computer)?),
    ])
}

fn record_row(record: &Record) -> Result<Vec<Cell>, sqlx::Error> {
    Ok(vec![
        Cell::Text(record.key.kind.as_str().to_owned()),
        Cell::Text(tenant_key(record.key.tenant.as_ref())),
        Cell::Text(record.key.name.clone()),
        Cell::Int(int(record.version)),
        Cell::Time(record.expires.map(micros)),
        Cell::Text(to_doc(&record.body)?),
    ])
}

fn audit_row(row: &AuditRow, seq: u64) -> Result<[Cell; 5], sqlx::Error> {
    Ok([
        Cell::Int(int(seq)),
        Cell::Text(tenant_key(row.entry.tenant.as_ref())),
        Cell::Int(int(row.revision.0)),
        Cell::Int(micros(row.at)),
        Cell::Text(to_doc(row)?),
    ])
}
