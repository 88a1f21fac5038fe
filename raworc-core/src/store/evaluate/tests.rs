//! What commits mean, on rows alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Evaluated, Rows, later};
use crate::agent::{
    Agent, AgentEvent, AgentSpec, ConditionKind, Denial, Desired, Network, Resources, SetupRecord, State,
};
use crate::ids::{
    AgentId, AgentName, CommitId, ComputerId, Incarnation, MessageId, ProcessId, Revision, RuntimeName, TenantName,
    UserName, VolumeId,
};
use crate::message::{Message, MessageState, Part, Role};
use crate::quantity::Bytes;
use crate::runtime::ComputerSpec;
use crate::step::{NewStep, StepKind};
use crate::store::{
    AgentChange, AgentOp, Backoff, Change, Check, Commit, Conflict, Ending, IdempotencyKey, IdempotencyRecord,
    NewAgent, NewComputer, NewMessage, QuotaDelta, QuotaKind, Touch,
};

const ID: AgentId = AgentId::from_uuid(Uuid::from_u128(1));

/// All rows that there are, and the head of the log.
struct World {
    rows: Rows,
    head: Revision,
    commits: u128,
}

fn message_id(n: u128) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(1000 + n))
}

fn happens(event: AgentEvent) -> AgentOp {
    AgentOp::Transition { event, reason: "Test".into(), message: "as the test asks".into(), backoff: None }
}

fn fails(event: AgentEvent, backoff: Backoff) -> AgentOp {
    AgentOp::Transition { event, reason: "Test".into(), message: "broke".into(), backoff: Some(backoff) }
}

fn accept(n: u128) -> AgentOp {
    let parts = vec![Part::text(n.to_string())];
    AgentOp::Accept(NewMessage {
        id: message_id(n),
        role: Role::User,
        author: "user:ada".into(),
        parts,
        traceparent: None,
    })
}

fn wish(desired: Desired) -> AgentOp {
    AgentOp::SetDesired { desired, retry: false }
}

fn begin(computer: Option<u128>) -> AgentOp {
    let spec = |id| ComputerSpec {
        id: ComputerId::from_uuid(Uuid::from_u128(id)),
        volume: VolumeId::from_uuid(Uuid::from_u128(7)),
        image: None,
        resources: Resources::default(),
        network: Network::default(),
        root: false,
    };
    let runtime = RuntimeName::new("metal").expect("valid");
    AgentOp::Begin {
        operator: ProcessId::from_uuid(Uuid::from_u128(8)),
        computer: computer.map(|id| NewComputer { runtime, spec: spec(id), disk_limit: false }),
        key_hash: "key".into(),
        deadline: Duration::from_secs(120),
        generation: 1,
    }
}

fn steps() -> AgentOp {
    let step = NewStep { kind: StepKind::Log, tool: None, text: "step".into() };
    AgentOp::AddSteps { message: None, attempt: 0, steps: vec![step] }
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        Self { rows: Rows::at(now), head: Revision(0), commits: 0 }
    }

    /// An agent that waits for messages, on computer 1.
    fn idle() -> Self {
        let mut world = Self::new();
        let create = AgentOp::Create(Box::new(NewAgent {
            tenant: TenantName::default(),
            name: AgentName::new("worker").expect("valid"),
            owner: UserName::new("ada").expect("valid"),
            spec: AgentSpec::default(),
        }));
        world.change(Check::Absent, vec![create]).expect("it is not there");
        world.run(vec![begin(Some(1)), AgentOp::Boot { key_hash: "key".into() }, happens(AgentEvent::Ready)]);
        world
    }

    fn commit(&mut self, commit: &Commit) -> Result<Evaluated, Conflict> {
        let mut evaluated = commit.evaluate(self.rows.clone())?;
        evaluated.seal(self.head);
        for event in &evaluated.events {
            assert!(event.summary.to_string().len() < 1024, "{event:?}");
        }
        self.head.0 += evaluated.events.len() as u64;
        self.rows.agents.extend(evaluated.agents.iter().map(|agent| (agent.id, agent.clone())));
        self.rows.messages.extend(evaluated.messages.iter().map(|message| (message.id, message.clone())));
        self.rows.computers.extend(evaluated.computers.iter().map(|computer| (computer.id(), computer.clone())));
        self.rows.computers.retain(|id, _| !evaluated.removed_computers.contains(id));
        self.rows.usage.extend(evaluated.usage.iter().cloned());
        self.rows.answer = evaluated.answer.clone().map(|(_, answer)| answer).or(self.rows.answer.take());
        Ok(evaluated)
    }

    fn change(&mut self, when: Check, ops: Vec<AgentOp>) -> Result<Evaluated, Conflict> {
        self.commits += 1;
        let id = CommitId::from_uuid(Uuid::from_u128(self.commits));
        self.commit(&Commit::of(id, AgentChange { agent: ID, when: vec![when], ops }))
    }

    fn run(&mut self, ops: Vec<AgentOp>) -> Evaluated {
        self.change(Check::Alive, ops).expect("it goes through")
    }

    fn refused(&mut self, ops: Vec<AgentOp>) -> Conflict {
        self.change(Check::Alive, ops).expect_err("it is refused")
    }

    fn agent(&self) -> &Agent {
        &self.rows.agents[&ID]
    }

    fn message(&self, n: u128) -> &Message {
        &self.rows.messages[&message_id(n)]
    }

    fn after(&mut self, seconds: i64) {
        self.rows.now += SignedDuration::from_secs(seconds);
    }

    fn awake_for(&self) -> i64 {
        self.agent().status.awake_until.expect("it has its time").duration_since(self.rows.now).as_secs()
    }
}

#[test]
fn every_check_refuses_by_its_own_conflict() {
    let mut world = World::idle();
    world.run(vec![accept(1)]);
    let (agent, version) = (world.agent().clone(), world.agent().status.version);
    let until = agent.status.awake_until.expect("it is idle");
    let cases = [
        (Check::Absent, Conflict::NameTaken(agent.name.clone())),
        (Check::Generation(9), Conflict::Generation { wanted: 9, found: 1 }),
        (Check::Status(9999), Conflict::Status { wanted: 9999, found: version }),
        (
            Check::Incarnation(Incarnation(0)),
            Conflict::StaleIncarnation { wanted: Incarnation(0), found: Incarnation(1) },
        ),
        (Check::Desired(Desired::Asleep), Conflict::Desired { found: Desired::Awake }),
        (Check::NothingToDo, Conflict::InboxNotEmpty(1)),
        (Check::InboxBelow(1), Conflict::InboxFull(1)),
        (Check::InboxBytesBelow(1), Conflict::InboxBytesFull(1)),
        (Check::Quiet, Conflict::NotQuiet(until)),
        (Check::SilentSince(None), Conflict::Heard(world.rows.now)),
        (Check::SilentSince(Some(world.rows.now - SignedDuration::from_micros(1))), Conflict::Heard(world.rows.now)),
        (Check::Holds(message_id(1)), Conflict::NotHeld(message_id(1))),
        (Check::Without(ConditionKind::Ready), Conflict::Condition(ConditionKind::Ready)),
    ];
    for (check, conflict) in cases {
        assert_eq!(world.change(check, vec![accept(2)]).expect_err("it does not hold"), conflict);
    }
    let heard = world.rows.now;
    world.after(301);
    for check in [
        Check::Generation(1),
        Check::Status(version),
        Check::InboxBelow(2),
        Check::InboxBytesBelow(2),
        Check::Quiet,
        Check::SilentSince(Some(heard)),
        Check::Without(ConditionKind::DiskFull),
    ] {
        world.change(check, vec![]).expect("it holds");
    }
    let change = AgentChange { agent: ID, when: vec![], ops: vec![] };
    let bare = Commit::of(CommitId::from_uuid(Uuid::nil()), change);
    assert_eq!(world.commit(&bare).expect_err("no precondition"), Conflict::Unconditional(ID));
    world.run(vec![wish(Desired::Deleted)]);
    assert_eq!(world.refused(vec![]), Conflict::NoAgent(ID));
}

#[test]
fn a_message_is_tried_three_times_and_then_fails_with_the_reason() {
    let mut world = World::idle();
    world.run(vec![accept(1)]);
    for attempt in 1..=3 {
        world.run(vec![AgentOp::Lease(message_id(1))]);
        assert_eq!((world.message(1).state, world.message(1).attempt), (MessageState::Leased, attempt));
        world.run(vec![fails(AgentEvent::Lost, Backoff::After(Duration::from_secs(5)))]);
        assert_eq!(world.agent().status.restarts, attempt);
        assert_eq!(world.agent().status.retry_at, Some(later(world.rows.now, Duration::from_secs(5))));
        assert_eq!(world.agent().inbox.queued, u64::from(attempt < 3));
        world.run(vec![AgentOp::RunEnded { incarnation: Incarnation(attempt.into()) }]);
        world.run(vec![begin(None), happens(AgentEvent::Ready)]);
    }
    assert_eq!((world.message(1).state, world.message(1).reason.as_deref()), (MessageState::Failed, Some("broke")));
}

#[test]
fn a_message_whose_cancel_was_asked_for_is_not_queued_again() {
    let mut world = World::idle();
    world.run(vec![accept(1)]);
    world.run(vec![AgentOp::Lease(message_id(1))]);
    let ask = || AgentOp::RequestCancel { message: message_id(1), obey: Duration::from_secs(10) };
    world.run(vec![ask()]);
    let asked = world.head;
    world.run(vec![ask()]);
    assert_eq!(world.head, asked, "asking again tells nothing new");
    world.run(vec![happens(AgentEvent::Lost)]);
    assert_eq!((world.message(1).state, world.agent().inbox.queued), (MessageState::Cancelled, 0));
}

#[test]
fn deleting_cancels_the_inbox_and_reclaims_the_computer_and_is_final() {
    let mut world = World::idle();
    world.run(vec![accept(1), accept(2)]);
    world.run(vec![AgentOp::Lease(message_id(1))]);
    world.run(vec![wish(Desired::Deleted)]);
    let taken_back = world.change(Check::Desired(Desired::Deleted), vec![wish(Desired::Awake)]);
    assert_eq!(taken_back.expect_err("deleting is final"), Conflict::NoAgent(ID));
    let late = world.change(Check::Desired(Desired::Deleted), vec![accept(3)]);
    assert_eq!(late.expect_err("nothing is accepted"), Conflict::NoAgent(ID));
    world.change(Check::Desired(Desired::Deleted), vec![happens(AgentEvent::DeleteAsked)]).expect("it goes through");
    assert_eq!([world.message(1).state, world.message(2).state], [MessageState::Cancelled; 2]);
    let agent = world.agent();
    assert_eq!((agent.status.state(), agent.inbox.queued, agent.due_at()), (State::Deleted, 0, None));
    let late = |op| vec![op, AgentOp::ClearCondition(ConditionKind::Ready)];
    let unproved = AgentOp::SetCondition {
        kind: ConditionKind::LimitsEnforced,
        status: false,
        reason: "NotEnforced".into(),
        message: "what an engine did comes late".into(),
    };
    let told = world.change(Check::Incarnation(Incarnation(1)), late(unproved)).expect("it changes nothing");
    assert!(told.events.is_empty(), "nothing is told of what is deleted");
    let (id, computer) = world.rows.computers.iter().next().expect("its computer");
    assert_eq!((computer.reclaim_since, computer.keep_volume), (Some(world.rows.now), false));
    let reclaimed = Commit::new(CommitId::from_uuid(Uuid::max()), vec![Change::Reclaimed(*id)]);
    world.commit(&reclaimed).expect("it is on the list");
    assert!(matches!(world.commit(&reclaimed), Err(Conflict::NotReclaimable(_))));
}

#[test]
fn the_text_that_is_queued_is_counted_as_messages_come_and_go() {
    let mut world = World::idle();
    let bytes = |world: &World| (world.agent().inbox.queued, world.agent().inbox.queued_bytes);
    world.run(vec![accept(1), accept(22), accept(333)]);
    assert_eq!(bytes(&world), (3, 6));
    world.run(vec![AgentOp::Lease(message_id(1))]);
    assert_eq!(bytes(&world), (2, 5));
    world.run(vec![happens(AgentEvent::Lost)]);
    assert_eq!(bytes(&world), (3, 6), "what it held is queued again");
    world.run(vec![AgentOp::RequestCancel { message: message_id(22), obey: Duration::ZERO }]);
    assert_eq!(bytes(&world), (2, 4));
    world.rows.agents.get_mut(&ID).expect("there").inbox.queued_bytes = 0;
    world.run(vec![AgentOp::RequestCancel { message: message_id(333), obey: Duration::ZERO }]);
    assert_eq!(bytes(&world), (1, 0), "a row from before bytes were counted");
}

#[test]
fn a_commit_that_deletes_an_agent_does_not_tell_the_inbox_that_ends_with_it() {
    let mut world = World::idle();
    world.run(vec![accept(1), accept(2)]);
    world.run(vec![wish(Desired::Deleted)]);
    let gone = world.change(Check::Desired(Desired::Deleted), vec![happens(AgentEvent::DeleteAsked)]);
    let gone = gone.expect("it goes through");
    assert_eq!(gone.messages.iter().filter(|message| message.state == MessageState::Cancelled).count(), 2);
    assert_eq!(gone.committed.messages, [], "nobody asked for them");
    assert_eq!(gone.committed.agents.len(), 1);
}

#[test]
fn another_computer_takes_over_the_volume_of_the_one_before() {
    let mut world = World::idle();
    world.run(vec![happens(AgentEvent::Lost), AgentOp::RunEnded { incarnation: Incarnation(1) }, begin(Some(2))]);
    let mut rows: Vec<_> = world.rows.computers.values().collect();
    rows.sort_by_key(|row| row.id());
    assert_eq!(rows.iter().map(|row| row.keep_volume).collect::<Vec<_>>(), [true, false]);
    assert_eq!(rows.iter().map(|row| row.reclaim_since.is_some()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_run_that_was_given_up_reports_nothing_more() {
    let mut world = World::idle();
    world.run(vec![happens(AgentEvent::Lost)]);
    let over = Conflict::StaleIncarnation { wanted: Incarnation(1), found: Incarnation(1) };
    assert_eq!(world.refused(vec![happens(AgentEvent::Ready)]), over);
    assert_eq!(world.refused(vec![steps()]), over);
    let setup = SetupRecord { computer: ComputerId::from_uuid(Uuid::from_u128(1)), hash: "h".into(), failure: None };
    assert_eq!(world.refused(vec![AgentOp::SetSetup(setup)]), over);
    assert_eq!(world.refused(vec![AgentOp::Boot { key_hash: "key".into() }]), Conflict::BootKey);
    let before = world.agent().clone();
    world.run(vec![fails(AgentEvent::StartFailed, Backoff::After(Duration::from_secs(5)))]);
    assert_eq!(world.agent().status, before.status, "a failure counts once");
}

#[test]
fn a_start_begins_only_where_none_is_under_way() {
    let mut world = World::idle();
    let denied = |state, denial| Conflict::Denied { state, denial };
    assert_eq!(world.refused(vec![begin(None)]), denied(State::Idle, Denial::Up));
    world.run(vec![wish(Desired::Asleep), happens(AgentEvent::SleepAsked)]);
    assert_eq!(world.refused(vec![begin(None)]), denied(State::Slept, Denial::Asleep));
    world.run(vec![wish(Desired::Awake), happens(AgentEvent::WakeAsked), begin(None)]);
    assert_eq!(world.refused(vec![begin(None)]), denied(State::Init, Denial::Up));
}

#[test]
fn a_message_is_taken_up_and_ends_by_ops_of_its_own_alone() {
    let mut world = World::idle();
    world.run(vec![accept(1)]);
    assert_eq!(world.refused(vec![happens(AgentEvent::Leased(message_id(1)))]), Conflict::NotHeld(message_id(1)));
    world.run(vec![AgentOp::Lease(message_id(1))]);
    let denied = Conflict::Denied { state: State::Busy, denial: Denial::MessageInHand };
    assert_eq!(world.refused(vec![happens(AgentEvent::Ended)]), denied);
    world.run(vec![AgentOp::End { message: message_id(1), ending: Ending::Done, reply: None }]);
    assert_eq!((world.message(1).state, world.agent().status.state()), (MessageState::Done, State::Idle));
}

#[test]
fn a_change_by_the_owner_ends_the_wait_for_a_retry() {
    for op in [AgentOp::SetSpec(Box::default()), AgentOp::SetDesired { desired: Desired::Awake, retry: true }] {
        let mut world = World::idle();
        world.run(vec![happens(AgentEvent::Lost), AgentOp::RunEnded { incarnation: Incarnation(1) }, begin(None)]);
        world.run(vec![fails(AgentEvent::StartFailed, Backoff::UntilChanged)]);
        world.run(vec![AgentOp::RunEnded { incarnation: Incarnation(2) }]);
        assert_eq!(world.agent().due_at(), Some(Timestamp::MAX));
        world.run(vec![accept(1)]);
        assert_eq!(world.agent().due_at(), Some(Timestamp::MAX), "a message changes nothing about that");
        world.run(vec![op]);
        assert!(world.agent().due_at() <= Some(world.rows.now));
    }
}

#[test]
fn a_wish_that_is_not_met_is_due() {
    let mut world = World::idle();
    world.run(vec![wish(Desired::Asleep)]);
    assert!(world.agent().due_at() <= Some(world.rows.now));
    let ended = AgentOp::RunEnded { incarnation: Incarnation(1) };
    world.run(vec![happens(AgentEvent::SleepAsked), ended]);
    assert_eq!(world.agent().due_at(), None);
    world.run(vec![accept(1)]);
    assert!(world.agent().due_at() <= Some(world.rows.now));
}

#[test]
fn a_message_takes_an_asked_sleep_back() {
    let mut world = World::idle();
    let pending = AgentOp::SetCondition {
        kind: ConditionKind::SleepPending,
        status: true,
        reason: "MessageInHand".into(),
        message: String::new(),
    };
    world.run(vec![accept(1)]);
    world.run(vec![AgentOp::Lease(message_id(1)), wish(Desired::Asleep), pending]);
    world.run(vec![accept(2)]);
    assert_eq!(world.agent().desired, Desired::Awake);
    assert!(!world.agent().status.conditions.holds(ConditionKind::SleepPending));
}

#[test]
fn keeping_awake_and_another_idle_time_move_the_time_of_sleep() {
    let mut world = World::idle();
    let spec = |idle_timeout| AgentOp::SetSpec(Box::new(AgentSpec { idle_timeout, ..AgentSpec::default() }));
    world.run(vec![AgentOp::KeepAwake(Some(Duration::from_secs(3600)))]);
    assert_eq!(world.awake_for(), 3600);
    world.run(vec![AgentOp::KeepAwake(Some(Duration::from_secs(1000)))]);
    assert_eq!(world.awake_for(), 1000);
    world.run(vec![AgentOp::KeepAwake(None)]);
    assert_eq!(world.awake_for(), 300);
    world.run(vec![spec(900)]);
    assert_eq!(world.awake_for(), 900);
    world.run(vec![spec(2)]);
    assert_eq!(world.awake_for(), 15, "what is active has time to renew itself");
    for shorter in [None, Some(Duration::from_secs(5))] {
        world.run(vec![AgentOp::KeepAwake(Some(Duration::from_secs(3600)))]);
        world.run(vec![AgentOp::KeepAwake(shorter)]);
        assert_eq!(world.awake_for(), 15, "as what renewed itself while the wish held");
    }
    world.run(vec![wish(Desired::Asleep), happens(AgentEvent::SleepAsked)]);
    let asleep = Conflict::Denied { state: State::Slept, denial: Denial::Asleep };
    assert_eq!(world.refused(vec![AgentOp::KeepAwake(Some(Duration::from_secs(60)))]), asleep);
}

#[test]
fn an_answer_given_again_is_the_first_one_and_writes_nothing() {
    let mut world = World::idle();
    let request = |commit: u128, hash: &str, op| Commit {
        idempotency: Some(IdempotencyRecord {
            key: IdempotencyKey { principal: "user:ada".into(), key: "k".into() },
            request: hash.into(),
            ttl: Duration::from_secs(60),
        }),
        ..Commit::of(
            CommitId::from_uuid(Uuid::from_u128(commit)),
            AgentChange { agent: ID, when: vec![Check::Alive], ops: vec![op] },
        )
    };
    let first = world.commit(&request(500, "a", accept(1))).expect("it goes through").committed;
    world.run(vec![accept(2)]);
    let again = world.commit(&request(501, "a", accept(3))).expect("it is answered");
    assert!(again.committed.replayed && again.events.is_empty() && again.agents.is_empty());
    assert_eq!((again.committed.revision, again.committed.messages), (first.revision, first.messages));
    let other = world.commit(&request(502, "b", accept(3)));
    assert_eq!(other.expect_err("another request"), Conflict::IdempotencyMismatch);
}

#[test]
fn a_quota_ends_at_its_limit_and_giving_back_is_never_refused() {
    let mut world = World::idle();
    let tenant = TenantName::default();
    let key = (tenant.clone(), QuotaKind::Agents);
    for (delta, used) in [(2, Some(2)), (2, None), (1, Some(3)), (1, None), (-1, Some(2)), (-9, Some(0))] {
        let quota = vec![QuotaDelta { tenant: tenant.clone(), kind: QuotaKind::Agents, delta, limit: Some(3) }];
        let commit = Commit { quota, ..Commit::new(CommitId::from_uuid(Uuid::nil()), vec![]) };
        let result = world.commit(&commit);
        assert_eq!(result.ok().map(|_| world.rows.usage[&key]), used, "{delta}");
    }
}

#[test]
fn a_summary_stays_short_whatever_a_reason_holds() {
    let mut world = World::idle();
    for text in ["\0".repeat(5000), "\"".repeat(5000), "\u{10FFFF}".repeat(5000)] {
        // The size of each summary is checked where commits are evaluated.
        world.run(vec![AgentOp::SetCondition {
            kind: ConditionKind::DiskFull,
            status: true,
            reason: text.clone(),
            message: text,
        }]);
    }
}

#[test]
fn activity_and_a_sleep_by_time_at_once_are_decided_one_way_whatever_comes_first() {
    let sleep = |world: &mut World| {
        let version = world.agent().status.version;
        let op = AgentOp::Transition {
            event: AgentEvent::IdleExpired,
            reason: "IdleTimeout".into(),
            message: "quiet".into(),
            backoff: None,
        };
        world.commits += 1;
        let id = CommitId::from_uuid(Uuid::from_u128(world.commits));
        let when = vec![Check::Status(version), Check::NothingToDo, Check::Quiet];
        world.commit(&Commit::of(id, AgentChange { agent: ID, when, ops: vec![op] }))
    };
    let touch = |world: &mut World| {
        let now = world.rows.now;
        let agent = world.rows.agents.get_mut(&ID).expect("there");
        let incarnation = agent.status.incarnation;
        let touch = Touch { agent: ID, incarnation, heartbeat: false, awake_for: Some(Duration::from_secs(25)) };
        touch.apply(agent, now)
    };
    // Around the moment in which the time is over, in both orders.
    for offset in -2_i64..=2 {
        for touch_first in [true, false] {
            let mut world = World::idle();
            world.after(world.awake_for() + offset);
            let (touched, slept) = if touch_first {
                let touched = touch(&mut world);
                (touched, sleep(&mut world))
            } else {
                let slept = sleep(&mut world);
                (touch(&mut world), slept)
            };
            let asleep = world.agent().status.state() == State::Slept;
            assert_eq!(slept.is_ok(), asleep);
            assert_ne!(touched, asleep, "{offset} {touch_first}: who was told that it is awake stays awake");
            assert_eq!(asleep, offset >= 0 && !touch_first, "{offset} {touch_first}");
        }
    }
}

fn full() -> AgentOp {
    AgentOp::SetCondition {
        kind: ConditionKind::DiskFull,
        status: true,
        reason: "VolumeFull".into(),
        message: "its volume is full".into(),
    }
}

fn disk(bytes: Option<u64>) -> AgentOp {
    let resources = Resources { disk: bytes.map(Bytes::new), ..Resources::default() };
    AgentOp::SetSpec(Box::new(AgentSpec { resources, ..AgentSpec::default() }))
}

#[test]
fn messages_that_wait_for_room_keep_nobody_from_sleep_by_time() {
    let mut world = World::idle();
    world.run(vec![disk(Some(100)), accept(1)]);
    assert_eq!(world.change(Check::NothingToDo, vec![]).expect_err("it has work"), Conflict::InboxNotEmpty(1));
    assert_eq!(world.agent().due_at(), world.agent().status.heartbeat_due());
    world.run(vec![full()]);
    world.change(Check::NothingToDo, vec![]).expect("it waits for room");
    world.change(Check::Without(ConditionKind::DiskFull), vec![]).expect_err("it is full");
    world.after(290);
    world.rows.agents.get_mut(&ID).expect("there").status.heard_at = Some(world.rows.now);
    assert_eq!(world.agent().due_at(), world.agent().status.awake_until, "it is put to sleep in time");
}

#[test]
fn only_more_room_wakes_what_fell_asleep_by_time_with_messages_that_wait_for_it() {
    let slept = |reason: &str, queued: bool| {
        let mut world = World::idle();
        let asleep = AgentOp::Transition {
            event: AgentEvent::IdleExpired,
            reason: reason.into(),
            message: "asleep".into(),
            backoff: None,
        };
        let messages = if queued { vec![accept(1)] } else { Vec::new() };
        let ops = [vec![disk(Some(100)), full()], messages, vec![asleep, wish(Desired::Asleep)]].concat();
        world.run(ops);
        world
    };
    for (reason, queued, bytes, desired, stays) in [
        ("IdleTimeout", true, Some(101), Desired::Awake, true),
        ("IdleTimeout", true, None, Desired::Awake, false),
        ("IdleTimeout", true, Some(100), Desired::Asleep, true),
        ("IdleTimeout", true, Some(99), Desired::Asleep, true),
        ("IdleTimeout", false, Some(101), Desired::Asleep, true),
        ("IdleTimeout", false, None, Desired::Asleep, false),
        ("SleepAsked", true, Some(101), Desired::Asleep, true),
    ] {
        let mut world = slept(reason, queued);
        world.run(vec![disk(bytes)]);
        let agent = world.agent();
        let is_full = agent.status.conditions.holds(ConditionKind::DiskFull);
        assert_eq!((agent.desired, is_full), (desired, stays), "{reason}, {queued}, {bytes:?}");
    }
}
