//! Volumes that hold more than they may: what waits, what sleeps, and what ends the wait.

use futures::StreamExt;

use super::*;
use crate::agent::{Desired, Resources};
use crate::control::{EditAgent, Errand, SleepMode};
use crate::event::Event;
use crate::ids::{Incarnation, Revision};
use crate::quantity::Bytes;
use crate::store::EventFilter;

fn limited(idle_timeout: u32) -> AgentSpec {
    let resources = Resources { disk: Some(Bytes::new(16 << 20)), ..Resources::default() };
    AgentSpec { resources, ..idle_after(idle_timeout) }
}

fn is_full(agent: &Agent) -> bool {
    agent.status.conditions.holds(ConditionKind::DiskFull)
}

fn is_asleep(agent: &Agent) -> bool {
    agent.status.state() == State::Slept && agent.status.run.is_none()
}

/// An agent that has filled its volume.
async fn filled(world: &World, spec: AgentSpec) -> Agent {
    let agent = world.idle("a", spec).await;
    world.done(&agent, "fill 17").await;
    world.until(&agent, "full", is_full).await
}

/// Takes away what fills the volume, as a command in the computer does.
async fn free(world: &World, agent: &Agent) {
    write(world, agent, 0).await;
}

async fn write(world: &World, agent: &Agent, megabytes: usize) {
    world.engine.write_volume_file(world.volume(computer(agent)).await, "heap", vec![0; megabytes << 20]);
}

async fn edit(world: &World, agent: &Agent, change: &str) -> Agent {
    let edit = EditAgent { spec: serde_json::from_str(change).expect("a change") };
    world.control.edit_agent(&world.call, &world.tenant, &agent.name, &edit, None).await.expect("edited")
}

async fn because(world: &World, agent: &Agent) -> String {
    let told = world.control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
    assert!(told.conditions.iter().any(|condition| condition.kind == ConditionKind::DiskFull), "{told:#?}");
    told.because.join("; ")
}

/// What the log tells of the condition: how often it was set, and taken away.
async fn told(world: &World) -> (usize, usize) {
    let head = world.store.head().await.expect("a store").value;
    let mut events = world.store.watch(Revision(0), EventFilter::default()).await.expect("a log");
    let mut log = Vec::new();
    while log.last().is_none_or(|event: &Event| event.revision < head) {
        log.extend(events.next().await.expect("more").expect("events"));
    }
    let about = |key: &str| log.iter().filter(|event| event.summary[key] == "DiskFull").count();
    (about("condition"), about("cleared"))
}

#[tokio::test(start_paused = true)]
async fn messages_to_a_full_agent_wait_and_are_done_in_order_once_there_is_room() {
    let world = World::new().await;
    let agent = filled(&world, limited(0)).await;
    let messages = [world.send(&agent, "one").await, world.send(&agent, "two").await];
    tokio::time::sleep(Duration::from_secs(600)).await;
    let waiting = world.agent(&agent).await;
    assert_eq!((waiting.status.state(), waiting.inbox.queued), (State::Idle, 2));
    assert_eq!(told(&world).await, (1, 0), "it is told once, whatever the heartbeats say");
    let why = because(&world, &agent).await;
    assert!(why.contains("messages wait for room") && why.contains("16Mi") && why.contains("17.0Mi"), "{why}");
    free(&world, &agent).await;
    let [one, two] = [world.ended(&agent, &messages[0]).await, world.ended(&agent, &messages[1]).await];
    assert_eq!((one.state, two.state), (MessageState::Done, MessageState::Done));
    assert!(one.ended_at <= two.ended_at);
    let after = world.agent(&agent).await;
    assert_eq!((after.status.incarnation, after.status.computer), (agent.status.incarnation, agent.status.computer));
    assert!(!is_full(&after));
    assert_eq!(told(&world).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_agent_sleeps_by_its_idle_time_and_its_queued_messages_never_wake_it() {
    let world = World::new().await;
    let agent = filled(&world, limited(30)).await;
    world.send(&agent, "one").await;
    let told = world.control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
    assert!(told.sleeps_at.is_some(), "{told:#?}");
    let slept = world.until(&agent, "asleep", is_asleep).await;
    assert_eq!((slept.status.incarnation, slept.inbox.queued), (Incarnation(1), 1));
    assert!(because(&world, &agent).await.contains("starts it"), "{}", because(&world, &agent).await);
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(world.agent(&agent).await.revision, slept.revision, "nothing happens to it");
}

#[tokio::test(start_paused = true)]
async fn a_message_wakes_a_full_agent_which_measures_first_and_sleeps_again_with_both_queued() {
    let world = World::new().await;
    let agent = filled(&world, limited(30)).await;
    let one = world.send(&agent, "one").await;
    world.until(&agent, "asleep", is_asleep).await;
    let two = world.send(&agent, "two").await;
    world.until(&agent, "up", |a| a.status.state() == State::Idle && a.status.incarnation == Incarnation(2)).await;
    let slept = world.until(&agent, "asleep again", is_asleep).await;
    assert_eq!((slept.status.incarnation, slept.inbox.queued), (Incarnation(2), 2));
    // A command wakes it too, so that somebody can make room; what waits runs then.
    let mut errand = Errand::look(true, Duration::from_secs(60));
    let up = world.control.rouse(&world.call, &world.tenant, &agent.name, &mut errand).await.expect("up");
    assert!(is_full(&up) && up.status.state() == State::Idle, "{up:#?}");
    free(&world, &agent).await;
    for message in [one, two] {
        let ended = world.ended(&agent, &message).await;
        assert_eq!((ended.state, ended.attempt), (MessageState::Done, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_filled_unseen_is_measured_before_the_first_message_is_taken_up() {
    let world = World::new().await;
    let agent = world.idle("a", limited(30)).await;
    world.until(&agent, "asleep", is_asleep).await;
    write(&world, &agent, 20).await;
    let message = world.send(&agent, "one").await;
    let full = world.until(&agent, "full", is_full).await;
    assert_eq!(full.status.state(), State::Idle);
    let slept = world.until(&agent, "asleep", is_asleep).await;
    assert_eq!((slept.status.incarnation, slept.inbox.queued), (Incarnation(2), 1));
    let query = crate::store::MessageQuery::of(agent.id);
    let found = world.store.messages(&query).await.expect("a store").items;
    let found = found.iter().find(|found| found.id == message.id).expect("it is there");
    assert_eq!((found.state, found.attempt), (MessageState::Queued, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_in_hand_goes_on_while_the_volume_is_full() {
    let world = World::new().await;
    let agent = world.idle("a", limited(0)).await;
    let message = world.send(&agent, "work 60").await;
    world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    write(&world, &agent, 20).await;
    let full = world.until(&agent, "full", is_full).await;
    assert_eq!(full.status.message, Some(message.id));
    let ended = world.ended(&agent, &message).await;
    assert_eq!((ended.state, ended.attempt), (MessageState::Done, 1));
}

#[tokio::test(start_paused = true)]
async fn more_disk_takes_effect_at_once_on_the_same_computer() {
    let world = World::new().await;
    let agent = filled(&world, limited(0)).await;
    let message = world.send(&agent, "one").await;
    let edited = edit(&world, &agent, r#"{"resources": {"disk": "1Gi"}}"#).await;
    assert!(edited.status.conditions.get(ConditionKind::RestartNeeded).is_none(), "{edited:#?}");
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
    let after = world.agent(&agent).await;
    assert_eq!((after.status.incarnation, after.status.computer), (Incarnation(1), agent.status.computer));
    let both = edit(&world, &agent, r#"{"resources": {"disk": "2Gi", "memory": "1Gi"}}"#).await;
    assert!(both.status.conditions.holds(ConditionKind::RestartNeeded), "memory still needs a new computer");
}

#[tokio::test(start_paused = true)]
async fn more_disk_wakes_what_fell_asleep_full_and_not_what_was_put_to_sleep() {
    let world = World::new().await;
    let agent = filled(&world, limited(30)).await;
    let message = world.send(&agent, "one").await;
    world.until(&agent, "asleep", is_asleep).await;
    edit(&world, &agent, r#"{"resources": {"disk": "64Mi"}}"#).await;
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);

    edit(&world, &agent, r#"{"resources": {"disk": "16Mi"}}"#).await;
    world.until(&agent, "full", is_full).await;
    let message = world.send(&agent, "two").await;
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&agent, "asleep", is_asleep).await;
    let edited = edit(&world, &agent, r#"{"resources": null}"#).await;
    assert!(edited.desired == Desired::Asleep && !is_full(&edited), "{edited:#?}");
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    assert_eq!(world.ended(&agent, &message).await.state, MessageState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_measured_is_not_passed_to_the_engine_and_is_kept_over_starts() {
    let world = World::new().await;
    let agent = world.idle("a", limited(30)).await;
    let row = world.store.computer(computer(&agent)).await.expect("a store").expect("a computer");
    assert_eq!((row.spec.resources.disk, row.disk_limit), (None, false));
    world.until(&agent, "asleep", is_asleep).await;
    world.done(&agent, "one").await;
    let woken = world.agent(&agent).await;
    assert_eq!(woken.status.computer, agent.status.computer, "the limit asks for no other computer");
    assert!(woken.status.conditions.get(ConditionKind::RestartNeeded).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_limits_disks_is_asked_to_and_nothing_is_measured() {
    let world = World::with(SimulatedAgent::new(act), Profile::Pod).await;
    let agent = world.idle("a", limited(0)).await;
    let row = world.store.computer(computer(&agent)).await.expect("a store").expect("a computer");
    assert_eq!((row.spec.resources.disk, row.disk_limit), (Some(Bytes::new(16 << 20)), true));
    world.done(&agent, "fill 17").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!is_full(&world.agent(&agent).await));
    world.done(&agent, "one").await;
    let edited = edit(&world, &agent, r#"{"resources": {"disk": "1Gi"}}"#).await;
    assert!(edited.status.conditions.holds(ConditionKind::RestartNeeded), "{edited:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_sleeps_by_time_waits_for_room_awake_and_delete_ends_the_wait() {
    let world = World::new().await;
    let agent = filled(&world, limited(0)).await;
    let message = world.send(&agent, "one").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.agent(&agent).await.status.state(), State::Idle);
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    let query = crate::store::MessageQuery::of(agent.id);
    let found = world.store.messages(&query).await.expect("a store").items;
    assert_eq!(found.iter().find(|found| found.id == message.id).expect("there").state, MessageState::Cancelled);
}
