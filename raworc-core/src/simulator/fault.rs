//! Faults: an explicit list of times and what goes wrong then, drawn from the seed before anything runs.

use std::fmt;
use std::time::Duration;

use super::chance::Chance;
use crate::runtime::RuntimeError;
use crate::runtime::simulated::{self, Fate, Method, StartStep};

/// Something that goes wrong, and when.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its number in the list that the seed gives; a shorter list names faults by these.
    pub number: usize,
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}: at {:>7.3} s {:?}", self.number, self.at.as_secs_f64(), self.fault)
    }
}

/// Where, at a process's call of the store or an engine, something strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the call does anything.
    Before,
    /// When it has done its work and nobody knows yet.
    After,
}

/// What happens to a process at one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// It is gone, and comes back after this time.
    Crash(Moment, Duration),
    /// It stands still for this time.
    Pause(Moment, Duration),
    /// The store refuses.
    Refuse,
    /// The store does it, and the answer is lost.
    LoseAnswer,
    /// Somebody else changes the same agent first.
    Conflict,
    /// It reaches the store only after somebody else has changed the same agent, if that happens soon. Whoever sent it
    /// may be gone by then.
    Late,
    /// The same, after the next incarnation has taken up a message.
    VeryLate,
}

/// What an engine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFault {
    /// It fails.
    Fail,
    /// It does it and fails all the same.
    LoseAnswer,
    /// A start fails at a step.
    FailAt(StartStep),
    /// It hangs.
    Hang,
    /// It does it and hangs.
    HangAfter,
    /// It is slow.
    Slow(Duration),
    /// It does nothing and says that it did.
    Pretend,
    /// It says that there is no such computer.
    NotFound,
    /// It answers with what was.
    Stale,
}

/// What happens to an engine's or the store's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// None arrives.
    Lost,
    /// Each arrives twice.
    Doubled,
}

/// Something that goes wrong. Processes, programs and clients are numbers, taken modulo how many there are.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Fault {
    /// A process is gone, as with `kill -9`.
    Crash { process: u64, down: Duration },
    /// A process ends in order.
    Shutdown { process: u64, down: Duration },
    /// A process stands still, as with `SIGSTOP`.
    Pause { process: u64, time: Duration },
    /// Something strikes at the n-th call from then on.
    AtCall { process: u64, call: u32, strike: Strike },
    /// A process does not reach the store.
    CutStore { process: u64, time: Duration },
    /// A process does not reach the engine.
    CutEngine { process: u64, time: Duration },
    /// Nobody reaches this process.
    CutCallers { process: u64, time: Duration },
    /// The store answers nobody.
    StoreDown { time: Duration },
    /// The store's events do not arrive at a process as they should.
    Wakeups { process: u64, how: Events, time: Duration },
    /// The engine does something wrong for a while.
    Engine { method: Method, how: EngineFault, time: Duration },
    /// The engine's events do not arrive as they should.
    EngineEvents { how: Events, time: Duration },
    /// The engine's streams of events end.
    EngineEventsCut,
    /// A program falls dead.
    CrashProgram { pick: u64 },
    /// The engine's machine is switched off and on.
    CrashAll,
    /// A computer is taken away behind the operators' backs.
    LoseComputer { pick: u64 },
    /// A program stands still.
    PauseProgram { pick: u64, time: Duration },
    /// A program reaches no server.
    CutProgram { pick: u64, time: Duration },
    /// A program's n-th call from then on, whichever program's, has this fate.
    ProgramCall { call: u32, fate: Fate },
    /// A client goes away in the middle of its next call, after so many polls of it.
    CallerGone { client: u64, polls: u64 },
    /// The store's clock jumps.
    JumpStore { seconds: i64 },
    /// A process's clock jumps.
    JumpProcess { process: u64, seconds: i64 },
}

/// Every word that [`Fault::word`] can be. In a run of many seeds each of them must have come up.
pub(super) const WORDS: [&str; 48] = [
    "crash",
    "crash before a call",
    "crash after a call",
    "shutdown",
    "pause",
    "pause before a call",
    "pause after a call",
    "store refuses",
    "store's answer lost",
    "store conflict",
    "commit late",
    "commit very late",
    "cut from store",
    "cut from engine",
    "cut from callers",
    "store down",
    "wake-ups lost",
    "wake-ups doubled",
    "engine fails",
    "engine's answer lost",
    "start fails when attached",
    "start fails when running",
    "start fails when booted",
    "engine hangs",
    "engine hangs after",
    "engine is slow",
    "engine pretends",
    "engine says not found",
    "stale observation",
    "stale list",
    "engine's events lost",
    "engine's events doubled",
    "engine's events cut",
    "program crashed",
    "all programs crashed",
    "computer lost",
    "program paused",
    "program cut off",
    "program's request lost",
    "program's answer lost",
    "program's call doubled",
    "caller gone",
    "volume full",
    "slept with messages that wait for room",
    "store's clock forward",
    "store's clock back",
    "process's clock forward",
    "process's clock back",
];

impl Fault {
    /// What it counts as.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Shutdown { .. } => "shutdown",
            Self::Pause { .. } => "pause",
            Self::AtCall { strike, .. } => strike.word(),
            Self::CutStore { .. } => "cut from store",
            Self::CutEngine { .. } => "cut from engine",
            Self::CutCallers { .. } => "cut from callers",
            Self::StoreDown { .. } => "store down",
            Self::Wakeups { how: Events::Lost, .. } => "wake-ups lost",
            Self::Wakeups { how: Events::Doubled, .. } => "wake-ups doubled",
            Self::Engine { method: Method::List, how: EngineFault::Stale, .. } => "stale list",
            Self::Engine { how, .. } => how.word(),
            Self::EngineEvents { how: Events::Lost, .. } => "engine's events lost",
            Self::EngineEvents { how: Events::Doubled, .. } => "engine's events doubled",
            Self::EngineEventsCut => "engine's events cut",
            Self::CrashProgram { .. } => "program crashed",
            Self::CrashAll => "all programs crashed",
            Self::LoseComputer { .. } => "computer lost",
            Self::PauseProgram { .. } => "program paused",
            Self::CutProgram { .. } => "program cut off",
            Self::ProgramCall { fate: Fate::RequestLost, .. } => "program's request lost",
            Self::ProgramCall { fate: Fate::AnswerLost, .. } => "program's answer lost",
            Self::ProgramCall { fate: Fate::Doubled | Fate::Answered, .. } => "program's call doubled",
            Self::CallerGone { .. } => "caller gone",
            Self::JumpStore { seconds } if *seconds > 0 => "store's clock forward",
            Self::JumpStore { .. } => "store's clock back",
            Self::JumpProcess { seconds, .. } if *seconds > 0 => "process's clock forward",
            Self::JumpProcess { .. } => "process's clock back",
        }
    }

    /// Whether it makes an engine tell what is not so.
    pub(super) const fn is_lie(&self) -> bool {
        matches!(self, Self::Engine { how: EngineFault::Pretend | EngineFault::NotFound | EngineFault::Stale, .. })
    }

    fn draw(chance: &Chance) -> Self {
        let process = chance.below(60);
        let pick = chance.below(60);
        let call = u32::try_from(1 + chance.below(30)).unwrap_or(1);
        // Some are shorter than every lease, some longer.
        let time = chance.between(500, if chance.once_in(2) { 8_000 } else { 50_000 });
        let down = chance.between(100, 20_000);
        let when = if chance.once_in(2) { Moment::Before } else { Moment::After };
        let hour = if chance.once_in(2) { 3600 } else { -3600 };
        let how = if chance.once_in(2) { Events::Lost } else { Events::Doubled };
        let strike = |strike| Self::AtCall { process, call, strike };
        match chance.below(30) {
            0 => Self::Crash { process, down },
            1 => strike(Strike::Crash(Moment::Before, down)),
            2 => strike(Strike::Crash(Moment::After, down)),
            3 => Self::Shutdown { process, down },
            4 => Self::Pause { process, time },
            5 | 6 => strike(Strike::Pause(when, time)),
            7 => strike(Strike::Refuse),
            8 => strike(Strike::LoseAnswer),
            9 => strike(Strike::Conflict),
            10 => Self::CutStore { process, time },
            11 => Self::CutEngine { process, time },
            12 => Self::CutCallers { process, time },
            13 => Self::StoreDown { time },
            14 => Self::Wakeups { process, how, time },
            15..=18 => Self::draw_engine(chance, time),
            19 => Self::EngineEvents { how, time },
            20 if chance.once_in(2) => Self::EngineEventsCut,
            20 => Self::CrashAll,
            21 if chance.once_in(2) => Self::CrashProgram { pick },
            21 => Self::LoseComputer { pick },
            22 => Self::PauseProgram { pick, time },
            23 => Self::CutProgram { pick, time },
            24 => {
                let fates = [Fate::RequestLost, Fate::AnswerLost, Fate::Doubled];
                Self::ProgramCall { call, fate: chance.pick(&fates).copied().unwrap_or_default() }
            }
            25 => Self::CallerGone { client: pick, polls: 1 + chance.below(12) },
            26 | 27 => strike(Strike::Late),
            28 => strike(Strike::VeryLate),
            _ if chance.once_in(2) => Self::JumpStore { seconds: hour },
            _ => Self::JumpProcess { process, seconds: hour },
        }
    }

    fn draw_engine(chance: &Chance, time: Duration) -> Self {
        let doing =
            [Method::Prepare, Method::Ensure, Method::Start, Method::Stop, Method::Remove, Method::RemoveVolume];
        let any = [Method::Ensure, Method::Start, Method::Stop, Method::Observe, Method::List, Method::Watch];
        let from = |methods: &[Method]| chance.pick(methods).copied().unwrap_or(Method::Start);
        let engine = |method, how| Self::Engine { method, how, time };
        match chance.below(11) {
            0 => engine(from(&any), EngineFault::Fail),
            1 => engine(from(&doing), EngineFault::LoseAnswer),
            2 => engine(Method::Start, EngineFault::FailAt(StartStep::Attached)),
            3 => engine(Method::Start, EngineFault::FailAt(StartStep::Running)),
            4 => engine(Method::Start, EngineFault::FailAt(StartStep::Booted)),
            5 => engine(from(&any), EngineFault::Hang),
            6 => engine(from(&doing), EngineFault::HangAfter),
            7 => engine(from(&any), EngineFault::Slow(chance.between(100, 20_000))),
            8 => engine(from(&[Method::Ensure, Method::Start, Method::Stop, Method::Remove]), EngineFault::Pretend),
            9 => engine(from(&[Method::Start, Method::Stop, Method::Observe, Method::List]), EngineFault::NotFound),
            _ => engine(from(&[Method::Observe, Method::List]), EngineFault::Stale),
        }
    }
}

impl Strike {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Crash(Moment::Before, _) => "crash before a call",
            Self::Crash(Moment::After, _) => "crash after a call",
            Self::Pause(Moment::Before, _) => "pause before a call",
            Self::Pause(Moment::After, _) => "pause after a call",
            Self::Refuse => "store refuses",
            Self::LoseAnswer => "store's answer lost",
            Self::Conflict => "store conflict",
            Self::Late => "commit late",
            Self::VeryLate => "commit very late",
        }
    }
}

impl EngineFault {
    const fn word(&self) -> &'static str {
        match self {
            Self::Fail => "engine fails",
            Self::LoseAnswer => "engine's answer lost",
            Self::FailAt(StartStep::Attached) => "start fails when attached",
            Self::FailAt(StartStep::Running) => "start fails when running",
            Self::FailAt(StartStep::Booted) => "start fails when booted",
            Self::Hang => "engine hangs",
            Self::HangAfter => "engine hangs after",
            Self::Slow(_) => "engine is slow",
            Self::Pretend => "engine pretends",
            Self::NotFound => "engine says not found",
            Self::Stale => "stale observation",
        }
    }

    /// The fault as the simulated engine knows it.
    pub(super) fn to_simulated(self) -> simulated::Fault {
        let down = || RuntimeError::Unavailable("the simulator says so".into());
        match self {
            Self::Fail => simulated::Fault::Fail(down()),
            Self::LoseAnswer => simulated::Fault::LoseAnswer(down()),
            Self::FailAt(step) => simulated::Fault::FailAt(step, down()),
            Self::Hang => simulated::Fault::Hang,
            Self::HangAfter => simulated::Fault::HangAfter,
            Self::Slow(more) => simulated::Fault::Slow(more),
            Self::Pretend => simulated::Fault::Pretend,
            Self::NotFound => simulated::Fault::NotFound,
            Self::Stale => simulated::Fault::Stale,
        }
    }
}

/// The faults of a seed, in the order of their times.
pub(super) fn draw(seed: u64, time: Duration) -> Vec<Planned> {
    let chance = Chance::new(seed, "faults");
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // A run without any shows what goes wrong by itself.
    let count = chance.below(31);
    let mut faults: Vec<_> = (0..count).map(|_| (chance.between(0, millis), Fault::draw(&chance))).collect();
    faults.sort_by_key(|(at, _)| *at);
    faults.into_iter().enumerate().map(|(number, (at, fault))| Planned { number, at, fault }).collect()
}
