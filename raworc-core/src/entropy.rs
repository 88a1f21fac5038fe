//! Where time and chance come from, so that a simulation can supply both.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::ids::{AgentId, CommitId, ComputerId, MessageId, ProcessId, TokenId, VolumeId};

/// A clock. Pure code takes `now` as an argument; stores and processes read one of these.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now, in whole microseconds.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let micros = Timestamp::now().as_microsecond();
        Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Tokio's clock, which a test can pause and move: a time to begin with, and what has passed since. Clones are one clock.
#[derive(Debug, Clone)]
pub struct TokioClock {
    origin: Timestamp,
    since: tokio::time::Instant,
    /// Microseconds by which it was set ahead.
    set: Arc<AtomicI64>,
}

impl TokioClock {
    /// A clock that stands at `origin` now.
    #[must_use]
    pub fn starting_at(origin: Timestamp) -> Self {
        Self { origin, since: tokio::time::Instant::now(), set: Arc::default() }
    }

    /// Sets it ahead, or back where `by` is negative, as a person or a time server does. No time passes by that.
    pub fn set_ahead(&self, by: SignedDuration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(0);
        self.set.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        let set = self.set.load(Ordering::Relaxed);
        self.origin + SignedDuration::from_micros(passed.saturating_add(set))
    }
}

/// A source of random bytes: ids, keys and jitter all come from one.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator, by way of a cryptographic one in each thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::Rng::fill_bytes(&mut rand::rng(), bytes);
    }
}

/// What can be made from chance and a time.
pub trait EntropyExt: Entropy {
    /// `N` random bytes.
    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A UUIDv7 of the time `now`.
    fn uuid(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }

    /// A new agent's id.
    fn agent_id(&self, now: Timestamp) -> AgentId {
        AgentId::from_uuid(self.uuid(now))
    }

    /// A new message's id.
    fn message_id(&self, now: Timestamp) -> MessageId {
        MessageId::from_uuid(self.uuid(now))
    }

    /// A new computer's id.
    fn computer_id(&self, now: Timestamp) -> ComputerId {
        ComputerId::from_uuid(self.uuid(now))
    }

    /// A new volume's id.
    fn volume_id(&self, now: Timestamp) -> VolumeId {
        VolumeId::from_uuid(self.uuid(now))
    }

    /// A new commit's id.
    fn commit_id(&self, now: Timestamp) -> CommitId {
        CommitId::from_uuid(self.uuid(now))
    }

    /// The id of a process that starts now.
    fn process_id(&self, now: Timestamp) -> ProcessId {
        ProcessId::from_uuid(self.uuid(now))
    }

    /// A new token's id.
    fn token_id(&self, now: Timestamp) -> TokenId {
        TokenId::from_uuid(self.uuid(now))
    }

    /// A duration between half of `base` and `base`, so that many waiters spread out.
    fn jitter(&self, base: Duration) -> Duration {
        let part = u32::from_le_bytes(self.bytes());
        base / 2 + (base / 2).mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

impl<T: Entropy + ?Sized> EntropyExt for T {}
