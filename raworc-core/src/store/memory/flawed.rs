//! Broken twins of [`MemoryStore`]: each has one flaw, which a case of the conformance suite must catch.

mod blobs;
mod commits;
mod purge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;

use super::{MemoryStore, lock};
use crate::agent::{Agent, State};
use crate::blob::BlobId;
use crate::computer::Computer;
use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use crate::event::Event;
use crate::ids::{AgentId, AgentName, CommitId, ComputerId, MessageId, Revision, RuntimeName, TenantName};
use crate::message::Message;
use crate::step::Step;
use crate::store::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Conflict, Due, DueQuery, EventFilter, Lease,
    LeaseClaim, MAX_PAGE, MessageQuery, Page, Purge, Purged, QuotaKind, Record, RecordKey, RecordKind, Stamped,
    StepQuery, Store, StoreError, Touch,
};

/// What is wrong with a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    AnyoneGivesBack,
    AuditIsLossy,
    AuditOfAllTenants,
    AuditOnFailure,
    AuditOneTooEarly,
    BlobIsCounted,
    BlobIsCut,
    BlobIsLate,
    BlobsOfAllTenants,
    ComputersIgnoreTheCursor,
    DeletedIsHidden,
    DueIsReversed,
    DueIsStale,
    DueOfAllRuntimes,
    EmptyIsNothing,
    EpochIsOne,
    FailureTakesARevision,
    FailsTheBatch,
    ForgetsAtRestart,
    ForgetsCommitsAtRestart,
    GoneIsSilent,
    InboxIsNotLoaded,
    KeysAreForgotten,
    KeysNeverExpire,
    KeysOfAllPrincipals,
    LeaseToEveryone,
    LimitIsIgnored,
    LosesUpdates,
    MessagesHaveGaps,
    MismatchIsReplayed,
    NamesAreNotUnique,
    NamesOfAllTenants,
    NamesStayTaken,
    NewestFirstIgnoresTheCursor,
    NoDedupe,
    NotAtomic,
    NowIsOld,
    OwnerIsIgnored,
    PagesByOffset,
    PagesOfAnySize,
    PreconditionsAreIgnored,
    PrefixIgnoresCase,
    PurgeForgetsComputers,
    PurgeForgetsReferences,
    PurgeIgnoresTheLimit,
    PurgeReusesNumbers,
    PurgeTakesWhatIsOpen,
    PurgeTakesWhatIsYoung,
    QuotaBeforeCommit,
    QuotaNeverShrinks,
    RangeIsInclusive,
    ReclaimIsIgnored,
    RecordsNeverExpire,
    RecordsOfTheInstallation,
    RenewalIsANewEpoch,
    ResendIsAnsweredAnew,
    RevisionsHaveGaps,
    SelectorIsIgnored,
    ShortPageIsTheLast,
    StepPagesRepeat,
    StepsHaveGaps,
    StepsOfAllMessages,
    TellsAllThatItWrites,
    TenantsByPrefix,
    TextIsCut,
    TextLosesNul,
    TimesDrift,
    TimesOfTheWriter,
    TouchIgnoresIncarnation,
    TouchIsLogged,
    TouchMovesBack,
    TouchSaysNothing,
    UnlinkOfNothingFails,
    VersionIsIgnored,
    WatchIgnoresItsFilter,
    WatchIsASnapshot,
    WatchRepeatsSince,
    WatchSkips,
}

/// A store with a flaw.
#[derive(Debug)]
pub(crate) struct Flawed {
    inner: MemoryStore,
    flaw: Flaw,
    memory: Mutex<Memory>,
}

/// What a flaw has to remember.
#[derive(Debug, Default)]
struct Memory {
    names: BTreeSet<(TenantName, AgentName)>,
    due: BTreeMap<AgentId, Timestamp>,
    failed: Option<Conflict>,
    puts: BTreeMap<BlobId, u32>,
    restarted: bool,
}

impl Flawed {
    pub(crate) fn new(flaw: Flaw) -> Self {
        Self { inner: MemoryStore::default(), flaw, memory: Mutex::default() }
    }

    /// The same data after a restart.
    pub(crate) fn restart(self: Arc<Self>) -> Arc<Self> {
        if self.flaw == Flaw::ForgetsAtRestart {
            return Arc::new(Self::new(self.flaw));
        }
        self.memory().restarted = true;
        self
    }

    pub(crate) fn forget_log(&self, upto: Revision) {
        self.inner.forget_log(upto);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("nothing panics under it")
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    /// Changes something that nobody asked for.
    async fn noise(&self) -> Result<(), StoreError> {
        self.inner.commit(commits::noise()).await.map(drop)
    }
}

fn commit_id() -> CommitId {
    SystemEntropy.commit_id(SystemClock.now())
}

#[async_trait]
impl Store for Flawed {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.flawed_commit(commit).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        let mut touches = touches.to_vec();
        for touch in &mut touches {
            let (mut tables, _) = self.inner.lock();
            let Some(mut agent) = tables.agent(touch.agent).cloned() else { continue };
            if self.is(Flaw::TouchIgnoresIncarnation) {
                touch.incarnation = agent.status.incarnation;
            }
            if self.is(Flaw::TouchMovesBack) {
                agent.status.awake_until = None;
                tables.put_agent(agent);
            }
        }
        if self.is(Flaw::TouchIsLogged) {
            self.noise().await?;
        }
        let without = self.inner.touch(&touches).await?;
        Ok(if self.is(Flaw::TouchSaysNothing) { Vec::new() } else { without })
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        let mut claim = claim.clone();
        if self.is(Flaw::RenewalIsANewEpoch) {
            self.inner.claim(&LeaseClaim { ttl: std::time::Duration::ZERO, ..claim.clone() }).await?;
        }
        if self.is(Flaw::AnyoneGivesBack) && claim.ttl.is_zero() {
            let held = self.inner.leases(&claim.key).await?.value;
            claim.holder = held.first().map_or(claim.holder, |lease| lease.holder);
        }
        let mut lease = self.inner.claim(&claim).await?;
        if self.is(Flaw::LeaseToEveryone) {
            lease.value.holder = claim.holder;
        }
        if self.is(Flaw::EpochIsOne) {
            lease.value.epoch = 1;
        }
        Ok(lease)
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        self.flawed_purge(*purge).await
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        if !self.is(Flaw::PrefixIgnoresCase) {
            return self.inner.leases(prefix).await;
        }
        let mut all = self.inner.leases("").await?;
        all.value.retain(|lease| lease.key.to_lowercase().starts_with(&prefix.to_lowercase()));
        Ok(all)
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        let mut read = self.inner.agent(tenant, name).await?;
        if self.is(Flaw::NowIsOld) {
            read.now = Timestamp::UNIX_EPOCH;
        }
        Ok(read)
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        let mut read = self.inner.agent_by_id(id).await?;
        if self.is(Flaw::DeletedIsHidden) {
            read.value = read.value.filter(|agent| agent.status.state() != State::Deleted);
        }
        Ok(read)
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        let mut query = query.clone();
        let selector = query.selector.clone();
        match self.flaw {
            Flaw::OwnerIsIgnored => query.owner = None,
            Flaw::SelectorIsIgnored | Flaw::ShortPageIsTheLast => query.selector = "".parse().expect("valid"),
            Flaw::PagesByOffset => {
                let from = query.after.take().map_or(0, |after| after.parse().expect("a number"));
                let limit = std::mem::replace(&mut query.limit, MAX_PAGE);
                let all = self.inner.agents(&query).await?.items;
                let next = (from + limit < all.len()).then(|| (from + limit).to_string());
                return Ok(Page { items: all.into_iter().skip(from).take(limit).collect(), next });
            }
            _ => {}
        }
        let mut page = self.inner.agents(&query).await?;
        if self.is(Flaw::TenantsByPrefix)
            && let Ok(tenant) = TenantName::new(format!("{}-2", query.tenant))
        {
            page.items.extend(self.inner.agents(&AgentQuery::of(tenant)).await?.items);
        }
        if self.is(Flaw::ShortPageIsTheLast) {
            page.items.retain(|agent| selector.matches(&agent.spec.labels));
            page.next = page.next.filter(|_| page.items.len() == query.limit);
        }
        Ok(page)
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        let mut query = query.clone();
        if self.is(Flaw::DueOfAllRuntimes) {
            query.runtimes = ["metal", "cloud", "metal-2"].map(|name| RuntimeName::new(name).expect("valid")).to_vec();
        }
        let mut read = self.inner.due(&query).await?;
        if self.is(Flaw::DueIsReversed) {
            read.value.reverse();
        }
        if self.is(Flaw::DueIsStale) {
            let mut memory = self.memory();
            for due in &mut read.value {
                due.at = *memory.due.entry(due.agent).or_insert(due.at);
            }
        }
        Ok(read)
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.inner.message(agent, id).await
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        let mut query = query.clone();
        if self.is(Flaw::LimitIsIgnored) {
            query.limit = MAX_PAGE;
        }
        if self.is(Flaw::NewestFirstIgnoresTheCursor) && query.newest_first {
            query.after = None;
        }
        let mut page = self.inner.messages(&query).await?;
        while self.is(Flaw::PagesOfAnySize) && page.next.is_some() && page.items.len() < query.limit {
            query.after = page.items.last().map(|message| message.seq);
            let more = self.inner.messages(&query).await?;
            page.items.extend(more.items);
            page.next = more.next;
        }
        Ok(page)
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        let mut query = query.clone();
        if self.is(Flaw::StepsOfAllMessages) {
            query.message = None;
        }
        if self.is(Flaw::StepPagesRepeat) {
            query.after = query.after.saturating_sub(1);
        }
        self.inner.steps(&query).await
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.inner.computer(id).await
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        let mut query = query.clone();
        if self.is(Flaw::ReclaimIsIgnored) {
            query.reclaim = false;
        }
        if self.is(Flaw::ComputersIgnoreTheCursor) {
            query.after = None;
        }
        self.inner.computers(&query).await
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.inner.record(key).await
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        let mut records = self.inner.records(kind, tenant).await?;
        if self.is(Flaw::RecordsOfTheInstallation) && tenant.is_some() {
            records.extend(self.inner.records(kind, None).await?);
        }
        Ok(records)
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.inner.usage(tenant, kind).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        let mut query = query.clone();
        if self.is(Flaw::AuditOfAllTenants) {
            query.tenant = None;
        }
        self.inner.audit(&query).await
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        self.inner.head().await
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        let (mut since, mut filter) = (since, filter);
        match self.flaw {
            Flaw::WatchIgnoresItsFilter => filter = EventFilter::default(),
            Flaw::WatchRepeatsSince => since = Revision(since.0.saturating_sub(1)),
            Flaw::GoneIsSilent => {
                if let Err(StoreError::Gone { oldest }) = lock(&self.inner.tables).check_log(since) {
                    since = Revision(oldest.0 - 1);
                }
            }
            _ => {}
        }
        let events = self.inner.watch(since, filter).await?;
        Ok(match self.flaw {
            Flaw::WatchIsASnapshot => events.take(1).chain(stream::pending()).boxed(),
            Flaw::WatchSkips => {
                let some = |events: Vec<Event>| events.into_iter().filter(|event| event.revision.0 % 13 != 0).collect();
                events.map(move |burst| burst.map(some)).boxed()
            }
            _ => events,
        })
    }
}
