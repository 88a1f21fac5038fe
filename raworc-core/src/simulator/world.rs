//! The world of one run: the true store, the true engine, what lies between them and the processes, and who watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::check::Checker;
use super::clock::JumpingClock;
use super::coverage::Counts;
use super::fault::Events;
use super::process::Process;
use super::program::Programs;
use super::trace::Trace;
use super::{Violation, journal::Journal};
use crate::control::Settings;
use crate::entropy::Clock;
use crate::operator::OperatorSettings;
use crate::runtime::simulated::{SimulatedControl, SimulatedRuntime};
use crate::seal::MasterKey;
use crate::store::{MemoryStore, Retention};

/// Agents that a tenant may have.
pub(super) const QUOTA: u64 = 3;

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) begun: Instant,
    /// Whether calls of the store and the engine are often slow.
    pub(super) windy: bool,
    pub(super) chance: Chance,
    pub(super) store: Arc<MemoryStore>,
    pub(super) store_clock: Arc<JumpingClock>,
    pub(super) runtime: SimulatedRuntime,
    pub(super) engine: SimulatedControl,
    pub(super) master_key: MasterKey,
    pub(super) processes: Vec<Process>,
    pub(super) programs: Programs,
    /// Cancelled once something was found.
    pub(super) failed: CancellationToken,
    /// Cancelled once faults are over and clients stop.
    pub(super) closing: CancellationToken,
    /// Tells of every commit.
    pub(super) committed: Notify,
    trace: Mutex<Trace>,
    counts: Mutex<Counts>,
    checker: Mutex<Checker>,
    journal: Mutex<Journal>,
    violation: Mutex<Option<Violation>>,
    disturbance: Mutex<Disturbance>,
}

/// What is wrong with the world at large.
#[derive(Debug)]
pub(super) struct Disturbance {
    /// The engine's events.
    pub(super) engine_events: Option<(Events, Instant)>,
    /// Until when what the engine says may not be so, or may have come of that.
    pub(super) lies_until: Instant,
    /// When the store's clock last jumped.
    pub(super) store_jumped: Option<Instant>,
}

/// Locks. No lock is held over an await or a panic of ours.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(
        seed: u64,
        runtime: SimulatedRuntime,
        processes: Vec<Process>,
        programs: Programs,
        chance: Chance,
    ) -> Arc<Self> {
        let store_clock = Arc::new(JumpingClock::new());
        let clock: Arc<dyn Clock> = Arc::clone(&store_clock) as Arc<dyn Clock>;
        let store = Arc::new(MemoryStore::new(clock));
        let now = Instant::now();
        let disturbance = Disturbance { engine_events: None, lies_until: now, store_jumped: None };
        Arc::new(Self {
            seed,
            begun: now,
            windy: chance.once_in(3),
            checker: Mutex::new(Checker::new(&store)),
            store,
            store_clock,
            engine: runtime.control(),
            runtime,
            master_key: MasterKey::generate(&chance),
            chance,
            processes,
            programs,
            failed: CancellationToken::new(),
            closing: CancellationToken::new(),
            committed: Notify::new(),
            trace: Mutex::new(Trace::new()),
            counts: Mutex::default(),
            journal: Mutex::default(),
            violation: Mutex::default(),
            disturbance: Mutex::new(disturbance),
        })
    }

    pub(super) fn checker(&self) -> MutexGuard<'_, Checker> {
        locked(&self.checker)
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        locked(&self.counts)
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        locked(&self.journal)
    }

    pub(super) fn disturbance(&self) -> MutexGuard<'_, Disturbance> {
        locked(&self.disturbance)
    }

    /// Adds a line to the trace.
    pub(super) fn say(&self, what: std::fmt::Arguments<'_>) {
        let passes = locked(&self.trace).say(what);
        if !passes {
            self.fail(10, "something goes on and on without any time passing".into());
        }
    }

    pub(super) fn trace(&self) -> MutexGuard<'_, Trace> {
        locked(&self.trace)
    }

    /// One of the invariants does not hold. The first that is found counts.
    pub(super) fn fail(&self, invariant: u8, what: String) {
        let mut violation = locked(&self.violation);
        if violation.is_none() {
            locked(&self.trace).say(format_args!("INVARIANT {invariant}: {what}"));
            *violation = Some(Violation { invariant, what });
            self.failed.cancel();
        }
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        locked(&self.violation).clone()
    }

    /// What the store answers at once, as the one in memory does.
    pub(super) fn at_once<T>(answer: impl Future<Output = T>) -> T {
        match answer.now_or_never() {
            Some(answer) => answer,
            None => unreachable!("the store in memory never waits"),
        }
    }

    /// Faults are over: everything that was cut is joined, and what stood still goes on.
    pub(super) fn heal(&self) {
        for process in &self.processes {
            process.heal();
        }
        self.programs.heal();
        self.engine.heal();
        self.store_clock.catch_up();
        self.disturbance().engine_events = None;
    }
}

/// Shorter limits than an installation's, so that a run shows what comes after them.
pub(super) fn settings() -> Settings {
    Settings {
        agents_per_tenant: Some(QUOTA),
        inbox_limit: 8,
        setup_limit: Duration::from_secs(20),
        cancel_grace: Duration::from_secs(5),
        retention: retention(),
        ..Settings::default()
    }
}

/// Short enough for most of a run to be purged while it goes on.
fn retention() -> Retention {
    let mut retention = Retention::of(Duration::from_secs(20));
    retention.messages = Some(Duration::from_secs(40));
    retention
}

pub(super) fn operator_settings() -> OperatorSettings {
    OperatorSettings {
        engine_calls: 3,
        looks: 8,
        start_limit: Duration::from_secs(30),
        prepare_limit: Duration::from_secs(60),
        call_limit: Duration::from_secs(10),
        stop_grace: Duration::from_secs(2),
        scan_every: Duration::from_secs(1),
        reclaim_every: Duration::from_secs(10),
        resync_every: Duration::from_secs(30),
        backoff_limit: Duration::from_secs(20),
    }
}

/// What stands for an id in a trace.
pub(super) fn short(id: impl std::fmt::Display) -> String {
    let text = id.to_string();
    text.get(text.len().saturating_sub(5)..).unwrap_or_default().to_owned()
}
