//! The store's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use raworc_core::entropy::Clock;

/// A step back by more than this is believed: to wait it out would stop every deadline.
const SMOOTHED: i64 = 10_000_000;

/// A clock that does not go back when the machine's is set back a little.
#[derive(Debug)]
pub(super) struct StoreClock {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl StoreClock {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicI64::new(i64::MIN) }
    }

    pub(super) fn now(&self) -> Timestamp {
        let read = self.clock.now().as_microsecond();
        let last = self.last.fetch_max(read, Ordering::AcqRel);
        let now = if last > read && last - read <= SMOOTHED { last } else { read };
        if now < last {
            self.last.store(now, Ordering::Release);
        }
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX)
    }
}
