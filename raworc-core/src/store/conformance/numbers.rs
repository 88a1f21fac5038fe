//! Numbers without gaps: revisions, messages, steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scene::{START, Scene, WRITERS, change, creation, message, spec};
use super::{StoreCase, StoreUnderTest, case};
use crate::event::EventKind;
use crate::ids::{Incarnation, MessageId, TenantName};
use crate::step::{NewStep, StepKind};
use crate::store::{AgentOp, Check, MessageQuery, StepQuery};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(revisions_are_dense_over_all_writers shows "S5"),
        case!(a_commit_that_fails_takes_no_revision shows "S5"),
        case!(messages_are_numbered_in_the_order_of_the_log shows "S7"),
        case!(steps_are_numbered_in_the_order_of_the_log shows "S8"),
    ]
}

async fn revisions_are_dense_over_all_writers(subject: Arc<dyn StoreUnderTest>) {
    const ROUNDS: usize = 4;
    let scene = Scene::open(&*subject).await;
    let results = scene
        .at_once(|n, store| async move {
            let mut told = Vec::new();
            for round in 0..ROUNDS {
                let commit = creation(&TenantName::default(), &format!("agent-{n}-{round}"), spec());
                let committed = store.commit(commit).await.expect("the commit goes through");
                told.push((committed.agents[0].id, committed.revision));
            }
            told
        })
        .await;
    let log = scene.log(START).await;
    let revisions: Vec<_> = log.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, (1..=(WRITERS * ROUNDS) as u64).collect::<Vec<_>>());
    let of: BTreeMap<_, _> = log.iter().map(|event| (event.agent.expect("of an agent"), event.revision)).collect();
    for told in results {
        assert!(told.is_sorted_by_key(|(_, revision)| *revision), "a writer's own commits are in order");
        for (agent, revision) in told {
            assert_eq!(of[&agent], revision, "the commit is where its answer says");
            assert_eq!(scene.agent(agent).await.revision, revision, "and its row says so too");
        }
    }
}

async fn a_commit_that_fails_takes_no_revision(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("steady").await.id;
    scene
        .at_once(move |n, store| async move {
            for round in 0..4 {
                let when = if (n + round) % 2 == 0 { Check::Alive } else { Check::Generation(99) };
                let (_, accept) = message("sometimes");
                drop(store.commit(change(id, when, vec![accept])).await);
            }
        })
        .await;
    let expected = 1 + WRITERS as u64 * 2;
    assert_eq!(scene.head().await.0, expected);
    let log = scene.log(START).await;
    assert!(log.iter().map(|event| event.revision.0).eq(1..=expected), "{log:?}");
}

async fn messages_are_numbered_in_the_order_of_the_log(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let (one, two) = (scene.create("one").await.id, scene.create("two").await.id);
    scene
        .at_once(move |n, store| async move {
            for round in 0..6 {
                let agent = if (n + round) % 2 == 0 { one } else { two };
                let (_, accept) = message("next");
                // Some fail, and leave no gap.
                let when = if round == 3 { Check::Generation(99) } else { Check::Alive };
                drop(store.commit(change(agent, when, vec![accept])).await);
            }
        })
        .await;
    let log = scene.log(START).await;
    for agent in [one, two] {
        let page = scene.store.messages(&MessageQuery::of(agent)).await.expect("the store answers");
        let kept: Vec<_> = page.items.iter().map(|message| (message.seq, message.id)).collect();
        let accepted = log.iter().filter(|e| e.agent == Some(agent) && e.kind == EventKind::MessageAccepted);
        let logged: Vec<(u64, MessageId)> =
            (1..).zip(accepted.map(|event| event.message.expect("of a message"))).collect();
        assert_eq!(kept, logged);
        assert_eq!(kept.len(), WRITERS / 2 * 5);
    }
}

async fn steps_are_numbered_in_the_order_of_the_log(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("walker").await.id;
    let head = scene.head().await;
    scene
        .at_once(move |n, store| async move {
            for round in 0..4 {
                let step = |part: usize| NewStep {
                    kind: StepKind::Log,
                    tool: None,
                    text: format!("writer {n}, round {round}, part {part}"),
                };
                let add = AgentOp::AddSteps { message: None, attempt: 0, steps: vec![step(0), step(1)] };
                let when =
                    if round == 2 { Check::Incarnation(Incarnation(99)) } else { Check::Incarnation(Incarnation(1)) };
                drop(store.commit(change(id, when, vec![add])).await);
            }
        })
        .await;
    let query = StepQuery { agent: id, message: None, after: 0, limit: 500 };
    let steps = scene.store.steps(&query).await.expect("the store answers").items;
    assert_eq!(steps.len(), WRITERS * 3 * 2);
    assert!(steps.iter().map(|step| step.seq).eq(1..=steps.len() as u64));
    for pair in steps.chunks(2) {
        let [first, second] = pair else { panic!("steps come in pairs") };
        assert_eq!(first.text.replace("part 0", "part 1"), second.text, "a commit's steps stand together");
    }
    let log = scene.log(head).await;
    let firsts: Vec<_> = log.iter().map(|event| event.summary["first"].as_u64().expect("a number")).collect();
    assert!(firsts.is_sorted(), "{firsts:?}");
}
