//! The feed: one reader of the log a process, and everything that waits for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::deltas::Deltas;
use crate::error::Error;
use crate::event::Event;
use crate::ids::{AgentId, Revision};
use crate::store::{EventFilter, Store, StoreError};

/// Events that a slow subscriber may be behind before it has to read the store instead.
const BACKLOG: usize = 8192;

/// The same for one that hears of a single agent.
const BACKLOG_OF_AGENT: usize = 128;

/// Time until a store is asked again that was away.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest of them for who waits: there may be many.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the reader of the log tells its subscribers.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Event(Arc<Event>),
    /// The log no longer had so many events when they were to be read.
    Skipped(u64),
    /// The database lost the last of the log, which is read anew after this revision. What was told of it may never have been.
    WentBack(Revision),
}

/// How far the log has been told to every subscription.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub(super) revision: Revision,
    /// How often the log went back by then: who missed that is to learn of it all the same.
    pub(super) returns: u64,
}

/// Hears every event from its beginning on.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Told>);

impl Subscription {
    /// The next event. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] where events were missed, because this subscriber was too slow or the log was cut before
    /// they were read: what they told of has to be read from the store. [`RecvError::Closed`] once the feed is gone.
    pub async fn recv(&mut self) -> Result<Arc<Event>, RecvError> {
        match self.told().await? {
            Told::Event(event) => Ok(event),
            Told::Skipped(missed) => Err(RecvError::Lagged(missed)),
            Told::WentBack(_) => Err(RecvError::Lagged(0)),
        }
    }

    /// As [`recv`](Self::recv), for who has to tell events that are gone from those that it was too slow for.
    pub(super) async fn told(&mut self) -> Result<Told, RecvError> {
        self.0.recv().await
    }

    /// Whether all that was told has been heard.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who listens to what concerns one agent: each event wakes those whom it concerns, however many listen to others.
#[derive(Debug)]
struct ByAgent<T> {
    channels: BTreeMap<AgentId, broadcast::Sender<T>>,
    backlog: usize,
    /// From so many channels on it is looked which of them nobody listens to any more.
    sweep_at: usize,
}

impl<T: Clone> ByAgent<T> {
    const fn new(backlog: usize) -> Self {
        Self { channels: BTreeMap::new(), backlog, sweep_at: 0 }
    }

    fn subscribe(&mut self, agent: AgentId) -> broadcast::Receiver<T> {
        if self.channels.len() >= self.sweep_at {
            self.channels.retain(|_, channel| channel.receiver_count() > 0);
            self.sweep_at = 2 * self.channels.len() + 16;
        }
        self.channels.entry(agent).or_insert_with(|| broadcast::Sender::new(self.backlog)).subscribe()
    }

    fn tell(&mut self, agent: AgentId, told: &T) {
        if let Some(channel) = self.channels.get(&agent)
            && channel.send(told.clone()).is_err()
        {
            self.channels.remove(&agent);
        }
    }

    fn tell_all(&self, told: &T) {
        for channel in self.channels.values() {
            // Nobody need listen.
            let _ = channel.send(told.clone());
        }
    }
}

/// Who hears of what the reader of the log has read.
#[derive(Debug)]
struct Listeners {
    all: broadcast::Sender<Told>,
    of_agents: Mutex<ByAgent<Told>>,
    /// Those who wait for an agent are woken in the order in which they came. They look, however many changes there were.
    waiters: Mutex<ByAgent<()>>,
}

impl Listeners {
    fn new() -> Self {
        Self {
            all: broadcast::Sender::new(BACKLOG),
            of_agents: Mutex::new(ByAgent::new(BACKLOG_OF_AGENT)),
            waiters: Mutex::new(ByAgent::new(1)),
        }
    }

    fn of_agents(&self) -> MutexGuard<'_, ByAgent<Told>> {
        self.of_agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiters(&self) -> MutexGuard<'_, ByAgent<()>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, burst: Vec<Event>) {
        let (mut of_agents, mut waiters) = (self.of_agents(), self.waiters());
        for event in burst {
            let agent = event.agent;
            let told = Told::Event(Arc::new(event));
            if let Some(agent) = agent {
                waiters.tell(agent, &());
                of_agents.tell(agent, &told);
            }
            // Nobody need listen.
            let _ = self.all.send(told);
        }
    }

    /// Tells what concerns everybody.
    fn tell(&self, told: &Told) {
        self.of_agents().tell_all(told);
        self.waiters().tell_all(&());
        let _ = self.all.send(told.clone());
    }
}

/// Everything that is committed, as it is committed, by whatever process.
#[derive(Debug)]
pub struct Feed {
    listeners: Arc<Listeners>,
    deltas: Deltas,
    reached: watch::Receiver<Reached>,
    _stop: DropGuard,
}

impl Feed {
    /// Reads the log of `store` from its head on.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let since = store.head().await?.value;
        let (reacher, reached) = watch::channel(Reached { revision: since, returns: 0 });
        let listeners = Arc::new(Listeners::new());
        let stop = CancellationToken::new();
        let reader = read(store, Arc::clone(&listeners), reacher);
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = reader => {}
            }
        });
        Ok(Self { listeners, deltas: Deltas::default(), reached, _stop: stop.drop_guard() })
    }

    /// Every event from now on. A subscriber that missed some is told so, and reads the store from where it was.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.listeners.all.subscribe())
    }

    /// The same of one agent alone.
    pub(super) fn subscribe_to(&self, agent: AgentId) -> Subscription {
        Subscription(self.listeners.of_agents().subscribe(agent))
    }

    /// The last revision that this process has seen.
    #[must_use]
    pub fn head(&self) -> Revision {
        self.reached.borrow().revision
    }

    /// How far the log has been told, for who goes on to ask.
    pub(super) fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.clone()
    }

    /// Words as models write them.
    #[must_use]
    pub const fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    /// Tells whenever something of this agent changes. One that lags has missed nothing that matters.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> broadcast::Receiver<()> {
        self.listeners.waiters().subscribe(id)
    }

    /// Asks `probe` now and after every change of the agent, until it answers or the time is over. A store that is away for a
    /// while in between is asked again: what is waited for may come all the same.
    pub(crate) async fn until<T, F, P>(&self, id: AgentId, limit: Duration, mut probe: P) -> Result<Option<T>, Error>
    where
        P: FnMut() -> F,
        F: Future<Output = Result<Option<T>, Error>>,
    {
        let mut changes = self.agent(id);
        // Made from a duration, which may be longer than any time that there is.
        let mut over = pin!(tokio::time::sleep(limit));
        let (mut was_there, mut pause) = (false, PAUSE);
        loop {
            let is_away = match probe().await {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {
                    pause = PAUSE;
                    false
                }
                Err(Error::Store(StoreError::Unavailable { .. })) if was_there => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    true
                }
                Err(error) => return Err(error),
            };
            was_there = true;
            tokio::select! {
                biased;
                () = &mut over => return Ok(None),
                change = changes.recv() => match change {
                    Ok(()) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(None),
                },
                () = tokio::time::sleep(pause), if is_away => {}
            }
        }
    }
}

async fn read(store: Arc<dyn Store>, listeners: Arc<Listeners>, reached: watch::Sender<Reached>) {
    let reach = |revision| reached.send_modify(|reached| reached.revision = revision);
    let mut since = reached.borrow().revision;
    // Where something was missing when it was last read.
    let mut left_out = None;
    loop {
        let ended = match store.watch(since, EventFilter::default()).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(mut burst)) => {
                        let rest = burst.split_off(without_a_gap(since, &burst));
                        since = burst.last().map_or(since, |event| event.revision.max(since));
                        listeners.publish(burst);
                        reach(since);
                        let Some(next) = rest.first() else { continue };
                        // Something is missing between, without a word. It is read again from there, so that whoever listens is told of
                        // everything; what is missing then too is gone.
                        let next = next.revision;
                        if left_out.replace(since) == Some(since) {
                            tracing::warn!(%since, %next, "what is between was left out twice, and is taken for gone");
                            listeners.tell(&Told::Skipped(next.0 - since.0 - 1));
                            since = Revision(next.0 - 1);
                            reach(since);
                            break None;
                        }
                        let reason = format!("it left out what is between revisions {since} and {next}");
                        break Some(StoreError::Unavailable { reason });
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            },
            Err(error) => Some(error),
        };
        match ended {
            Some(StoreError::Gone { oldest }) => {
                // Until it is told where the log is: what comes after `since` by now may be other events than were missed.
                let now = loop {
                    match store.head().await {
                        Ok(now) => break now.value,
                        Err(_) => tokio::time::sleep(PAUSE).await,
                    }
                };
                // A log that was cut begins after what was read of it.
                let told = if oldest > since {
                    Told::Skipped(now.0.saturating_sub(since.0))
                } else {
                    // Whoever begins to listen now is not to take what the log has lost for told.
                    let revision = now.min(since);
                    reached.send_modify(|reached| *reached = Reached { revision, returns: reached.returns + 1 });
                    Told::WentBack(now)
                };
                tracing::warn!(%since, head = %now, "events are gone that were not read; what they told is read anew");
                (since, left_out) = (now, None);
                listeners.tell(&told);
                reach(now);
            }
            Some(error) => tracing::warn!(%error, %since, "the log cannot be read; trying again"),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How many events of a burst, from its first on, leave nothing out of what follows this revision.
fn without_a_gap(since: Revision, burst: &[Event]) -> usize {
    let mut last = since;
    let follows = |event: &&Event| {
        let follows = event.revision <= last.next();
        last = last.max(event.revision);
        follows
    };
    burst.iter().take_while(follows).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    #[test]
    fn channels_to_which_nobody_listens_any_more_are_let_go_of() {
        let mut by_agent = ByAgent::<()>::new(1);
        let agent = || SystemEntropy.agent_id(SystemClock.now());
        let kept: Vec<_> = (0..20).map(|_| by_agent.subscribe(agent())).collect();
        for _ in 0..1000 {
            drop(by_agent.subscribe(agent()));
        }
        let few = 3 * (kept.len() + 16);
        assert!((kept.len()..few).contains(&by_agent.channels.len()), "{}", by_agent.channels.len());
        by_agent.tell_all(&());
        assert!(kept.iter().all(|listener| !listener.is_empty()));
    }
}
