//! A store that does as a test asks: counts, fails once, or lets something else come first.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::computer::Computer;
use crate::control::SERVERS;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::step::Step;
use crate::store::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Due, DueQuery, EventFilter, Lease, LeaseClaim,
    MemoryStore, MessageQuery, Page, Purge, PurgeFrom, Purged, QuotaKind, Record, RecordKey, RecordKind, Stamped,
    StepQuery, Store, StoreError, Touch,
};

type First = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// The in-memory store, with what a test does to it.
pub(crate) struct Twisted {
    pub(crate) inner: Arc<MemoryStore>,
    first: Mutex<Option<First>>,
    commits: AtomicU64,
    computers: AtomicU64,
    failing_touches: AtomicU64,
    failing_reads: AtomicU64,
    purges: AtomicU64,
    failing_purges: AtomicU64,
    touches: Mutex<Vec<Touch>>,
    most_touched: AtomicUsize,
    cut: Mutex<CancellationToken>,
    gone: Mutex<CancellationToken>,
    claims_take: Mutex<Duration>,
    signs: AtomicU64,
    head: Mutex<Option<Revision>>,
    left_out: Arc<Mutex<(Revision, u64)>>,
    reads_stand_still: watch::Sender<bool>,
    reads_take: Mutex<Duration>,
    knows_no_computer: AtomicBool,
    is_read_only: AtomicBool,
    asked: Mutex<Vec<&'static str>>,
}

impl std::fmt::Debug for Twisted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twisted").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Twisted {
    pub(crate) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            first: Mutex::default(),
            commits: AtomicU64::default(),
            computers: AtomicU64::default(),
            failing_touches: AtomicU64::default(),
            failing_reads: AtomicU64::default(),
            purges: AtomicU64::default(),
            failing_purges: AtomicU64::default(),
            touches: Mutex::default(),
            most_touched: AtomicUsize::default(),
            cut: Mutex::default(),
            gone: Mutex::default(),
            claims_take: Mutex::default(),
            signs: AtomicU64::default(),
            head: Mutex::default(),
            left_out: Arc::default(),
            reads_stand_still: watch::Sender::new(false),
            reads_take: Mutex::default(),
            knows_no_computer: AtomicBool::default(),
            is_read_only: AtomicBool::default(),
            asked: Mutex::default(),
        }
    }

    /// What happens right before the next commit, after everything that its author has read.
    pub(crate) fn before_next_commit(&self, first: impl FnOnce() -> BoxFuture<'static, ()> + Send + 'static) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(first));
    }

    /// Commits that went through.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Computers that were read one by one.
    pub(crate) fn computers_read(&self) -> u64 {
        self.computers.load(Ordering::Relaxed)
    }

    /// The next touches fail, so many times.
    pub(crate) fn fail_touches(&self, times: u64) {
        self.failing_touches.store(times, Ordering::Relaxed);
    }

    /// The next reads of one message fail, so many times.
    pub(crate) fn fail_reads(&self, times: u64) {
        self.failing_reads.store(times, Ordering::Relaxed);
    }

    /// How many of these are left.
    pub(crate) fn reads_to_fail(&self) -> u64 {
        self.failing_reads.load(Ordering::Relaxed)
    }

    /// The next purges fail, so many times.
    pub(crate) fn fail_purges(&self, times: u64) {
        self.failing_purges.store(times, Ordering::Relaxed);
    }

    /// How often somebody began to purge since the last question.
    pub(crate) fn take_purges(&self) -> u64 {
        self.purges.swap(0, Ordering::Relaxed)
    }

    /// The touches that went through since the last question.
    pub(crate) fn take_touches(&self) -> Vec<Touch> {
        std::mem::take(&mut self.touches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many touches came at once at most.
    pub(crate) fn most_touched(&self) -> usize {
        self.most_touched.load(Ordering::Relaxed)
    }

    /// Ends the streams of all who watch the log.
    pub(crate) fn cut_watchers(&self) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }

    /// Tells all who watch the log that what comes next for them is gone, as a store does whose log went back and has grown
    /// since.
    pub(crate) fn go_back(&self) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *gone).cancel();
    }

    /// Says that the log ends here, as a database does that has lost the last of it.
    pub(crate) fn end_at(&self, head: Revision) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    /// Leaves this out of what watchers are told, so many times.
    pub(crate) fn leave_out(&self, revision: Revision, times: u64) {
        *self.left_out.lock().unwrap_or_else(PoisonError::into_inner) = (revision, times);
    }

    /// Leases are claimed in no less time than this.
    pub(crate) fn slow_claims(&self, time: Duration) {
        *self.claims_take.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// How often a server began to give a sign of life since the last question.
    pub(crate) fn take_signs(&self) -> u64 {
        self.signs.swap(0, Ordering::Relaxed)
    }

    /// What an operator reads is not answered until this says otherwise.
    pub(crate) fn reads_stand_still(&self, still: bool) {
        self.reads_stand_still.send_replace(still);
    }

    /// What an operator reads is answered in no less time than this.
    pub(crate) fn slow_reads(&self, time: Duration) {
        *self.reads_take.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Knows of no computer, as a database does that was left behind before they were made.
    pub(crate) fn knows_no_computer(&self, none: bool) {
        self.knows_no_computer.store(none, Ordering::Relaxed);
    }

    /// Takes no writes.
    pub(crate) fn is_read_only(&self, only: bool) {
        self.is_read_only.store(only, Ordering::Relaxed);
    }

    /// What operators asked since the last question: to `claim` a sign of life, who `lives`, and what is `due` by now.
    pub(crate) fn take_asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, asked: &'static str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }

    async fn read(&self) {
        let time = *self.reads_take.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep(time).await;
        let mut still = self.reads_stand_still.subscribe();
        let _ = still.wait_for(|still| !still).await.map(drop);
    }

    fn write(&self) -> Result<(), StoreError> {
        if self.is_read_only.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { reason: "it may only be read, as the test asks".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Twisted {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(first) = first {
            first().await;
        }
        self.write()?;
        let committed = self.inner.commit(commit).await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(committed)
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        self.most_touched.fetch_max(touches.len(), Ordering::Relaxed);
        let failing = |left: u64| left.checked_sub(1);
        if self.failing_touches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Err(StoreError::Unavailable { reason: "as the test asks".into() });
        }
        self.touches.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(touches);
        self.inner.touch(touches).await
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        if claim.key.starts_with(SERVERS) {
            self.signs.fetch_add(1, Ordering::Relaxed);
        } else {
            self.note("claim");
        }
        self.write()?;
        let time = *self.claims_take.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep(time).await;
        self.inner.claim(claim).await
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        let failing = |left: u64| left.checked_sub(1);
        if self.failing_purges.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Err(StoreError::Unavailable { reason: "as the test asks".into() });
        }
        if purge.from == PurgeFrom::default() {
            self.purges.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.purge(purge).await
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        if prefix != SERVERS {
            self.note("lives");
        }
        self.read().await;
        self.inner.leases(prefix).await
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.inner.agent(tenant, name).await
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.read().await;
        self.inner.agent_by_id(id).await
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        self.inner.agents(query).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        if query.before.is_none() {
            self.note("due");
        }
        self.read().await;
        self.inner.due(query).await
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        let failing = |left: u64| left.checked_sub(1);
        if self.failing_reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Err(StoreError::Unavailable { reason: "as the test asks".into() });
        }
        self.inner.message(agent, id).await
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        self.inner.messages(query).await
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        self.inner.steps(query).await
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.computers.fetch_add(1, Ordering::Relaxed);
        self.read().await;
        if self.knows_no_computer.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.inner.computer(id).await
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        self.read().await;
        if self.knows_no_computer.load(Ordering::Relaxed) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        self.inner.computers(query).await
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.inner.record(key).await
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        self.inner.records(kind, tenant).await
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.inner.usage(tenant, kind).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        self.inner.audit(query).await
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        let mut head = self.inner.head().await?;
        let lost = *self.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.value = lost.unwrap_or(head.value);
        Ok(head)
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let left_out = Arc::clone(&self.left_out);
        let events = self.inner.watch(since, filter).await?.map(move |burst| {
            let mut burst = burst?;
            let mut left_out = left_out.lock().unwrap_or_else(PoisonError::into_inner);
            let all = burst.len();
            burst.retain(|event| left_out.1 == 0 || event.revision != left_out.0);
            left_out.1 -= (all - burst.len()) as u64;
            Ok(burst)
        });
        let told = async move {
            gone.cancelled_owned().await;
            Err(StoreError::Gone { oldest: Revision(1) })
        };
        let events = futures::stream::select(events, futures::stream::once(told));
        Ok(events.take_until(cut.cancelled_owned()).boxed())
    }
}
