//! Lets things go wrong when their time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chance::Chance;
use super::fault::{Fault, Planned, Strike};
use super::port::To;
use super::process::Process;
use super::world::World;
use crate::ids::ComputerId;
use crate::runtime::simulated::Rule;

/// What a lie of the engine may lead to is over after this.
const AFTER_LIES: Duration = Duration::from_secs(120);

/// Carries out the whole list.
pub(super) async fn strike(world: Arc<World>, faults: Vec<Planned>) {
    for planned in faults {
        tokio::time::sleep_until(world.begun + planned.at).await;
        world.say(format_args!("FAULT {planned}"));
        apply(&world, planned.fault).await;
    }
}

fn nth<T>(of: &[T], number: u64) -> Option<&T> {
    of.get(usize::try_from(number % of.len().max(1) as u64).ok()?)
}

impl World {
    fn process(&self, number: u64) -> Option<&Process> {
        nth(&self.processes, number)
    }

    fn running(&self, pick: u64) -> Option<ComputerId> {
        nth(&self.engine.running(), pick).map(|(id, _)| *id)
    }
}

async fn apply(world: &Arc<World>, fault: Fault) {
    // These are counted when they strike, which may be later or never.
    let mut strikes = true;
    let process = |number: u64, change: &dyn Fn(&Process)| {
        if let Some(process) = world.process(number) {
            change(process);
        }
    };
    match fault {
        Fault::Crash { process: number, down } => process(number, &|process| process.crash(down)),
        Fault::Shutdown { process: number, down } => process(number, &|process| process.shutdown(down)),
        Fault::Pause { process: number, time } => process(number, &|process| process.pause(time)),
        Fault::AtCall { process: number, call, strike } => {
            strikes = false;
            // Being late matters for few commits, so it happens to several.
            let times = if matches!(strike, Strike::Late | Strike::VeryLate) { 6 } else { 1 };
            process(number, &|process| (0..times).for_each(|time| process.arm(call + 3 * time, strike)));
        }
        Fault::CutStore { process: number, time } => process(number, &|process| process.cut_off(To::Store, time)),
        Fault::CutEngine { process: number, time } => process(number, &|process| process.cut_off(To::Engine, time)),
        Fault::CutCallers { process: number, time } => process(number, &|process| process.cut_off_callers(time)),
        Fault::StoreDown { time } => world.processes.iter().for_each(|process| process.cut_off(To::Store, time)),
        Fault::Wakeups { process: number, how, time } => {
            strikes = false;
            process(number, &|process| process.disturb_events(how, time));
        }
        Fault::Engine { .. } => {
            strikes = false;
            engine(world, fault);
        }
        Fault::EngineEvents { how, time } => {
            strikes = false;
            world.disturbance().engine_events = Some((how, Instant::now() + time));
        }
        Fault::EngineEventsCut => world.engine.cut_events(),
        Fault::CrashProgram { pick } => {
            strikes = world.running(pick).is_some_and(|id| world.engine.crash(id, "killed"));
        }
        Fault::CrashAll => world.engine.crash_all("the machine went down"),
        Fault::LoseComputer { pick } => match world.running(pick) {
            Some(id) => world.engine.lose(id).await,
            None => strikes = false,
        },
        Fault::PauseProgram { pick, time } => match world.running(pick) {
            Some(id) => world.programs.pause(id, time),
            None => strikes = false,
        },
        Fault::CutProgram { pick, time } => match world.running(pick) {
            Some(id) => world.programs.cut_off(id, time),
            None => strikes = false,
        },
        Fault::ProgramCall { call, fate } => {
            strikes = false;
            world.programs.arm(call, fate);
        }
        Fault::CallerGone { client, polls } => {
            strikes = false;
            world.journal().leaving.insert(client % super::CLIENTS, polls);
        }
        Fault::JumpStore { seconds } => {
            world.disturbance().store_jumped = Some(Instant::now());
            world.store_clock.jump(seconds);
        }
        Fault::JumpProcess { process: number, seconds } => process(number, &|process| process.jump(seconds)),
    }
    if strikes {
        world.counts().fault(fault.word(), 1);
    }
}

/// Lets the engine do wrong for a while.
fn engine(world: &Arc<World>, fault: Fault) {
    let Fault::Engine { method, how, time } = fault else { return };
    let until = Instant::now() + time;
    if fault.is_lie() {
        let lies_until = &mut world.disturbance().lies_until;
        *lies_until = (*lies_until).max(until + AFTER_LIES);
    }
    let injected = world.engine.inject(Rule::new(method, how.to_simulated()));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = world.closing.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        injected.release();
        if injected.hits() > 0 {
            world.counts().fault(fault.word(), injected.hits());
        }
    });
}

/// The time that a run's faults have.
pub(super) fn time_of(seed: u64) -> Duration {
    Chance::new(seed, "time").between(40_000, 150_000)
}
