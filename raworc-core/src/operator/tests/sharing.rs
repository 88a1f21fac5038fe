//! Several operators on one store.

use super::*;
use crate::control::Presence;
use crate::ids::{AgentId, ProcessId};
use crate::operator::plan::{Observation, Plan, View, Work, plan};
use crate::operator::shards::{Shards, prefix};
use crate::runtime::simulated::{Fault, Method, Rule};
use crate::runtime::{Boot, Runtime};
use crate::store::{AgentOp, Lease};

/// Longer than a lease of an operator and its renewals, and far shorter than the deadline of a start.
const TAKEN_OVER: Duration = Duration::from_secs(10);

fn slow_starts(world: &World) {
    world.engine.inject(Rule::new(Method::Start, Fault::Slow(Duration::from_secs(3))));
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_agent_moves_to_another_operator_is_finished_by_the_one_that_began_it() {
    let world = World::new().await;
    slow_starts(&world);
    let mut agents = Vec::new();
    for n in 0..20 {
        agents.push(world.create(&format!("a{n}"), AgentSpec::default()).await);
    }
    for agent in &agents {
        world.until(agent, "begun", |a| a.status.run.is_some()).await;
    }
    let second = world.another_operator().await;
    let moved = agents.iter().filter(|agent| {
        let runtime = agent.spec.runtime.as_ref().expect("a runtime");
        second.shared.owns(runtime, agent.id)
    });
    assert!(moved.count() > 0, "some of them are the second operator's now");
    for agent in &agents {
        let idle = world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
        assert_eq!((idle.status.incarnation.0, idle.status.restarts), (1, 0), "{idle:#?}");
    }
    assert_eq!(world.engine.calls(Method::Start), 20, "each is started once");
    assert_eq!((world.engine.computers().len(), world.running()), (20, 20));
    for agent in &agents {
        world.done(agent, "hello").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_begun_when_its_agent_moved_is_carried_out_all_the_same() {
    let mut world = World::new().await;
    // Nothing is looked at by this operator itself: what it begins, it begins in this test.
    world.kill_operator();
    tokio::time::sleep(TAKEN_OVER).await;
    let looks = std::mem::take(&mut world.settings.looks);
    world.start_operator().await;
    world.settings.looks = looks;
    let first = &world.operator.as_ref().expect("an operator").shared;
    let mut agents = Vec::new();
    for n in 0..20 {
        agents.push(world.create(&format!("a{n}"), AgentSpec::default()).await);
        let look = crate::operator::execute::look_at(first, agents[n].id, false).await;
        assert_eq!(look, crate::operator::Again::Now, "begun");
    }
    let second = world.another_operator().await;
    first.shards.renew_now(&world.control.inner.store).await.expect("renewed");
    let mut moved = 0;
    for agent in &agents {
        let runtime = agent.spec.runtime.as_ref().expect("a runtime");
        moved += usize::from(!first.owns(runtime, agent.id));
        crate::operator::execute::look_at(first, agent.id, false).await;
    }
    assert!(moved > 0, "some of them are the second operator's now");
    for agent in &agents {
        let idle = world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
        assert_eq!((idle.status.incarnation.0, idle.status.restarts), (1, 0), "{idle:#?}");
    }
    second.shutdown().await;
}

/// An operator dies in the middle of a start, and another one comes after something else has happened.
async fn is_taken_over_soon(meanwhile: impl FnOnce(&World)) {
    let mut world = World::new().await;
    let hang = world.engine.inject(Rule::new(Method::Start, Fault::Hang).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    world.engine_until("in the middle of a start", |_| hang.hits() == 1).await;
    world.kill_operator();
    let died = tokio::time::Instant::now();
    meanwhile(&world);
    world.start_operator().await;
    let idle = world.until(&agent, "idle", |a| a.status.state() == State::Idle).await;
    assert!(died.elapsed() < TAKEN_OVER, "{:?}", died.elapsed());
    assert_eq!((idle.status.incarnation.0, idle.status.restarts), (2, 0), "{idle:#?}");
    world.done(&idle, "hello").await;
    assert_eq!((world.engine.computers().len(), world.running()), (1, 1));
    hang.release();
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_operator_died_is_taken_over_within_its_lease() {
    is_taken_over_soon(|_| {}).await;
}

/// After how long this operator knows of so many that live, itself among them.
async fn knows_of(world: &World, operator: &Operator, count: usize) -> Duration {
    let (shards, runtime, began) = (&operator.shared.shards, world.runtime.name(), tokio::time::Instant::now());
    let store = &world.control.inner.store;
    while shards.living(store, runtime, Some(shards.me())).await.expect("known").len() != count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_leaves_is_followed_at_once() {
    let world = World::new().await;
    world.control.system().publish_runtimes().await.expect("told");
    let (first, second) = (world.operator.as_ref().expect("an operator"), world.another_operator().await);
    knows_of(&world, first, 2).await;
    second.shutdown().await;
    let missed = knows_of(&world, first, 1).await;
    assert!(missed < Duration::from_millis(100), "{missed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_dies_is_missed_within_seven_seconds_whenever_it_does() {
    let mut world = World::new().await;
    // As a database does, the store takes a while to answer, and each look is so much later than the one before.
    world.store.slow_claims(Duration::from_millis(20));
    let other = world.another_operator().await;
    for n in 0..12 {
        knows_of(&world, &other, 2).await;
        tokio::time::sleep(Duration::from_secs(6) + n * Duration::from_millis(337)).await;
        world.kill_operator();
        let missed = knows_of(&world, &other, 1).await;
        assert!(missed < Duration::from_millis(7100), "{missed:?}");
        // Not in step with the other one.
        tokio::time::sleep(n * Duration::from_millis(613)).await;
        world.start_operator().await;
    }
    other.shutdown().await;
}

/// The sign of life of an operator, where it has one.
async fn sign(world: &World, of: ProcessId) -> Option<Lease> {
    let signs = world.store.inner.leases(&prefix(world.runtime.name())).await.expect("a store");
    signs.value.into_iter().find(|sign| sign.holder == of)
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_reads_stand_still_keeps_its_sign_of_life_and_its_shards() {
    let world = World::new().await;
    let operator = world.operator.as_ref().expect("an operator");
    let (first, runtime) = (&operator.shared, world.runtime.name());
    // Another one, whose store is well.
    let memory: Arc<dyn Store> = world.store.inner.clone();
    let process = SystemEntropy.process_id(start());
    let second = Shards::join(&memory, process, Presence::apart(), vec![runtime.clone()]).await.expect("joined");
    knows_of(&world, operator, 2).await;
    let agents: Vec<_> = (0..100).map(|_| SystemEntropy.agent_id(start())).collect();
    let own = || agents.iter().copied().filter(|agent| first.owns(runtime, *agent)).collect::<Vec<_>>();
    let left = || agents.iter().copied().filter(|agent| !second.owns(runtime, *agent)).collect::<Vec<AgentId>>();
    let before = own();
    assert!(!before.is_empty() && before.len() < agents.len(), "both have some: {}", before.len());
    let since = sign(&world, first.shards.me()).await.expect("it lives").since;
    world.store.reads_stand_still(true);
    for passed in 1..=60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second.renew_now(&memory).await.expect("renewed");
        let lasts = sign(&world, first.shards.me()).await.is_some_and(|sign| sign.since == since);
        assert!(lasts, "its sign of life had run out after {passed} s");
        assert_eq!((left(), own()), (before.clone(), before.clone()));
    }
    world.store.reads_stand_still(false);
    world.idle("a", AgentSpec::default()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_whose_reads_take_longer_than_its_lease_lasts_looks_for_what_is_due_all_the_same() {
    let world = World::new().await;
    let agent = world.idle("a", AgentSpec { idle_timeout: 60, ..AgentSpec::default() }).await;
    world.store.slow_reads(Duration::from_secs(6));
    // Long after its idle time, in which each look takes several such reads.
    tokio::time::sleep(Duration::from_secs(180)).await;
    world.store.slow_reads(Duration::ZERO);
    let agent = world.agent(&agent).await;
    assert_eq!(agent.status.state(), State::Slept, "{agent:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_stood_still_past_its_lease_sees_who_lives_before_it_looks_for_what_is_due() {
    let world = World::new().await;
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    for _ in 0..20 {
        world.store.take_asked();
        // All that the process waits for is late at once.
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let asked = world.store.take_asked();
        assert_eq!(asked[..3], ["claim", "lives", "due"], "{asked:?}");
        tokio::time::sleep(Duration::from_millis(10_837)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_operator_died_is_taken_over_soon_though_the_clock_was_set_back() {
    is_taken_over_soon(|world| world.clock.set_ahead(jiff::SignedDuration::from_hours(-1))).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_takes_no_start_from_an_operator_that_lives() {
    for between in 0..8 {
        let world = World::new().await;
        // Not in step with the other one.
        tokio::time::sleep(Duration::from_millis(900)).await;
        let second = world.another_operator().await;
        knows_of(&world, world.operator.as_ref().expect("an operator"), 2).await;
        world.engine.inject(Rule::new(Method::Start, Fault::Slow(Duration::from_secs(10))));
        let mut agents = Vec::new();
        for n in 0..20 {
            agents.push(world.create(&format!("a{n}"), AgentSpec::default()).await);
        }
        for agent in &agents {
            world.until(agent, "begun", |a| a.status.run.is_some()).await;
        }
        tokio::time::sleep(between * Duration::from_millis(250)).await;
        world.clock.set_ahead(jiff::SignedDuration::from_hours(-1));
        for agent in &agents {
            let idle = world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
            assert_eq!((idle.status.incarnation.0, idle.status.restarts), (1, 0), "{idle:#?}");
        }
        second.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_operators_make_each_of_a_thousand_computers_once() {
    let world = World::new().await;
    let second = world.another_operator().await;
    let mut agents = Vec::new();
    for n in 0..1000 {
        agents.push(world.create(&format!("a{n}"), AgentSpec::default()).await);
    }
    for agent in &agents {
        let idle = world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
        assert_eq!((idle.status.incarnation.0, idle.status.restarts), (1, 0), "{}", idle.name);
    }
    assert_eq!((world.engine.computers().len(), world.running()), (1000, 1000));
    assert_eq!(world.engine.calls(Method::Start), 1000, "each is started once");
    second.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_stood_still_past_its_lease_changes_nothing_when_it_goes_on() {
    let mut world = World::new().await;
    let hung = world.engine.inject(Rule::new(Method::Start, Fault::Hang).times(1));
    let agent = world.create("a", AgentSpec::default()).await;
    world.engine_until("in the middle of a start", |_| hung.hits() == 1).await;
    let begun = world.agent(&agent).await;
    world.kill_operator();
    world.start_operator().await;
    let started =
        |a: &Agent| a.status.state() == State::Idle && a.status.run.as_ref().is_some_and(|run| run.start_id.is_some());
    let idle = world.until(&agent, "idle", started).await;
    // Its call comes through to the engine when another operator has long taken over.
    let boot = Boot {
        agent_url: "http://agents.invalid".into(),
        ca: None,
        computer: computer(&begun),
        incarnation: begun.status.incarnation,
        key: "of the first start".into(),
    };
    world.runtime.start(computer(&begun), &boot).await.expect_err("it is up already");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let after = world.agent(&agent).await;
    assert_eq!(after.status.run, idle.status.run, "the start is the second operator's");
    assert_eq!((after.status.state(), after.status.restarts), (State::Idle, 0));
    assert_eq!((world.engine.computers().len(), world.running()), (1, 1));
    world.done(&agent, "hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_start_is_given_up_only_where_nobody_has_its_key() {
    let world = World::new().await;
    world.engine.inject(Rule::new(Method::Start, Fault::Hang));
    let agent = world.create("a", AgentSpec::default()).await;
    let mut agent = world.until(&agent, "begun", |a| a.status.run.is_some()).await;
    let began = agent.status.run.as_ref().and_then(|run| run.operator).expect("who began it");
    let other = crate::ids::ProcessId::from_uuid(agent.id.as_uuid());
    let given_up = |agent: &Agent, operator, operators: &[_]| {
        let now = agent.status.run.as_ref().expect("a run").began_at;
        let (observed, work) = (Observation::Unknown, Work::None);
        let reached = crate::runtime::LimitsReached::default();
        let view = View {
            agent,
            computer: None,
            observed,
            reached,
            disk_limit: false,
            work,
            operator,
            operators,
            listening: None,
            moved: &[],
            now,
        };
        match plan(&view, &OperatorSettings::default()) {
            Plan::Wait(Some(_)) => false,
            Plan::Commit { ops, .. } => {
                matches!(&ops[..], [AgentOp::Transition { reason, .. }] if reason == "OperatorGone")
            }
            plan => panic!("{plan:?}"),
        }
    };
    assert!(!given_up(&agent, other, &[began, other]), "who began it lives");
    assert!(given_up(&agent, other, &[other]), "its lease is gone");
    assert!(given_up(&agent, began, &[began, other]), "its own, without a key");
    // What an older release began names nobody.
    let run = agent.status.run.as_mut().expect("a run");
    let mut row = serde_json::to_value(&*run).expect("a row");
    row.as_object_mut().expect("an object").remove("operator").expect("who began it");
    *run = serde_json::from_value(row).expect("an older row is read");
    assert_eq!(run.operator, None);
    assert!(given_up(&agent, other, &[began, other]));
}
