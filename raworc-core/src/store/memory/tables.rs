//! The rows, in ordered maps, with an index for each way in which they are looked for.

mod purge;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::agent::{Agent, State};
use crate::blob::BlobId;
use crate::computer::Computer;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, CommitId, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::step::Step;
use crate::store::evaluate::later;
use crate::store::{
    AgentQuery, Answer, AuditQuery, AuditRow, Committed, ComputerQuery, Due, DueQuery, Evaluated, Footprint,
    IdempotencyKey, LEASE_KEPT, Lease, LeaseClaim, MessageQuery, Page, PageRows, QuotaKind, Record, RecordKey,
    RecordKind, Rows, StepQuery, StoreError, Touch,
};

/// Events that are kept at least, so that a long-lived store does not grow by its log alone.
const LOG_KEPT: usize = 100_000;

/// How long a commit that is sent again is recognised at least, where its events are gone.
const COMMITS_KEPT: Duration = Duration::from_hours(24);

/// Commits after which what has expired is taken away.
const TIDY_EVERY: u64 = 128;

#[derive(Default)]
pub(super) struct Tables {
    agents: BTreeMap<AgentId, Agent>,
    living: BTreeMap<(TenantName, AgentName), AgentId>,
    due: BTreeSet<(Timestamp, AgentId)>,
    messages: BTreeMap<MessageId, Message>,
    inboxes: BTreeMap<(AgentId, u64), MessageId>,
    steps: BTreeMap<(AgentId, u64), Step>,
    computers: BTreeMap<ComputerId, Computer>,
    records: BTreeMap<RecordKey, Record>,
    usage: BTreeMap<(TenantName, QuotaKind), u64>,
    leases: BTreeMap<String, Lease>,
    answers: BTreeMap<IdempotencyKey, Answer>,
    audit: VecDeque<AuditRow>,
    /// Audit rows that are gone.
    audit_gone: usize,
    /// Each with when it was put, or lost a message that referred to it.
    blobs: BTreeMap<(TenantName, BlobId), (Bytes, Timestamp)>,
    commits: BTreeMap<CommitId, Committed>,
    log: VecDeque<Event>,
    /// The last revision that the log has forgotten.
    forgotten: u64,
    writes: u64,
}

impl Tables {
    pub(super) fn head(&self) -> Revision {
        Revision(self.forgotten + self.log.len() as u64)
    }

    pub(super) fn committed(&self, id: CommitId) -> Option<&Committed> {
        self.commits.get(&id)
    }

    /// Loads what a commit looks at.
    pub(super) fn rows(&self, footprint: &Footprint, now: Timestamp) -> Rows {
        let mut rows = Rows::at(now);
        let mut messages: BTreeSet<_> = footprint.messages.clone();
        let mut computers: BTreeSet<_> = footprint.computers.clone();
        for (id, needs) in &footprint.agents {
            let Some(agent) = self.agents.get(id) else { continue };
            if needs.held {
                messages.extend(agent.status.message);
            }
            if needs.open {
                messages.extend(self.inbox(*id).filter(|message| !message.state.is_ended()).map(|message| message.id));
            }
            if needs.computer {
                computers.extend(agent.status.computer);
            }
            rows.agents.insert(*id, agent.clone());
        }
        rows.taken.extend(footprint.names.iter().filter(|name| self.living.contains_key(name)).cloned());
        rows.messages.extend(messages.iter().filter_map(|id| Some((*id, self.messages.get(id)?.clone()))));
        rows.computers.extend(computers.iter().filter_map(|id| Some((*id, self.computers.get(id)?.clone()))));
        let records = footprint.records.iter().filter_map(|key| Some((key.clone(), self.record(key, now)?.clone())));
        rows.records.extend(records);
        rows.usage.extend(footprint.usage.iter().filter_map(|key| Some((key.clone(), *self.usage.get(key)?))));
        let answer = footprint.idempotency.as_ref().and_then(|key| self.answers.get(key));
        rows.answer = answer.filter(|answer| answer.expires > now).cloned();
        rows
    }

    /// Writes what a commit leaves.
    pub(super) fn write(&mut self, id: CommitId, evaluated: Evaluated) -> Committed {
        for agent in evaluated.agents {
            self.put_agent(agent);
        }
        for message in evaluated.messages {
            self.inboxes.insert((message.agent, message.seq), message.id);
            self.messages.insert(message.id, message);
        }
        self.steps.extend(evaluated.steps.into_iter().map(|step| ((step.agent, step.seq), step)));
        self.computers.extend(evaluated.computers.into_iter().map(|computer| (computer.id(), computer)));
        for computer in evaluated.removed_computers {
            self.computers.remove(&computer);
        }
        for (key, record) in evaluated.records {
            match record {
                Some(record) => self.records.insert(key, record),
                None => self.records.remove(&key),
            };
        }
        self.usage.extend(evaluated.usage);
        self.audit.extend(evaluated.audit);
        self.answers.extend(evaluated.answer);
        self.log.extend(evaluated.events);
        self.commits.insert(id, evaluated.committed.clone());
        self.writes += 1;
        if self.writes.is_multiple_of(TIDY_EVERY) {
            self.tidy(evaluated.now);
        }
        if self.log.len() > 2 * LOG_KEPT {
            self.forget_log(Revision(self.head().0 - LOG_KEPT as u64));
        }
        evaluated.committed
    }

    /// Takes away what has expired. Leases stay for a while: the next holder gets a higher epoch than the last.
    fn tidy(&mut self, now: Timestamp) {
        self.answers.retain(|_, answer| answer.expires > now);
        self.records.retain(|_, record| is_kept(record, now));
        self.leases.retain(|_, lease| later(lease.expires, LEASE_KEPT) > now);
    }

    pub(super) fn put_agent(&mut self, agent: Agent) {
        let name = (agent.tenant.clone(), agent.name.clone());
        if agent.status.state() != State::Deleted {
            self.living.insert(name, agent.id);
        } else if self.living.get(&name) == Some(&agent.id) {
            self.living.remove(&name);
        }
        if let Some(at) = self.agents.get(&agent.id).and_then(Agent::due_at) {
            self.due.remove(&(at, agent.id));
        }
        self.due.extend(agent.due_at().map(|at| (at, agent.id)));
        self.agents.insert(agent.id, agent);
    }

    /// Whether the touch had an effect.
    pub(super) fn touch(&mut self, touch: &Touch, now: Timestamp) -> bool {
        let Some(mut agent) = self.agents.get(&touch.agent).cloned() else { return false };
        let touched = touch.apply(&mut agent, now);
        self.put_agent(agent);
        touched
    }

    pub(super) fn claim(&mut self, claim: &LeaseClaim, now: Timestamp) -> Lease {
        let lease = claim.decide(self.leases.get(&claim.key), now);
        self.leases.insert(claim.key.clone(), lease.clone());
        lease
    }

    pub(super) fn leases(&self, prefix: &str, now: Timestamp) -> Vec<Lease> {
        let from = self.leases.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let there = from.take_while(|(key, _)| key.starts_with(prefix));
        there.map(|(_, lease)| lease).filter(|lease| lease.expires > now).cloned().collect()
    }

    pub(super) fn agent_named(&self, tenant: &TenantName, name: &AgentName) -> Option<&Agent> {
        self.agent(*self.living.get(&(tenant.clone(), name.clone()))?)
    }

    pub(super) fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.agents.get(&id)
    }

    pub(super) fn agents(&self, query: &AgentQuery) -> Page<Agent> {
        let after = query.after.as_deref().unwrap_or("");
        let living = self.living.iter().filter(|((tenant, name), _)| *tenant == query.tenant && name.as_str() > after);
        let agents = living.filter_map(|(_, id)| self.agents.get(id)).filter(|agent| {
            query.owner.as_ref().is_none_or(|owner| agent.owner == *owner)
                && query.state.is_none_or(|state| agent.status.state() == state)
                && query.selector.matches(&agent.spec.labels)
        });
        page(agents, query.limit, spec_size, |agent| agent.name.to_string())
    }

    pub(super) fn due(&self, query: &DueQuery, now: Timestamp) -> Vec<Due> {
        let before = query.before.unwrap_or(now);
        let due = self.due.iter().take_while(|(at, _)| *at <= before).filter(|(_, id)| {
            let runtime = self.agents.get(id).and_then(|agent| agent.spec.runtime.as_ref());
            runtime.is_some_and(|runtime| query.runtimes.contains(runtime))
        });
        due.take(query.limit).map(|&(at, agent)| Due { agent, at }).collect()
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }

    fn inbox(&self, agent: AgentId) -> impl DoubleEndedIterator<Item = &Message> {
        self.inboxes.range((agent, 0)..=(agent, u64::MAX)).filter_map(|(_, id)| self.messages.get(id))
    }

    pub(super) fn messages(&self, query: &MessageQuery) -> Page<Message> {
        let wanted = |message: &&Message| !query.open || !message.state.is_ended();
        let cursor = |message: &Message| message.seq.to_string();
        let size = |message: &Message| count(message.weight());
        if query.newest_first {
            let below = query.after.unwrap_or(u64::MAX);
            page(self.inbox(query.agent).rev().filter(|m| m.seq < below).filter(wanted), query.limit, size, cursor)
        } else {
            let above = query.after.unwrap_or(0);
            page(self.inbox(query.agent).filter(|m| m.seq > above).filter(wanted), query.limit, size, cursor)
        }
    }

    pub(super) fn steps(&self, query: &StepQuery) -> Page<Step> {
        let above = (Bound::Excluded((query.agent, query.after)), Bound::Included((query.agent, u64::MAX)));
        let steps = self.steps.range(above).map(|(_, step)| step);
        let wanted = steps.filter(|step| query.message.is_none() || step.message == query.message);
        page(wanted, query.limit, |step| count(step.weight()), |step| step.seq.to_string())
    }

    pub(super) fn computer(&self, id: ComputerId) -> Option<&Computer> {
        self.computers.get(&id)
    }

    pub(super) fn computers(&self, query: &ComputerQuery) -> Page<Computer> {
        let wanted = self.computers.values().filter(|computer| {
            computer.runtime == query.runtime
                && query.after.is_none_or(|after| computer.id() > after)
                && (!query.reclaim || computer.reclaim_since.is_some())
        });
        page(wanted, query.limit, |_| 0, |computer| computer.id().to_string())
    }

    pub(super) fn record(&self, key: &RecordKey, now: Timestamp) -> Option<&Record> {
        self.records.get(key).filter(|record| is_kept(record, now))
    }

    pub(super) fn records(&self, kind: RecordKind, tenant: Option<&TenantName>, now: Timestamp) -> Vec<Record> {
        let there = self.records.values().filter(|record| is_kept(record, now));
        there.filter(|record| record.key.kind == kind && record.key.tenant.as_ref() == tenant).cloned().collect()
    }

    pub(super) fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> u64 {
        self.usage.get(&(tenant.clone(), kind)).copied().unwrap_or(0)
    }

    pub(super) fn audit(&self, query: &AuditQuery) -> Page<AuditRow> {
        // A cursor is the number of rows up to and including the one that it stands for.
        let after: usize = query.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(0);
        let rows = self.audit.iter().zip(self.audit_gone + 1..).skip(after.saturating_sub(self.audit_gone));
        let wanted = rows.filter(|(row, _)| query.tenant.is_none() || row.entry.tenant == query.tenant);
        let mut page = PageRows::new(query.limit);
        for row in wanted {
            if !page.take(row, 0) {
                break;
            }
        }
        let Page { items, next } = page.page(|(_, n): &(_, usize)| n.to_string());
        Page { items: items.into_iter().map(|(row, _)| row.clone()).collect(), next }
    }

    /// That nothing after `since` has been forgotten.
    pub(super) fn check_log(&self, since: Revision) -> Result<(), StoreError> {
        if since.0 < self.forgotten {
            return Err(StoreError::Gone { oldest: Revision(self.forgotten + 1) });
        }
        Ok(())
    }

    /// Up to `limit` events after `since`, and the revision up to which that reaches.
    pub(super) fn log_after(&self, since: Revision, limit: usize) -> Result<(Vec<Event>, Revision), StoreError> {
        self.check_log(since)?;
        let at = usize::try_from(since.0 - self.forgotten).unwrap_or(usize::MAX);
        let events: Vec<_> = self.log.iter().skip(at).take(limit).cloned().collect();
        let last = events.last().map_or(since, |event| event.revision);
        Ok((events, last))
    }

    fn cut_log(&mut self, upto: Revision) {
        let upto = upto.min(self.head());
        let gone = usize::try_from(upto.0.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        self.log.drain(..gone);
        self.forgotten = self.forgotten.max(upto.0);
    }

    pub(super) fn forget_log(&mut self, upto: Revision) {
        self.cut_log(upto);
        self.commits.retain(|_, committed| committed.revision > upto);
    }

    pub(super) fn put_blob(&mut self, tenant: &TenantName, id: BlobId, content: Bytes, now: Timestamp) {
        self.blobs.insert((tenant.clone(), id), (content, now));
    }

    pub(super) fn blob(&self, tenant: &TenantName, id: BlobId) -> Option<Bytes> {
        self.blobs.get(&(tenant.clone(), id)).map(|(content, _)| content.clone())
    }

    pub(super) fn unlink_blob(&mut self, tenant: &TenantName, id: BlobId) {
        self.blobs.remove(&(tenant.clone(), id));
    }
}

fn is_kept(record: &Record, now: Timestamp) -> bool {
    record.expires.is_none_or(|expires| expires > now)
}

fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Bytes of what an agent's owner wrote, which is nearly all of it.
fn spec_size(agent: &Agent) -> usize {
    serde_json::to_vec(&agent.spec).map_or(0, |json| json.len())
}

fn page<'a, T: Clone + 'a>(
    rows: impl Iterator<Item = &'a T>,
    asked: usize,
    size: impl Fn(&T) -> usize,
    cursor: impl Fn(&T) -> String,
) -> Page<T> {
    let mut page = PageRows::new(asked);
    for row in rows {
        if !page.take(row, size(row)) {
            break;
        }
    }
    let Page { items, next } = page.page(|row| cursor(row));
    Page { items: items.into_iter().cloned().collect(), next }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Change, Commit, IdempotencyRecord, RecordChange, RecordCheck};

    #[test]
    fn what_has_expired_is_not_kept_for_ever() {
        let (mut tables, start) = (Tables::default(), Timestamp::UNIX_EPOCH);
        for n in 0..10 * TIDY_EVERY {
            let ttl = Duration::from_secs(60);
            let key = RecordKey { kind: RecordKind::RevokedToken, tenant: None, name: n.to_string() };
            let body = Some(serde_json::json!({}));
            let record = Change::Record(RecordChange { key, when: RecordCheck::Absent, body, ttl: Some(ttl) });
            let key = IdempotencyKey { principal: "user:ada".into(), key: n.to_string() };
            let commit = Commit {
                idempotency: Some(IdempotencyRecord { key, request: String::new(), ttl }),
                ..Commit::new(CommitId::from_uuid(uuid::Uuid::from_u128(n.into())), vec![record])
            };
            let now = start + jiff::SignedDuration::from_secs(i64::try_from(n).expect("small"));
            let mut evaluated = commit.evaluate(tables.rows(&commit.footprint(), now)).expect("it goes through");
            evaluated.seal(tables.head());
            tables.write(commit.id, evaluated);
        }
        let bound = usize::try_from(TIDY_EVERY).expect("small") + 60;
        assert!((60..bound).contains(&tables.records.len()), "{} records", tables.records.len());
        assert!((60..bound).contains(&tables.answers.len()), "{} answers", tables.answers.len());
    }

    #[test]
    fn a_lease_that_ended_long_ago_is_forgotten_and_its_key_can_be_held_again() {
        let (mut tables, start) = (Tables::default(), Timestamp::UNIX_EPOCH);
        let hours = |hours| start + jiff::SignedDuration::from_hours(hours);
        let holder = crate::ids::ProcessId::from_uuid(uuid::Uuid::nil());
        let claim = |key: &str, ttl| LeaseClaim { key: key.into(), holder, ttl };
        tables.claim(&claim("ended", Duration::from_secs(5)), start);
        tables.claim(&claim("given back", Duration::from_secs(5)), start);
        tables.claim(&claim("given back", Duration::ZERO), start);
        tables.claim(&claim("held", Duration::from_secs(2 * 86_400)), start);
        tables.tidy(hours(23));
        assert_eq!(tables.leases.len(), 3, "the next holder is told a higher epoch");
        assert_eq!(tables.claim(&claim("given back", Duration::from_secs(5)), hours(23)).epoch, 2);
        tables.tidy(hours(25));
        assert_eq!(tables.leases.keys().collect::<Vec<_>>(), ["given back", "held"]);
        assert_eq!(tables.claim(&claim("ended", Duration::from_secs(5)), hours(25)).epoch, 1);
    }
}
