//! How much the agent's volume holds, where the server wants that measured.
//!
//! Something may have been written whenever a tool, a message or a command has ended; what writes on in the background
//! is found by a slow clock. Between two walks lies a rest in proportion to the walk, so that a volume of many files
//! costs no more of the processor than one of few.

mod space;
#[cfg(test)]
mod tests;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use raworc_core::program::{HeartbeatReport, has_disk_room};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use space::Space;

/// How often it is measured though nothing is known to have been written.
const SLOW: Duration = Duration::from_secs(60);

/// How much longer than a walk the rest after it is.
const RESTS: u32 = 9;

/// The shortest rest.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long a message waits for the measure of what came before it. A volume that takes longer is measured meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the volume, and who waits to know more.
#[derive(Debug, Default)]
pub(crate) struct Meter(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// Bytes that it may hold, where it is to be measured.
    limit: Option<u64>,
    /// How often something may have been written.
    writes: u64,
    /// How often when it was last measured, or was to be.
    measured: Option<u64>,
    /// Bytes that it held then.
    held: Option<u64>,
    /// What the server has been told that it holds.
    told: Option<u64>,
    resting: bool,
}

/// Where a volume stands by its limit. The server acts where that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Room,
    Between,
    Full,
}

impl Side {
    fn of(bytes: u64, limit: u64) -> Self {
        if bytes > limit {
            Self::Full
        } else if !has_disk_room(bytes, limit) {
            Self::Between
        } else {
            Self::Room
        }
    }
}

impl State {
    /// Whether the server should be told at once.
    fn is_news(&self) -> bool {
        let (Some(limit), Some(held)) = (self.limit, self.held) else { return false };
        self.told.is_none_or(|told| Side::of(told, limit) != Side::of(held, limit))
    }

    fn is_due(&self) -> bool {
        self.limit.is_some() && self.measured.is_none_or(|measured| measured < self.writes)
    }

    /// Whether the server knows all that a message should wait for.
    fn is_caught_up(&self) -> bool {
        self.limit.is_none() || !self.is_news() && (self.resting || !self.is_due())
    }
}

impl Meter {
    /// What the volume may hold; nothing is measured where that is of no interest.
    pub(crate) fn limit(&self, limit: Option<u64>) {
        self.0.send_if_modified(|state| {
            let changed = state.limit != limit;
            state.limit = limit;
            if changed {
                // It may have been told what the file system holds, which another limit is not held against.
                (state.measured, state.held, state.told) = (None, None, None);
            }
            changed
        });
    }

    /// Something may have been written.
    pub(crate) fn written(&self) {
        self.0.send_modify(|state| state.writes += 1);
    }

    /// What a sign of life says of it.
    pub(crate) fn report(&self) -> HeartbeatReport {
        HeartbeatReport { disk_used: self.0.borrow().held }
    }

    /// The server has taken what was reported.
    pub(crate) fn told(&self, report: HeartbeatReport) {
        self.0.send_modify(|state| state.told = report.disk_used);
    }

    /// Waits until there is something that the server should be told at once.
    pub(crate) async fn news(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(State::is_news).await;
    }

    /// Waits, for a while, until the server knows what the volume holds before the next message.
    pub(crate) async fn caught_up(&self) {
        let mut state = self.0.subscribe();
        if tokio::time::timeout(PATIENCE, state.wait_for(State::is_caught_up)).await.is_err() {
            tracing::info!("the volume is not measured yet; the next message is asked for all the same");
        }
    }

    /// Measures whenever that is due, for ever.
    pub(crate) async fn run(&self, home: &Path) -> std::convert::Infallible {
        let mut state = self.0.subscribe();
        let mut before: Option<Space> = None;
        loop {
            let _ = state.wait_for(|state| state.limit.is_some()).await;
            let clock = tokio::time::timeout(SLOW, state.wait_for(State::is_due)).await.is_err();
            let space = Space::of(home);
            // On a file system that is as it was, nothing was written.
            let same = clock && space.is_some() && space == before;
            let Some(limit) = self.0.borrow().limit.filter(|_| !same) else { continue };
            let is_measured = self.measure(home, limit, space).await;
            before = space.filter(|_| is_measured);
        }
    }

    /// Measures once and rests, and tells whether it could be measured.
    async fn measure(&self, home: &Path, limit: u64, space: Option<Space>) -> bool {
        let (begun, writes) = (Instant::now(), self.0.borrow().writes);
        let held = match space.filter(|space| Side::of(space.used, limit) == Side::Room) {
            // It holds no more than its whole file system does.
            Some(space) => Some(space.used),
            None => walked(home.to_owned()).await,
        };
        self.0.send_modify(|state| {
            // What cannot be measured is no reason to keep anybody waiting, and is tried again by the clock.
            if state.limit == Some(limit) {
                state.held = held.or(state.held).or(Some(0));
                state.measured = Some(writes);
            }
            state.resting = true;
        });
        tokio::time::sleep((begun.elapsed() * RESTS).max(SHORTEST)).await;
        self.0.send_modify(|state| state.resting = false);
        held.is_some()
    }
}

/// Walks the volume on a thread of its own, which ends with this.
async fn walked(home: PathBuf) -> Option<u64> {
    let stop = CancellationToken::new();
    let _ended = stop.clone().drop_guard();
    let walk = tokio::task::spawn_blocking(move || walk::walk(&home, &mut walk::Gentle::until(stop)));
    match walk.await {
        Ok(Ok(walked)) => {
            if walked.unseen > 0 {
                tracing::warn!("{} of the volume's directories and files cannot be looked at", walked.unseen);
            }
            Some(walked.bytes)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the volume cannot be measured");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "the volume could not be measured");
            None
        }
    }
}
