//! Agents that have a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::scene::{Scene, begin, happens, runtime, spec};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{AgentEvent, AgentSpec, Desired};
use crate::ids::{AgentId, RuntimeName, TenantName};
use crate::store::{AgentOp, Backoff, Due, DueQuery, Touch};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(due_tells_every_agent_by_its_time_and_the_earliest_first shows "S17"),
        case!(due_follows_every_change_of_a_deadline shows "S17", "S20"),
        case!(due_keeps_to_the_runtimes_and_the_limit_that_it_is_given shows "S17", "S16"),
    ]
}

async fn due(scene: &Scene, before: Option<Timestamp>, limit: usize) -> Vec<Due> {
    let query = DueQuery { runtimes: vec![runtime()], before, limit };
    scene.store.due(&query).await.expect("the store answers").value
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time + SignedDuration::from_secs(seconds)
}

/// What `due` has to say, by the rows themselves.
async fn expected(scene: &Scene, agents: &[AgentId], before: Timestamp) -> BTreeSet<(Timestamp, AgentId)> {
    let mut expected = BTreeSet::new();
    for id in agents {
        let agent = scene.agent(*id).await;
        expected.extend(agent.due_at().filter(|at| *at <= before).map(|at| (at, agent.id)));
    }
    expected
}

async fn check(scene: &Scene, agents: &[AgentId]) {
    let now = scene.store.head().await.expect("the store answers").now;
    for seconds in [0, 29, 31, 119, 301, 4000, 100_000_000] {
        let before = after(now, seconds);
        let told = due(scene, Some(before), 500).await;
        assert!(told.is_sorted_by_key(|due| due.at), "the earliest first: {told:?}");
        let found: BTreeSet<_> = told.iter().map(|due| (due.at, due.agent)).collect();
        assert_eq!(told.len(), found.len(), "each agent once");
        assert_eq!(found, expected(scene, agents, before).await, "{seconds} s from now");
    }
}

/// Agents in every state that there is, with every kind of deadline.
async fn agents_of_all_kinds(scene: &Scene) -> Vec<AgentId> {
    let default = TenantName::default();
    let asleep = || AgentOp::SetDesired { desired: Desired::Asleep, retry: false };
    let new = scene.create("new").await.id;
    let starting = scene.create("starting").await.id;
    scene.change(starting, vec![begin(None)]).await;
    let retrying = scene.create("retrying").await.id;
    let failed = AgentOp::Transition {
        event: AgentEvent::StartFailed,
        reason: "Conformance".into(),
        message: String::new(),
        backoff: Some(Backoff::After(Duration::from_secs(60))),
    };
    scene.change(retrying, vec![failed]).await;
    let idle = scene.idle("idle").await.id;
    let never = scene.create_with(&default, "never-sleeps", AgentSpec { idle_timeout: 0, ..spec() }).await.id;
    scene.start(never).await;
    let busy = scene.idle("busy").await.id;
    let message = scene.accept(busy, "work").await.id;
    scene.change(busy, vec![AgentOp::Lease(message)]).await;
    let stopping = scene.idle("stopping").await;
    scene.change(stopping.id, vec![asleep(), happens(AgentEvent::SleepAsked)]).await;
    let slept = scene.idle("slept").await;
    let ended = AgentOp::RunEnded { incarnation: slept.status.incarnation };
    scene.change(slept.id, vec![asleep(), happens(AgentEvent::SleepAsked), ended]).await;
    let deleted = scene.idle("deleted").await.id;
    scene.delete(deleted).await;
    vec![new, starting, retrying, idle, never, busy, stopping.id, slept.id, deleted]
}

async fn due_tells_every_agent_by_its_time_and_the_earliest_first(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agents = agents_of_all_kinds(&scene).await;
    check(&scene, &agents).await;
    let now: Vec<_> = due(&scene, None, 500).await.into_iter().map(|due| due.agent).collect();
    assert!(now.contains(&agents[0]), "a new agent is due at once");
    assert!(!now.contains(&agents[3]), "an idle one is not");
    let scene = scene.reopen(&*subject).await;
    check(&scene, &agents).await;
}

async fn due_follows_every_change_of_a_deadline(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agents = agents_of_all_kinds(&scene).await;
    let (idle, slept, starting) = (scene.agent(agents[3]).await, agents[7], agents[1]);
    let touch = Touch {
        agent: idle.id,
        incarnation: idle.status.incarnation,
        heartbeat: true,
        awake_for: Some(Duration::from_secs(5000)),
    };
    let without: Vec<AgentId> = scene.store.touch(&[touch]).await.expect("the store answers");
    assert_eq!(without, []);
    assert_eq!(
        scene.agent(idle.id).await.status.awake_until.map(|until| until > after(idle.status.since, 4900)),
        Some(true)
    );
    check(&scene, &agents).await;
    // A message for one that sleeps makes it due at once; sleep takes that back.
    scene.accept(slept, "wake up").await;
    check(&scene, &agents).await;
    assert!(due(&scene, None, 500).await.iter().any(|due| due.agent == slept));
    scene.change(slept, vec![AgentOp::SetDesired { desired: Desired::Asleep, retry: false }]).await;
    scene.change(starting, vec![AgentOp::Extend { deadline: Duration::from_secs(1000) }]).await;
    check(&scene, &agents).await;
    for id in agents {
        if scene.agent(id).await.desired != Desired::Deleted {
            scene.delete(id).await;
        }
    }
    assert_eq!(due(&scene, Some(Timestamp::MAX), 500).await, []);
}

async fn due_keeps_to_the_runtimes_and_the_limit_that_it_is_given(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let default = TenantName::default();
    let names = [runtime(), RuntimeName::new("cloud").expect("valid"), RuntimeName::new("metal-2").expect("valid")];
    let mut made = Vec::new();
    for round in 0..4 {
        for name in &names {
            let spec = AgentSpec { runtime: Some(name.clone()), ..spec() };
            made.push((name.clone(), scene.create_with(&default, &format!("{name}-{round}"), spec).await));
        }
    }
    for wanted in [&names[..1], &names[1..2], &names[1..], &names[..], &[]] {
        let query = |limit| DueQuery { runtimes: wanted.to_vec(), before: None, limit };
        let told = scene.store.due(&query(500)).await.expect("the store answers").value;
        let found: BTreeSet<_> = told.iter().map(|due| due.agent).collect();
        let expected: BTreeSet<_> =
            made.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, agent)| agent.id).collect();
        assert_eq!(found, expected, "{wanted:?}");
        let few = scene.store.due(&query(3)).await.expect("the store answers").value;
        assert_eq!(
            few.iter().map(|due| due.at).collect::<Vec<_>>(),
            told.iter().take(3).map(|due| due.at).collect::<Vec<_>>()
        );
    }
}
