//! Load: calls that are offered whether or not those before them are answered, and callers that wait for each answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::figures::Times;

/// What came of a load.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From when a call was due until it was answered.
    pub(super) times: Times,
    /// How much later than due calls were made: the generator's own.
    pub(super) lag: Times,
    /// From the first call to the last answer.
    pub(super) took: Duration,
}

impl Outcome {
    pub(super) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }
}

/// What of this time each call took, in microseconds.
pub(super) fn each(time: Duration, outcome: &Outcome) -> f64 {
    time.as_secs_f64() * 1e6 / outcome.times.len() as f64
}

/// So many calls a second for so long. A call that is made late counts from when it was due.
pub(super) async fn offered<F>(rate: u32, time: Duration, call: impl Fn(usize) -> F) -> anyhow::Result<Outcome>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let count = (f64::from(rate) * time.as_secs_f64()) as usize;
    let mut calls = JoinSet::new();
    let mut lag = Vec::with_capacity(count);
    let (tick, mut ticks) = mpsc::unbounded_channel();
    // The runtime's own timer counts in milliseconds, which would be added to every call.
    tokio::task::spawn_blocking(move || {
        for n in 0..count {
            let due = began + Duration::from_secs_f64(n as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send((n, due)).is_err() {
                return;
            }
        }
    });
    while let Some((n, due)) = ticks.recv().await {
        lag.push(due.elapsed());
        let call = call(n);
        calls.spawn(async move {
            call.await?;
            anyhow::Ok(due.elapsed())
        });
    }
    gather(calls, began, lag).await
}

/// So many callers, each with one call after another, for so long.
pub(super) async fn sustained<F>(
    callers: u32,
    time: Duration,
    call: impl Fn(usize) -> F + Send + Sync + 'static,
) -> anyhow::Result<Outcome>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let (call, next) = (Arc::new(call), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (call, next) = (Arc::clone(&call), Arc::clone(&next));
        all.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let due = Instant::now();
                call(next.fetch_add(1, Ordering::Relaxed)).await?;
                times.push(due.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(caller) = all.join_next().await {
        times.extend(caller??);
    }
    Ok(Outcome { times: Times::new(times), lag: Times::default(), took: began.elapsed() })
}

async fn gather(
    mut calls: JoinSet<anyhow::Result<Duration>>,
    began: Instant,
    lag: Vec<Duration>,
) -> anyhow::Result<Outcome> {
    let mut times = Vec::with_capacity(calls.len());
    while let Some(time) = calls.join_next().await {
        times.push(time??);
    }
    Ok(Outcome { times: Times::new(times), lag: Times::new(lag), took: began.elapsed() })
}
