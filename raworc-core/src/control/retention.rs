//! [`Retainer`]: takes away what is older than it is to be kept, one process of an installation at a time.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ControlPlane;
use crate::store::{LeaseClaim, Purge, PurgedRows, StoreError};

/// What the process holds that takes away.
const LEASE: &str = "retention";

/// Between two looks, at most and at least. Times are reckoned in days, and what is a little late does no harm.
const LOOKS: (Duration, Duration) = (Duration::from_hours(1), Duration::from_secs(1));

/// Before the first look: a process that is started often and ends soon is to look, too.
const FIRST: Duration = Duration::from_mins(1);

/// So many times as long as a call took, nothing is taken away after it: four fifths of the store's time are others'.
const REST: u32 = 4;

/// The pause after a call, at least and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(10));

/// Takes away what is older than [`Settings::retention`](super::Settings::retention) says, for as long as it is held.
///
/// Every process of an installation may run one: the first that comes holds a lease, and another takes over some time after
/// that one is gone. Several at once would do no harm. Where everything is kept for ever it does nothing at all.
#[derive(Debug)]
pub struct Retainer {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Retainer {
    /// Begins to look from time to time.
    #[must_use]
    pub fn start(control: &ControlPlane) -> Self {
        let (stop, control) = (CancellationToken::new(), control.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let Some(every) = every(&control) else { return };
            look(&control, every, &stopped).await;
            give_back(&control).await;
        });
        Self { stop, task }
    }

    /// Ends after the call that is under way, and lets another process take over at once.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::warn!(%error, "what takes away what is old did not end well");
        }
    }
}

impl Drop for Retainer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How often there is something to look for; never where everything is kept for ever.
fn every(control: &ControlPlane) -> Option<Duration> {
    let shortest = control.settings().retention.shortest()?;
    Some((shortest / 24).clamp(LOOKS.1, LOOKS.0))
}

/// For how long the lease is held: to the next look and beyond, so that nobody else looks between.
fn held(every: Duration) -> Duration {
    every * 2
}

/// Looks until it is stopped, which it is between two calls.
async fn look(control: &ControlPlane, every: Duration, stopped: &CancellationToken) {
    let mut well = true;
    let mut pause = every.min(FIRST);
    while stopped.run_until_cancelled(sleep(pause)).await.is_some() {
        pause = every;
        match round(control, every, stopped).await {
            Ok(rows) => {
                if rows.all() > 0 {
                    let PurgedRows { messages, steps, events, audit, agents, blobs } = rows;
                    tracing::info!(messages, steps, events, audit, agents, blobs, "what was too old is taken away");
                }
                well = true;
            }
            Err(error) => {
                if well {
                    tracing::warn!(%error, "what is too old is not taken away for now");
                }
                well = false;
            }
        }
    }
}

async fn claim(control: &ControlPlane, ttl: Duration) -> Result<bool, StoreError> {
    let holder = control.process();
    let lease = control.inner.store.claim(&LeaseClaim { key: LEASE.into(), holder, ttl }).await?;
    Ok(lease.value.holder == holder && lease.value.expires > lease.now)
}

async fn give_back(control: &ControlPlane) {
    if let Err(error) = claim(control, Duration::ZERO).await {
        tracing::warn!(%error, "the lease of what takes away could not be given back; it runs out by itself");
    }
}

/// Goes through everything once, where no other process does, and tells what has gone.
async fn round(control: &ControlPlane, every: Duration, stopped: &CancellationToken) -> Result<PurgedRows, StoreError> {
    let mut gone = PurgedRows::default();
    let mut purge = Purge::new(control.settings().retention);
    let mut renewed: Option<Instant> = None;
    loop {
        // One that takes longer than it holds the lease holds it on.
        if renewed.is_none_or(|renewed| renewed.elapsed() >= every) {
            if !claim(control, held(every)).await? {
                return Ok(gone);
            }
            renewed = Some(Instant::now());
        }
        let began = Instant::now();
        let purged = control.inner.store.purge(&purge).await?;
        gone = gone.with(&purged.rows);
        match purged.next {
            Some(from) => purge.from = from,
            None => return Ok(gone),
        }
        let pause = (began.elapsed() * REST).clamp(PAUSES.0, PAUSES.1);
        if stopped.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ok(gone);
        }
    }
}
