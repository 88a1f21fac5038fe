//! What happens to an agent: its owner's wishes, its starts, and the moves of its state machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::draft::{Draft, short};
use super::later;
use crate::agent::{
    Agent, AgentEvent, AgentSpec, ConditionKind, Decision, Denial, Desired, Effect, KeptLog, Run, SetupRun, State,
};
use crate::computer::Computer;
use crate::event::EventKind;
use crate::ids::{Incarnation, ProcessId};
use crate::message::MessageEvent;
use crate::store::commit::{Backoff, Conflict, NewComputer};

/// A shorter idle time, and a wish to keep it awake that is given back, leave what is active now so long to renew itself.
const RENEWAL: SignedDuration = SignedDuration::from_secs(15);

impl Draft {
    pub(super) fn set_spec(&mut self, agent: &mut Agent, spec: &AgentSpec) -> Result<(), Conflict> {
        let before = std::mem::replace(&mut agent.spec, spec.clone());
        agent.generation += 1;
        agent.try_at_once();
        if agent.status.state() == State::Idle && before.idle_timeout != spec.idle_timeout {
            let longer = SignedDuration::from_secs(i64::from(spec.idle_timeout) - i64::from(before.idle_timeout));
            let status = &mut agent.status;
            if let Some(until) = status.awake_until {
                let moved = until.checked_add(longer).unwrap_or(until);
                status.awake_until = Some(moved.max(renewed(until, self.rows.now))).max(status.keep_awake_until);
                status.version += 1;
            }
        }
        self.tell(agent, EventKind::AgentEdited, None, json!({ "generation": agent.generation }));
        self.note_restart(agent);
        if agent.is_given_room(&before) {
            self.desire(agent, Desired::Awake, false)?;
        }
        if spec.resources.disk.is_none() {
            self.clear_condition(agent, ConditionKind::DiskFull);
        }
        Ok(())
    }

    /// Tells which fields of the spec wait for the next start, if any do.
    fn note_restart(&mut self, agent: &mut Agent) {
        let computer = agent.status.computer.and_then(|id| self.rows.computers.get(&id));
        let waiting = computer.map(|computer| agent.waits_for_start(computer)).unwrap_or_default();
        if waiting.is_empty() {
            return self.clear_condition(agent, ConditionKind::RestartNeeded);
        }
        let message = format!("takes effect at the next start: {}", waiting.join(", "));
        self.set_condition(agent, ConditionKind::RestartNeeded, true, "SpecChanged", &message);
    }

    pub(super) fn setup_begun(&mut self, agent: &mut Agent, hash: &str, deadline: Duration) -> Result<(), Conflict> {
        agent.check_run()?;
        let now = self.rows.now;
        let Some(run) = agent.status.run.as_mut().filter(|run| run.setup.is_none()) else { return Ok(()) };
        run.setup = Some(SetupRun { hash: hash.to_owned(), began_at: now });
        run.deadline = later(now, deadline);
        self.status_changed(agent, json!({ "setup": "begun" }));
        Ok(())
    }

    pub(super) fn desire(&mut self, agent: &mut Agent, desired: Desired, retry: bool) -> Result<(), Conflict> {
        if agent.desired == desired && !retry {
            return Ok(());
        }
        if agent.desired == Desired::Deleted || agent.status.state() == State::Deleted && desired != Desired::Deleted {
            return Err(Conflict::NoAgent(agent.id));
        }
        agent.desired = desired;
        agent.generation += 1;
        agent.try_at_once();
        self.tell(agent, EventKind::AgentDesired, None, json!({ "desired": desired, "retry": retry }));
        if desired != Desired::Asleep {
            self.clear_condition(agent, ConditionKind::SleepPending);
        }
        Ok(())
    }

    pub(super) fn keep_awake(&mut self, agent: &mut Agent, time: Option<Duration>) -> Result<(), Conflict> {
        let now = self.rows.now;
        if agent.status.state() == State::Slept {
            return Err(Conflict::Denied { state: State::Slept, denial: Denial::Asleep });
        }
        let status = &mut agent.status;
        let until = time.map(|time| later(now, time));
        // What lies beyond the wish that was there has another reason, and stays.
        let others = status.awake_until.filter(|awake| status.keep_awake_until.is_none_or(|kept| *awake > kept));
        let quiet = later(now, Duration::from_secs(agent.spec.idle_timeout.into()));
        // Nor can it be told what of that time was the wish's alone, and what was renewed within it.
        let renewed = status.awake_until.map(|awake| renewed(awake, now));
        status.keep_awake_until = until;
        status.awake_until = others.max(until).max(Some(quiet)).max(renewed);
        self.status_changed(agent, json!({ "keep_awake_until": until }));
        Ok(())
    }

    pub(super) fn keep_log(&mut self, agent: &mut Agent, incarnation: Incarnation, bytes: u64, told: &str) {
        let (now, status) = (self.rows.now, &mut agent.status);
        status.kept_log = Some(KeptLog { incarnation, at: now, bytes });
        let down = status.conditions.get(ConditionKind::Ready).filter(|ready| !ready.status);
        if let Some(ready) =
            down.filter(|_| status.state() == State::Init && incarnation == status.incarnation).cloned()
        {
            let message = format!("{}. The end of its log:\n{told}", ready.message);
            status.set_condition(ConditionKind::Ready, false, &ready.reason, &message, ready.since);
        }
        self.status_changed(agent, json!({ "log_kept": bytes, "incarnation": incarnation }));
    }

    pub(super) fn begin(
        &mut self,
        agent: &mut Agent,
        operator: ProcessId,
        computer: Option<&NewComputer>,
        key_hash: &str,
        deadline: Duration,
        generation: u64,
    ) -> Result<(), Conflict> {
        let now = self.rows.now;
        let state = agent.status.state();
        let denied = match state {
            State::Init => agent.status.run.as_ref().filter(|run| !run.ending).map(|_| Denial::Up),
            State::Idle | State::Busy => Some(Denial::Up),
            State::Slept => Some(Denial::Asleep),
            State::Deleted => Some(Denial::Deleted),
        };
        if let Some(denial) = denied {
            return Err(Conflict::Denied { state, denial });
        }
        if let Some(new) = computer {
            self.new_computer(agent, new);
        }
        let status = &mut agent.status;
        status.incarnation = status.incarnation.next();
        status.observed_generation = generation;
        status.retry_at = None;
        status.heard_at = None;
        status.run = Some(Run {
            incarnation: status.incarnation,
            began_at: now,
            operator: Some(operator),
            deadline: later(now, deadline),
            start_id: None,
            key_hash: Some(key_hash.to_owned()),
            booted_at: None,
            ready_at: None,
            setup: None,
            step_bytes: 0,
            ending: false,
            settled: false,
            log_wanted: false,
        });
        self.status_changed(agent, json!({ "incarnation": agent.status.incarnation }));
        Ok(())
    }

    fn new_computer(&mut self, agent: &mut Agent, new: &NewComputer) {
        let now = self.rows.now;
        if let Some(old) = agent.status.computer.and_then(|id| self.rows.computers.get_mut(&id)) {
            old.reclaim_since = Some(now);
            old.keep_volume = old.spec.volume == new.spec.volume;
            old.unsettled = agent.status.is_unsettled();
            self.computers.insert(old.id());
        }
        let computer = Computer {
            tenant: agent.tenant.clone(),
            agent: agent.id,
            runtime: new.runtime.clone(),
            spec: new.spec.clone(),
            reclaim_since: None,
            keep_volume: false,
            unsettled: false,
            disk_limit: new.disk_limit,
        };
        agent.status.computer = Some(computer.id());
        self.computers.insert(computer.id());
        self.rows.computers.insert(computer.id(), computer);
    }

    pub(super) fn transition(
        &mut self,
        agent: &mut Agent,
        event: &AgentEvent,
        reason: &str,
        message: &str,
        backoff: Option<Backoff>,
    ) -> Result<(), Conflict> {
        let from = agent.status.state();
        let (to, effects) = match from.on(event) {
            Decision::Ignore => return Ok(()),
            Decision::Deny(denial) => return Err(Conflict::Denied { state: from, denial }),
            Decision::Move { to, effects } => (to, effects),
        };
        let given_up = agent.status.run.as_ref().is_some_and(|run| run.ending);
        if given_up && matches!(event, AgentEvent::StartFailed | AgentEvent::Lost) {
            // Somebody else has found out before, and has said when the next start is tried.
            return Ok(());
        }
        if *event == AgentEvent::Ready {
            // The row's number is still that of a run that was given up, until the next one begins.
            agent.check_run()?;
        }
        if *event == AgentEvent::Ended && agent.status.message.is_some() {
            // A message that is held ends by an op of its own, or nobody would ever end it.
            return Err(Conflict::Denied { state: from, denial: Denial::MessageInHand });
        }
        for effect in effects {
            self.effect(agent, *effect, message, backoff)?;
        }
        self.enter(agent, to, reason, message);
        let summary = json!({ "from": from, "to": to, "reason": short(reason) });
        self.tell(agent, EventKind::AgentState, None, summary);
        if *event == AgentEvent::Ready {
            self.note_restart(agent);
        }
        Ok(())
    }

    fn effect(
        &mut self,
        agent: &mut Agent,
        effect: Effect,
        message: &str,
        backoff: Option<Backoff>,
    ) -> Result<(), Conflict> {
        let now = self.rows.now;
        let reason = || message.to_owned();
        match effect {
            Effect::EndRun => {
                if let Some(run) = &mut agent.status.run {
                    run.ending = true;
                    run.key_hash = None;
                }
                Ok(())
            }
            Effect::BackOff => {
                let status = &mut agent.status;
                let failures = u32::from(backoff.is_some());
                status.restarts = status.restarts.saturating_add(failures);
                status.retry_at = match backoff {
                    None => None,
                    Some(Backoff::After(wait)) => Some(later(now, wait)),
                    Some(Backoff::UntilChanged) => Some(Timestamp::MAX),
                };
                Ok(())
            }
            Effect::RequeueMessage => self.held_message(agent, MessageEvent::Requeue { reason: reason() }),
            Effect::FailMessage => self.held_message(agent, MessageEvent::Fail { reason: reason() }),
            Effect::CancelMessage => self.held_message(agent, MessageEvent::Cancel { reason: reason() }),
            Effect::CancelInbox => self.cancel_inbox(agent, message),
            Effect::Reclaim => {
                let unsettled = agent.status.is_unsettled();
                let computer = agent.status.computer.take();
                if let Some(computer) = computer.and_then(|id| self.rows.computers.get_mut(&id)) {
                    computer.reclaim_since = Some(now);
                    computer.unsettled = unsettled;
                    self.computers.insert(computer.id());
                }
                Ok(())
            }
        }
    }

    fn enter(&mut self, agent: &mut Agent, to: State, reason: &str, message: &str) {
        let now = self.rows.now;
        let quiet = later(now, Duration::from_secs(agent.spec.idle_timeout.into()));
        let status = &mut agent.status;
        if status.state() != to {
            status.since = now;
        }
        if to != State::Busy {
            status.message = None;
            status.busy_until = None;
            status.cancel_by = None;
        }
        match to {
            State::Idle => {
                status.awake_until = status.awake_until.max(status.keep_awake_until).max(Some(quiet));
                status.heard_at = Some(now);
                status.retry_at = None;
                if let Some(run) = &mut status.run {
                    run.ready_at.get_or_insert(now);
                }
                status.set_condition(ConditionKind::Ready, true, "Ready", "its program takes messages", now);
            }
            State::Busy => {}
            State::Init | State::Slept => {
                status.awake_until = None;
                status.set_condition(ConditionKind::Ready, false, reason, message, now);
            }
            State::Deleted => {
                status.awake_until = None;
                // The computer's run is ended from the reclaim list.
                status.run = None;
                status.heard_at = None;
                status.kept_log = None;
            }
        }
        if matches!(to, State::Slept | State::Deleted) {
            status.keep_awake_until = None;
            status.restarts = 0;
            status.retry_at = None;
            status.conditions.clear(ConditionKind::SleepPending);
        }
        status.state_moved(to);
    }
}

/// What is left of a time without sleep, so that what is active can renew itself.
fn renewed(until: Timestamp, now: Timestamp) -> Timestamp {
    until.min(now.checked_add(RENEWAL).unwrap_or(until))
}

impl Agent {
    /// What waits to be tried again is tried at once: its owner has changed something that it may have waited for.
    fn try_at_once(&mut self) {
        if self.status.retry_at.take().is_some() {
            self.status.version += 1;
        }
    }

    /// That its present run is not over, nor given up.
    pub(super) fn check_run(&self) -> Result<(), Conflict> {
        let present = self.status.incarnation;
        match &self.status.run {
            Some(run) if !run.ending => Ok(()),
            _ => Err(Conflict::StaleIncarnation { wanted: present, found: present }),
        }
    }
}
