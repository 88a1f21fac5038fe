//! What a changed spec leaves for the next start.

use super::super::SleepMode;
use super::*;
use crate::agent::ConditionKind;
use crate::runtime::simulated::{Fault, Method, Rule, SetupAct};

/// What waits for the next start, as people are told.
fn waiting(agent: &Agent) -> Option<&str> {
    agent.status.conditions.get(ConditionKind::RestartNeeded).map(|condition| condition.message.as_str())
}

#[tokio::test(start_paused = true)]
async fn an_edit_while_the_computer_is_being_started_is_named_though_the_run_was_made_without_it() {
    let world = World::new().await;
    world.engine.inject(Rule::new(Method::Start, Fault::Slow(Duration::from_secs(5))).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    world.until(&agent, "begun", |agent| agent.status.run.is_some()).await;
    let edited = world.edit(&agent, r#"{"resources": {"memory": "1Gi"}}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: resources"));
    let idle = world.until(&agent, "idle", |agent| agent.status.state() == State::Idle).await;
    assert_eq!(waiting(&idle), Some("takes effect at the next start: resources"));
}

#[tokio::test(start_paused = true)]
async fn a_second_edit_leaves_the_fields_that_wait_from_the_first() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.edit(&agent, r#"{"resources": {"memory": "1Gi"}}"#).await;
    let edited = world.edit(&agent, r#"{"setup": "true"}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: resources, setup"));
    let edited = world.edit(&agent, r#"{"description": "the same"}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: resources, setup"));
}

#[tokio::test(start_paused = true)]
async fn an_edit_back_to_what_the_run_was_made_from_leaves_nothing_to_wait_for() {
    let world = World::new().await;
    let spec = AgentSpec { setup: Some("true".into()), ..AgentSpec::default() };
    let agent = world.idle("a", spec).await;
    let edited = world.edit(&agent, r#"{"resources": {"memory": "1Gi"}, "setup": "false"}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: resources, setup"));
    let edited = world.edit(&agent, r#"{"resources": null, "setup": "true"}"#).await;
    assert_eq!(waiting(&edited), None);
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_is_changed_while_it_runs_is_run_anew_at_the_next_start() {
    let gate = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&gate);
    let program = SimulatedAgent::echo().with_setup(move |task| {
        seen.lock().expect("unpoisoned").push(task.script.clone());
        SetupAct::Succeed
    });
    let world = World::with(program).await;
    world.engine.inject(Rule::new(Method::Start, Fault::Slow(Duration::from_secs(5))).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    world.until(&agent, "begun", |agent| agent.status.run.is_some()).await;
    let edited = world.edit(&agent, r#"{"setup": "one"}"#).await;
    assert_eq!(waiting(&edited), None, "the run that is begun will take it");
    world.until(&agent, "idle", |agent| agent.status.state() == State::Idle).await;
    let edited = world.edit(&agent, r#"{"setup": "two"}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: setup"));
    world.control.sleep(&world.call, &world.tenant, &agent.name, SleepMode::Now).await.expect("asked");
    let slept = |agent: &Agent| agent.status.state() == State::Slept && agent.status.run.is_none();
    world.until(&agent, "stopped", slept).await;
    let edited = world.edit(&agent, r#"{"description": "asleep"}"#).await;
    assert_eq!(waiting(&edited), Some("takes effect at the next start: setup"));
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    let woken = world.until(&agent, "idle", |agent| agent.status.state() == State::Idle).await;
    assert_eq!(waiting(&woken), None);
    assert_eq!(*gate.lock().expect("unpoisoned"), ["one", "two"]);
}
