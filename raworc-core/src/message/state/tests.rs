//! The whole table, and random lives against a reference.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::{MAX_ATTEMPTS, MessageDecision, MessageEvent, MessageState};
use crate::ids::Incarnation;

fn all() -> [MessageEvent; 7] {
    let reason = || "why".to_owned();
    [
        MessageEvent::Lease(Incarnation(1)),
        MessageEvent::Park,
        MessageEvent::Resume(Incarnation(1)),
        MessageEvent::Requeue { reason: reason() },
        MessageEvent::Finish,
        MessageEvent::Fail { reason: reason() },
        MessageEvent::Cancel { reason: reason() },
    ]
}

fn name(event: &MessageEvent) -> &'static str {
    match event {
        MessageEvent::Lease(_) => "lease",
        MessageEvent::Park => "park",
        MessageEvent::Resume(_) => "resume",
        MessageEvent::Requeue { .. } => "requeue",
        MessageEvent::Finish => "finish",
        MessageEvent::Fail { .. } => "fail",
        MessageEvent::Cancel { .. } => "cancel",
    }
}

#[test]
fn every_state_answers_every_event_as_the_table_says() {
    let mut table = String::new();
    let word = |decision| match decision {
        MessageDecision::Move(to) => format!("-> {to}"),
        MessageDecision::Ignore => "ignored".to_owned(),
        MessageDecision::Deny => "denied".to_owned(),
    };
    for state in MessageState::ALL {
        for event in all() {
            let (first, last) = (word(state.on(&event, 1)), word(state.on(&event, MAX_ATTEMPTS)));
            let last = if first == last { String::new() } else { format!(", at the last attempt {last}") };
            table += format!("{:10}{:9}{first}{last}\n", state.as_str(), name(&event)).as_str();
        }
    }
    assert_snapshot!(table, @r#"
    queued    lease    -> leased
    queued    park     denied
    queued    resume   denied
    queued    requeue  ignored
    queued    finish   denied
    queued    fail     -> failed
    queued    cancel   -> cancelled
    leased    lease    denied
    leased    park     -> parked
    leased    resume   denied
    leased    requeue  -> queued, at the last attempt -> failed
    leased    finish   -> done
    leased    fail     -> failed
    leased    cancel   -> cancelled
    parked    lease    denied
    parked    park     ignored
    parked    resume   -> leased
    parked    requeue  -> queued, at the last attempt -> failed
    parked    finish   denied
    parked    fail     -> failed
    parked    cancel   -> cancelled
    done      lease    denied
    done      park     denied
    done      resume   denied
    done      requeue  ignored
    done      finish   denied
    done      fail     denied
    done      cancel   denied
    failed    lease    denied
    failed    park     denied
    failed    resume   denied
    failed    requeue  ignored
    failed    finish   denied
    failed    fail     denied
    failed    cancel   denied
    cancelled lease    denied
    cancelled park     denied
    cancelled resume   denied
    cancelled requeue  ignored
    cancelled finish   denied
    cancelled fail     denied
    cancelled cancel   denied
    "#);
}

#[test]
fn an_attempt_before_the_last_is_queued_again() {
    let requeue = MessageEvent::Requeue { reason: String::new() };
    let after: Vec<_> = (0..=4).map(|attempt| MessageState::Leased.on(&requeue, attempt)).collect();
    let (again, over) = (MessageDecision::Move(MessageState::Queued), MessageDecision::Move(MessageState::Failed));
    assert_eq!(after, [again, again, again, over, over]);
}

proptest! {
    #[test]
    fn a_message_ends_once_after_three_attempts_at_most(
        events in prop::collection::vec(prop::sample::select(all().to_vec()), 0..60)
    ) {
        let (mut state, mut attempt) = (MessageState::Queued, 0);
        let (mut held, mut parked, mut ended) = (false, false, None);
        for event in events {
            let decision = state.on(&event, attempt);
            // What may happen, told by who has the message.
            let open = ended.is_none();
            let may = open && match event {
                MessageEvent::Lease(_) => !held && !parked,
                MessageEvent::Park | MessageEvent::Finish => held,
                MessageEvent::Resume(_) => parked,
                MessageEvent::Requeue { .. } => held || parked,
                MessageEvent::Fail { .. } | MessageEvent::Cancel { .. } => true,
            };
            prop_assert_eq!(matches!(decision, MessageDecision::Move(_)), may, "{:?} on {}", event, state);
            let MessageDecision::Move(to) = decision else { continue };
            if let MessageEvent::Lease(_) = event {
                attempt += 1;
            }
            held = to == MessageState::Leased;
            parked = to == MessageState::Parked;
            ended = to.is_ended().then_some(to);
            state = to;
        }
        prop_assert!(attempt <= MAX_ATTEMPTS);
        prop_assert_eq!(ended.is_some(), state.is_ended());
    }
}
