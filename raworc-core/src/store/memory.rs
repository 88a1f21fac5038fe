//! [`MemoryStore`]: everything in memory, behind one lock.
//!
//! It is the model of what a store has to do: lock, answer a resend, load what the commit looks at, evaluate, seal,
//! write, wake the watchers. What other stores do with transactions and indexes is done here with ordered maps.

#[cfg(test)]
pub(crate) mod flawed;
mod tables;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use self::tables::Tables;
use super::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Due, DueQuery, EventFilter, Lease, LeaseClaim,
    MessageQuery, Page, Purge, Purged, QuotaKind, Record, RecordKey, RecordKind, Stamped, StepQuery, Store, StoreClock,
    StoreError, Touch,
};
use crate::agent::Agent;
use crate::blob::{BlobId, BlobStore};
use crate::computer::Computer;
use crate::entropy::{Clock, SystemClock};
use crate::event::Event;
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::step::Step;

/// Events that one burst of [`Store::watch`] holds at most.
const BURST: usize = 1000;

/// A store that lasts as long as it is held.
pub struct MemoryStore {
    clock: StoreClock,
    tables: Arc<Mutex<Tables>>,
    /// Tells of each commit that has events. Watchers end when it goes. A broadcast wakes them in the order in which
    /// they wait; a watch channel would in a random one.
    grown: broadcast::Sender<()>,
}

impl MemoryStore {
    /// An empty store whose time is this clock's.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock: StoreClock::new(clock), tables: Arc::default(), grown: broadcast::Sender::new(1) }
    }

    /// Forgets the log up to a revision, this one included. Who watches from before it is told that it is gone.
    pub fn forget_log(&self, upto: Revision) {
        self.lock().0.forget_log(upto);
    }

    /// The tables, and the store's time.
    fn lock(&self) -> (MutexGuard<'_, Tables>, Timestamp) {
        let tables = lock(&self.tables);
        let now = self.clock.now();
        (tables, now)
    }

    fn stamped<T>(&self, read: impl FnOnce(&Tables, Timestamp) -> T) -> Stamped<T> {
        let (tables, now) = self.lock();
        Stamped { value: read(&tables, now), now }
    }
}

/// A panic under the lock can only come from reading: what is written was worked out before.
fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("head", &lock(&self.tables).head()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (mut tables, now) = self.lock();
        if let Some(first) = tables.committed(commit.id) {
            return Ok(first.clone());
        }
        let mut evaluated = commit.evaluate(tables.rows(&commit.footprint(), now))?;
        evaluated.seal(tables.head());
        let grows = !evaluated.events.is_empty();
        let committed = tables.write(commit.id, evaluated);
        drop(tables);
        if grows {
            // Nobody need watch.
            let _ = self.grown.send(());
        }
        Ok(committed)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        let (mut tables, now) = self.lock();
        Ok(touches.iter().filter(|touch| !tables.touch(touch, now)).map(|touch| touch.agent).collect())
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        let (mut tables, now) = self.lock();
        Ok(Stamped { value: tables.claim(claim, now), now })
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        Ok(self.stamped(|tables, now| tables.leases(prefix, now)))
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        let (mut tables, now) = self.lock();
        Ok(tables.purge(purge, now))
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        Ok(self.stamped(|tables, _| tables.agent_named(tenant, name).cloned()))
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        Ok(self.stamped(|tables, _| tables.agent(id).cloned()))
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        Ok(self.lock().0.agents(query))
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        Ok(self.stamped(|tables, now| tables.due(query, now)))
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        Ok(self.lock().0.message(id).filter(|message| message.agent == agent).cloned())
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        Ok(self.lock().0.messages(query))
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        Ok(self.lock().0.steps(query))
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        Ok(self.lock().0.computer(id).cloned())
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        Ok(self.lock().0.computers(query))
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let (tables, now) = self.lock();
        Ok(tables.record(key, now).cloned())
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        let (tables, now) = self.lock();
        Ok(tables.records(kind, tenant, now))
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        Ok(self.lock().0.usage(tenant, kind))
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        Ok(self.lock().0.audit(query))
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        Ok(self.stamped(|tables, _| tables.head()))
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        lock(&self.tables).check_log(since)?;
        let watcher = Watcher { tables: Arc::clone(&self.tables), grown: self.grown.subscribe(), since, filter };
        Ok(stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await? {
                Ok(events) => Some((Ok(events), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

/// Where somebody stands who reads the log.
struct Watcher {
    tables: Arc<Mutex<Tables>>,
    grown: broadcast::Receiver<()>,
    since: Revision,
    filter: EventFilter,
}

impl Watcher {
    /// The next burst that has an event for this watcher; none once the store is gone.
    async fn next(&mut self) -> Option<Result<Vec<Event>, StoreError>> {
        loop {
            let burst = lock(&self.tables).log_after(self.since, BURST);
            let (mut events, last) = match burst {
                Ok((events, last)) => (events, last),
                Err(gone) => return Some(Err(gone)),
            };
            let caught_up = last == self.since;
            self.since = last;
            events.retain(|event| self.filter.matches(event));
            if !events.is_empty() {
                return Some(Ok(events));
            }
            if caught_up {
                // What was written since the subscription, or since the last wait, ends this wait at once.
                match self.grown.recv().await {
                    Ok(()) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn put(&self, tenant: &TenantName, content: Bytes) -> Result<BlobId, StoreError> {
        let id = BlobId::of(&content);
        let (mut tables, now) = self.lock();
        tables.put_blob(tenant, id, content, now);
        Ok(id)
    }

    async fn get(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        let content = lock(&self.tables).blob(tenant, id);
        Ok(content.map(|content| match range {
            None => content,
            Some(range) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
                let (start, end) = (place(range.start), place(range.end));
                content.slice(start..end.max(start))
            }
        }))
    }

    async fn unlink(&self, tenant: &TenantName, id: BlobId) -> Result<(), StoreError> {
        lock(&self.tables).unlink_blob(tenant, id);
        Ok(())
    }
}
