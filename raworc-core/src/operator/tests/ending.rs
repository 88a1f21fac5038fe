//! Operators that are told to end.

use super::*;
use crate::runtime::simulated::{Fault, Method, Rule};

/// Ends the operator in order, and says how long that took.
async fn shut_down(world: &mut World) -> Duration {
    let asked = tokio::time::Instant::now();
    world.operator.take().expect("an operator").shutdown().await;
    asked.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_pull_and_starts_nothing_after_it() {
    let mut world = World::new().await;
    world.engine.inject(Rule::new(Method::Prepare, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    let pulling =
        |a: &Agent| a.status.conditions.get(ConditionKind::Ready).is_some_and(|ready| ready.reason == "ImagePulling");
    world.until(&agent, "pulling", pulling).await;
    let took = shut_down(&mut world).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((world.engine.calls(Method::Ensure), world.engine.calls(Method::Start)), (0, 0));
    world.engine.heal();
    world.start_operator().await;
    world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_the_call_that_is_under_way_and_begins_no_other() {
    let settings = OperatorSettings { engine_calls: 1, ..OperatorSettings::default() };
    let mut world = World::with_settings(SimulatedAgent::new(act), Profile::Container, settings).await;
    world.engine.inject(Rule::new(Method::Ensure, Fault::Slow(Duration::from_secs(5))));
    let agents = [world.create("a", AgentSpec::default()).await, world.create("b", AgentSpec::default()).await];
    world.engine.until(|engine| engine.calls(Method::Ensure) == 1).await;
    for agent in &agents {
        world.until(agent, "begun", |a| a.status.run.is_some()).await;
    }
    let took = shut_down(&mut world).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!((world.engine.calls(Method::Ensure), world.engine.calls(Method::Start)), (1, 0));
    world.engine.heal();
    world.start_operator().await;
    for agent in &agents {
        world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_what_is_to_be_reclaimed_to_the_next_operator() {
    let mut world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let down = Fault::Fail(crate::runtime::RuntimeError::Unavailable("switched off".into()));
    world.engine.inject(Rule::new(Method::Remove, down));
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    world.engine.until(|engine| engine.calls(Method::Remove) == 1).await;
    let took = shut_down(&mut world).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.engine.heal();
    world.start_operator().await;
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
}
