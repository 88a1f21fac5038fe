use jiff::Timestamp;

use super::*;
use crate::agent::{Inbox, Resources, Status};
use crate::ids::{AgentId, AgentName, Revision, TenantName, UserName};

const MI: u64 = 1 << 20;

fn agent(disk: Option<Bytes>) -> Agent {
    Agent {
        id: AgentId::from_uuid(uuid::Uuid::nil()),
        tenant: TenantName::default(),
        name: AgentName::new("a").expect("a name"),
        owner: UserName::new("ada").expect("a name"),
        spec: AgentSpec { resources: Resources { disk, ..Resources::default() }, ..AgentSpec::default() },
        desired: Desired::Awake,
        status: Status::new(Timestamp::UNIX_EPOCH),
        generation: 1,
        revision: Revision::default(),
        created_at: Timestamp::UNIX_EPOCH,
        inbox: Inbox::default(),
    }
}

/// What a program that measured so many bytes changes, in a word; done, where it changes something.
fn told(agent: &mut Agent, measured: Measured) -> Option<&'static str> {
    match agent.on_measured(agent.spec.resources.disk, measured, Timestamp::UNIX_EPOCH + LEAST)? {
        AgentOp::SetCondition { kind, status, reason, message } => {
            agent.status.set_condition(kind, status, &reason, &message, Timestamp::UNIX_EPOCH);
            Some("full")
        }
        AgentOp::ClearCondition(kind) => {
            agent.status.conditions.clear(kind);
            Some("room")
        }
        other => panic!("{other:?}"),
    }
}

fn message(agent: &Agent) -> &str {
    &agent.status.conditions.get(ConditionKind::DiskFull).expect("full").message
}

#[test]
fn it_is_full_above_its_limit_once_and_has_room_again_a_little_below_it() {
    let mut agent = agent(Some(Bytes::new(100 * MI)));
    let steps = [
        (100 * MI, None),
        (100 * MI + 1, Some("full")),
        (300 * MI, None),
        (100 * MI, None),
        (95 * MI + 1, None),
        (95 * MI, Some("room")),
        (95 * MI, None),
        (100 * MI, None),
        (u64::MAX, Some("full")),
        (0, Some("room")),
    ];
    for (bytes, expected) in steps {
        assert_eq!(told(&mut agent, Measured::Bytes(bytes)), expected, "{bytes}");
    }
}

#[test]
fn the_condition_names_what_it_holds_what_it_may_hold_and_the_ways_out() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    told(&mut agent, Measured::Bytes(80 * MI + MI / 2));
    let said = message(&agent);
    assert!(said.contains("64Mi") && said.contains("80.5Mi"), "{said}");
    assert!(said.contains("raworc agent exec") && said.contains("resources.disk"), "{said}");
    assert_eq!(binary(5 << 30), "5.0Gi");
}

#[test]
fn another_limit_that_is_still_too_low_is_named_and_one_that_is_high_enough_gives_room() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    assert_eq!(told(&mut agent, Measured::Bytes(200 * MI)), Some("full"));
    agent.spec.resources.disk = Some(Bytes::new(128 * MI));
    assert_eq!(told(&mut agent, Measured::Bytes(200 * MI)), Some("full"));
    assert!(message(&agent).contains("128Mi"), "{}", message(&agent));
    agent.spec.resources.disk = Some(Bytes::new(1 << 30));
    assert_eq!(told(&mut agent, Measured::Bytes(200 * MI)), Some("room"));
}

#[test]
fn one_that_has_not_looked_changes_nothing_and_one_that_never_looks_leaves_nobody_waiting() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    assert_eq!(told(&mut agent, Measured::NotYet), None);
    assert_eq!(told(&mut agent, Measured::Never), None);
    told(&mut agent, Measured::Bytes(65 * MI));
    assert_eq!(told(&mut agent, Measured::NotYet), None);
    assert_eq!(told(&mut agent, Measured::Never), Some("room"));
}

#[test]
fn a_program_that_says_now_this_and_now_that_is_believed_once_in_a_while() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    told(&mut agent, Measured::Bytes(65 * MI));
    let since = Timestamp::UNIX_EPOCH;
    for measured in [Measured::Bytes(0), Measured::Never] {
        let at = |milliseconds| {
            let now = since + SignedDuration::from_millis(milliseconds);
            agent.on_measured(agent.spec.resources.disk, measured, now).is_some()
        };
        assert_eq!([at(0), at(9999), at(10_000)], [false, false, true]);
        assert!(at(-1), "the clock was set back, and nobody knows how old it is");
    }
    assert!(agent.on_measured(None, Measured::NotYet, since).is_some(), "nobody says it is full again");
}

#[test]
fn without_a_limit_nothing_is_full() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    told(&mut agent, Measured::Bytes(65 * MI));
    agent.spec.resources.disk = None;
    assert_eq!(told(&mut agent, Measured::NotYet), Some("room"));
    assert_eq!(told(&mut agent, Measured::Bytes(u64::MAX)), None);
}

#[test]
fn messages_that_wait_for_room_are_no_work() {
    let mut agent = agent(Some(Bytes::new(64 * MI)));
    assert!(!agent.has_work());
    agent.inbox.queued = 2;
    assert!(agent.has_work());
    told(&mut agent, Measured::Bytes(65 * MI));
    assert!(!agent.has_work());
}
