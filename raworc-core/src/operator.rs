//! The operator: makes what is become what is desired.
//!
//! It is level-triggered. A trigger says only *which* agent to look at: the log, an engine's event, a deadline, a
//! resync. A look reads the agent, [plans](plan::plan) one step without I/O, and carries it out; the next look plans
//! the next step. Steps that an engine has to do run apart, one at a time for each agent, so that one hung call delays
//! nobody, and no transition waits for an engine.
//!
//! Several operators share the agents of a runtime by [shards]; that only spreads the work. What keeps them
//! from each other's way are the preconditions of their commits.

mod calls;
mod clock;
mod death;
mod execute;
mod gate;
mod jobs;
mod observe;
pub mod plan;
mod pull;
mod queue;
mod reclaim;
mod settings;
pub(crate) mod shards;
mod start;
mod stop;
#[cfg(all(test, feature = "simulated"))]
mod tests;
mod waiting;
mod watch;

pub use settings::OperatorSettings;
pub use waiting::{EngineWaiting, Waiting};

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::clock::StoreTime;
use self::gate::Gate;
use self::jobs::Jobs;
use self::observe::Answers;
use self::queue::Queue;
use self::shards::Shards;
use crate::agent::Agent;
use crate::control::{ControlPlane, Subscription, is_of_runtime};
use crate::entropy::{Clock, Entropy, EntropyExt};
use crate::error::Error;
use crate::event::EventKind;
use crate::ids::{AgentId, RuntimeName};
use crate::runtime::{RuntimeEntry, Runtimes};
use crate::store::{DueQuery, Lease, Store};

/// A running operator. It ends in order by [`shutdown`](Self::shutdown), and in the middle of whatever it does when this
/// is dropped; another one finishes that.
#[derive(Debug)]
pub struct Operator {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What all tasks of an operator share.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    engines: BTreeMap<RuntimeName, Engine>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    settings: OperatorSettings,
    shards: Shards,
    /// Agents have moved between operators.
    moved: Notify,
    queue: Queue,
    jobs: Jobs,
    answers: Answers,
    time: StoreTime,
    /// The servers' signs of life.
    servers: Mutex<Vec<Lease>>,
    tasks: TaskTracker,
    /// Nothing new is begun.
    stop: CancellationToken,
    /// Nothing goes on.
    gone: CancellationToken,
}

/// An engine, and how many calls it gets at a time.
#[derive(Debug)]
struct Engine {
    entry: RuntimeEntry,
    /// For what changes something.
    gate: Gate,
    /// For looks at one computer, which cost it little: a start that takes long holds none of them up.
    looks: Gate,
    /// For images, which take long: the pulls of one tenant hold up no other's.
    pulls: Gate,
    /// For the question whether an image is there, where one's pull has to wait.
    asks: Gate,
    /// For the same question of an image that it has had, which is answered at once but where the image was removed.
    had: Gate,
    /// Images that it has had, its own as `None`: who wants one of them waits for nobody's pull while it is there.
    images: Mutex<HashSet<Option<String>>>,
    /// For the logs of what died, which nothing but the next start waits for.
    logs: Gate,
    /// For what nobody waits for.
    orphans: Gate,
    /// Asks for a look at all its computers.
    relist: Notify,
}

/// Looks at single computers, and questions for logs, that an engine gets at a time, whatever else it does.
const ENGINE_LOOKS: usize = 16;

/// Images that an engine pulls at a time, and those of one tenant.
const ENGINE_PULLS: usize = 32;
const TENANT_PULLS: usize = 8;

impl Engine {
    fn new(entry: &RuntimeEntry, calls: usize) -> Self {
        Self {
            entry: entry.clone(),
            gate: Gate::new(calls),
            looks: Gate::new(ENGINE_LOOKS.max(calls)),
            pulls: Gate::shared(ENGINE_PULLS, TENANT_PULLS),
            asks: Gate::shared(ENGINE_PULLS, TENANT_PULLS),
            had: Gate::new(ENGINE_LOOKS.max(calls)),
            images: Mutex::new([None].into()),
            logs: Gate::new(ENGINE_LOOKS),
            orphans: Gate::new(1),
            relist: Notify::new(),
        }
    }
}

/// Images that are kept in mind at most.
const KNOWN_IMAGES: usize = 1000;

impl Engine {
    fn disk_limit(&self) -> bool {
        self.entry.runtime.capabilities().disk_limit
    }

    fn images(&self) -> MutexGuard<'_, HashSet<Option<String>>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_had(&self, image: Option<&str>) -> bool {
        self.images().contains(&image.map(str::to_owned))
    }

    fn note_image(&self, image: Option<&str>) {
        let mut images = self.images();
        if images.len() >= KNOWN_IMAGES {
            images.clear();
        }
        images.insert(image.map(str::to_owned));
    }

    fn forget_image(&self, image: Option<&str>) {
        self.images().remove(&image.map(str::to_owned));
    }
}

impl Operator {
    /// Begins to work on the agents of these runtimes, beside whatever other operators there are.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn start(control: &ControlPlane, runtimes: Runtimes, settings: OperatorSettings) -> Result<Self, Error> {
        let inner = &control.inner;
        let process = inner.entropy.process_id(inner.clock.now());
        let engines: BTreeMap<_, _> = runtimes
            .iter()
            .map(|entry| (entry.runtime.name().clone(), Engine::new(entry, settings.engine_calls)))
            .collect();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let shards =
            Shards::join(&inner.store, process, inner.presence.clone(), engines.keys().cloned().collect()).await?;
        let shared = Arc::new(Shared {
            store: inner.store.clone(),
            engines,
            entropy: inner.entropy.clone(),
            clock: inner.clock.clone(),
            settings,
            shards,
            moved: Notify::new(),
            queue: Queue::default(),
            jobs: Jobs::default(),
            answers: Answers::default(),
            time: StoreTime::new(),
            servers: Mutex::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            gone: CancellationToken::new(),
        });
        // From here on it ends with this.
        let operator = Self { shared: Arc::clone(&shared), stop, tasks };
        spawn(&shared, give_signs(Arc::clone(&shared)));
        spawn(&shared, look_around(Arc::clone(&shared)));
        shared.refresh_servers().await;
        let triggers = control.feed().subscribe();
        spawn(&shared, follow_log(Arc::clone(&shared), triggers));
        spawn(&shared, scan(Arc::clone(&shared)));
        spawn(&shared, dispatch(Arc::clone(&shared)));
        for name in shared.engines.keys() {
            spawn(&shared, watch::events(Arc::clone(&shared), name.clone()));
            spawn(&shared, watch::relists(Arc::clone(&shared), name.clone()));
        }
        Ok(operator)
    }

    /// Tells what waits in it; nothing once it has stopped.
    pub fn waiting(&self) -> impl Fn() -> Waiting + Send + 'static + use<> {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().map(|shared| shared.waiting()).unwrap_or_default()
    }

    /// Stops in order: what an engine was asked is finished, nothing new is begun, and other operators take over at
    /// once. It takes no longer than one call of an engine may.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let Shared { store, shards, entropy, clock, .. } = &*self.shared;
        let left = shards.leave(store, || entropy.commit_id(clock.now()));
        // A lease that cannot be given back runs out.
        if tokio::time::timeout(LEAVING, left).await.is_err() {
            tracing::warn!("the store does not answer; other operators see soon that this one has left");
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.gone.cancel();
    }
}

/// How long it may take to say that this operator leaves.
const LEAVING: Duration = Duration::from_secs(5);

/// Runs a task until the operator stops.
fn spawn(shared: &Arc<Shared>, task: impl Future<Output = ()> + Send + 'static) {
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = task => {}
        }
    });
}

/// What every line about an agent bears. In JSON a field `name` would give way to the span's own.
fn span_of(agent: &Agent) -> tracing::Span {
    let status = &agent.status;
    // Of the highest level, or lines that are shown would lose it where less is logged.
    tracing::error_span!(
        parent: None, "agent", agent = %agent.id, agent_name = %agent.name, tenant = %agent.tenant, incarnation = %status.incarnation,
        computer = status.computer.map(tracing::field::display), message_id = status.message.map(tracing::field::display),
    )
}

/// Runs what an engine is asked for to its end, unless the operator is dropped before.
fn spawn_job(shared: &Shared, job: impl Future<Output = ()> + Send + 'static) {
    let gone = shared.gone.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = gone.cancelled() => {}
            () = job => {}
        }
    });
}

impl Shared {
    /// Learns which servers live.
    async fn refresh_servers(&self) {
        let asked = tokio::time::Instant::now();
        match self.store.leases(crate::control::SERVERS).await {
            Ok(servers) => {
                self.told(servers.now, asked);
                *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers.value;
            }
            Err(error) => tracing::warn!(%error, "the servers' signs of life cannot be read"),
        }
    }

    /// Since when a server could have received heartbeats.
    fn listening(&self, now: Timestamp) -> Option<Timestamp> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        // A sign that has run out since it was read is none: the server may have stood still as long as this process.
        let live = servers.iter().filter(|server| server.expires > now);
        // One that came in what is future now was there before the clock was set back.
        live.map(|server| if server.since > now { Timestamp::MIN } else { server.since }).min()
    }

    /// Takes note of the store's time. Where its clock was moved, every agent is looked at for that.
    fn told(&self, now: Timestamp, asked: tokio::time::Instant) {
        if let Some(by) = self.time.told(now, asked) {
            tracing::warn!(by = %format_args!("{by:#}"), "the store's clock was moved, or this machine was suspended");
            self.engines.values().for_each(|engine| engine.relist.notify_one());
        }
    }
}

/// Looks at every agent that the log tells something of.
async fn follow_log(shared: Arc<Shared>, mut events: Subscription) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(event) => {
                // Steps and replies ask nothing of an operator.
                let telling =
                    !matches!(event.kind, EventKind::StepsAdded | EventKind::MessageReply | EventKind::AccessChanged);
                if let Some(agent) = event.agent.filter(|_| telling) {
                    shared.queue.trigger(agent);
                }
                if is_of_runtime(&event) {
                    shared.shards.call();
                }
            }
            // What was missed is found by the scan for what is due.
            Err(RecvError::Lagged(missed)) => tracing::info!(missed, "the log was faster than this operator"),
            Err(RecvError::Closed) => break,
        }
    }
}

/// Gives signs of life, whatever else the store is slow to do.
async fn give_signs(shared: Arc<Shared>) {
    shared.shards.give_signs(&shared.store).await;
}

/// Learns who else lives whenever that may have changed, and has what is this operator's by that be looked after.
async fn look_around(shared: Arc<Shared>) {
    loop {
        shared.shards.called().await;
        for runtime in shared.shards.look_around(&shared.store).await {
            // What whoever had it before left to be taken away waits for nobody else.
            shared.moved.notify_one();
            if let Some(engine) = shared.engines.get(&runtime) {
                engine.relist.notify_one();
            }
        }
    }
}

/// Looks at every agent that is due, and reclaims.
async fn scan(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(shared.settings.scan_every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next_reclaim = tokio::time::Instant::now();
    let runtimes: Vec<_> = shared.engines.keys().cloned().collect();
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {}
            () = shared.moved.notified() => next_reclaim = tokio::time::Instant::now(),
        }
        shared.shards.looked_lately().await;
        shared.refresh_servers().await;
        let query = DueQuery { runtimes: runtimes.clone(), before: None, limit: 10_000 };
        match shared.store.due(&query).await {
            Ok(due) => due.value.iter().for_each(|due| shared.queue.look(due.agent)),
            Err(error) => tracing::warn!(%error, "what is due cannot be read"),
        }
        if tokio::time::Instant::now() >= next_reclaim {
            reclaim::scan(&shared).await;
            next_reclaim = tokio::time::Instant::now() + shared.settings.reclaim_every;
        }
    }
}

/// Takes what is due from the queue and looks at it, several at a time and no agent twice at once.
async fn dispatch(shared: Arc<Shared>) {
    let permits = Arc::new(tokio::sync::Semaphore::new(shared.settings.looks));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        let (agent, look) = shared.queue.next().await;
        let task = Arc::clone(&shared);
        spawn(&shared, async move {
            let mut over = Over { shared: &task, agent, again: Again::After(RETRY_LOOK) };
            over.again = execute::look_at(&task, agent, look).await;
            drop(over);
            drop(permit);
        });
    }
}

/// Gives an agent back to the queue when its look is over, be it by a panic.
struct Over<'a> {
    shared: &'a Shared,
    agent: AgentId,
    again: Again,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.shared.queue.done(self.agent, self.again);
    }
}

/// An agent whose look could not be finished is looked at again after this long.
const RETRY_LOOK: Duration = Duration::from_secs(1);

/// When to look at an agent again, if nothing triggers it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// At once: a step was taken.
    Now,
    /// After so long.
    After(Duration),
    /// When something triggers it.
    Triggered,
}

impl Shared {
    fn owns(&self, runtime: &RuntimeName, agent: AgentId) -> bool {
        self.shards.owns(runtime, agent)
    }
}
