//! The feed: one reader of the log a process, and everything that waits for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
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

/// What the reader of the log tells its subscribers.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Event(Arc<Event>),
    /// The log no longer had so many events when they were to be read: it was cut, and is read anew where it ends now.
    Skipped(u64),
    /// The database lost the last of the log, which is read anew after this revision. What was told of it may never have been.
    WentBack(Revision),
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
}

/// Those who wait for an agent are woken in the order in which they came.
type PerAgent = Mutex<BTreeMap<AgentId, broadcast::Sender<()>>>;

/// Everything that is committed, as it is committed, by whatever process.
#[derive(Debug)]
pub struct Feed {
    events: broadcast::Sender<Told>,
    deltas: Deltas,
    agents: Arc<PerAgent>,
    head: watch::Receiver<Revision>,
    _stop: DropGuard,
}

impl Feed {
    /// Reads the log of `store` from its head on.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let since = store.head().await?.value;
        let (events, _) = broadcast::channel(BACKLOG);
        let (head_writer, head) = watch::channel(since);
        let agents = Arc::new(PerAgent::default());
        let stop = CancellationToken::new();
        let reader = read(store, since, events.clone(), Arc::clone(&agents), head_writer);
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = reader => {}
            }
        });
        Ok(Self { events, deltas: Deltas::default(), agents, head, _stop: stop.drop_guard() })
    }

    /// Every event from now on. A subscriber that missed some is told so, and reads the store from where it was.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.events.subscribe())
    }

    /// The last revision that this process has seen.
    #[must_use]
    pub fn head(&self) -> Revision {
        *self.head.borrow()
    }

    /// Words as models write them.
    #[must_use]
    pub const fn deltas(&self) -> &Deltas {
        &self.deltas
    }

    /// Tells whenever something of this agent changes. One that lags has missed nothing that matters.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> broadcast::Receiver<()> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.entry(id).or_insert_with(|| broadcast::Sender::new(1)).subscribe()
    }

    /// Asks `probe` now and after every change of the agent, until it answers or the time is over.
    pub(crate) async fn until<T, F, P>(&self, id: AgentId, limit: Duration, mut probe: P) -> Result<Option<T>, Error>
    where
        P: FnMut() -> F,
        F: Future<Output = Result<Option<T>, Error>>,
    {
        let mut changes = self.agent(id);
        // Made from a duration, which may be longer than any time that there is.
        let mut over = pin!(tokio::time::sleep(limit));
        loop {
            if let Some(answer) = probe().await? {
                return Ok(Some(answer));
            }
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(()) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(None),
                },
                () = &mut over => return Ok(None),
            }
        }
    }
}

async fn read(
    store: Arc<dyn Store>,
    mut since: Revision,
    events: broadcast::Sender<Told>,
    agents: Arc<PerAgent>,
    head: watch::Sender<Revision>,
) {
    const PAUSE: Duration = Duration::from_millis(200);
    loop {
        let ended = match store.watch(since, EventFilter::default()).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(burst)) => {
                        since = burst.last().map_or(since, |event| event.revision);
                        publish(burst, &events, &agents);
                        head.send_replace(since);
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
                let told =
                    if oldest > since { Told::Skipped(now.0.saturating_sub(since.0)) } else { Told::WentBack(now) };
                tracing::warn!(%since, head = %now, "events are gone that were not read; what they told is read anew");
                since = now;
                // Nobody need listen.
                let _ = events.send(told);
                head.send_replace(now);
                wake_all(&agents);
            }
            Some(error) => tracing::warn!(%error, %since, "the log cannot be read; trying again"),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn publish(burst: Vec<Event>, events: &broadcast::Sender<Told>, agents: &PerAgent) {
    let mut agents = agents.lock().unwrap_or_else(PoisonError::into_inner);
    for event in burst {
        if let Some(id) = event.agent
            && let Some(waiters) = agents.get(&id)
        {
            if waiters.receiver_count() == 0 {
                agents.remove(&id);
            } else {
                // Those who are there have to look, however many changes there were.
                let _ = waiters.send(());
            }
        }
        // Nobody need listen.
        let _ = events.send(Told::Event(Arc::new(event)));
    }
}

fn wake_all(agents: &PerAgent) {
    let agents = agents.lock().unwrap_or_else(PoisonError::into_inner);
    for waiters in agents.values() {
        // Nobody need wait.
        let _ = waiters.send(());
    }
}
