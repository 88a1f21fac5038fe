//! Computers that an engine has and the store does not know, and those that only look like it.

use super::*;
use crate::control::SleepMode;
use crate::operator::reclaim;
use crate::runtime::Runtime;
use crate::runtime::simulated::{Fault, Method, Rule};

/// Lets the operator look at all that the engine has, twice.
async fn looked_at_all(world: &World) {
    for _ in 0..2 {
        let lists = world.engine.calls(Method::List);
        world.engine.cut_events();
        world.engine_until("looked at", |engine| engine.calls(Method::List) > lists).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_computer_that_no_agent_ever_had_is_stopped_and_removed_and_its_volume_left() {
    let mut before = World::new().await;
    let running = before.idle("running", AgentSpec::default()).await;
    let stopped = before.idle("stopped", AgentSpec::default()).await;
    before.control.sleep(&before.call, &before.tenant, &stopped.name, SleepMode::Now).await.expect("asked");
    before.until(&stopped, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let volumes = before.engine.volumes();
    before.kill_operator();
    assert_eq!((before.engine.computers().len(), before.running(), volumes.len()), (2, 1, 2));
    // The same engine and installation, and a store that was made anew.
    let world = World::on(before.runtime.clone(), SimulatedAgent::new(act), OperatorSettings::default()).await;
    world.engine_until("empty", |engine| engine.computers().is_empty()).await;
    assert_eq!(world.engine.processes(computer(&running)), 0);
    assert_eq!(world.engine.volumes(), volumes, "they may still hold somebody's files");
}

#[tokio::test(start_paused = true)]
async fn another_installations_computers_are_left_alone() {
    let world = World::new().await;
    let ours = world.idle("ours", AgentSpec::default()).await;
    let others = world.runtime.for_installation("other");
    let (theirs, orphan) = (unknown_computer(), unknown_computer());
    others.ensure(&theirs).await.expect("made");
    world.runtime.ensure(&orphan).await.expect("made");
    looked_at_all(&world).await;
    let left: Vec<_> = world.engine.computers().into_iter().map(|seen| seen.computer).collect();
    assert!(left.contains(&theirs.id) && left.contains(&computer(&ours)) && !left.contains(&orphan.id), "{left:?}");
    assert!(world.engine.volumes().contains(&theirs.volume));
}

#[tokio::test(start_paused = true)]
async fn a_computer_of_an_agent_is_left_alone_whatever_its_agent_does() {
    let world = World::new().await;
    let idle = world.idle("idle", AgentSpec { idle_timeout: 0, ..AgentSpec::default() }).await;
    let busy = world.idle("busy", AgentSpec::default()).await;
    world.send(&busy, "work 3000").await;
    let slept = world.idle("slept", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &slept.name, SleepMode::Now).await.expect("asked");
    world.until(&slept, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let before = (world.engine.computers(), world.engine.volumes());
    looked_at_all(&world).await;
    assert_eq!((world.engine.computers(), world.engine.volumes()), before);
    assert_eq!(world.engine.calls(Method::Remove), 0);
    for agent in [&idle, &busy, &slept] {
        assert_eq!(world.agent(agent).await.status.incarnation, agent.status.incarnation);
    }
}

#[tokio::test(start_paused = true)]
async fn computers_of_an_engine_that_has_another_name_now_are_left_alone() {
    let mut world = World::new().await;
    let idle = world.idle("idle", AgentSpec::default()).await;
    let slept = world.idle("slept", AgentSpec::default()).await;
    world.control.sleep(&world.call, &world.tenant, &slept.name, SleepMode::Now).await.expect("asked");
    world.until(&slept, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    let before = (world.engine.computers(), world.engine.volumes());
    let renamed = world.runtime.called("renamed".parse().expect("a name"));
    let first_name =
        std::mem::replace(&mut world.runtimes, Runtimes::new().with(Arc::new(renamed), "unix:/nowhere", None));
    world.kill_operator();
    world.start_operator().await;
    looked_at_all(&world).await;
    assert_eq!((world.engine.computers(), world.engine.volumes()), before);
    world.runtimes = first_name;
    world.kill_operator();
    world.start_operator().await;
    for agent in [&idle, &slept] {
        world.done(agent, "hello").await;
    }
}

/// Has the operator look at all that the engine has, until it asks the store for a single computer.
async fn asks_for_one(world: &World) {
    let before = world.store.computers_read();
    world.engine.cut_events();
    world.engine_until("looked at", |_| world.store.computers_read() > before).await;
}

/// Nothing was done to the agent's computer.
async fn is_left_alone(world: &World, idle: &Agent) {
    looked_at_all(world).await;
    assert_eq!((world.engine.calls(Method::Stop), world.engine.calls(Method::Remove)), (0, 0));
    assert_eq!(world.agent(idle).await.status.incarnation, idle.status.incarnation);
    world.done(idle, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_computer_that_the_store_knows_when_it_is_asked_again_is_left_alone() {
    let world = World::new().await;
    let idle = world.idle("idle", AgentSpec::default()).await;
    // It is looked at before it is taken away, and that takes a while.
    world.engine.inject(Rule::new(Method::Observe, Fault::Slow(Duration::from_secs(1))));
    world.store.knows_no_computer(true);
    asks_for_one(&world).await;
    world.store.knows_no_computer(false);
    is_left_alone(&world, &idle).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_writes_has_nothing_taken_away_by_what_it_does_not_know() {
    let world = World::new().await;
    let idle = world.idle("idle", AgentSpec::default()).await;
    // As a primary whose place another one took, and that this operator still talks to.
    world.store.is_read_only(true);
    world.store.knows_no_computer(true);
    asks_for_one(&world).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.store.knows_no_computer(false);
    world.store.is_read_only(false);
    is_left_alone(&world, &idle).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_a_slow_engine_makes_after_its_agent_is_gone_is_taken_away_too() {
    let world = World::new().await;
    world.engine.inject(Rule::new(Method::Ensure, Fault::Hang).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    let failed = world.until(&agent, "given up", |a| a.status.restarts > 0).await;
    let row = world.control.system().store().computer(computer(&failed)).await.expect("a store").expect("a computer");
    let removed = world.engine.calls(Method::RemoveVolume);
    world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
    let asked = tokio::time::Instant::now();
    world.until(&agent, "deleted", |a| a.status.state() == State::Deleted).await;
    world.engine_until("taking it away", |engine| engine.calls(Method::RemoveVolume) > removed).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "people wait for no more than that");
    // The call that was given up comes to its end.
    world.runtime.ensure(&row.spec).await.expect("made");
    world.engine_until("empty", |engine| engine.computers().is_empty() && engine.volumes().is_empty()).await;
    let mut left = true;
    for _ in 0..1000 {
        left = world.control.system().store().computer(row.id()).await.expect("a store").is_some();
        if !left {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!left, "and its row in the end");
}

#[tokio::test(start_paused = true)]
async fn what_a_start_makes_that_comes_when_its_agent_is_gone_is_taken_away_again_and_nothing_else() {
    let world = World::new().await;
    let store = world.control.system().store();
    let row = async |agent: &Agent| store.computer(computer(agent)).await.expect("a store");
    let (gone, there) =
        (world.idle("gone", AgentSpec::default()).await, world.idle("there", AgentSpec::default()).await);
    let (row_of_gone, row_of_there) = (row(&gone).await.expect("a row"), row(&there).await.expect("a row"));
    world.control.delete(&world.call, &world.tenant, &gone.name).await.expect("asked");
    world.engine_until("taken away", |engine| engine.volumes() == [row_of_there.spec.volume]).await;
    while row(&gone).await.is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.runtime.ensure(&row_of_gone.spec).await.expect("made again");
    let shared = &world.operator.as_ref().expect("an operator").shared;
    for late in [row_of_gone, row_of_there.clone()] {
        reclaim::late(shared, late).await;
    }
    world.engine_until("taken away again", |engine| engine.volumes() == [row_of_there.spec.volume]).await;
    assert_eq!(world.running(), 1);
    world.done(&there, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn the_quota_of_an_agent_that_is_deleted_in_the_middle_of_its_start_is_free_soon() {
    let world = World::new().await;
    let used = || async {
        let store = world.control.system().store();
        store.usage(&world.tenant, crate::store::QuotaKind::Agents).await.expect("a store")
    };
    for slow in [0, 2] {
        world.engine.inject(Rule::new(Method::Ensure, Fault::Slow(Duration::from_secs(slow))).times(1));
        let agent = world.create(&format!("a{slow}"), AgentSpec::default()).await;
        world.until(&agent, "begun", |a| a.status.run.is_some()).await;
        let asked = tokio::time::Instant::now();
        world.control.delete(&world.call, &world.tenant, &agent.name).await.expect("asked");
        while used().await > 0 {
            assert!(asked.elapsed() < Duration::from_secs(10), "still used after {:?}", asked.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
