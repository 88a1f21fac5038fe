//! The store as one process reaches it: a decorator over the true one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};

use super::fault::{Events, Moment, Strike};
use super::port::{Port, To};
use super::world::World;
use crate::agent::Agent;
use crate::computer::Computer;
use crate::entropy::EntropyExt;
use crate::event::Event;
use crate::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use crate::message::Message;
use crate::runtime::simulated::PROGRAM;
use crate::step::Step;
use crate::store::{
    AgentChange, AgentOp, AgentQuery, AuditQuery, AuditRow, Change, Check, Commit, Committed, ComputerQuery, Due,
    DueQuery, EventFilter, Lease, LeaseClaim, MemoryStore, MessageQuery, Page, Purge, Purged, QuotaKind, Record,
    RecordKey, RecordKind, Stamped, StepQuery, Store, StoreError, Touch,
};

#[derive(Debug)]
pub(super) struct SimulatedStore {
    port: Port,
}

impl SimulatedStore {
    pub(super) const fn new(port: Port) -> Self {
        Self { port }
    }

    fn inner(&self) -> &MemoryStore {
        &self.port.world.store
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let whole = async {
            self.port.way(To::Store).await.map_err(unavailable)?;
            let answer = call.await;
            self.port.back(To::Store).await.map_err(unavailable)?;
            answer
        };
        self.port.alive(whole).await
    }

    /// Hands a commit over that is carried out later, whether or not this process still waits for it.
    async fn late(&self, commit: Commit, very: bool) -> Result<Committed, StoreError> {
        let (world, name) = (Arc::clone(&self.port.world), self.port.process().name.clone());
        let carried_out = async move {
            let limit = Duration::from_secs(if very { 60 } else { 5 });
            // Where nobody overtakes it, it is only late.
            tokio::select! {
                biased;
                () = world.closing.cancelled() => {}
                () = overtaken(&world, &commit, very) => {}
                () = tokio::time::sleep(limit) => {}
            }
            world.apply(&name, commit)
        };
        let task = match PROGRAM.try_with(|program| *program) {
            Ok(program) => tokio::spawn(PROGRAM.scope(program, carried_out)),
            Err(_) => tokio::spawn(carried_out),
        };
        task.await.unwrap_or_else(|error| Err(unavailable(error.to_string())))
    }

    async fn struck(&self, commit: Commit) -> Result<Committed, StoreError> {
        let port = &self.port;
        let strike = port.strike(To::Store);
        port.way(To::Store).await.map_err(unavailable)?;
        port.suffer(strike, Moment::Before).await;
        if strike == Some(Strike::Refuse) {
            return Err(unavailable("the store refuses".into()));
        }
        if strike == Some(Strike::Conflict) {
            interlope(&port.world, &commit);
        }
        let answer = match strike {
            Some(Strike::Late | Strike::VeryLate) => self.late(commit, strike == Some(Strike::VeryLate)).await,
            _ => port.world.apply(&port.process().name, commit),
        };
        port.suffer(strike, Moment::After).await;
        if strike == Some(Strike::LoseAnswer) {
            return Err(unavailable("the store's answer was lost".into()));
        }
        port.back(To::Store).await.map_err(unavailable)?;
        answer
    }
}

fn unavailable(reason: String) -> StoreError {
    StoreError::Unavailable { reason }
}

/// Somebody else changes the same agents right before.
fn interlope(world: &World, commit: &Commit) {
    for change in &commit.changes {
        let Change::Agent(change) = change else { continue };
        let op = AgentOp::SetCondition {
            kind: crate::agent::ConditionKind::LimitReached,
            status: world.chance.once_in(2),
            reason: format!("Interloper{}", world.chance.below(1000)),
            message: "somebody else was here".into(),
        };
        let change = AgentChange { agent: change.agent, when: vec![Check::Alive], ops: vec![op] };
        let id = world.chance.commit_id(jiff::Timestamp::UNIX_EPOCH);
        // An agent that is not there has no other writer.
        let _ = world.apply("interloper", Commit::of(id, change));
    }
}

/// Waits until somebody else has changed one of the same agents.
async fn overtaken(world: &World, commit: &Commit, very: bool) {
    let rows = || -> Vec<_> { World::rows(&world.store, commit).into_values().collect() };
    let before = rows();
    let passed = |agent: &Agent| {
        let Some(before) = before.iter().find(|before| before.id == agent.id) else { return false };
        if very {
            agent.status.incarnation > before.status.incarnation && agent.status.message.is_some()
        } else {
            agent.revision != before.revision
        }
    };
    while !rows().iter().any(passed) {
        world.committed.notified().await;
    }
}

/// A stream of events on its way to a process.
struct Watching {
    inner: BoxStream<'static, Result<Vec<Event>, StoreError>>,
    port: Port,
    /// Where the log ended when this was opened. What came later wakes who waits, and may be lost, or come twice.
    head: Revision,
    again: Option<Vec<Event>>,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Vec<Event>, StoreError>> {
        let port = self.port.clone();
        port.alive(async {
            if let Some(again) = self.again.take() {
                return Some(Ok(again));
            }
            loop {
                let burst = self.inner.next().await?;
                if self.port.way(To::Store).await.is_err() {
                    return Some(Err(unavailable("the connection broke".into())));
                }
                let Ok(events) = burst else { return Some(burst) };
                let wakes = events.first().is_some_and(|event| event.revision > self.head);
                match self.port.process().events().filter(|_| wakes) {
                    None => return Some(Ok(events)),
                    Some(Events::Lost) => self.port.world.counts().fault("wake-ups lost", 1),
                    Some(Events::Doubled) => {
                        self.port.world.counts().fault("wake-ups doubled", 1);
                        self.again = Some(events.clone());
                        return Some(Ok(events));
                    }
                }
            }
        })
        .await
    }
}

#[async_trait]
impl Store for SimulatedStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.port.alive(self.struck(commit)).await
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        self.call(self.inner().touch(touches)).await
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        self.call(self.inner().claim(claim)).await
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        self.call(async { self.port.world.purge(purge) }).await
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        self.call(self.inner().leases(prefix)).await
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.call(self.inner().agent(tenant, name)).await
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.call(self.inner().agent_by_id(id)).await
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        self.call(self.inner().agents(query)).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        self.call(self.inner().due(query)).await
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.call(self.inner().message(agent, id)).await
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        self.call(self.inner().messages(query)).await
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        self.call(self.inner().steps(query)).await
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.call(self.inner().computer(id)).await
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        self.call(self.inner().computers(query)).await
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.call(self.inner().record(key)).await
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        self.call(self.inner().records(kind, tenant)).await
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.call(self.inner().usage(tenant, kind)).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        self.call(self.inner().audit(query)).await
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        self.call(self.inner().head()).await
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        let inner = self.call(self.inner().watch(since, filter)).await?;
        let head = World::at_once(self.inner().head())?.value;
        let watching = Watching { inner, port: self.port.clone(), head, again: None };
        Ok(stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            let burst = watching.next().await?;
            let rest = burst.is_ok().then_some(watching);
            Some((burst, rest))
        })
        .boxed())
    }
}
