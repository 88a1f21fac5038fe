//! What a test lets go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ids::ComputerId;
use crate::runtime::{Observed, RuntimeError};

/// A method of [`Runtime`](crate::runtime::Runtime) that asks the engine for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Method {
    Prepare,
    Ensure,
    Start,
    Stop,
    Remove,
    Observe,
    List,
    Watch,
    Logs,
    HasVolume,
    CopyVolume,
    RemoveVolume,
}

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StartStep {
    /// Attached to the computer's standard input; nothing runs yet.
    Attached,
    /// The program runs and waits for its boot line.
    Running,
    /// The boot line was handed over; only the answer is missing.
    Booted,
}

/// What goes wrong with a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing happens, and the call fails with this.
    Fail(RuntimeError),
    /// What was asked happens, and the call fails with this all the same: its answer was lost.
    LoseAnswer(RuntimeError),
    /// A start fails with this after it came so far. A program that got no boot line reads the end of its input.
    FailAt(StartStep, RuntimeError),
    /// The call hangs before anything happens, until it is released.
    Hang,
    /// What was asked happens, and then the call hangs until it is released.
    HangAfter,
    /// The call panics before anything happens.
    Panic,
    /// The call takes so much longer.
    Slow(Duration),
    /// A lie: nothing happens, and the answer says that it did. A start answers with an identity that never was.
    Pretend,
    /// A lie: the engine knows nothing of the computer. `observe` is `None`, `list` is without it, `start` and `logs`
    /// are `NotFound`, and the others do nothing and succeed.
    NotFound,
    /// A lie: `observe` and `list` answer with what was true when the fault was injected.
    Stale,
}

/// Which calls have a [`Fault`].
#[derive(Debug, Clone)]
#[must_use = "inject it"]
pub struct Rule {
    pub(super) method: Method,
    pub(super) fault: Fault,
    pub(super) times: Option<u32>,
    pub(super) computer: Option<ComputerId>,
}

impl Rule {
    /// Every call of `method`, until it is released.
    pub const fn new(method: Method, fault: Fault) -> Self {
        Self { method, fault, times: None, computer: None }
    }

    /// Only the next so many of them.
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only those for this computer; of `list`, only what it says of this one.
    pub const fn on(mut self, computer: ComputerId) -> Self {
        self.computer = Some(computer);
        self
    }
}

/// A rule that was injected.
#[derive(Debug, Clone)]
pub struct Injected {
    pub(super) released: CancellationToken,
    hits: Arc<AtomicU64>,
}

impl Injected {
    /// Takes the rule back. Calls that hang by it go on.
    pub fn release(&self) {
        self.released.cancel();
    }

    /// How many calls it has hit.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    released: CancellationToken,
    hits: Arc<AtomicU64>,
    stale: Vec<Observed>,
}

/// The rules that are in force, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Active>);

/// The fault of one call.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) fault: Fault,
    pub(super) released: CancellationToken,
    pub(super) only: Option<ComputerId>,
    pub(super) stale: Vec<Observed>,
}

impl Faults {
    pub(super) fn inject(&mut self, rule: Rule, stale: Vec<Observed>) -> Injected {
        let released = CancellationToken::new();
        let hits = Arc::<AtomicU64>::default();
        self.0.push(Active { rule, released: released.clone(), hits: Arc::clone(&hits), stale });
        Injected { released, hits }
    }

    pub(super) fn release_all(&mut self) {
        for active in self.0.drain(..) {
            active.released.cancel();
        }
    }

    /// The fault that this call has, by the oldest rule that fits.
    pub(super) fn hit(&mut self, method: Method, computer: Option<ComputerId>) -> Option<Hit> {
        self.0.retain(|active| !active.released.is_cancelled() && active.rule.times != Some(0));
        let fits = |rule: &Rule| {
            rule.method == method && (method == Method::List || rule.computer.is_none() || rule.computer == computer)
        };
        let active = self.0.iter_mut().find(|active| fits(&active.rule))?;
        active.hits.fetch_add(1, Ordering::Relaxed);
        if let Some(times) = &mut active.rule.times {
            *times -= 1;
        }
        Some(Hit {
            fault: active.rule.fault.clone(),
            released: active.released.clone(),
            only: active.rule.computer,
            stale: active.stale.clone(),
        })
    }
}
