//! [`SqliteStore`]: everything in one SQLite file, for one process.
//!
//! One task writes, in batches that are made durable together (write-ahead log, `synchronous=FULL`); a few connections
//! read. What a commit means is worked out by [`Commit::evaluate`], never in SQL. The data directory is locked for
//! as long as the store is open, by a lock that the operating system takes back when the process ends.

mod blobs;
mod checkpoint;
mod config;
mod convert;
mod error;
mod lock;
mod read;
mod recent;
mod schema;
mod sql;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use raworc_core::agent::Agent;
use raworc_core::blob::{BlobId, BlobStore};
use raworc_core::computer::Computer;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Due, DueQuery, EventFilter, Lease, LeaseClaim,
    MessageQuery, Page, QuotaKind, Record, RecordKey, RecordKind, Stamped, StepQuery, Store, StoreClock, StoreError,
    Touch,
};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::config::SqliteOptions;

use self::error::Fault;
use self::lock::DirectoryLock;
use self::recent::Recent;
use self::watch::Feed;
use self::writer::{Head, Outcome, Queue, Work, Writer};

/// What readers, watchers and the writer have in common.
#[derive(Debug)]
struct Shared {
    place: PathBuf,
    clock: StoreClock,
    readers: SqlitePool,
    feed: Feed,
    recent: Recent,
}

/// A [`Store`] and a [`BlobStore`] in a SQLite file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    queue: Queue,
    closing: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in a data directory, which is made if it is not there, and brings its tables up to date.
    /// To be called within a Tokio runtime, on which the store's writer then runs.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names the directory and the way out: in use by another process, not writable,
    /// damaged, or written by a newer release.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        let lock = DirectoryLock::take(&options.directory).await?;
        let place = options.database();
        let fault = |error: sqlx::Error| Fault::of(&error, &place);
        let mut conn = schema::prepare(&options).await?;
        if options.void_leases {
            sqlx::query(sql::VOID_LEASES).execute(&mut conn).await.map_err(fault)?;
        }
        let head = Head::load(&mut conn).await.map_err(fault)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.reader())
            .await
            .map_err(fault)?;
        let (grown, watched) = tokio::sync::watch::channel(head.revision);
        let shared = Arc::new(Shared {
            clock: StoreClock::new(Arc::clone(&options.clock)),
            readers,
            feed: Feed::new(head.oldest, watched),
            recent: Recent::default(),
            place,
        });
        let (queue, closing, writer) = Writer::new(options, Arc::clone(&shared), conn, head, grown, lock);
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        Ok(Self { shared, queue, closing, writer })
    }

    /// Writes what is queued, closes the database and gives the directory free. Calls after it are refused.
    pub async fn close(&self) {
        self.shared.readers.close().await;
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

    fn fault(&self, error: &sqlx::Error) -> StoreError {
        Fault::of(error, &self.shared.place).into()
    }

    /// The store's time is taken after the rows, so that it is not before theirs.
    fn stamped<T>(&self, read: Result<T, sqlx::Error>) -> Result<Stamped<T>, StoreError> {
        let value = read.map_err(|error| self.fault(&error))?;
        Ok(Stamped { value, now: self.shared.clock.now() })
    }

    fn read<T>(&self, read: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        read.map_err(|error| self.fault(&error))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

/// The writer answers each kind of work with its own kind of outcome.
fn mismatch(outcome: &Outcome) -> StoreError {
    StoreError::Unavailable { reason: format!("the writer answered another question: {outcome:?}") }
}

#[async_trait]
impl Store for SqliteStore {
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

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        self.stamped(self.shared.leases(prefix).await)
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.stamped(self.shared.agent(tenant, name).await)
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.stamped(self.shared.agent_by_id(id).await)
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        self.read(self.shared.agents(query).await)
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        self.stamped(self.shared.due(query).await)
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.read(self.shared.message(agent, id).await)
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        self.read(self.shared.messages(query).await)
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        self.read(self.shared.steps(query).await)
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.read(self.shared.computer(id).await)
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        self.read(self.shared.computers(query).await)
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.read(self.shared.record(key).await)
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        self.read(self.shared.records(kind, tenant).await)
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.read(self.shared.usage(tenant, kind).await)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        self.read(self.shared.audit(query).await)
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        self.stamped(self.shared.head().await)
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        watch::watch(&self.shared, since, filter)
    }
}

#[async_trait]
impl BlobStore for SqliteStore {
    async fn put(&self, tenant: &TenantName, content: Bytes) -> Result<BlobId, StoreError> {
        let id = BlobId::of(&content);
        self.queue.write(Work::Put { tenant: tenant.clone(), id, content }).await?;
        Ok(id)
    }

    async fn get(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, StoreError> {
        self.read(blobs::read(&self.shared.readers, tenant, id, range).await)
    }

    async fn unlink(&self, tenant: &TenantName, id: BlobId) -> Result<(), StoreError> {
        self.queue.write(Work::Unlink { tenant: tenant.clone(), id }).await.map(drop)
    }
}
