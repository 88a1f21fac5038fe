//! What the cases have in common: a store, agents in it, and many writers at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::Barrier;

use super::StoreUnderTest;
use crate::agent::{Agent, AgentEvent, AgentSpec, Desired, Resources};
use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use crate::event::Event;
use crate::ids::{
    AgentId, AgentName, CommitId, ComputerId, MessageId, ProcessId, Revision, RuntimeName, TenantName, UserName,
};
use crate::message::{Message, Part, Role};
use crate::runtime::{ComputerSpec, StartId};
use crate::store::{
    AgentChange, AgentOp, Change, Check, Commit, Committed, Conflict, Ending, EventFilter, NewAgent, NewComputer,
    NewMessage, Reply, Store, StoreError,
};
use crate::trace::TraceParent;

/// Writers that meet in a case about concurrency.
pub(super) const WRITERS: usize = 16;

/// Before the first revision.
pub(super) const START: Revision = Revision(0);

/// How long a case waits for what a store has to bring by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store as one process or two see it.
pub(super) struct Scene {
    pub(super) store: Arc<dyn Store>,
    beside: Arc<dyn Store>,
}

impl Scene {
    pub(super) async fn open(subject: &dyn StoreUnderTest) -> Self {
        let store = subject.open().await;
        let beside = subject.beside(&store).await;
        Self { store, beside }
    }

    /// The same data after every process has ended.
    pub(super) async fn reopen(self, subject: &dyn StoreUnderTest) -> Self {
        drop(self.beside);
        let store = subject.reopen(self.store).await;
        let beside = subject.beside(&store).await;
        Self { store, beside }
    }

    /// Runs `work` in [`WRITERS`] tasks that begin together, half of them in either process.
    pub(super) async fn at_once<T, F>(&self, work: impl Fn(usize, Arc<dyn Store>) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let start = Arc::new(Barrier::new(WRITERS));
        let tasks: Vec<_> = (0..WRITERS)
            .map(|n| {
                let work = work(n, Arc::clone(if n % 2 == 0 { &self.store } else { &self.beside }));
                let start = Arc::clone(&start);
                tokio::spawn(async move {
                    start.wait().await;
                    work.await
                })
            })
            .collect();
        let mut results = Vec::new();
        for task in tasks {
            results.push(task.await.expect("a writer of this case panicked"));
        }
        results
    }

    pub(super) async fn commit(&self, commit: Commit) -> Committed {
        self.store.commit(commit).await.expect("the commit goes through")
    }

    /// Changes an agent that is alive, and returns it as it is then.
    pub(super) async fn change(&self, agent: AgentId, ops: Vec<AgentOp>) -> Agent {
        let committed = self.commit(change(agent, Check::Alive, ops)).await;
        committed
            .agents
            .into_iter()
            .find(|there| there.id == agent)
            .expect("the commit tells the agent that it changed")
    }

    pub(super) async fn create(&self, name: &str) -> Agent {
        self.create_in(&TenantName::default(), name).await
    }

    pub(super) async fn create_in(&self, tenant: &TenantName, name: &str) -> Agent {
        self.create_with(tenant, name, spec()).await
    }

    pub(super) async fn create_with(&self, tenant: &TenantName, name: &str, spec: AgentSpec) -> Agent {
        let commit = creation(tenant, name, spec);
        self.commit(commit).await.agents.remove(0)
    }

    /// An agent that waits for messages.
    pub(super) async fn idle(&self, name: &str) -> Agent {
        let agent = self.create(name).await;
        self.start(agent.id).await
    }

    /// Begins a start on a new computer and goes through with it.
    pub(super) async fn start(&self, agent: AgentId) -> Agent {
        self.change(agent, vec![begin(Some(new_computer()))]).await;
        let started = AgentOp::Started { start_id: StartId("start".into()) };
        let boot = AgentOp::Boot { key_hash: KEY_HASH.into() };
        self.change(agent, vec![started, boot, happens(AgentEvent::Ready)]).await
    }

    pub(super) async fn accept(&self, agent: AgentId, text: &str) -> Message {
        let (id, op) = message(text);
        let committed = self.commit(change(agent, Check::Alive, vec![op])).await;
        committed
            .messages
            .into_iter()
            .find(|there| there.id == id)
            .expect("the commit tells the message that it accepted")
    }

    pub(super) async fn delete(&self, agent: AgentId) -> Agent {
        let desired = AgentOp::SetDesired { desired: Desired::Deleted, retry: false };
        self.change(agent, vec![desired, happens(AgentEvent::DeleteAsked)]).await
    }

    pub(super) async fn agent(&self, id: AgentId) -> Agent {
        let found = self.store.agent_by_id(id).await.expect("the store answers");
        found.value.expect("the agent is there")
    }

    pub(super) async fn head(&self) -> Revision {
        self.store.head().await.expect("the store answers").value
    }

    /// What is in the log after a revision up to the present head.
    pub(super) async fn log(&self, since: Revision) -> Vec<Event> {
        let head = self.head().await;
        let mut watcher = self.watch(since, EventFilter::default()).await;
        let mut events: Vec<Event> = Vec::new();
        while since.0 + (events.len() as u64) < head.0 {
            events.extend(next(&mut watcher).await);
        }
        events
    }

    pub(super) async fn watch(&self, since: Revision, filter: EventFilter) -> Watch {
        self.beside.watch(since, filter).await.expect("the log can be watched")
    }
}

pub(super) type Watch = BoxStream<'static, Result<Vec<Event>, StoreError>>;

/// The next burst of a watch.
pub(super) async fn next(watch: &mut Watch) -> Vec<Event> {
    let burst = soon(watch.next()).await.expect("the watch goes on");
    burst.expect("the watch brings events")
}

/// What comes without being asked for again.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it comes in time")
}

/// SHA-256 of the boot key that the cases use: any text will do.
const KEY_HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) fn runtime() -> RuntimeName {
    RuntimeName::new("metal").expect("valid")
}

pub(super) fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("valid")
}

pub(super) fn agent_name(name: &str) -> AgentName {
    AgentName::new(name).expect("valid")
}

pub(super) fn user(name: &str) -> UserName {
    UserName::new(name).expect("valid")
}

/// A spec as it is kept: it names its runtime.
pub(super) fn spec() -> AgentSpec {
    AgentSpec { runtime: Some(runtime()), ..AgentSpec::default() }
}

pub(super) fn commit_id() -> CommitId {
    SystemEntropy.commit_id(SystemClock.now())
}

pub(super) fn agent_id() -> AgentId {
    SystemEntropy.agent_id(SystemClock.now())
}

pub(super) fn message_id() -> MessageId {
    SystemEntropy.message_id(SystemClock.now())
}

pub(super) fn process_id() -> ProcessId {
    SystemEntropy.process_id(SystemClock.now())
}

pub(super) fn computer_id() -> ComputerId {
    SystemEntropy.computer_id(SystemClock.now())
}

/// A commit that makes an agent.
pub(super) fn creation(tenant: &TenantName, name: &str, spec: AgentSpec) -> Commit {
    Commit::of(commit_id(), new_agent(tenant, name, spec))
}

pub(super) fn new_agent(tenant: &TenantName, name: &str, spec: AgentSpec) -> AgentChange {
    let new = NewAgent { tenant: tenant.clone(), name: agent_name(name), owner: user("ada"), spec };
    AgentChange { agent: agent_id(), when: vec![Check::Absent], ops: vec![AgentOp::Create(Box::new(new))] }
}

/// A commit of some ops on one agent.
pub(super) fn change(agent: AgentId, when: Check, ops: Vec<AgentOp>) -> Commit {
    Commit::of(commit_id(), AgentChange { agent, when: vec![when], ops })
}

/// A commit of several changes.
pub(super) fn changes(changes: impl IntoIterator<Item = AgentChange>) -> Commit {
    Commit::new(commit_id(), changes.into_iter().map(Change::Agent).collect())
}

pub(super) fn happens(event: AgentEvent) -> AgentOp {
    AgentOp::Transition { event, reason: "Conformance".into(), message: "as the case asks".into(), backoff: None }
}

pub(super) fn new_computer() -> NewComputer {
    let spec = ComputerSpec {
        id: computer_id(),
        volume: SystemEntropy.volume_id(SystemClock.now()),
        image: None,
        resources: Resources::default(),
        network: crate::agent::Network::default(),
        root: false,
    };
    NewComputer { runtime: runtime(), spec, disk_limit: false }
}

pub(super) fn begin(computer: Option<NewComputer>) -> AgentOp {
    let deadline = Duration::from_secs(120);
    let operator = SystemEntropy.process_id(SystemClock.now());
    AgentOp::Begin { operator, computer, key_hash: KEY_HASH.into(), deadline, generation: 1 }
}

pub(super) fn message(text: &str) -> (MessageId, AgentOp) {
    let id = message_id();
    let new = NewMessage {
        id,
        role: Role::User,
        author: "user:ada".into(),
        parts: vec![Part::text(text)],
        traceparent: TraceParent::new(1, 2, 1),
    };
    (id, AgentOp::Accept(new))
}

pub(super) fn done(message: MessageId, answer: &str) -> AgentOp {
    let reply = Reply { id: message_id(), parts: vec![Part::text(answer)] };
    AgentOp::End { message, ending: Ending::Done, reply: Some(reply) }
}

/// The conflict that a commit ended in.
#[track_caller]
pub(super) fn conflict(result: Result<Committed, StoreError>) -> Conflict {
    match result {
        Err(StoreError::Conflict(conflict)) => conflict,
        other => panic!("a conflict was due, and there was {other:?}"),
    }
}
