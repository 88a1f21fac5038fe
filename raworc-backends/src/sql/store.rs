//! A [`Store`] and a [`BlobStore`] in a database: what is written goes to one writer, what is read to a pool.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use raworc_core::agent::Agent;
use raworc_core::blob::{BlobId, BlobStore};
use raworc_core::computer::Computer;
use raworc_core::entropy::Clock;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Due, DueQuery, EventFilter, Lease, LeaseClaim,
    MessageQuery, Page, Purge, Purged, QuotaKind, Record, RecordKey, RecordKind, Stamped, StepQuery, Store, StoreError,
    Touch,
};
use sqlx::Pool;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dialect::Dialect;
use super::feed::{self, Feed};
use super::queue::{Jobs, Outcome, Queue, Work};
use super::read::READ_LIMIT;
use super::recent::Recent;
use super::time::Time;

/// What readers, watchers and the writer have in common.
#[derive(Debug)]
pub(crate) struct Shared<D: Dialect> {
    /// Where the database is, as people are told.
    pub(crate) place: String,
    pub(crate) time: Arc<Time>,
    pub(crate) readers: Pool<D::Db>,
    pub(crate) feed: Feed,
    /// Empty where others write too.
    pub(crate) recent: Recent,
    /// Everything is written.
    pub(crate) closed: CancellationToken,
    /// A pooler stands between: only within a transaction is a session the same from statement to statement, and nobody hears
    /// of other processes' commits.
    pub(crate) pooled: bool,
}

impl<D: Dialect> Shared<D> {
    pub(crate) fn fault(&self, error: &sqlx::Error) -> StoreError {
        D::fault(error, &self.place).into()
    }
}

/// A store in a database.
pub struct SqlStore<D: Dialect> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(super) queue: Queue,
    closing: CancellationToken,
    /// Where the store is dropped and not closed, all ends as well.
    _dropped: DropGuard,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl<D: Dialect> SqlStore<D> {
    /// A store with so many writes that wait at most, and the writer that `begin` makes. What else runs is to end when
    /// `closing`.
    pub(crate) fn new<W: Future<Output = ()> + Send + 'static>(
        shared: Arc<Shared<D>>,
        queue: usize,
        begin: impl FnOnce(Arc<Shared<D>>, Jobs, CancellationToken) -> W,
    ) -> Self {
        let closing = CancellationToken::new();
        let (queue, jobs) = Queue::new(queue, closing.clone());
        let writing = begin(Arc::clone(&shared), jobs, closing.clone());
        // However the writer ends, nothing more is to be watched.
        let closed = shared.closed.clone().drop_guard();
        let writer = tokio::spawn(async move {
            writing.await;
            drop(closed);
        });
        Self { shared, queue, _dropped: closing.clone().drop_guard(), closing, writer: Mutex::new(Some(writer)) }
    }

    /// Where the database is, without what is secret.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.shared.place
    }

    /// The store's time, which all have alike who share it. What processes stamp and check by it does not depend on their
    /// machines' clocks.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.time.clone()
    }

    /// Writes what is queued, and closes all connections. Calls after it are refused.
    pub async fn close(&self) {
        // Before the writer's own: the last connection to SQLite takes its log away. A reader may be cut off from its server.
        if timeout(READ_LIMIT, self.shared.readers.close()).await.is_err() {
            tracing::warn!(place = %self.shared.place, "a connection to the database did not close in time");
        }
        self.closing.cancel();
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the store's writer did not end well");
        }
        self.shared.recent.clear();
    }

    /// Forgets the log up to a revision, this one included. Who watches from before it is told that it is gone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where it could not be written.
    pub async fn forget_log(&self, upto: Revision) -> Result<(), StoreError> {
        self.queue.write(Work::ForgetLog { upto }).await.map(drop)
    }

    fn told<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        result.map_err(|error| self.shared.fault(&error))
    }
}

impl<D: Dialect> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

/// The writer answers each kind of work with its own kind of outcome.
fn mismatch(outcome: &Outcome) -> StoreError {
    StoreError::Unavailable { reason: format!("the writer answered another question: {outcome:?}") }
}

#[async_trait]
impl<D: Dialect> Store for SqlStore<D> {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        match self.queue.write(Work::Commit(Box::new(commit))).await? {
            Outcome::Committed(committed) => Ok(*committed),
            Outcome::Refused(conflict) => Err(conflict.into()),
            other => Err(mismatch(&other)),
        }
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        match self.queue.write(Work::Touch(touches.to_vec())).await? {
            Outcome::Untouched(agents) => Ok(agents),
            other => Err(mismatch(&other)),
        }
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        match self.queue.write(Work::Claim(claim.clone())).await? {
            Outcome::Claimed(lease) => Ok(lease),
            other => Err(mismatch(&other)),
        }
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        let (stale, next) = self.told(self.shared.stale(purge).await)?;
        if D::BESIDE && stale.has_rows() {
            self.told(self.shared.forget_rows(&stale).await)?;
        }
        let rows = stale.counted;
        if stale.needs_the_head() || !D::BESIDE && stale.has_rows() {
            self.queue.write(Work::Forget(Box::new(stale))).await?;
        }
        Ok(Purged { rows, next })
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        self.told(self.shared.leases(prefix).await)
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.told(self.shared.agent(tenant, name).await)
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.told(self.shared.agent_by_id(id).await)
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        self.told(self.shared.agents(query).await)
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        self.told(self.shared.due(query).await)
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.told(self.shared.message(agent, id).await)
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        self.told(self.shared.messages(query).await)
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        self.told(self.shared.steps(query).await)
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.told(self.shared.computer(id).await)
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        self.told(self.shared.computers(query).await)
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.told(self.shared.record(key).await)
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        self.told(self.shared.records(kind, tenant).await)
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.told(self.shared.usage(tenant, kind).await)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        self.told(self.shared.audit(query).await)
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        let Stamped { value, now } = self.told(self.shared.head().await)?;
        Ok(Stamped { value: value.revision, now })
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        feed::watch(&self.shared, since, filter)
    }
}

#[async_trait]
impl<D: Dialect> BlobStore for SqlStore<D> {
    async fn put(&self, tenant: &TenantName, content: Bytes) -> Result<BlobId, StoreError> {
        let id = BlobId::of(&content);
        if D::BESIDE {
            self.told(self.shared.put_blob(tenant, id, &content).await)?;
            return Ok(id);
        }
        self.queue.write(Work::Put { tenant: tenant.clone(), id, content }).await?;
        Ok(id)
    }

    async fn get(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        self.told(self.shared.get_blob(tenant, id, range).await)
    }

    async fn unlink(&self, tenant: &TenantName, id: BlobId) -> Result<(), StoreError> {
        if D::BESIDE {
            return self.told(self.shared.unlink_blob(tenant, id).await);
        }
        self.queue.write(Work::Unlink { tenant: tenant.clone(), id }).await.map(drop)
    }
}
