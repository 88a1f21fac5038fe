//! The whole table, and random lives against a reference that keeps only what may follow what.

use insta::assert_snapshot;
use proptest::prelude::*;
use uuid::Uuid;

use super::{AgentEvent, Decision, Effect, State};
use crate::ids::MessageId;

const MESSAGE: MessageId = MessageId::from_uuid(Uuid::nil());

fn name(event: &AgentEvent) -> String {
    let name = format!("{event:?}");
    name.split('(').next().expect("a split has a first part").to_owned()
}

#[test]
fn every_state_answers_every_event_as_the_table_says() {
    let mut table = String::new();
    for state in State::ALL {
        for event in AgentEvent::all(MESSAGE) {
            let answer = match state.on(&event) {
                Decision::Move { to, effects } => format!("-> {to} {effects:?}"),
                Decision::Ignore => "ignored".to_owned(),
                Decision::Deny(denial) => format!("denied: {denial}"),
            };
            table += format!("{:8}{:15}{answer}\n", state.as_str(), name(&event)).as_str();
        }
    }
    assert_snapshot!(table, @r#"
    init    Ready          -> idle []
    init    StartFailed    -> init [EndRun, BackOff]
    init    SleepAsked     -> slept [EndRun]
    init    IdleExpired    ignored
    init    Leased         denied: its computer is not up yet
    init    Ended          ignored
    init    BusyExpired    ignored
    init    CancelIgnored  ignored
    init    Lost           -> init [EndRun, BackOff]
    init    WakeAsked      ignored
    init    DeleteAsked    -> deleted [EndRun, CancelInbox, Reclaim]
    idle    Ready          ignored
    idle    StartFailed    ignored
    idle    SleepAsked     -> slept [EndRun]
    idle    IdleExpired    -> slept [EndRun]
    idle    Leased         -> busy []
    idle    Ended          ignored
    idle    BusyExpired    ignored
    idle    CancelIgnored  ignored
    idle    Lost           -> init [EndRun, BackOff]
    idle    WakeAsked      ignored
    idle    DeleteAsked    -> deleted [EndRun, CancelInbox, Reclaim]
    busy    Ready          ignored
    busy    StartFailed    ignored
    busy    SleepAsked     denied: it works on a message
    busy    IdleExpired    denied: it works on a message
    busy    Leased         denied: it works on a message
    busy    Ended          -> idle []
    busy    BusyExpired    -> init [EndRun, FailMessage]
    busy    CancelIgnored  -> init [EndRun, CancelMessage]
    busy    Lost           -> init [EndRun, RequeueMessage, BackOff]
    busy    WakeAsked      ignored
    busy    DeleteAsked    -> deleted [EndRun, CancelInbox, Reclaim]
    slept   Ready          denied: it is asleep
    slept   StartFailed    ignored
    slept   SleepAsked     ignored
    slept   IdleExpired    ignored
    slept   Leased         denied: it is asleep
    slept   Ended          ignored
    slept   BusyExpired    ignored
    slept   CancelIgnored  ignored
    slept   Lost           ignored
    slept   WakeAsked      -> init []
    slept   DeleteAsked    -> deleted [EndRun, CancelInbox, Reclaim]
    deleted Ready          denied: it is deleted
    deleted StartFailed    ignored
    deleted SleepAsked     ignored
    deleted IdleExpired    ignored
    deleted Leased         denied: it is deleted
    deleted Ended          ignored
    deleted BusyExpired    ignored
    deleted CancelIgnored  ignored
    deleted Lost           ignored
    deleted WakeAsked      denied: it is deleted
    deleted DeleteAsked    ignored
    "#);
}

/// What a computer, a program and a message can do with each other, told without the transition function.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Reference {
    deleted: bool,
    asleep: bool,
    up: bool,
    holds: bool,
}

impl Reference {
    fn state(self) -> State {
        match self {
            Self { deleted: true, .. } => State::Deleted,
            Self { asleep: true, .. } => State::Slept,
            Self { holds: true, .. } => State::Busy,
            Self { up: true, .. } => State::Idle,
            _ => State::Init,
        }
    }

    fn happens(self, event: &AgentEvent) -> Self {
        let down = Self { up: false, holds: false, ..self };
        let running = self.up && !self.asleep;
        match event {
            _ if self.deleted => self,
            AgentEvent::DeleteAsked => Self { deleted: true, ..down },
            AgentEvent::WakeAsked => Self { asleep: false, ..self },
            AgentEvent::Ready if !self.asleep => Self { up: true, ..self },
            AgentEvent::SleepAsked if !self.holds => Self { asleep: true, ..down },
            AgentEvent::IdleExpired if running && !self.holds => Self { asleep: true, ..down },
            AgentEvent::Leased(_) if running && !self.holds => Self { holds: true, ..self },
            AgentEvent::Ended => Self { holds: false, ..self },
            AgentEvent::BusyExpired | AgentEvent::CancelIgnored if self.holds => down,
            AgentEvent::Lost => down,
            _ => self,
        }
    }
}

fn events() -> impl Strategy<Value = Vec<AgentEvent>> {
    prop::collection::vec(prop::sample::select(AgentEvent::all(MESSAGE).to_vec()), 0..60)
}

proptest! {
    #[test]
    fn a_life_goes_as_the_reference_says(events in events()) {
        let (mut state, mut reference) = (State::Init, Reference::default());
        for event in events {
            let before = state;
            if let Decision::Move { to, effects } = state.on(&event) {
                state = to;
                let had_run = matches!(before, State::Init | State::Idle | State::Busy);
                let keeps_run = to.is_up() || (before == State::Slept && to == State::Init);
                prop_assert_eq!(effects.contains(&Effect::EndRun), !keeps_run, "{:?} on {:?}", event, before);
                prop_assert!(had_run || keeps_run || to == State::Deleted);
                // A message in hand is never forgotten.
                let settled = [Effect::RequeueMessage, Effect::FailMessage, Effect::CancelMessage, Effect::CancelInbox];
                let settles = effects.iter().filter(|effect| settled.contains(effect)).count();
                let leaves_message = before == State::Busy && to != State::Idle;
                prop_assert_eq!(settles, usize::from(leaves_message || to == State::Deleted));
                prop_assert_eq!(effects.contains(&Effect::Reclaim), to == State::Deleted);
            }
            reference = reference.happens(&event);
            prop_assert_eq!(state, reference.state(), "{:?} on {:?}", event, before);
        }
    }

    #[test]
    fn nothing_comes_after_deleted(before in events(), after in events()) {
        let mut state = State::Init;
        for event in before.iter().chain([&AgentEvent::DeleteAsked]).chain(&after) {
            if let Decision::Move { to, .. } = state.on(event) {
                prop_assert!(state != State::Deleted);
                state = to;
            }
        }
        prop_assert_eq!(state, State::Deleted);
    }
}
