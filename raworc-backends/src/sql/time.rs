//! The store's time: the machine's where one process has the database alone, else the database's.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use raworc_core::entropy::Clock;
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

    /// By the clock of a database that many processes share, as it was last told: first by this, to who asked then. The
    /// machine's is never looked at, or what was stamped by it would be of another time.
    pub(crate) fn of_database(time: Timestamp, asked: Instant) -> Self {
        let told = Arc::new(Told(Mutex::new(Telling { time, asked, heard: Instant::now() })));
        Self { clock: StoreClock::new(Arc::clone(&told) as Arc<dyn Clock>), told: Some(told) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The database says that it is this time, to who asked then. What was asked before the last telling is older than that. It
    /// has to be what the database says: what [`now`](Self::now) makes of that may wait for it, and would never be met.
    pub(crate) fn tell(&self, time: Timestamp, asked: Instant) {
        if let Some(told) = &self.told {
            let mut last = told.0.lock().unwrap_or_else(PoisonError::into_inner);
            if asked >= last.asked {
                *last = Telling { time, asked, heard: Instant::now() };
            }
        }
    }
}

impl Clock for Time {
    fn now(&self) -> Timestamp {
        Self::now(self)
    }
}

/// What the database's clock said, and when. It lags by the time that the answer took, so that what is stamped by it is never
/// later than what the database says afterwards.
#[derive(Debug)]
struct Told(Mutex<Telling>);

#[derive(Debug, Clone, Copy)]
struct Telling {
    time: Timestamp,
    asked: Instant,
    heard: Instant,
}

impl Clock for Told {
    fn now(&self) -> Timestamp {
        let Telling { time, heard, .. } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = SignedDuration::try_from(heard.elapsed()).unwrap_or(SignedDuration::MAX);
        time.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}
