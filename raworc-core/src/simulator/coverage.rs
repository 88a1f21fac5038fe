//! What a run came across: each fault, and each event in each state of the agents' machine.

use std::collections::BTreeMap;
use std::fmt;

use super::fault;
use crate::agent::{AgentEvent, Desired, State};
use crate::store::{AgentOp, PurgedRows};

/// How often what came up.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Faults that struck, by their words.
    pub faults: BTreeMap<&'static str, u64>,
    /// Events that came to the store, by the agent's state at that moment.
    pub pairs: BTreeMap<(State, &'static str), u64>,
    /// Rows that were purged, by their kinds.
    pub purged: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn fault(&mut self, word: &'static str, times: u64) {
        *self.faults.entry(word).or_default() += times;
    }

    pub(super) fn pair(&mut self, state: State, event: &'static str) {
        *self.pairs.entry((state, event)).or_default() += 1;
    }

    pub(super) fn purged(&mut self, rows: &PurgedRows) {
        for (kind, rows) in rows.each() {
            *self.purged.entry(kind).or_default() += rows;
        }
    }

    /// Adds what another run came across.
    pub fn add(&mut self, other: &Self) {
        for (kind, rows) in &other.purged {
            *self.purged.entry(kind).or_default() += rows;
        }
        for (word, times) in &other.faults {
            *self.faults.entry(word).or_default() += times;
        }
        for (pair, times) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += times;
        }
    }

    /// What a run of many seeds should have come across and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let faults = fault::WORDS.into_iter().filter(|word| !self.faults.contains_key(word)).map(str::to_owned);
        let pairs = EXPECTED.into_iter().filter(|pair| !self.pairs.contains_key(pair));
        let kinds = PurgedRows::default().each().into_iter().map(|(kind, _)| kind);
        let kept = kinds.filter(|kind| self.purged.get(kind).is_none_or(|rows| *rows == 0));
        let pairs = pairs.map(|(state, event)| format!("({state}, {event})"));
        faults.chain(pairs).chain(kept.map(|kind| format!("a purge of {kind}"))).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults that struck:")?;
        for word in fault::WORDS {
            writeln!(f, "  {:>7}  {word}", self.faults.get(word).copied().unwrap_or(0))?;
        }
        writeln!(f, "rows that were purged:")?;
        for (kind, rows) in &self.purged {
            writeln!(f, "  {rows:>7}  {kind}")?;
        }
        writeln!(f, "events that came to the store in each state (* has to):")?;
        write!(f, "  {:14}", "")?;
        State::ALL.into_iter().try_for_each(|state| write!(f, "{:>9} ", state.as_str()))?;
        for event in EVENTS {
            write!(f, "\n  {event:14}")?;
            for state in State::ALL {
                write!(f, "{:>9}", self.pairs.get(&(state, event)).copied().unwrap_or(0))?;
                let expected = EXPECTED.contains(&(state, event));
                f.write_str(if expected { "*" } else { " " })?;
            }
        }
        Ok(())
    }
}

const EVENTS: [&str; 11] = [
    "Ready",
    "StartFailed",
    "SleepAsked",
    "IdleExpired",
    "Leased",
    "Ended",
    "BusyExpired",
    "CancelIgnored",
    "Lost",
    "WakeAsked",
    "DeleteAsked",
];

/// What a run of many seeds has to come across. What is left out needs a race that is rarer than such a run is long
/// (what was planned in one state arrives in another, by one single writer), and `Replace`, which no use case asks for.
const EXPECTED: [(State, &str); 25] = [
    (State::Init, "Ready"),
    (State::Idle, "Ready"),
    (State::Init, "StartFailed"),
    (State::Idle, "StartFailed"),
    (State::Busy, "StartFailed"),
    (State::Slept, "StartFailed"),
    (State::Init, "SleepAsked"),
    (State::Idle, "SleepAsked"),
    (State::Slept, "SleepAsked"),
    (State::Idle, "IdleExpired"),
    (State::Slept, "IdleExpired"),
    (State::Idle, "Leased"),
    (State::Idle, "Ended"),
    (State::Busy, "Ended"),
    (State::Busy, "BusyExpired"),
    (State::Busy, "CancelIgnored"),
    (State::Init, "Lost"),
    (State::Idle, "Lost"),
    (State::Busy, "Lost"),
    (State::Init, "WakeAsked"),
    (State::Slept, "WakeAsked"),
    (State::Init, "DeleteAsked"),
    (State::Idle, "DeleteAsked"),
    (State::Busy, "DeleteAsked"),
    (State::Slept, "DeleteAsked"),
];

/// The name of an event.
pub(super) const fn word(event: &AgentEvent) -> &'static str {
    match event {
        AgentEvent::Ready => "Ready",
        AgentEvent::StartFailed => "StartFailed",
        AgentEvent::SleepAsked => "SleepAsked",
        AgentEvent::IdleExpired => "IdleExpired",
        AgentEvent::Leased(_) => "Leased",
        AgentEvent::Ended => "Ended",
        AgentEvent::BusyExpired => "BusyExpired",
        AgentEvent::CancelIgnored => "CancelIgnored",
        AgentEvent::Lost => "Lost",
        AgentEvent::WakeAsked => "WakeAsked",
        AgentEvent::DeleteAsked => "DeleteAsked",
    }
}

/// The name of an op that brings no event.
pub(super) const fn op_word(op: &AgentOp) -> &'static str {
    match op {
        AgentOp::Create(_) => "Create",
        AgentOp::SetSpec(_) => "SetSpec",
        AgentOp::SetDesired { desired: Desired::Awake, .. } => "Desire(awake)",
        AgentOp::SetDesired { desired: Desired::Asleep, .. } => "Desire(asleep)",
        AgentOp::SetDesired { desired: Desired::Deleted, .. } => "Desire(deleted)",
        AgentOp::Transition { .. } => "Transition",
        AgentOp::Begin { computer: None, .. } => "Begin",
        AgentOp::Begin { computer: Some(_), .. } => "Begin(new computer)",
        AgentOp::Extend { .. } => "Extend",
        AgentOp::Started { .. } => "Started",
        AgentOp::Boot { .. } => "Boot",
        AgentOp::RunEnded { .. } => "RunEnded",
        AgentOp::SetSetup(_) => "SetSetup",
        AgentOp::ForgetSetup => "ForgetSetup",
        AgentOp::SetCondition { .. } => "SetCondition",
        AgentOp::ClearCondition(_) => "ClearCondition",
        AgentOp::KeepAwake(_) => "KeepAwake",
        AgentOp::Accept(_) => "Accept",
        AgentOp::Lease(_) => "Lease",
        AgentOp::End { .. } => "End",
        AgentOp::RequestCancel { .. } => "RequestCancel",
        AgentOp::CancelQueued { .. } => "CancelQueued",
        AgentOp::CancelHeld { .. } => "CancelHeld",
        AgentOp::Settled => "Settled",
        AgentOp::WantLog => "WantLog",
        AgentOp::KeepLog { .. } => "KeepLog",
        AgentOp::SetupBegun { .. } => "SetupBegun",
        AgentOp::ClockMoved(_) => "ClockMoved",
        AgentOp::AddSteps { .. } => "AddSteps",
    }
}
