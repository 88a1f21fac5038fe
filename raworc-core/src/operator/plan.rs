//! What is to be done for an agent: a pure function from what is known to one step.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::settings::OperatorSettings;
use crate::agent::{Agent, AgentEvent, ClockMove, ConditionKind, Desired, HEARTBEAT_LIMIT, IDLE_TIMEOUT, Run, State};
use crate::computer::Computer;
use crate::ids::{ProcessId, VolumeId};
use crate::runtime::{ComputerSpec, LimitsReached, PROGRAM_UNFIT, Phase};
use crate::store::{AgentOp, Backoff, Check};

/// How often a start that another operator carries out is looked at: the end of that operator triggers nothing.
const BEGUN_ELSEWHERE: SignedDuration = SignedDuration::from_secs(2);

/// A server that is there for so long has written down what is active.
const RENEWAL: SignedDuration = SignedDuration::from_secs(15);

/// What is known of an agent when a step is planned.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The agent's row.
    pub agent: &'a Agent,
    /// Its computer's row.
    pub computer: Option<&'a Computer>,
    /// What the engine says of its computer.
    pub observed: Observation,
    /// Which limits its computer has run into, as far as the engine tells.
    pub reached: LimitsReached,
    /// Whether its engine limits the disk of a volume.
    pub disk_limit: bool,
    /// What this operator is doing with its engine, or has in hand for it.
    pub work: Work,
    /// This operator.
    pub operator: ProcessId,
    /// The operators of its runtime that live.
    pub operators: &'a [ProcessId],
    /// Since when a server could have received its heartbeats.
    pub listening: Option<Timestamp>,
    /// How the store's clock went ahead since its times moved along.
    pub moved: &'a [ClockMove],
    /// The store's time.
    pub now: Timestamp,
}

/// What the engine says of a computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It was not asked, or did not answer.
    Unknown,
    /// The computer is not there.
    Absent,
    /// It is there.
    Present(Phase),
}

/// What this operator does for an agent at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    None,
    /// It began the present run and has its key, and has not asked the engine yet.
    Begun,
    /// The engine is at work.
    Engine,
}

/// One step, and when to look again if it is none.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Nothing is to be done before this time, if ever.
    Wait(Option<Timestamp>),
    /// Commit these changes of the agent.
    Commit {
        /// What must hold beside the version of the status.
        when: Vec<Check>,
        /// What changes.
        ops: Vec<AgentOp>,
        /// Whether the agent's quota is given back with it.
        release: bool,
    },
    /// Cancel a part of the messages that wait, since they are too many to be cancelled with its deletion at once.
    Drain,
    /// Begin the next incarnation.
    Begin {
        /// On which computer.
        on: Place,
        /// Whether the agent sleeps and is woken by it.
        wake: bool,
    },
    /// Ask the engine to start the run that was begun.
    Start,
    /// Ask the engine to end the run.
    Stop,
}

/// The computer of a start.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// The one that it has.
    Same,
    /// Another one on the same volume.
    Fresh(VolumeId),
    /// Its first one.
    First,
}

/// Messages that may be cancelled in one commit: each is written again, while every other writer waits.
pub(super) const DRAINED: u64 = 256;

/// The same in bytes of their text.
pub(super) const DRAINED_BYTES: u64 = 1 << 20;

/// What is said of an agent that is deleted, and of its messages.
pub(super) const DELETED: &str = "deleted by its owner";

/// The next step for an agent.
#[must_use]
pub fn plan(view: &View<'_>, settings: &OperatorSettings) -> Plan {
    let agent = view.agent;
    let state = agent.status.state();
    if agent.desired == Desired::Deleted && state != State::Deleted {
        let inbox = &agent.inbox;
        let is_long = inbox.queued > DRAINED || (inbox.queued > 1 && inbox.queued_bytes > DRAINED_BYTES);
        return if is_long { Plan::Drain } else { deleted(agent) };
    }
    if agent.times_after(view.moved, view.now).is_some() {
        return commit(vec![AgentOp::ClockMoved(view.moved.to_vec())]);
    }
    let plan = match state {
        State::Init => plan_init(view, settings),
        State::Idle => plan_idle(view, settings),
        State::Busy => plan_busy(view, settings),
        State::Slept => plan_slept(view),
        State::Deleted => Plan::Wait(None),
    };
    match (plan, limit_reached(view)) {
        (Plan::Wait(_), Some(told)) => commit(vec![told]),
        (Plan::Commit { when, mut ops, release }, Some(told)) => {
            ops.push(told);
            Plan::Commit { when, ops, release }
        }
        (plan, _) => plan,
    }
}

/// Its end, with all that waits for it.
pub(super) fn deleted(agent: &Agent) -> Plan {
    let mut plan = happened(AgentEvent::DeleteAsked, "Deleted", DELETED.into(), None);
    if let Plan::Commit { release, .. } = &mut plan {
        *release = agent.status.computer.is_none();
    }
    plan
}

/// Tells of limits that the computer has run into, unless that is told already.
fn limit_reached(view: &View<'_>) -> Option<AgentOp> {
    let memory = view.reached.memory.then_some(
        "memory ran out and a process was ended; give it more (resources.memory) or have it do less at a time",
    );
    let pids = view.reached.pids.then_some(
        "there were too many processes and one more could not be made; end what it left running or give it more \
         (resources.pids)",
    );
    let reason = if memory.is_some() { "OutOfMemory" } else { "TooManyProcesses" };
    let message = memory.into_iter().chain(pids).collect::<Vec<_>>().join("; ");
    let there = view.agent.status.conditions.get(ConditionKind::LimitReached);
    let is_told = there.is_some_and(|there| there.reason == reason && there.message == message);
    (!message.is_empty() && !is_told).then(|| AgentOp::SetCondition {
        kind: ConditionKind::LimitReached,
        status: true,
        reason: reason.into(),
        message,
    })
}

fn plan_init(view: &View<'_>, settings: &OperatorSettings) -> Plan {
    let agent = view.agent;
    if agent.desired == Desired::Asleep {
        return sleep_asked();
    }
    let Some(run) = &agent.status.run else {
        let changed = agent.generation != agent.status.observed_generation;
        return match agent.status.retry_at {
            Some(at) if at == Timestamp::MAX && !changed => Plan::Wait(None),
            Some(at) if at > view.now && !changed && !beyond(at, view, settings) => Plan::Wait(Some(at)),
            Some(_) | None => Plan::Begin { on: place(view), wake: false },
        };
    };
    if run.ending {
        return stop(view);
    }
    if view.now >= run.deadline {
        let what = if run.booted_at.is_some() { "its program was not ready" } else { "its program did not report" };
        return failed(view, settings, "StartTimeout", format!("{what} in time"));
    }
    if let Some(plan) = adopt(view, run) {
        return plan;
    }
    match (view.work, &run.start_id) {
        (Work::Begun, None) => return Plan::Start,
        (Work::None, None) if run.booted_at.is_none() => {
            if begun_elsewhere(view, run) {
                let again = view.now.checked_add(BEGUN_ELSEWHERE).unwrap_or(run.deadline);
                return Plan::Wait(Some(again.min(run.deadline)));
            }
            let why = "the operator that began this start is gone".into();
            return happened(AgentEvent::Lost, "OperatorGone", why, None);
        }
        _ => {}
    }
    match gone(view, run) {
        Some((reason, message)) => failed(view, settings, reason, message),
        None => Plan::Wait(Some(run.deadline)),
    }
}

fn plan_idle(view: &View<'_>, settings: &OperatorSettings) -> Plan {
    let agent = view.agent;
    if let Some(plan) = plan_lost(view, settings) {
        return plan;
    }
    if agent.desired == Desired::Asleep {
        return sleep_asked();
    }
    let quiet_at = quiet_at(view);
    if quiet_at.is_some_and(|at| at <= view.now) {
        return Plan::Commit {
            when: vec![Check::NothingToDo, Check::Quiet, Check::Desired(Desired::Awake)],
            ops: vec![
                AgentOp::Transition {
                    event: AgentEvent::IdleExpired,
                    reason: IDLE_TIMEOUT.into(),
                    message: format!("nothing happened for {} s", agent.spec.idle_timeout),
                    backoff: None,
                },
                AgentOp::SetDesired { desired: Desired::Asleep, retry: false },
            ],
            release: false,
        };
    }
    Plan::Wait(earliest([quiet_at, heartbeat_limit(view)]))
}

fn plan_busy(view: &View<'_>, settings: &OperatorSettings) -> Plan {
    let agent = view.agent;
    let status = &agent.status;
    if let Some(plan) = plan_lost(view, settings) {
        return plan;
    }
    let passed = |at: Option<Timestamp>| at.is_some_and(|at| at <= view.now);
    if passed(status.cancel_by) {
        let why = "the cancel was not obeyed in time, so the computer is started anew".into();
        return happened(AgentEvent::CancelIgnored, "CancelIgnored", why, None);
    }
    if passed(busy_limit(view)) {
        let why = format!("the message took longer than {} s (busy_timeout)", agent.spec.busy_timeout);
        return happened(AgentEvent::BusyExpired, "BusyTimeout", why, None);
    }
    let pending = status.conditions.holds(ConditionKind::SleepPending);
    if agent.desired == Desired::Asleep && !pending {
        return commit(vec![AgentOp::SetCondition {
            kind: ConditionKind::SleepPending,
            status: true,
            reason: "MessageInHand".into(),
            message: "goes to sleep as soon as its message has ended".into(),
        }]);
    }
    if agent.desired == Desired::Awake && pending {
        return commit(vec![AgentOp::ClearCondition(ConditionKind::SleepPending)]);
    }
    Plan::Wait(earliest([status.cancel_by, busy_limit(view), heartbeat_limit(view)]))
}

fn plan_slept(view: &View<'_>) -> Plan {
    // A start that the engine finished after its time may run though nothing here knows of it any more.
    let running = matches!(view.observed, Observation::Present(Phase::Running(_) | Phase::Stopping(_)));
    if view.agent.status.run.is_some() || running {
        return stop(view);
    }
    match view.agent.desired {
        Desired::Awake => Plan::Begin { on: place(view), wake: true },
        Desired::Asleep | Desired::Deleted => Plan::Wait(None),
    }
}

/// Whether another operator, which lives, has the key of this start and carries it out, whoever the agent belongs to now.
fn begun_elsewhere(view: &View<'_>, run: &Run) -> bool {
    run.operator.is_some_and(|other| other != view.operator && view.operators.contains(&other))
}

/// Whether a wait is longer than any that is ever begun: the clock was set back since.
fn beyond(at: Timestamp, view: &View<'_>, settings: &OperatorSettings) -> bool {
    let longest = SignedDuration::try_from(settings.backoff_limit).unwrap_or(SignedDuration::MAX);
    at.duration_since(view.now) > longest
}

/// When it may be put to sleep by time. A server that was not there all the while has to have the time to tell what is
/// active, and where none is there, nobody knows.
fn quiet_at(view: &View<'_>) -> Option<Timestamp> {
    let agent = view.agent;
    let until = agent.status.awake_until.filter(|_| agent.spec.idle_timeout > 0 && !agent.has_work())?;
    let listening = view.listening?;
    let idle = SignedDuration::from_secs(agent.spec.idle_timeout.into());
    let all_the_while = listening <= until.saturating_sub(idle).unwrap_or(Timestamp::MIN);
    let renewed = listening.saturating_add(RENEWAL).unwrap_or(Timestamp::MAX);
    Some(if all_the_while { until } else { until.max(renewed) })
}

/// What is to be done for a program that should run and does not, or has not been heard for too long.
fn plan_lost(view: &View<'_>, settings: &OperatorSettings) -> Option<Plan> {
    let status = &view.agent.status;
    let run = status.run.as_ref()?;
    let lost = |reason: &str, message: String| {
        Some(died(AgentEvent::Lost, reason, message, backoff(status.restarts, settings)))
    };
    if let Some(plan) = adopt(view, run) {
        return Some(plan);
    }
    if let Some((reason, message)) = gone(view, run) {
        return lost(reason, message);
    }
    if heartbeat_limit(view).is_some_and(|limit| limit <= view.now) {
        let message = format!("its program was not heard for {} s", HEARTBEAT_LIMIT.as_secs());
        let mut plan = lost("HeartbeatLost", message);
        if let Some(Plan::Commit { when, .. }) = &mut plan {
            // Heartbeats do not change the version of the status.
            when.push(Check::SilentSince(status.heard_at));
        }
        return plan;
    }
    None
}

/// A program that booted before its start could be recorded is recorded now.
fn adopt(view: &View<'_>, run: &Run) -> Option<Plan> {
    match &view.observed {
        Observation::Present(Phase::Running(start))
            if run.start_id.is_none() && run.booted_at.is_some() && view.work == Work::None =>
        {
            Some(commit(vec![AgentOp::Started { start_id: start.clone() }]))
        }
        _ => None,
    }
}

/// Why a run that the engine had started is over, if it is: in a word, and in words.
fn gone(view: &View<'_>, run: &Run) -> Option<(&'static str, String)> {
    const EXITED: &str = "ProgramExited";
    // A program that booted was started, even if whoever did that died before it could record the start.
    if run.start_id.is_none() && (run.booted_at.is_none() || view.work != Work::None) {
        return None;
    }
    match &view.observed {
        Observation::Unknown => None,
        Observation::Absent => Some((EXITED, "its computer is gone".into())),
        Observation::Present(Phase::Stopped { reason: None }) => Some((EXITED, "its program ended".into())),
        Observation::Present(Phase::Stopped { reason: Some(why) }) => {
            Some((EXITED, format!("its program ended: {why}")))
        }
        Observation::Present(Phase::Unfit { reason }) => Some((PROGRAM_UNFIT, reason.clone())),
        Observation::Present(Phase::Running(start) | Phase::Stopping(start)) => {
            let other = run.start_id.as_ref().is_some_and(|started| started != start);
            other.then(|| (EXITED, "its computer was started by somebody else".into()))
        }
    }
}

/// When a silent program counts as lost: the time runs only while a server could have heard it.
fn heartbeat_limit(view: &View<'_>) -> Option<Timestamp> {
    let heard = view.agent.status.heard_at?.max(view.listening?);
    Some(heard + SignedDuration::try_from(HEARTBEAT_LIMIT).unwrap_or_default())
}

/// When a message has taken too long. Where no server was there for a while, its program may have ended it and has to have the
/// time to say so, or may have been lost, which is to be found first.
fn busy_limit(view: &View<'_>) -> Option<Timestamp> {
    let until = view.agent.status.busy_until?;
    let limit = SignedDuration::try_from(HEARTBEAT_LIMIT).unwrap_or_default();
    Some(until.max(view.listening?.saturating_add(limit).unwrap_or(Timestamp::MAX)))
}

fn stop(view: &View<'_>) -> Plan {
    match view.work {
        Work::Engine => Plan::Wait(None),
        Work::None | Work::Begun => Plan::Stop,
    }
}

fn place(view: &View<'_>) -> Place {
    match view.computer {
        None => Place::First,
        Some(computer) => {
            let ComputerSpec { id, volume, .. } = computer.spec;
            let is_same = view.agent.wanted(id, volume, view.disk_limit) == computer.spec;
            if is_same { Place::Same } else { Place::Fresh(volume) }
        }
    }
}

fn failed(view: &View<'_>, settings: &OperatorSettings, reason: &str, message: String) -> Plan {
    died(AgentEvent::StartFailed, reason, message, backoff(view.agent.status.restarts, settings))
}

/// Its log may tell why.
fn died(event: AgentEvent, reason: &str, message: String, backoff: Backoff) -> Plan {
    let mut plan = happened(event, reason, message, Some(backoff));
    if let Plan::Commit { ops, .. } = &mut plan {
        ops.push(AgentOp::WantLog);
    }
    plan
}

/// The first failure is tried again at once; then the wait doubles.
pub(super) fn backoff(restarts: u32, settings: &OperatorSettings) -> Backoff {
    let wait = match restarts {
        0 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 1).min(16)),
    };
    Backoff::After(wait.min(settings.backoff_limit))
}

fn happened(event: AgentEvent, reason: &str, message: String, backoff: Option<Backoff>) -> Plan {
    commit(vec![AgentOp::Transition { event, reason: reason.into(), message, backoff }])
}

/// A message that was accepted meanwhile takes the ask back.
fn sleep_asked() -> Plan {
    let mut plan = happened(AgentEvent::SleepAsked, "SleepAsked", "put to sleep by request".into(), None);
    if let Plan::Commit { when, .. } = &mut plan {
        when.push(Check::Desired(Desired::Asleep));
    }
    plan
}

const fn commit(ops: Vec<AgentOp>) -> Plan {
    Plan::Commit { when: Vec::new(), ops, release: false }
}

fn earliest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
