//! The rows that the writer works on: loaded once for a batch, changed in memory, agents kept for the next batch.
//!
//! Nobody else writes while a batch is written, and to SQLite not even between them, so that what was read or written stays
//! true for as long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use jiff::Timestamp;
use raworc_core::agent::{Agent, State};
use raworc_core::computer::Computer;
use raworc_core::ids::{AgentId, AgentName, CommitId, ComputerId, MessageId, TenantName};
use raworc_core::message::Message;
use raworc_core::store::{
    Answer, Committed, Evaluated, Footprint, IdempotencyKey, Lease, QuotaKind, Record, RecordKey, Rows,
};

use super::batch::Head;
use super::convert::{agent, broken, count, doc, lease, quota_word, record, tenant_key, text};
use super::dialect::{Columns, Dialect};
use super::fault::what_is_wrong;
use super::script::{Cell, Script};
use super::statements as sql;
use super::time::Time;

/// Bytes of agents that are kept from batch to batch, here and once more for readers.
const KEPT: usize = 8 << 20;

/// What a batch looks at.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) commits: Vec<CommitId>,
    pub(crate) answers: Vec<IdempotencyKey>,
    pub(crate) leases: Vec<String>,
    pub(crate) footprint: Footprint,
}

/// Rows by key; `None` for what is known not to be there.
#[derive(Debug, Default)]
pub(crate) struct Rowset {
    pub(crate) agents: HashMap<AgentId, Option<Agent>>,
    taken: HashMap<(TenantName, AgentName), bool>,
    messages: HashMap<MessageId, Option<Message>>,
    /// Agents whose open messages are all loaded.
    opened: HashSet<AgentId>,
    computers: HashMap<ComputerId, Option<Computer>>,
    records: HashMap<RecordKey, Option<Record>>,
    usage: HashMap<(TenantName, QuotaKind), Option<u64>>,
    answers: HashMap<IdempotencyKey, Option<Answer>>,
    pub(crate) commits: HashMap<CommitId, Option<Committed>>,
    /// The jobs of this batch that made a commit.
    pub(crate) made: HashMap<CommitId, usize>,
    pub(crate) leases: HashMap<String, Option<Lease>>,
    /// Agents that are there and cannot be read, with the reason.
    unreadable: HashMap<AgentId, String>,
    /// What the agents here take in memory, and the sum of that.
    weights: HashMap<AgentId, usize>,
    weight: usize,
}

impl Rowset {
    /// Forgets what is only good for one batch. Tells whether the agents went too, because they were too many.
    pub(crate) fn next_batch(&mut self) -> bool {
        let full = self.weight > KEPT;
        if full {
            *self = Self::default();
        } else {
            let (mut agents, weights) = (std::mem::take(&mut self.agents), std::mem::take(&mut self.weights));
            agents.retain(|_, agent| agent.is_some());
            *self = Self { agents, weights, weight: self.weight, ..Self::default() };
        }
        full
    }

    /// Forgets everything: some of it was not written.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Notes the size of the document of an agent that is kept here.
    pub(crate) fn weigh(&mut self, agent: AgentId, bytes: usize) {
        // What a document takes in memory is about twice its text.
        let now = 2 * bytes;
        let before = self.weights.insert(agent, now).unwrap_or(0);
        self.weight = self.weight - before + now;
    }

    /// Notes that an agent is there no more.
    pub(crate) fn forget_agent(&mut self, agent: AgentId) {
        self.weight -= self.weights.remove(&agent).unwrap_or(0);
        self.agents.insert(agent, None);
    }

    /// Begins the transaction, and loads what a batch looks at and is not here yet. Gives the head, see [`Dialect::begin`].
    pub(crate) async fn begin<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        known: Head,
        time: &Time,
        wanted: Wanted,
    ) -> Result<Head, sqlx::Error> {
        let script = self.ask_all(&wanted)?;
        let (head, rows) = D::begin(conn, known, time, script).await?;
        self.take(&rows)?;
        self.load_dependents::<D>(conn, &wanted.footprint).await?;
        Ok(head)
    }

    /// Loads what more work looks at, once the transaction has begun.
    pub(crate) async fn load_more<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        wanted: Wanted,
    ) -> Result<(), sqlx::Error> {
        let script = self.ask_all(&wanted)?;
        self.run::<D>(conn, script).await?;
        self.load_dependents::<D>(conn, &wanted.footprint).await
    }

    /// Loads all of a footprint that is not here yet, but for the answer.
    pub(crate) async fn load<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        footprint: &Footprint,
    ) -> Result<(), sqlx::Error> {
        let mut script = Script::default();
        self.ask(&mut script, footprint)?;
        self.run::<D>(conn, script).await?;
        self.load_dependents::<D>(conn, footprint).await
    }

    /// Loads what agents that were only now loaded hold.
    async fn load_dependents<D: Dialect>(
        &mut self,
        conn: &mut D::Connection,
        footprint: &Footprint,
    ) -> Result<(), sqlx::Error> {
        let mut script = Script::default();
        self.ask_dependents(&mut script, footprint);
        self.run::<D>(conn, script).await
    }

    async fn run<D: Dialect>(&mut self, conn: &mut D::Connection, script: Script) -> Result<(), sqlx::Error> {
        if script.is_empty() {
            return Ok(());
        }
        self.take(&D::run(conn, script).await?)
    }

    fn ask_all(&mut self, wanted: &Wanted) -> Result<Script, sqlx::Error> {
        let mut script = Script::default();
        script.ask(sql::LOAD_LEASES, missing(&mut self.leases, wanted.leases.iter().cloned()));
        script.ask(sql::LOAD_COMMITS, missing(&mut self.commits, wanted.commits.iter().copied()));
        let key = |key: &IdempotencyKey| [key.principal.clone().into(), key.key.clone().into()];
        script.ask(sql::LOAD_ANSWERS, missing_by(&mut self.answers, wanted.answers.iter(), key));
        self.ask(&mut script, &wanted.footprint)?;
        Ok(script)
    }

    fn ask(&mut self, script: &mut Script, footprint: &Footprint) -> Result<(), sqlx::Error> {
        script.ask(sql::LOAD_AGENTS, missing(&mut self.agents, footprint.agents.keys().copied()));
        let mut names = Vec::new();
        for name in &footprint.names {
            self.taken.entry(name.clone()).or_insert_with(|| {
                names.extend([name.0.to_string().into(), name.1.to_string().into()]);
                false
            });
        }
        script.ask(sql::LOAD_NAMES, names);
        let key = |key: &RecordKey| {
            [key.kind.as_str().into(), tenant_key(key.tenant.as_ref()).into(), key.name.clone().into()]
        };
        script.ask(sql::LOAD_RECORDS, missing_by(&mut self.records, footprint.records.iter(), key));
        let mut words = HashMap::new();
        for (_, kind) in &footprint.usage {
            words.insert(*kind, quota_word(*kind)?);
        }
        let key = |(tenant, kind): &(TenantName, QuotaKind)| [tenant.to_string().into(), words[kind].clone().into()];
        script.ask(sql::LOAD_USAGE, missing_by(&mut self.usage, footprint.usage.iter(), key));
        self.ask_dependents(script, footprint);
        Ok(())
    }

    /// Asks for messages and computers, as far as it is known which: an agent has to be there to say what it holds.
    fn ask_dependents(&mut self, script: &mut Script, footprint: &Footprint) {
        let mut messages: BTreeSet<_> = footprint.messages.clone();
        let mut computers: BTreeSet<_> = footprint.computers.clone();
        let mut opened = Vec::new();
        for (id, needs) in &footprint.agents {
            if needs.open && self.opened.insert(*id) {
                opened.push(id.to_string().into());
            }
            let Some(Some(agent)) = self.agents.get(id) else { continue };
            if needs.held {
                messages.extend(agent.status.message);
            }
            if needs.computer {
                computers.extend(agent.status.computer);
            }
        }
        script.ask(sql::LOAD_MESSAGES, missing(&mut self.messages, messages.into_iter()));
        script.ask(sql::LOAD_OPEN, opened);
        script.ask(sql::LOAD_COMPUTERS, missing(&mut self.computers, computers.into_iter()));
    }

    fn take(&mut self, rows: &[impl Columns]) -> Result<(), sqlx::Error> {
        for row in rows {
            if let Err(error) = self.absorb(row) {
                let (kind, key) = (text(row, row.count() - 1)?, text(row, 0)?);
                let error = format!("{kind} {key}: {}", what_is_wrong(&error));
                if kind != "agent" {
                    return Err(broken(error));
                }
                // Only for whoever needs this one: a sign of life is of many.
                self.unreadable.insert(key.parse().map_err(broken)?, error);
            }
        }
        Ok(())
    }

    /// That the agents of a footprint could be read.
    pub(crate) fn readable(&self, footprint: &Footprint) -> Result<(), sqlx::Error> {
        if self.unreadable.is_empty() {
            return Ok(());
        }
        let unreadable = footprint.agents.keys().find_map(|id| self.unreadable.get(id));
        unreadable.map_or(Ok(()), |error| Err(broken(error.clone())))
    }

    fn absorb(&mut self, row: &impl Columns) -> Result<(), sqlx::Error> {
        match &*text(row, row.count() - 1)? {
            "commit" => {
                let id: CommitId = text(row, 0)?.parse().map_err(broken)?;
                self.commits.insert(id, Some(doc(row, 5)?));
            }
            "lease" => {
                let lease = lease(row)?;
                self.leases.insert(lease.key.clone(), Some(lease));
            }
            "answer" => {
                let key = IdempotencyKey { principal: text(row, 0)?.into_owned(), key: text(row, 1)?.into_owned() };
                self.answers.insert(key, Some(doc(row, 5)?));
            }
            "agent" => {
                let agent = agent(row, 3)?;
                self.weigh(agent.id, text(row, 5)?.len());
                self.agents.insert(agent.id, Some(agent));
            }
            "name" => {
                let tenant = TenantName::new(text(row, 0)?.into_owned()).map_err(broken)?;
                self.taken.insert((tenant, AgentName::new(text(row, 1)?.into_owned()).map_err(broken)?), true);
            }
            "record" => {
                let record = record(row)?;
                self.records.insert(record.key.clone(), Some(record));
            }
            "usage" => {
                let kind: QuotaKind = serde_json::from_value(text(row, 1)?.into_owned().into()).map_err(broken)?;
                self.usage
                    .insert((TenantName::new(text(row, 0)?.into_owned()).map_err(broken)?, kind), Some(count(row, 3)?));
            }
            "message" => {
                let message: Message = doc(row, 5)?;
                // What the batch has changed already is newer than what stands in the database.
                self.messages.entry(message.id).or_default().get_or_insert(message);
            }
            "computer" => {
                let computer: Computer = doc(row, 5)?;
                self.computers.insert(computer.id(), Some(computer));
            }
            other => return Err(broken(format!("a row of kind {other:?}"))),
        }
        Ok(())
    }

    /// The rows of a footprint that was loaded.
    pub(crate) fn rows(&self, footprint: &Footprint, now: Timestamp) -> Rows {
        let mut rows = Rows::at(now);
        let mut messages: BTreeSet<_> = footprint.messages.clone();
        let mut computers: BTreeSet<_> = footprint.computers.clone();
        for (id, needs) in &footprint.agents {
            let Some(Some(agent)) = self.agents.get(id) else { continue };
            if needs.held {
                messages.extend(agent.status.message);
            }
            if needs.open {
                let open = self.messages.values().flatten().filter(|m| m.agent == *id && !m.state.is_ended());
                messages.extend(open.map(|message| message.id));
            }
            if needs.computer {
                computers.extend(agent.status.computer);
            }
            rows.agents.insert(*id, agent.clone());
        }
        rows.taken.extend(footprint.names.iter().filter(|name| self.taken.get(name) == Some(&true)).cloned());
        rows.messages.extend(there(&self.messages, messages.iter()));
        rows.computers.extend(there(&self.computers, computers.iter()));
        let records = there(&self.records, footprint.records.iter());
        rows.records.extend(records.filter(|(_, record)| record.expires.is_none_or(|expires| expires > now)));
        rows.usage.extend(there(&self.usage, footprint.usage.iter()));
        let answer = there(&self.answers, footprint.idempotency.iter()).map(|(_, answer)| answer).next();
        rows.answer = answer.filter(|answer| answer.expires > now);
        rows
    }

    /// Whether a message that a commit leaves was there before it.
    pub(crate) fn has(&self, message: &Message) -> bool {
        self.messages
            .get(&message.id)
            .and_then(Option::as_ref)
            .is_some_and(|there| (there.agent, there.seq) == (message.agent, message.seq))
    }

    /// Takes over what a commit leaves.
    pub(crate) fn apply(&mut self, evaluated: Evaluated) -> Committed {
        for agent in evaluated.agents {
            let living = agent.status.state() != State::Deleted;
            self.taken.insert((agent.tenant.clone(), agent.name.clone()), living);
            self.agents.insert(agent.id, Some(agent));
        }
        self.messages.extend(evaluated.messages.into_iter().map(|message| (message.id, Some(message))));
        self.computers.extend(evaluated.computers.into_iter().map(|computer| (computer.id(), Some(computer))));
        self.computers.extend(evaluated.removed_computers.into_iter().map(|id| (id, None)));
        self.records.extend(evaluated.records);
        self.usage.extend(evaluated.usage.into_iter().map(|(key, used)| (key, Some(used))));
        self.answers.extend(evaluated.answer.map(|(key, answer)| (key, Some(answer))));
        evaluated.committed
    }
}

/// Those of `keys` that nothing is known of, which counts as absent from now on unless it is loaded.
fn missing<K: Eq + Hash + ToString, V>(known: &mut HashMap<K, Option<V>>, keys: impl Iterator<Item = K>) -> Vec<Cell> {
    let mut found = Vec::new();
    for key in keys {
        let text = key.to_string();
        known.entry(key).or_insert_with(|| {
            found.push(text.into());
            None
        });
    }
    found
}

fn missing_by<'a, K: Clone + Eq + Hash + 'a, V, const N: usize>(
    known: &mut HashMap<K, Option<V>>,
    keys: impl Iterator<Item = &'a K>,
    write: impl Fn(&K) -> [Cell; N],
) -> Vec<Cell> {
    let mut found = Vec::new();
    for key in keys.filter(|key| !known.contains_key(key)).collect::<Vec<_>>() {
        found.extend(write(key));
        known.insert(key.clone(), None);
    }
    found
}

fn there<'a, K: Clone + Eq + Hash + 'a, V: Clone + 'a>(
    known: &'a HashMap<K, Option<V>>,
    keys: impl Iterator<Item = &'a K>,
) -> impl Iterator<Item = (K, V)> {
    keys.filter_map(|key| Some((key.clone(), known.get(key)?.clone()?)))
}

#[cfg(test)]
mod tests {
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    use super::*;

    #[test]
    fn agents_that_have_grown_are_counted_as_what_they_are_now() {
        let mut rows = Rowset::default();
        let (one, two) = (SystemEntropy.agent_id(SystemClock.now()), SystemEntropy.agent_id(SystemClock.now()));
        for _ in 0..1000 {
            rows.weigh(one, KEPT / 4);
        }
        rows.weigh(two, 100);
        assert!(!rows.next_batch(), "one agent is there once, however often it is written");
        rows.weigh(two, KEPT / 3);
        assert!(rows.next_batch(), "two that have grown are too much");
        assert!(!rows.next_batch(), "nothing is left of them");
    }
}
