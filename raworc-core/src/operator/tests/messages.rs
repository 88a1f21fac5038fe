//! What becomes of messages.

use super::*;
use crate::control::SleepMode;
use crate::ids::Incarnation;
use crate::message::Role;
use crate::operator::plan::{DRAINED, DRAINED_BYTES};
use crate::store::MessageQuery;

#[tokio::test(start_paused = true)]
async fn twenty_messages_sent_to_a_busy_agent_are_all_answered_in_order() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.send(&agent, "work 5").await;
    let mut last = None;
    for n in 0..20 {
        last = Some(world.send(&agent, &format!("m{n}")).await);
    }
    world.ended(&agent, &last.expect("a message")).await;
    let all = world.control.system().store().messages(&MessageQuery::of(agent.id)).await.expect("a store").items;
    let replies: Vec<_> = all.iter().filter(|m| m.role == Role::Agent).map(Message::text).collect();
    let wanted: Vec<_> = std::iter::once("worked".to_owned()).chain((0..20).map(|n| format!("m{n}"))).collect();
    assert_eq!(replies, wanted);
    assert!(all.iter().all(|message| message.state == MessageState::Done));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_to_one_agent_are_all_answered_in_order() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let mut last = None;
    for n in 0..1000 {
        last = Some(world.send(&agent, &n.to_string()).await);
    }
    world.ended(&agent, &last.expect("a message")).await;
    let mut query = MessageQuery::of(agent.id);
    let mut replies = Vec::new();
    loop {
        let page = world.control.system().store().messages(&query).await.expect("a store");
        query.after = page.items.last().map(|message| message.seq);
        replies.extend(page.items.iter().filter(|m| m.role == Role::Agent).map(Message::text));
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(replies, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_whole_inbox_is_cancelled_in_pieces_before_its_agent_is_deleted() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let large = "x".repeat(usize::try_from(DRAINED_BYTES / 2).expect("bytes"));
    let held = world.send(&agent, "work 3600").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    for n in 0..2 * DRAINED {
        world.send(&agent, if n < 8 { &large } else { "hello" }).await;
    }
    let before = world.store.commits();
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    // Two of the large ones at a time, and the rest.
    let pieces = world.store.commits() - before;
    assert!((6..20).contains(&pieces), "{pieces} commits");
    let mut query = MessageQuery::of(agent.id);
    loop {
        let page = world.control.system().store().messages(&query).await.expect("a store");
        for message in &page.items {
            let reason = message.reason.as_deref();
            assert_eq!(
                (message.state, reason),
                (MessageState::Cancelled, Some("deleted by its owner")),
                "{}",
                message.seq
            );
        }
        query.after = page.items.last().map(|message| message.seq);
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(query.after, Some(1 + 2 * DRAINED), "with the one in hand, {}", held.id);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_message_goes_on_while_the_store_is_away() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let message = world.send(&agent, "work 30").await;
    let wait = |limit| world.control.wait_for_message(&world.call, &world.tenant, &agent.name, message.id, limit);
    world.store.fail_reads(1);
    assert!(wait(Duration::from_secs(600)).await.is_err(), "a store that is away from the beginning is told of");
    let away = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.store.fail_reads(8);
    };
    let (ended, ()) = tokio::join!(wait(Duration::from_secs(600)), away);
    assert_eq!(ended.expect("it is waited for").state, MessageState::Done);
    assert_eq!(world.store.reads_to_fail(), 0, "it was away when the message ended");
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_program_dies_is_taken_up_again_by_the_next_incarnation() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let message = world.send(&agent, "crash-once").await;
    let ended = world.ended(&agent, &message).await;
    assert_eq!((ended.state, ended.attempt), (MessageState::Done, 2));
    assert_eq!(ended.incarnation, Some(Incarnation(2)));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_its_program_three_times_fails_with_the_reason_and_the_next_one_is_done() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let deadly = world.send(&agent, "crash").await;
    let next = world.send(&agent, "hello").await;
    let ended = world.ended(&agent, &deadly).await;
    assert_eq!((ended.state, ended.attempt), (MessageState::Failed, 3));
    assert!(ended.reason.expect("a reason").contains("ended"));
    assert_eq!(world.ended(&agent, &next).await.state, MessageState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_obeyed_and_one_that_is_not_ends_the_program() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let obeying = world.send(&agent, "work 600").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.cancel(&world.call, &world.tenant, &agent.name).await.expect("asked");
    assert_eq!(world.ended(&agent, &obeying).await.state, MessageState::Cancelled);
    assert_eq!(world.agent(&agent).await.status.incarnation, Incarnation(1));

    let deaf = world.send(&agent, "hang").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.cancel(&world.call, &world.tenant, &agent.name).await.expect("asked");
    assert_eq!(world.ended(&agent, &deaf).await.state, MessageState::Cancelled);
    let again = world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert_eq!(again.status.incarnation, Incarnation(2));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_takes_longer_than_it_may_fails_and_the_agent_goes_on() {
    let world = World::new().await;
    let spec = AgentSpec { busy_timeout: 30, ..AgentSpec::default() };
    let agent = world.idle("a", spec).await;
    let slow = world.send(&agent, "hang").await;
    let ended = world.ended(&agent, &slow).await;
    assert_eq!(ended.state, MessageState::Failed);
    assert!(ended.reason.expect("a reason").contains("busy_timeout"));
    world.done(&agent, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_was_asked_for_waits_for_the_message_in_hand_and_leaves_the_queue() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let held = world.send(&agent, "work 30").await;
    let queued = world.send(&agent, "later").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&agent, "pending", |a| a.status.conditions.holds(ConditionKind::SleepPending)).await;
    let slept = world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
    assert_eq!(world.ended(&agent, &held).await.state, MessageState::Done);
    assert_eq!(slept.inbox.queued, 1);
    assert!(!slept.status.conditions.holds(ConditionKind::SleepPending));
    world.done(&agent, "wake up").await;
    assert_eq!(world.ended(&agent, &queued).await.state, MessageState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_must_not_wake_does_not_take_a_sleep_back() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.send(&agent, "work 30").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
    let mut look = crate::control::Errand::look(false, Duration::from_secs(1));
    let looked = world.control.rouse(&world.call, &world.tenant, &agent.name, &mut look).await;
    assert!(looked.is_ok(), "{looked:?}");
    world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
    let refused = world.control.rouse(&world.call, &world.tenant, &agent.name, &mut look).await;
    assert!(matches!(refused, Err(Error::AgentAsleep(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_nothing_that_is_sent_again_cancels_nothing_that_came_since() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let call = world.call.clone().with_idempotency_key("k");
    world.control.cancel(&call, &world.tenant, &agent.name).await.expect("nothing to cancel");
    let message = world.send(&agent, "work 30").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.cancel(&call, &world.tenant, &agent.name).await.expect("the same answer");
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_message_after_the_ask_takes_the_sleep_back() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.send(&agent, "work 30").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&agent, "pending", |a| a.status.conditions.holds(ConditionKind::SleepPending)).await;
    world.done(&agent, "stay").await;
    let now = world.agent(&agent).await;
    assert_eq!((now.status.state(), now.status.incarnation), (State::Idle, Incarnation(1)));
    assert!(!now.status.conditions.holds(ConditionKind::SleepPending));
}

#[tokio::test(start_paused = true)]
async fn what_an_older_incarnation_says_is_refused() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let old = Principal::Agent {
        tenant: agent.tenant.clone(),
        agent: agent.id,
        computer: computer(&agent),
        incarnation: agent.status.incarnation,
    };
    world.engine.crash(computer(&agent), "killed");
    world.until(&agent, "started again", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 2).await;
    let refused = world.control.heartbeat(&Call::by(old), None).await;
    assert!(matches!(refused, Err(Error::StaleIncarnation { present: Incarnation(2) })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_falls_silent_is_started_again_and_its_message_done() {
    let silent_once =
        SimulatedAgent::new(|message| if message.attempt == 1 { Act::FallSilent } else { Act::Answer("back".into()) });
    let world = World::with(silent_once, Profile::Container).await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let message = world.send(&agent, "hello").await;
    let ended = world.ended(&agent, &message).await;
    assert_eq!((ended.state, ended.attempt), (MessageState::Done, 2));
    assert_eq!(ready(&world.agent(&agent).await).reason, "Ready");
}
