//! Agents: states along the table, one event each, one incarnation after another, and no sleep while somebody is there.

use std::time::Duration;

use tokio::time::Instant;

use super::{Checker, Found, Passed, event_of, must};
use crate::agent::{Agent, ConditionKind, Desired, State};
use crate::event::{Event, EventKind};
use crate::message::MessageState;
use crate::simulator::world::{World, short};
use crate::store::AgentOp;

/// The table of the design: from, on, to.
const TABLE: [(State, &str, State); 19] = [
    (State::Init, "Ready", State::Idle),
    (State::Init, "StartFailed", State::Init),
    (State::Init, "Lost", State::Init),
    (State::Init, "Replace", State::Init),
    (State::Init, "SleepAsked", State::Slept),
    (State::Init, "DeleteAsked", State::Deleted),
    (State::Idle, "Leased", State::Busy),
    (State::Idle, "SleepAsked", State::Slept),
    (State::Idle, "IdleExpired", State::Slept),
    (State::Idle, "Lost", State::Init),
    (State::Idle, "Replace", State::Init),
    (State::Idle, "DeleteAsked", State::Deleted),
    (State::Busy, "Ended", State::Idle),
    (State::Busy, "BusyExpired", State::Init),
    (State::Busy, "CancelIgnored", State::Init),
    (State::Busy, "Lost", State::Init),
    (State::Busy, "DeleteAsked", State::Deleted),
    (State::Slept, "WakeAsked", State::Init),
    (State::Slept, "DeleteAsked", State::Deleted),
];

/// A server that was well for so long has renewed what it holds.
const RENEWED: Duration = Duration::from_secs(40);

fn is_full(agent: &Agent) -> bool {
    agent.status.conditions.holds(ConditionKind::DiskFull)
}

fn state(event: &Event, key: &str) -> Option<State> {
    event.summary.get(key)?.as_str()?.parse().ok()
}

impl Checker {
    pub(super) fn agent(&self, world: &World, passed: &Passed<'_>, after: &Agent) -> Found {
        let name = short(after.id);
        let before = passed.before.get(&after.id);
        let events: Vec<_> = passed.events.iter().filter(|event| event.agent == Some(after.id)).collect();
        let of = |kind| events.iter().filter(move |event| event.kind == kind);
        must(of(EventKind::AgentCreated).count() == usize::from(before.is_none()), 2, || {
            format!("agent {name} was made and that is not told once")
        })?;
        let last = events.last().map(|event| event.revision).or(before.map(|before| before.revision));
        must(Some(after.revision) == last, 2, || {
            format!("agent {name} is at {} and its event at {last:?}", after.revision)
        })?;
        let Some(before) = before else { return self.shape(after) };
        if events.is_empty() {
            return must(before == after, 2, || format!("agent {name} changed and nothing tells of it"));
        }
        must(before.status.state() != State::Deleted, 6, || format!("agent {name} changed after it was deleted"))?;
        must(before.generation <= after.generation && before.status.version <= after.status.version, 2, || {
            format!("agent {name} went back to an older version")
        })?;
        self.moves(passed, before, after, &events)?;
        self.begins(before, after)?;
        self.sleeps(world, passed, before)?;
        self.waits_for_room(world, passed, before, after)?;
        self.shape(after)
    }

    fn moves(&self, passed: &Passed<'_>, before: &Agent, after: &Agent, events: &[&Event]) -> Found {
        let name = short(after.id);
        let mut at = before.status.state();
        let mut causes = passed.ops(after.id).filter_map(event_of);
        for event in events.iter().filter(|event| event.kind == EventKind::AgentState) {
            let (Some(from), Some(to)) = (state(event, "from"), state(event, "to")) else { continue };
            must(from == at, 2, || format!("agent {name} is {at} and the log says {from}"))?;
            let caused = causes.any(|on| TABLE.contains(&(from, on, to)));
            must(caused, 2, || format!("agent {name} went from {from} to {to}, which is not in the table"))?;
            at = to;
        }
        must(at == after.status.state(), 2, || {
            format!("agent {name} is {} and the log says {at}", after.status.state())
        })
    }

    /// A start begins where the one before is over, and has the next number.
    fn begins(&self, before: &Agent, after: &Agent) -> Found {
        let name = short(after.id);
        let (old, new) = (before.status.incarnation, after.status.incarnation);
        if old == new {
            return Ok(());
        }
        must(new == old.next(), 1, || format!("incarnation {new} of agent {name} follows {old}"))?;
        must(before.status.run.is_none(), 1, || format!("incarnation {new} of {name} begins and {old} is not over"))
    }

    /// What is so of every row.
    fn shape(&self, agent: &Agent) -> Found {
        let name = short(agent.id);
        let state = agent.status.state();
        let mine = || self.messages.values().filter(|message| message.agent == agent.id);
        let held: Vec<_> = mine().filter(|message| message.state == MessageState::Leased).collect();
        let expected = usize::from(state == State::Busy);
        must(held.len() == expected, 3, || format!("agent {name} is {state} and holds {} messages", held.len()))?;
        must(held.first().map(|message| message.id) == agent.status.message, 3, || {
            format!("agent {name} holds another message than its row says")
        })?;
        must(held.iter().all(|message| message.incarnation == Some(agent.status.incarnation)), 4, || {
            format!("agent {name} holds a message by an incarnation that is over")
        })?;
        let queued = mine().filter(|message| message.state == MessageState::Queued).count() as u64;
        must(queued == agent.inbox.queued, 3, || {
            format!("{queued} messages are queued for {name} and its row says {}", agent.inbox.queued)
        })?;
        let open = agent.status.run.as_ref().is_some_and(|run| !run.ending);
        must(!(open && matches!(state, State::Slept | State::Deleted)), 4, || {
            format!("agent {name} is {state} and its run goes on")
        })?;
        must(open || !state.is_up(), 2, || format!("agent {name} is {state} without a run"))
    }

    /// What a program does counts while its incarnation is the present one, and not given up.
    pub(super) fn fence(&mut self, passed: &Passed<'_>) -> Found {
        let Some((computer, incarnation)) = passed.program else { return Ok(()) };
        for before in passed.before.values() {
            let name = short(before.id);
            let serves = passed.ops(before.id).any(|op| {
                matches!(
                    op,
                    AgentOp::Boot { .. }
                        | AgentOp::Lease(_)
                        | AgentOp::End { .. }
                        | AgentOp::AddSteps { .. }
                        | AgentOp::Transition { .. }
                )
            });
            if !serves {
                continue;
            }
            must(before.status.incarnation == incarnation && before.status.computer == Some(computer), 4, || {
                format!(
                    "incarnation {incarnation} did something for {name}, whose present one is {}",
                    before.status.incarnation
                )
            })?;
            let ending = before.status.run.as_ref().is_none_or(|run| run.ending);
            must(!ending, 4, || format!("incarnation {incarnation} of {name} did something though it was given up"))?;
            if passed.ops(before.id).any(|op| matches!(op, AgentOp::Boot { .. })) {
                must(self.booted.insert((before.id, incarnation)), 4, || {
                    format!("incarnation {incarnation} of {name} booted twice")
                })?;
            }
        }
        Ok(())
    }

    /// Nothing is taken up while the volume is full, and nothing but a call wakes what fell asleep so.
    fn waits_for_room(&self, world: &World, passed: &Passed<'_>, before: &Agent, after: &Agent) -> Found {
        let name = short(after.id);
        if is_full(after) && !is_full(before) {
            world.counts().fault("volume full", 1);
        }
        let leases = passed.ops(after.id).any(|op| matches!(op, AgentOp::Lease(_)));
        must(!(leases && is_full(before)), 3, || format!("agent {name} takes a message up and its volume is full"))?;
        let woken = before.desired == Desired::Asleep && after.desired == Desired::Awake;
        let asked = |op: &AgentOp| {
            matches!(op, AgentOp::Accept(_) | AgentOp::SetSpec(_) | AgentOp::SetDesired { desired: Desired::Awake, .. })
        };
        let by_call = passed.commit.audit.is_some() && passed.ops(after.id).any(asked);
        must(!woken || by_call, 5, || format!("agent {name} is woken and nobody asked for it"))
    }

    /// No agent sleeps by time that has something to do, or that somebody holds awake.
    fn sleeps(&self, world: &World, passed: &Passed<'_>, before: &Agent) -> Found {
        if !passed.ops(before.id).any(|op| event_of(op) == Some("IdleExpired")) {
            return Ok(());
        }
        let name = short(before.id);
        let now = passed.committed.now;
        let status = &before.status;
        let full = is_full(before);
        must(before.inbox.queued == 0 || full, 5, || format!("agent {name} sleeps by time and messages wait"))?;
        if before.inbox.queued > 0 {
            world.counts().fault("slept with messages that wait for room", 1);
        }
        must(before.spec.idle_timeout > 0, 5, || format!("agent {name} sleeps by time and has none"))?;
        let until = status.awake_until.max(status.keep_awake_until);
        must(until.is_none_or(|until| until <= now), 5, || format!("agent {name} sleeps at {now} before {until:?}"))?;
        let since = Instant::now() - RENEWED.min(Instant::now() - world.begun);
        let jumped = world.disturbance().store_jumped.is_some_and(|at| at >= since);
        let held = self.holds.values().find(|hold| {
            let serves =
                !hold.dead.is_cancelled() && world.processes[hold.process].healthy_since(since.max(hold.since));
            hold.agent == before.id && hold.incarnation == status.incarnation && serves && !jumped
        });
        must(held.is_none(), 5, || format!("agent {name} sleeps by time and is held awake: {held:?}"))
    }
}
