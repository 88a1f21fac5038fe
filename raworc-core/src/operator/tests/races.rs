//! A sleep that was decided on, and what comes in between.

use tokio::sync::Barrier;

use super::*;
use crate::agent::{AgentEvent, Desired};
use crate::control::{ActivityKind, SleepMode};
use crate::ids::{AgentId, Incarnation};
use crate::operator::plan::{Observation, Plan, View, Work, plan};
use crate::runtime::{LimitsReached, Runtime};
use crate::store::{AgentChange, AgentOp, Check, Commit, Conflict, NewAgent, Stamped, Store, StoreError, Touch};

/// The sleep by time that an operator decides on for this agent at this moment, as it would commit it.
fn decided(read: &Stamped<Option<Agent>>) -> Commit {
    let agent = read.value.as_ref().expect("an agent");
    let view = View {
        agent,
        computer: None,
        observed: Observation::Unknown,
        reached: LimitsReached::default(),
        disk_limit: false,
        work: Work::None,
        operator: SystemEntropy.process_id(start()),
        operators: &[],
        listening: Some(Timestamp::UNIX_EPOCH),
        moved: &[],
        now: read.now,
    };
    let Plan::Commit { mut when, ops, .. } = plan(&view, &OperatorSettings::default()) else {
        panic!("it is to be put to sleep: {agent:#?}");
    };
    assert!(matches!(&ops[0], AgentOp::Transition { event: AgentEvent::IdleExpired, .. }), "{ops:?}");
    when.push(Check::Status(agent.status.version));
    commit(agent.id, when, ops)
}

fn commit(agent: AgentId, when: Vec<Check>, ops: Vec<AgentOp>) -> Commit {
    Commit::of(SystemEntropy.commit_id(start()), AgentChange { agent, when, ops })
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_was_decided_on_has_no_effect_on_the_next_incarnation() {
    let mut world = World::new().await;
    let agent = world.idle("a", idle_after(60)).await;
    let recorded = |a: &Agent| a.status.run.as_ref().is_some_and(|run| run.start_id.is_some());
    let agent = world.until(&agent, "recorded", recorded).await;
    world.kill_operator();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let late = decided(&world.control.system().store().agent_by_id(agent.id).await.expect("a store"));
    let first = agent.status.run.clone().expect("a run");
    world.start_operator().await;
    world.until(&agent, "stopped", |a| a.status.state() == State::Slept && a.status.run.is_none()).await;
    world.control.wake(&world.call, &world.tenant, &agent.name, false).await.expect("asked");
    let woken = world.until(&agent, "idle", |a| a.status.state() == State::Idle && recorded(a)).await;
    assert_eq!(woken.status.incarnation, Incarnation(2));
    // The decision, its stop and the record of it come now, when the new incarnation, too, has been quiet for long.
    world.kill_operator();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let refused = world.control.system().store().commit(late).await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::Status { .. }))), "{refused:?}");
    let start_id = first.start_id.expect("it was started");
    world.runtime.stop(computer(&agent), &start_id, Duration::ZERO).await.expect("nothing to stop");
    let ended = vec![AgentOp::RunEnded { incarnation: first.incarnation }];
    let refused = world
        .control
        .system()
        .store()
        .commit(commit(agent.id, vec![Check::Incarnation(first.incarnation)], ended))
        .await;
    assert!(matches!(refused, Err(StoreError::Conflict(Conflict::StaleIncarnation { .. }))), "{refused:?}");
    world.done(&agent, "hello").await;
    let now = world.agent(&agent).await;
    assert_eq!((now.status.state(), now.status.incarnation), (State::Idle, Incarnation(2)));
    assert_eq!(now.status.run, woken.status.run);
}

/// An idle agent without a program in a store of its own.
async fn made(store: &dyn Store, name: &str) -> Agent {
    let id = SystemEntropy.agent_id(start());
    let spec = AgentSpec { idle_timeout: 1, ..AgentSpec::default() };
    let owner = UserName::new("ada").expect("a name");
    let new = NewAgent { tenant: TenantName::default(), name: agent_name(name), owner, spec };
    let begin = AgentOp::Begin {
        operator: SystemEntropy.process_id(start()),
        computer: None,
        key_hash: String::new(),
        deadline: Duration::from_secs(60),
        generation: 1,
    };
    let ready = AgentOp::Transition {
        event: AgentEvent::Ready,
        reason: "Ready".into(),
        message: "waits for a message".into(),
        backoff: None,
    };
    let made = store.commit(commit(id, vec![Check::Absent], vec![AgentOp::Create(Box::new(new)), begin, ready])).await;
    made.expect("made").agents.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_renewal_and_a_sleep_at_the_same_time_one_has_an_effect() {
    let clock = TokioClock::starting_at(start());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let (mut renewed, mut slept) = (0, 0);
    for round in 0..3000 {
        let agent = made(&*store, &format!("a{round}")).await;
        clock.set_ahead(jiff::SignedDuration::from_secs(1));
        let sleep = decided(&store.agent_by_id(agent.id).await.expect("a store"));
        let touch = Touch {
            agent: agent.id,
            incarnation: agent.status.incarnation,
            heartbeat: false,
            awake_for: Some(Duration::from_secs(25)),
        };
        let together = Arc::new(Barrier::new(2));
        let renewal = tokio::spawn({
            let (store, together) = (Arc::clone(&store), Arc::clone(&together));
            async move {
                together.wait().await;
                if round % 2 == 0 {
                    tokio::task::yield_now().await;
                }
                store.touch(&[touch]).await.expect("a store").is_empty()
            }
        });
        let sleep = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                together.wait().await;
                if round % 2 == 1 {
                    tokio::task::yield_now().await;
                }
                store.commit(sleep).await
            }
        });
        let (acknowledged, sleep) = (renewal.await.expect("a task"), sleep.await.expect("a task"));
        let now = store.agent_by_id(agent.id).await.expect("a store").value.expect("an agent");
        if acknowledged {
            assert!(matches!(sleep, Err(StoreError::Conflict(Conflict::NotQuiet(_)))), "{sleep:?}");
            assert_eq!((now.status.state(), now.desired), (State::Idle, Desired::Awake));
            renewed += 1;
        } else {
            assert!(sleep.is_ok(), "{sleep:?}");
            assert_eq!(now.status.state(), State::Slept);
            slept += 1;
        }
    }
    assert!(renewed > 0 && slept > 0, "both come first at times: {renewed} and {slept}");
}

#[tokio::test(start_paused = true)]
async fn activity_that_was_acknowledged_at_the_last_moment_keeps_its_agent_awake() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for n in 0..200 {
        agents.push(world.create(&format!("a{n}"), idle_after(60)).await);
    }
    for agent in &agents {
        world.until(agent, "idle", |a| a.status.state() == State::Idle).await;
    }
    let mut tasks = Vec::new();
    for (n, agent) in agents.iter().enumerate() {
        let (control, agent) = (world.control.clone(), world.agent(agent).await);
        let now = world.control.system().store().head().await.expect("a store").now;
        let left = agent.status.awake_until.expect("a time").duration_since(now);
        let left = Duration::try_from(left).expect("not yet over");
        tasks.push(tokio::spawn(async move {
            // From a little before its time is over until its operator has looked at it, and between any two steps.
            tokio::time::sleep(left.saturating_sub(Duration::from_millis(5)) + Duration::from_millis(n as u64 % 10))
                .await;
            for _ in 0..n / 10 {
                tokio::task::yield_now().await;
            }
            control.system().hold(&agent, ActivityKind::Command).await
        }));
    }
    let mut held = Vec::new();
    for (agent, task) in agents.iter().zip(tasks) {
        match task.await.expect("a task") {
            Ok(guard) => held.push((agent, guard)),
            Err(error) => {
                assert!(matches!(error, Error::AgentAsleep(_)), "{error:?}");
                assert_eq!(world.agent(agent).await.status.state(), State::Slept);
            }
        }
    }
    assert!(!held.is_empty() && held.len() < agents.len(), "both happen: {} were held", held.len());
    tokio::time::sleep(Duration::from_secs(300)).await;
    for (agent, _guard) in &held {
        assert_eq!(world.agent(agent).await.status.state(), State::Idle);
    }
    let (last, guard) = held.pop().expect("one");
    drop(guard);
    world.until(last, "slept", |a| a.status.state() == State::Slept).await;
    world.control.sleep(&world.call, &world.tenant, &last.name, SleepMode::Now).await.expect("asked");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_begins_between_an_operators_look_and_its_sleep_keeps_its_agent_up() {
    let world = World::new().await;
    let agent = world.idle("a", idle_after(60)).await;
    let recorded = |a: &Agent| a.status.run.as_ref().is_some_and(|run| run.start_id.is_some());
    let agent = world.until(&agent, "recorded", recorded).await;
    let (begins, begun) = (tokio::time::Instant::now(), tokio::sync::oneshot::channel());
    let (control, held) = (world.control.clone(), agent.clone());
    // From here on the first commit is the sleep: nobody writes for an idle agent.
    world.store.before_next_commit(move || {
        Box::pin(async move {
            let guard = control.system().hold(&held, ActivityKind::Command).await.expect("it is up");
            begun.0.send((guard, begins.elapsed())).expect("it is waited for");
        })
    });
    let (guard, after) = begun.1.await.expect("an operator decides on a sleep");
    assert!(after >= Duration::from_secs(59), "its time was not over: {after:?}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let now = world.agent(&agent).await;
    assert_eq!((now.status.state(), now.desired), (State::Idle, Desired::Awake));
    assert_eq!(now.status.incarnation, Incarnation(1));
    drop(guard);
    world.until(&agent, "slept", |a| a.status.state() == State::Slept).await;
}
