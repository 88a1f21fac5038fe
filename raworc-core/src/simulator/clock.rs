//! Clocks that jump: tokio's paused time, and how far from it somebody's clock stands.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use crate::entropy::{Clock, TokioClock};

/// 2026-01-01T00:00:00Z, as good a day as any.
const ORIGIN: i64 = 1_767_225_600;

/// The clock of a process, or of the store.
#[derive(Debug)]
pub(super) struct JumpingClock {
    right: TokioClock,
    seconds_off: AtomicI64,
    /// The farthest ahead that it ever was.
    ahead: AtomicI64,
}

impl JumpingClock {
    /// A clock that is right. Made inside the runtime whose time it tells.
    pub(super) fn new() -> Self {
        let origin = Timestamp::from_second(ORIGIN).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { right: TokioClock::starting_at(origin), seconds_off: AtomicI64::new(0), ahead: AtomicI64::new(0) }
    }

    pub(super) fn jump(&self, seconds: i64) {
        let off = self.seconds_off.fetch_add(seconds, Ordering::Relaxed) + seconds;
        self.ahead.fetch_max(off, Ordering::Relaxed);
    }

    /// Goes on from the latest time that it told: a store's time does not go back, and would stand still until then.
    pub(super) fn catch_up(&self) {
        self.seconds_off.store(self.ahead.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        self.right.now() + SignedDuration::from_secs(self.seconds_off.load(Ordering::Relaxed))
    }
}
