//! The store's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::entropy::Clock;
use jiff::Timestamp;

/// A step back by more than this is believed: to wait it out would stop every deadline.
const SMOOTHED: i64 = 10_000_000;

/// The clock of a store in one process: it does not go back when the machine's is set back a little.
#[derive(Debug)]
pub struct StoreClock {
    clock: Arc<dyn Clock>,
    last: AtomicI64,
}

impl StoreClock {
    /// The store's time by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicI64::new(i64::MIN) }
    }

    /// The store's time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let read = self.clock.now().as_microsecond();
        let last = self.last.fetch_max(read, Ordering::AcqRel);
        let now = if last > read && last - read <= SMOOTHED { last } else { read };
        if now < last {
            self.last.store(now, Ordering::Release);
        }
        Timestamp::from_microsecond(now).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.0.load(Ordering::Relaxed)).expect("a time")
        }
    }

    #[test]
    fn the_stores_time_waits_out_a_small_step_back_and_believes_a_large_one() {
        let hands = Arc::new(Hands(1_000_000.into()));
        let clock = StoreClock::new(Arc::clone(&hands) as Arc<dyn Clock>);
        let at = |second: i64| {
            hands.0.store(second, Ordering::Relaxed);
            clock.now().as_second()
        };
        assert_eq!(at(1_000_000), 1_000_000);
        assert_eq!(at(999_995), 1_000_000);
        assert_eq!(at(1_000_001), 1_000_001);
        assert_eq!(at(900_000), 900_000);
        assert_eq!(at(900_001), 900_001);
    }
}
