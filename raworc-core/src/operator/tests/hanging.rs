//! One call of an engine that hangs, or panics, and everybody else.

use super::*;
use crate::control::SleepMode;
use crate::runtime::simulated::{Fault, Method, Rule};
use crate::step::{NewStep, StepKind};
use crate::store::{AgentChange, AgentOp, Check, Commit};

/// An orphan with the engine: a computer of this installation that the store has never heard of.
async fn orphan(world: &World) -> ComputerSpec {
    use crate::runtime::Runtime;
    let spec = unknown_computer();
    world.runtime.ensure(&spec).await.expect("made");
    spec
}

/// That this agent answers, and that its program's death is seen.
async fn is_looked_after(world: &World, agent: &Agent) {
    let asked = tokio::time::Instant::now();
    world.done(agent, "hello").await;
    let before = world.agent(agent).await.status.incarnation;
    world.engine.crash(computer(agent), "killed from outside");
    let again = |a: &Agent| a.status.state() == State::Idle && a.status.incarnation == before.next();
    world.until(agent, "started again", again).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_engine_that_hangs_holds_up_neither_its_agent_nor_others() {
    let settings = OperatorSettings { looks: 1, ..OperatorSettings::default() };
    let world = World::with_settings(SimulatedAgent::new(act), Profile::Container, settings).await;
    let stuck = world.idle("stuck", AgentSpec::default()).await;
    let other = world.idle("other", AgentSpec::default()).await;
    let seen = world.engine.calls(Method::Observe);
    world.engine.inject(Rule::new(Method::Observe, Fault::Hang).on(computer(&stuck)));
    world.engine.cut_events();
    world.engine_until("looking", |engine| engine.calls(Method::Observe) > seen + 1).await;
    is_looked_after(&world, &other).await;
    let asked = tokio::time::Instant::now();
    world.done(&stuck, "hello").await;
    world.control.sleep(&world.call, &world.tenant, &stuck.name, SleepMode::AfterMessage).await.expect("asked");
    world.until(&stuck, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_cannot_be_removed_holds_up_nobody() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let hang = world.engine.inject(Rule::new(Method::Remove, Fault::Hang));
    let orphans = [orphan(&world).await, orphan(&world).await, orphan(&world).await];
    world.engine.cut_events();
    world.engine_until("removing", |engine| engine.calls(Method::Remove) > 0).await;
    is_looked_after(&world, &agent).await;
    hang.release();
    world.engine_until("without orphans", |engine| engine.computers().len() == 1).await;
    assert!(orphans.iter().all(|orphan| world.engine.volumes().contains(&orphan.volume)), "volumes are left");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_hangs_holds_up_no_event() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    let lists = world.engine.calls(Method::List);
    world.engine.inject(Rule::new(Method::List, Fault::Hang));
    world.engine.cut_events();
    world.engine_until("listing", |engine| engine.calls(Method::List) > lists).await;
    is_looked_after(&world, &agent).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_panics_whenever_it_is_asked_for_a_log_leaves_no_agent_stuck() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.engine.inject(Rule::new(Method::Logs, Fault::Panic));
    let crashed = tokio::time::Instant::now();
    world.engine.crash(computer(&agent), "killed from outside");
    world.until(&agent, "started again", |a| a.status.state() == State::Idle && a.status.incarnation.0 > 1).await;
    assert!(crashed.elapsed() < Duration::from_secs(5), "{:?}", crashed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_transition_waits_for_the_logs_of_many_that_die_at_once() {
    let settings = OperatorSettings { looks: 4, ..OperatorSettings::default() };
    let world = World::with_settings(SimulatedAgent::new(act), Profile::Container, settings).await;
    let mut agents = Vec::new();
    for n in 0..100 {
        agents.push(world.idle(&format!("a{n}"), AgentSpec::default()).await);
    }
    let other = world.idle("other", AgentSpec::default()).await;
    let hang = world.engine.inject(Rule::new(Method::Logs, Fault::Hang));
    let crashed = tokio::time::Instant::now();
    for agent in &agents {
        world.engine.crash(computer(agent), "killed from outside");
    }
    for agent in &agents {
        world.until(agent, "seen dead", |a| a.status.restarts > 0).await;
    }
    assert!(crashed.elapsed() < Duration::from_secs(1), "seen after {:?}", crashed.elapsed());
    world.done(&other, "hello").await;
    assert!(crashed.elapsed() < Duration::from_secs(2), "answered after {:?}", crashed.elapsed());
    for agent in &agents {
        world.until(agent, "idle again", |a| a.status.state() == State::Idle && a.status.incarnation.0 == 2).await;
    }
    assert!(crashed.elapsed() < Duration::from_secs(10), "started again after {:?}", crashed.elapsed());
    hang.release();
}

#[tokio::test(start_paused = true)]
async fn a_death_that_was_seen_while_a_step_landed_is_not_overlooked() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec::default()).await;
    world.send(&agent, "work 3000").await;
    let busy = world.until(&agent, "busy", |a| a.status.state() == State::Busy).await;
    let slow = world.engine.inject(Rule::new(Method::Observe, Fault::Slow(Duration::from_secs(1))));
    let crashed = tokio::time::Instant::now();
    world.engine.crash(computer(&agent), "killed from outside");
    world.engine_until("being looked at", |_| slow.hits() > 0).await;
    let step = NewStep { kind: StepKind::Log, tool: None, text: "meanwhile".into() };
    let add = AgentOp::AddSteps { message: busy.status.message, attempt: 1, steps: vec![step] };
    let change = AgentChange { agent: agent.id, when: vec![Check::Alive], ops: vec![add] };
    let id = SystemEntropy.commit_id(start());
    world.control.system().store().commit(Commit::of(id, change)).await.expect("committed");
    world.until(&agent, "seen dead", |a| a.status.restarts > 0).await;
    assert!(crashed.elapsed() < Duration::from_secs(5), "seen after {:?}", crashed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_engine_panics_once_is_looked_after_all_the_same() {
    for method in [Method::Observe, Method::Start, Method::Stop, Method::Logs] {
        let world = World::new().await;
        let agent = world.idle("a", AgentSpec::default()).await;
        world.engine.inject(Rule::new(method, Fault::Panic).times(1));
        let crashed = tokio::time::Instant::now();
        world.engine.crash(computer(&agent), "killed from outside");
        world.until(&agent, "started again", |a| a.status.state() == State::Idle && a.status.incarnation.0 > 1).await;
        assert!(crashed.elapsed() < Duration::from_secs(5), "{method:?}: {:?}", crashed.elapsed());
    }
}
