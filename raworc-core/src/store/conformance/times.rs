//! Times are the store's.

use std::sync::Arc;

use jiff::Timestamp;

use super::scene::{START, Scene, change, creation, done, message, process_id, spec};
use super::{StoreCase, StoreUnderTest, case};
use crate::ids::TenantName;
use crate::step::{NewStep, StepKind};
use crate::store::{AgentOp, Check, DueQuery, LeaseClaim, StepQuery};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(times_of_rows_lie_between_the_reads_before_and_after_their_commit shows "S24"),
        case!(now_is_not_before_the_times_of_the_rows_whoever_writes_meanwhile shows "S24"),
        case!(times_come_back_as_the_commit_told_them shows "S24", "S1"),
    ]
}

async fn now(scene: &Scene) -> Timestamp {
    scene.store.head().await.expect("the store answers").now
}

async fn times_of_rows_lie_between_the_reads_before_and_after_their_commit(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let before = now(&scene).await;
    let agent = scene.idle("clock").await;
    let question = scene.accept(agent.id, "what time is it").await;
    let step = NewStep { kind: StepKind::Log, tool: None, text: "looks".into() };
    let add = AgentOp::AddSteps { message: Some(question.id), attempt: 1, steps: vec![step] };
    scene.change(agent.id, vec![AgentOp::Lease(question.id), add, done(question.id, "late")]).await;
    let after = now(&scene).await;

    let agent = scene.agent(agent.id).await;
    let question = scene.store.message(agent.id, question.id).await.expect("the store answers").expect("it is there");
    let steps = StepQuery { agent: agent.id, message: None, after: 0, limit: 10 };
    let step = scene.store.steps(&steps).await.expect("the store answers").items.remove(0);
    let computer = agent.status.computer.expect("it was started");
    let computer = scene.store.computer(computer).await.expect("the store answers").expect("it is there");
    assert_eq!(computer.reclaim_since, None);
    let run = agent.status.run.expect("it runs");
    let times = [
        ("agent.created_at", Some(agent.created_at)),
        ("status.since", Some(agent.status.since)),
        ("status.heard_at", agent.status.heard_at),
        ("run.began_at", Some(run.began_at)),
        ("run.booted_at", run.booted_at),
        ("run.ready_at", run.ready_at),
        ("message.created_at", Some(question.created_at)),
        ("message.leased_at", question.leased_at),
        ("message.ended_at", question.ended_at),
        ("step.at", Some(step.at)),
    ];
    for (what, at) in times {
        let at = at.unwrap_or_else(|| panic!("{what} is there"));
        assert!(before <= at && at <= after, "{what}: {before} <= {at} <= {after}");
    }
    let log = scene.log(START).await;
    assert!(log.iter().all(|event| before <= event.at && event.at <= after));
    assert!(log.is_sorted_by_key(|event| event.at), "the log is in the order of time");
}

async fn now_is_not_before_the_times_of_the_rows_whoever_writes_meanwhile(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("racer").await;
    let (id, name) = (agent.id, agent.name);
    scene
        .at_once(move |n, store| {
            let name = name.clone();
            async move {
                let mut last = Timestamp::MIN;
                for _ in 0..12 {
                    let told = if n % 2 == 0 {
                        let (_, accept) = message("tick");
                        let committed = store.commit(change(id, Check::Alive, vec![accept])).await;
                        let committed = committed.expect("the commit goes through");
                        assert!(committed.messages.iter().all(|message| message.created_at <= committed.now));
                        committed.now
                    } else {
                        let read = store.agent(&TenantName::default(), &name).await.expect("the store answers");
                        let agent = read.value.expect("it is there");
                        assert!(agent.status.since <= read.now && agent.status.heard_at <= Some(read.now));
                        read.now
                    };
                    assert!(last <= told, "one who asks again is not told an earlier time");
                    last = told;
                }
            }
        })
        .await;
    let due = DueQuery { runtimes: vec![super::scene::runtime()], before: None, limit: 10 };
    let told = scene.store.due(&due).await.expect("the store answers");
    assert!(told.value.iter().all(|due| due.at <= told.now));
    let claim = LeaseClaim { key: "k".into(), holder: process_id(), ttl: std::time::Duration::from_secs(60) };
    let lease = scene.store.claim(&claim).await.expect("the store answers");
    assert!(lease.value.since <= lease.now && lease.now < lease.value.expires);
}

async fn times_come_back_as_the_commit_told_them(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let told = scene.commit(creation(&TenantName::default(), "exact", spec())).await;
    let agent = told.agents[0].clone();
    assert_eq!(agent.created_at, told.now);
    assert_eq!(scene.agent(agent.id).await, agent);
    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.agent(agent.id).await, agent);
    assert!(now(&scene).await >= told.now);
}
