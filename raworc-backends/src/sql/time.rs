//! The store's time: the machine's where one process has the database alone, else the database's.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use raworc_core::entropy::{Clock, SystemClock};
use raworc_core::store::StoreClock;
use tokio::time::Instant;

/// The store's time.
#[derive(Debug)]
pub struct Time {
    clock: StoreClock,
    told: Option<Arc<Told>>,
}

impl Time {
    /// By a clock of this machine.
    pub(crate) fn of_machine(clock: Arc<dyn Clock>) -> Self {
        Self { clock: StoreClock::new(clock), told: None }
    }

    /// By the clock of a database that many processes share, as it was last told.
    pub(crate) fn of_database() -> Self {
        let told = Arc::new(Told(Mutex::new((SystemClock.now(), Instant::now()))));
        Self { clock: StoreClock::new(Arc::clone(&told) as Arc<dyn Clock>), told: Some(told) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The database says that it is this time.
    pub(crate) fn tell(&self, time: Timestamp) {
        if let Some(told) = &self.told {
            *told.0.lock().unwrap_or_else(PoisonError::into_inner) = (time, Instant::now());
        }
    }
}

/// What the database's clock said, and when. It lags by the time that the answer took, so that what is stamped by it is never
/// later than what the database says afterwards.
#[derive(Debug)]
struct Told(Mutex<(Timestamp, Instant)>);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        let (time, at) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = SignedDuration::try_from(at.elapsed()).unwrap_or(SignedDuration::MAX);
        time.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}
