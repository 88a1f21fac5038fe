//! Create, sleep, wake, delete.

use super::*;
use crate::agent::Desired;
use crate::control::{EditAgent, SleepMode};
use crate::ids::Incarnation;

#[tokio::test(start_paused = true)]
async fn an_agent_is_made_answers_sleeps_wakes_by_a_message_and_keeps_its_files() {
    for profile in [Profile::Container, Profile::Pod] {
        let world = World::with(SimulatedAgent::new(act), profile).await;
        let agent = world.idle("a", AgentSpec::default()).await;
        assert_eq!(agent.status.incarnation, Incarnation(1));
        world.done(&agent, "first").await;

        let (call, tenant) = (&world.call, &world.tenant);
        world.control.sleep(call, tenant, &agent.name, SleepMode::AfterMessage).await.expect("asked");
        let slept =
            world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
        assert_eq!(world.engine.processes(computer(&slept)), 0);

        world.done(&agent, "second").await;
        let woken = world.agent(&agent).await;
        assert_eq!(woken.status.incarnation, Incarnation(2));
        assert_eq!(woken.status.computer, slept.status.computer, "waking starts the same computer");
        let volume = world.volume(computer(&woken)).await;
        let file = world.engine.volume_file(volume, "messages");
        assert_eq!(file.expect("the file"), "first\nsecond\n");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_sleeps_once_its_idle_time_is_over_and_not_before() {
    let world = World::new().await;
    let agent = world.idle("a", idle_after(60)).await;
    let since = agent.status.since;
    let slept = world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
    let waited = slept.status.since.duration_since(since).as_secs();
    assert!((60..63).contains(&waited), "slept after {waited} s");
    assert_eq!(slept.desired, Desired::Asleep);
}

#[tokio::test(start_paused = true)]
async fn zero_is_never_and_a_lease_keeps_awake_beyond_the_idle_time() {
    let world = World::new().await;
    let never = world.idle("never", idle_after(0)).await;
    let kept = world.idle("kept", idle_after(10)).await;
    let hour = Some(Duration::from_secs(3600));
    world.control.keep_awake(&world.call, &world.tenant, &kept.name, hour).await.expect("kept");
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!(world.agent(&kept).await.status.state(), State::Idle);
    world.control.keep_awake(&world.call, &world.tenant, &kept.name, None).await.expect("given back");
    world.until(&kept, "slept", |a| a.status.state() == State::Slept).await;
    assert_eq!(world.agent(&never).await.status.state(), State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_thinks_for_twenty_minutes_keeps_its_agent_awake() {
    let world = World::new().await;
    let agent = world.idle("a", idle_after(60)).await;
    let guard = world.control.system().hold(&agent, crate::control::ActivityKind::ModelCall).await.expect("held");
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let now = world.agent(&agent).await;
    assert_eq!((now.status.state(), now.status.incarnation), (State::Idle, Incarnation(1)));
    drop(guard);
    world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
}

#[tokio::test(start_paused = true)]
async fn delete_works_in_every_state_and_leaves_nothing_with_the_engine() {
    let world = World::new().await;
    let idle = world.idle("idle", AgentSpec::default()).await;
    let slept = world.idle("slept", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &slept.name, SleepMode::Now).await.expect("asked");
    world.until(&slept, "slept", |a| a.status.state() == State::Slept).await;
    let busy = world.idle("busy", AgentSpec::default()).await;
    let held = world.send(&busy, "hang").await;
    let queued = world.send(&busy, "later").await;
    world.until(&busy, "busy", |a| a.status.state() == State::Busy).await;
    let init = world.create("init", AgentSpec::default()).await;
    for agent in [&init, &idle, &slept, &busy] {
        world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
        world.until(agent, "deleted", |a| a.status.state() == State::Deleted).await;
        let gone = world.control.get_agent(&world.call, &world.tenant, &agent.name).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })));
    }
    for message in [held, queued] {
        let ended =
            world.control.system().store().message(busy.id, message.id).await.expect("a store").expect("a message");
        assert_eq!(ended.state, MessageState::Cancelled);
    }
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
    let usage = world.control.system().store().usage(&world.tenant, crate::store::QuotaKind::Agents);
    assert_eq!(usage.await.expect("a store"), 0);
    world.idle("idle", AgentSpec::default()).await;
}

#[tokio::test(start_paused = true)]
async fn changed_resources_wait_for_the_next_start_and_take_another_computer_on_the_same_volume() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let before = world.volume(computer(&agent)).await;
    let change = serde_json::from_str(r#"{"resources": {"memory": "1Gi"}}"#).expect("a change");
    let edit = EditAgent { spec: change };
    let edited = world.control.edit_agent(&world.call, &world.tenant, &agent.name, &edit, None).await.expect("edited");
    let condition = edited.status.conditions.get(ConditionKind::RestartNeeded).expect("a condition");
    assert!(condition.message.contains("resources"), "{condition:?}");
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    let woken = world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert_ne!(woken.status.computer, agent.status.computer);
    assert!(woken.status.conditions.get(ConditionKind::RestartNeeded).is_none());
    assert_eq!(world.volume(computer(&woken)).await, before);
    world.engine_until("down to one computer", |engine| engine.computers().len() == 1).await;
    assert_eq!(world.engine.volumes(), vec![before], "the volume that is in use stays");
}

#[tokio::test(start_paused = true)]
async fn two_agents_of_one_name_cannot_be_and_a_failed_create_leaves_no_quota() {
    let world = World::new().await;
    world.idle("a", AgentSpec::default()).await;
    let second = world.try_create("a", AgentSpec::default()).await;
    assert!(matches!(second, Err(Error::NameTaken(_))), "{second:?}");
    let usage = world.control.system().store().usage(&world.tenant, crate::store::QuotaKind::Agents);
    assert_eq!(usage.await.expect("a store"), 1);
}
