//! The simulator: a whole installation under one seed on one thread, with whatever can go wrong.
//!
//! Several processes (servers, operators, both) share the in-memory store and a simulated engine; simulated programs
//! call whichever server answers; clients make random calls and note the answers. Time is tokio's, paused; ids, keys,
//! jitter and latencies come from the seed, and so does an explicit list of faults. A run with the same seed and the
//! same list has the same trace.
//!
//! Between each process and the store and engine stands a decorator: there a process is slow, stands still, is cut off
//! or gone. Every commit goes past a checker that sees the rows before and after it and holds them against the
//! invariants. At the end the faults stop, and what is has to become what is wanted.
//!
//! ```
//! let report = raworc_core::simulator::run(1, None);
//! assert!(report.violation.is_none(), "{report}");
//! assert_eq!(report.hash, raworc_core::simulator::run(1, None).hash);
//! ```

mod caller;
mod chance;
mod chaos;
mod check;
mod client;
mod clock;
mod coverage;
mod engine;
mod fault;
mod follower;
mod journal;
mod port;
mod process;
mod program;
mod settle;
mod shrink;
mod store;
mod trace;
mod world;

pub use coverage::Counts;
pub use fault::{EngineFault, Events, Fault, Moment, Planned, Strike};
pub use shrink::shrink;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::chance::Chance;
use self::client::Client;
use self::clock::JumpingClock;
use self::process::{Process, Role};
use self::program::{Programs, Way};
use self::world::World;
use crate::blob::BlobStore;
use crate::ids::TenantName;
use crate::runtime::simulated::{Latency, Profile, SimulatedAgent, SimulatedOptions, SimulatedRuntime};

/// Clients of a run.
const CLIENTS: u64 = 4;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in docs/testing.md; 0 for a panic, and for what is left behind.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} does not hold: {}", self.invariant, self.what)
    }
}

/// What became of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The faults that it had.
    pub faults: Vec<Planned>,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Of the whole trace: the same for the same seed and faults.
    pub hash: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
    /// What it came across.
    pub counts: Counts,
    /// Paused time that has passed.
    pub time: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\nfaults of seed {}:", self.seed)?;
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        match &self.violation {
            None => write!(f, "seed {}: every invariant held", self.seed),
            Some(violation) => write!(f, "seed {}: {violation}", self.seed),
        }
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes a panic of this thread, so that the run in which it happened fails. For a panic hook: the tasks of a run catch
/// theirs.
pub fn note_panic(what: String) {
    PANIC.with_borrow_mut(|panic| {
        panic.get_or_insert(what);
    });
}

/// Runs a seed, with all faults that it gives or only those of these numbers.
///
/// # Panics
/// Where the machine cannot make a runtime.
#[must_use]
pub fn run(seed: u64, only: Option<&[usize]>) -> Report {
    PANIC.take();
    let time = chaos::time_of(seed);
    let mut faults = fault::draw(seed, time);
    if let Some(only) = only {
        faults.retain(|planned| only.contains(&planned.number));
    }
    let builder = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match builder {
        Ok(runtime) => runtime,
        Err(error) => panic!("a runtime cannot be made: {error}"),
    };
    let (mut report, world) = runtime.block_on(async {
        let world = world(seed);
        (simulate(&world, time, faults).await, Arc::downgrade(&world))
    });
    drop(runtime);
    let left = (world.strong_count() > 0).then(|| "something of the run is held for ever".to_owned());
    if let Some(what) = PANIC.take().or(left) {
        report.violation.get_or_insert(Violation { invariant: 0, what });
    }
    report
}

async fn simulate(world: &Arc<World>, time: Duration, faults: Vec<Planned>) -> Report {
    let begun = tokio::time::Instant::now();
    world.engine.lose_image("ghost", "no such tag");
    // Nothing refers to it, so that there is something of this kind to purge.
    drop(World::at_once(world.store.put(&TenantName::default(), Bytes::from_static(b"a file"))));
    for number in 0..world.processes.len() {
        tokio::spawn(process::live(Arc::clone(world), number));
    }
    let clients: Vec<_> = (0..CLIENTS).filter_map(|number| Client::new(world, number)).collect();
    let mut acting = tokio::task::JoinSet::new();
    for client in &clients {
        acting.spawn(client.clone().act());
        acting.spawn(follower::follow(client.clone()));
    }
    let striking = tokio::spawn(chaos::strike(Arc::clone(world), faults.clone()));
    let whole = async {
        tokio::time::sleep(time).await;
        striking.abort();
        world.closing.cancel();
        world.heal();
        world.say(format_args!("faults are over"));
        while acting.join_next().await.is_some() {}
        let settled = settle::settle(world, &clients).await;
        if let Err(violation) = settled {
            world.fail(violation.invariant, violation.what);
        }
    };
    tokio::select! {
        biased;
        () = world.failed.cancelled() => {}
        () = whole => {}
    }
    // A server holds the world by its store, and the world its servers.
    for process in &world.processes {
        process.crash(Duration::ZERO);
    }
    let counts = world.counts().clone();
    let (hash, lines, tail) = {
        let trace = world.trace();
        (trace.hash(), trace.lines, trace.tail())
    };
    Report { seed: world.seed, faults, violation: world.violation(), hash, lines, tail, counts, time: begun.elapsed() }
}

fn world(seed: u64) -> Arc<World> {
    let chance = Chance::new(seed, "world");
    let layouts: [&[Role]; 4] = [
        &[Role::Both, Role::Both],
        &[Role::Server, Role::Server, Role::Operator, Role::Operator],
        &[Role::Both, Role::Server, Role::Operator],
        &[Role::Both, Role::Both, Role::Both],
    ];
    let roles = chance.pick(&layouts).copied().unwrap_or_default();
    let processes = roles.iter().enumerate().map(|(number, role)| Process::new(seed, number, *role)).collect();
    let profile = if chance.once_in(2) { Profile::Container } else { Profile::Pod };
    let ids = Arc::new(Chance::new(seed, "programs"));
    let program =
        SimulatedAgent::new(program::act).with_setup(program::prepare).with_chance(ids, Arc::new(JumpingClock::new()));
    let latency =
        Latency::uniform(Duration::from_millis(2)).with_start(chance.between(5, 800)).with_stop(chance.between(2, 300));
    let options = SimulatedOptions::new(profile).with_latency(latency).with_program(program.clone());
    let world = World::new(seed, SimulatedRuntime::new(options), processes, Programs::default(), chance);
    program.connect_by(Arc::new(Way::new(&world)));
    world
}
