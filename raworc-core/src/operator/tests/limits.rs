//! Limits that are reached, and limits that nobody enforces.

use super::*;
use crate::control::{EditAgent, SleepMode};

fn condition(agent: &Agent, kind: ConditionKind) -> Option<&Condition> {
    agent.status.conditions.get(kind)
}

async fn reached(world: &World, agent: &Agent, reason: &str) -> Agent {
    let is_told = |a: &Agent| condition(a, ConditionKind::LimitReached).is_some_and(|told| told.reason == reason);
    world.until(agent, reason, is_told).await
}

async fn asleep(world: &World, agent: &Agent) {
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    world.until(agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
}

async fn awake(world: &World, agent: &Agent) -> Agent {
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    world.until(agent, "idle", |a| a.status.state() == State::Idle).await
}

#[tokio::test(start_paused = true)]
async fn a_hog_and_a_fork_bomb_end_in_a_condition_that_says_what_to_do_while_the_agent_goes_on() {
    let world = World::new().await;
    let (hog, bomb) = (world.idle("hog", AgentSpec::default()).await, world.idle("bomb", AgentSpec::default()).await);
    world.engine.run_out_of_memory(computer(&hog));
    let told = reached(&world, &hog, "OutOfMemory").await;
    let told = condition(&told, ConditionKind::LimitReached).expect("told");
    assert!(told.status && told.message.contains("resources.memory"), "{told:?}");
    world.engine.run_out_of_pids(computer(&bomb));
    let told = reached(&world, &bomb, "TooManyProcesses").await;
    assert!(condition(&told, ConditionKind::LimitReached).expect("told").message.contains("resources.pids"));
    for agent in [&hog, &bomb] {
        world.done(agent, "hello").await;
        let explained = world.control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
        assert!(explained.conditions.iter().any(|condition| condition.kind == ConditionKind::LimitReached));
    }
    let writes = world.agent(&hog).await.status.version;
    world.engine.run_out_of_memory(computer(&hog));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.agent(&hog).await.status.version, writes, "what is told already is not told again");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_died_of_memory_is_started_again_and_the_condition_stays_until_a_wake() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.engine.run_out_of_memory(computer(&agent));
    world.engine.crash(computer(&agent), "out of memory (signal 9)");
    let again = world
        .until(&agent, "idle again", |a| {
            a.status.state() == State::Idle && a.status.incarnation > agent.status.incarnation
        })
        .await;
    assert_eq!(condition(&again, ConditionKind::LimitReached).expect("it stays").reason, "OutOfMemory");
    asleep(&world, &agent).await;
    let woken = awake(&world, &agent).await;
    assert_eq!(condition(&woken, ConditionKind::LimitReached), None);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_given_more_begins_without_the_condition() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.engine.run_out_of_memory(computer(&agent));
    reached(&world, &agent, "OutOfMemory").await;
    let change = serde_json::from_str(r#"{"resources": {"memory": "4Gi"}}"#).expect("a change");
    let edit = EditAgent { spec: change };
    world.control.edit_agent(&world.call, &world.tenant, &agent.name, &edit, None).await.expect("edited");
    world.engine.crash(computer(&agent), "killed");
    let cleared = |a: &Agent| a.status.state() == State::Idle && condition(a, ConditionKind::LimitReached).is_none();
    world.until(&agent, "without the condition", cleared).await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_the_engine_does_not_enforce_are_a_condition_until_it_does() {
    let world = World::new().await;
    world.engine.lose_limits(Some("no control group can be written; run as root"));
    let agent = world.idle("a", AgentSpec::default()).await;
    // The program may be ready before its start is recorded.
    let told = world.until(&agent, "told", |a| condition(a, ConditionKind::LimitsEnforced).is_some()).await;
    let told = condition(&told, ConditionKind::LimitsEnforced).expect("told");
    assert!(!told.status && told.message.contains("run as root"), "{told:?}");
    let explained = world.control.explain(&world.call, &world.tenant, &agent.name).await.expect("explained");
    assert!(explained.conditions.iter().any(|condition| condition.kind == ConditionKind::LimitsEnforced));
    world.engine.lose_limits(None);
    asleep(&world, &agent).await;
    awake(&world, &agent).await;
    world.until(&agent, "taken back", |a| condition(a, ConditionKind::LimitsEnforced).is_none()).await;
}
