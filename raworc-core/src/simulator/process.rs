//! Processes: servers, operators, and both in one, each with lives that end and begin anew.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::clock::JumpingClock;
use super::engine::SimulatedEngine;
use super::fault::{Events, Strike};
use super::port::{Port, To};
use super::store::SimulatedStore;
use super::world::{World, locked, operator_settings, settings};
use crate::control::{ControlPlane, Parts, Presence, Retainer};
use crate::error::Error;
use crate::operator::Operator;
use crate::runtime::{Runtime, Runtimes};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Operator,
    Both,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) chance: Chance,
    clock: Arc<JumpingClock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// This life's end, from its first call on.
    life: CancellationToken,
    /// Asks for an end in order.
    shutdown: CancellationToken,
    /// The control plane, where this is a server that serves.
    control: Option<ControlPlane>,
    /// How long it stays away after its end.
    down: Duration,
    paused_until: Instant,
    cut_store: Instant,
    cut_engine: Instant,
    cut_callers: Instant,
    events: Option<(Events, Instant)>,
    armed: Vec<(u32, Strike)>,
    /// Until when it may not have done what a healthy one does.
    sick_until: Instant,
}

/// A server that can be called, until its life ends.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) process: usize,
    pub(super) control: ControlPlane,
    pub(super) dead: CancellationToken,
}

impl Process {
    pub(super) fn new(seed: u64, number: usize, role: Role) -> Self {
        let now = Instant::now();
        let name = match role {
            Role::Server => format!("server-{number}"),
            Role::Operator => format!("operator-{number}"),
            Role::Both => format!("up-{number}"),
        };
        let state = State {
            life: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            control: None,
            down: Duration::ZERO,
            paused_until: now,
            cut_store: now,
            cut_engine: now,
            cut_callers: now,
            events: None,
            armed: Vec::new(),
            sick_until: now,
        };
        let chance = Chance::new(seed, &name);
        Self { name, role, chance, clock: Arc::new(JumpingClock::new()), state: Mutex::new(state) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut locked(&self.state))
    }

    pub(super) fn crash(&self, down: Duration) {
        self.with(|state| {
            state.down = down;
            state.control = None;
            state.life.cancel();
        });
    }

    pub(super) fn shutdown(&self, down: Duration) {
        self.with(|state| {
            state.down = down;
            state.shutdown.cancel();
        });
    }

    pub(super) fn pause(&self, time: Duration) {
        self.with(|state| {
            state.paused_until = state.paused_until.max(Instant::now() + time);
            state.sick_until = state.sick_until.max(state.paused_until);
        });
    }

    pub(super) fn cut_off(&self, to: To, time: Duration) {
        self.with(|state| {
            let until = Instant::now() + time;
            let line = match to {
                To::Store => &mut state.cut_store,
                To::Engine => &mut state.cut_engine,
            };
            *line = until.max(*line);
            state.sick_until = state.sick_until.max(until);
        });
    }

    pub(super) fn cut_off_callers(&self, time: Duration) {
        self.with(|state| state.cut_callers = Instant::now() + time);
    }

    pub(super) fn disturb_events(&self, how: Events, time: Duration) {
        self.with(|state| state.events = Some((how, Instant::now() + time)));
    }

    pub(super) fn arm(&self, call: u32, strike: Strike) {
        self.with(|state| state.armed.push((call, strike)));
    }

    pub(super) fn jump(&self, seconds: i64) {
        self.clock.jump(seconds);
    }

    pub(super) fn paused_until(&self) -> Instant {
        self.with(|state| state.paused_until)
    }

    pub(super) fn cut(&self, to: To) -> bool {
        self.with(|state| match to {
            To::Store => state.cut_store > Instant::now(),
            To::Engine => state.cut_engine > Instant::now(),
        })
    }

    pub(super) fn events(&self) -> Option<Events> {
        self.with(|state| state.events.filter(|(_, until)| *until > Instant::now()).map(|(how, _)| how))
    }

    /// Whether it could do all that it should since `since`.
    pub(super) fn healthy_since(&self, since: Instant) -> bool {
        self.with(|state| state.sick_until < since)
    }

    /// Counts a call, and tells what strikes at it.
    pub(super) fn count_call(&self, to: To) -> Option<Strike> {
        self.with(|state| {
            let mut due = None;
            for (place, (left, strike)) in state.armed.iter_mut().enumerate() {
                *left = left.saturating_sub(1);
                let fits = match strike {
                    Strike::Crash(..) | Strike::Pause(..) => true,
                    Strike::Refuse | Strike::LoseAnswer | Strike::Conflict | Strike::Late | Strike::VeryLate => {
                        to == To::Store
                    }
                };
                if *left == 0 && fits && due.is_none() {
                    due = Some(place);
                }
            }
            let (_, strike) = state.armed.remove(due?);
            // A refusal costs at most one renewal of what is held.
            state.sick_until = state.sick_until.max(Instant::now());
            Some(strike)
        })
    }

    pub(super) fn heal(&self) {
        let now = Instant::now();
        self.with(|state| {
            state.paused_until = now;
            state.cut_store = now;
            state.cut_engine = now;
            state.cut_callers = now;
            state.events = None;
            state.armed.clear();
            state.down = state.down.min(Duration::from_secs(1));
        });
    }

    /// The server that callers reach here.
    fn serving(&self, process: usize) -> Option<Serving> {
        self.with(|state| {
            let control = state.control.clone().filter(|_| state.cut_callers <= Instant::now())?;
            Some(Serving { process, control, dead: state.life.clone() })
        })
    }
}

impl World {
    /// The servers that can be called.
    pub(super) fn servers(&self) -> Vec<Serving> {
        self.processes.iter().enumerate().filter_map(|(number, process)| process.serving(number)).collect()
    }
}

/// Lets a process live, life after life.
pub(super) async fn live(world: Arc<World>, number: usize) {
    let process = &world.processes[number];
    for life in 0.. {
        let (dead, shutdown) = (CancellationToken::new(), CancellationToken::new());
        process.with(|state| {
            state.life = dead.clone();
            state.shutdown = shutdown.clone();
        });
        world.say(format_args!("{} begins", process.name));
        let port = Port { world: Arc::clone(&world), process: number, dead: dead.clone() };
        let begun = tokio::select! {
            biased;
            () = dead.cancelled() => None,
            begun = begin(&port, life) => Some(begun),
        };
        match begun {
            Some(Ok((control, operator, _retainer))) => {
                if process.role != Role::Operator {
                    process.with(|state| state.control = Some(control.clone()));
                }
                tokio::select! {
                    biased;
                    () = dead.cancelled() => {}
                    () = shutdown.cancelled() => end(process, operator).await,
                }
            }
            Some(Err(error)) => world.say(format_args!("{} cannot begin: {error}", process.name)),
            None => {}
        }
        dead.cancel();
        process.with(|state| state.control = None);
        world.say(format_args!("{} is gone", process.name));
        let back = Instant::now() + process.with(|state| std::mem::replace(&mut state.down, Duration::from_secs(1)));
        while Instant::now() < back && !world.closing.is_cancelled() {
            tokio::time::sleep_until(back.min(Instant::now() + Duration::from_secs(1))).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends in order, within the time that a service manager gives.
async fn end(process: &Process, operator: Option<Operator>) {
    process.with(|state| state.control = None);
    if let Some(operator) = operator {
        let _ended_or_killed = tokio::time::timeout(Duration::from_secs(20), operator.shutdown()).await;
    }
}

async fn begin(port: &Port, life: u64) -> Result<(ControlPlane, Option<Operator>, Retainer), Error> {
    let (world, process) = (&port.world, port.process());
    let runtime: Arc<dyn Runtime> = Arc::new(SimulatedEngine::new(port.clone()));
    let runtimes = Runtimes::new().with(runtime, "unix:/nowhere", None);
    let parts = Parts {
        store: Arc::new(SimulatedStore::new(port.clone())),
        blobs: Arc::clone(&world.store) as Arc<dyn crate::blob::BlobStore>,
        runtimes: runtimes.clone(),
        master_key: world.master_key.clone(),
        settings: settings(),
        entropy: Arc::new(Chance::new(world.seed, &format!("{} {life}", process.name))),
        clock: Arc::clone(&process.clock) as Arc<dyn crate::entropy::Clock>,
        presence: if process.role == Role::Operator { Presence::apart() } else { Presence::default() },
    };
    let control = ControlPlane::start(parts).await?;
    let operator = match process.role {
        Role::Server => None,
        Role::Operator | Role::Both => Some(Operator::start(&control, runtimes, operator_settings()).await?),
    };
    let retainer = Retainer::start(&control);
    Ok((control, operator, retainer))
}
