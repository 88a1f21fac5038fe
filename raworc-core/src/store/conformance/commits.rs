//! Commits: durable, atomic, serial, and the same when they are sent again.

use std::sync::Arc;

use super::scene::{
    START, Scene, WRITERS, agent_id, agent_name, change, changes, commit_id, conflict, creation, happens, message,
    message_id, new_agent, spec,
};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{AgentEvent, ConditionKind, Desired};
use crate::ids::{Incarnation, TenantName};
use crate::message::MessageState;
use crate::store::{AgentChange, AgentOp, Check, Commit, Conflict, MessageQuery, StoreError};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(what_was_committed_is_there_after_a_restart shows "S1", "S5"),
        case!(a_commit_that_fails_late_leaves_nothing_of_itself shows "S2"),
        case!(a_failed_precondition_is_named_and_changes_nothing shows "S3"),
        case!(commits_beside_one_that_fails_go_through shows "S3"),
        case!(of_many_who_saw_the_same_status_one_goes_through shows "S4"),
        case!(changes_of_one_agent_are_not_lost_among_many_writers shows "S4"),
        case!(a_commit_sent_again_gets_its_first_result shows "S6"),
        case!(a_commit_sent_by_many_at_once_happens_once shows "S6"),
        case!(a_commit_sent_again_after_a_restart_gets_its_first_result shows "S1", "S6"),
        case!(a_commit_that_deletes_an_agent_tells_nothing_of_its_inbox shows "S6", "S26"),
    ]
}

async fn what_was_committed_is_there_after_a_restart(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("survivor").await;
    let message = scene.accept(agent.id, "hello").await;
    let agent = scene.agent(agent.id).await;
    let log = scene.log(START).await;

    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.agent(agent.id).await, agent);
    assert_eq!(scene.store.message(agent.id, message.id).await.expect("the store answers"), Some(message));
    assert_eq!(scene.log(START).await, log, "the log is as it was");
    let next = scene.accept(agent.id, "again").await;
    assert_eq!(next.seq, 2, "message numbers go on");
    assert_eq!(scene.log(START).await[log.len()].revision.0, log.len() as u64 + 1, "revisions go on");
}

async fn a_commit_that_fails_late_leaves_nothing_of_itself(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.create("whole").await;
    let before = (scene.agent(agent.id).await, scene.log(START).await);

    let tenant = TenantName::default();
    let (id, accept) = message("never");
    let commit = changes([
        new_agent(&tenant, "half", spec()),
        AgentChange { agent: agent.id, when: vec![Check::Alive], ops: vec![accept] },
        AgentChange { agent: agent.id, when: vec![Check::Generation(99)], ops: vec![] },
    ]);
    let refused = conflict(scene.store.commit(commit).await);
    assert_eq!(refused, Conflict::Generation { wanted: 99, found: 1 });

    let half = agent_name("half");
    let found = scene.store.agent(&tenant, &half).await.expect("the store answers").value;
    assert_eq!(found, None, "the agent of the first change");
    assert_eq!(scene.store.message(agent.id, id).await.expect("the store answers"), None, "the message of the second");
    assert_eq!((scene.agent(agent.id).await, scene.log(START).await), before);
}

async fn a_failed_precondition_is_named_and_changes_nothing(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("guarded").await;
    scene.accept(agent.id, "waits").await;
    let agent = scene.agent(agent.id).await;
    let head = scene.head().await;
    let status = agent.status.version;
    let other = message_id();
    let expected = [
        (Check::Absent, Conflict::NameTaken(agent.name.clone())),
        (Check::Generation(7), Conflict::Generation { wanted: 7, found: agent.generation }),
        (Check::Status(status + 1), Conflict::Status { wanted: status + 1, found: status }),
        (
            Check::Incarnation(Incarnation(9)),
            Conflict::StaleIncarnation { wanted: Incarnation(9), found: Incarnation(1) },
        ),
        (Check::NothingToDo, Conflict::InboxNotEmpty(1)),
        (Check::InboxBelow(1), Conflict::InboxFull(1)),
        (Check::InboxBytesBelow(5), Conflict::InboxBytesFull(5)),
        (Check::Quiet, Conflict::NotQuiet(agent.status.awake_until.expect("an idle agent has its time"))),
        (Check::SilentSince(None), Conflict::Heard(agent.status.heard_at.expect("it has booted"))),
        (Check::Holds(other), Conflict::NotHeld(other)),
    ];
    for (check, refused) in expected {
        let (_, accept) = message("never");
        let result = scene.store.commit(change(agent.id, check, vec![accept])).await;
        assert_eq!(conflict(result), refused);
        assert_eq!(scene.agent(agent.id).await, agent);
    }
    assert_eq!(scene.head().await, head);
    let absent = agent_id();
    let result = scene.store.commit(change(absent, Check::Alive, vec![])).await;
    assert_eq!(conflict(result), Conflict::NoAgent(absent));
}

async fn commits_beside_one_that_fails_go_through(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.create("busy-place").await.id;
    // More than once, so that some come after one that failed in whatever order a round runs.
    for _ in 0..3 {
        let results = scene
            .at_once(move |n, store| async move {
                // Every fourth fails, wherever a store may have put it among the others.
                let when = if n % 4 == 0 { Check::Generation(99) } else { Check::Alive };
                let (id, accept) = message(&format!("number {n}"));
                (n, id, store.commit(change(agent, when, vec![accept])).await)
            })
            .await;
        for (n, id, result) in results {
            let there = scene.store.message(agent, id).await.expect("the store answers").is_some();
            match result {
                Ok(_) => assert!(n % 4 != 0 && there, "message {n} was accepted"),
                Err(StoreError::Conflict(Conflict::Generation { .. })) => {
                    assert!(n % 4 == 0 && !there, "message {n} was not")
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

async fn of_many_who_saw_the_same_status_one_goes_through(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let mut agent = scene.idle("contested").await;
    for round in 0..8 {
        let (id, version) = (agent.id, agent.status.version);
        let event = if round % 2 == 0 { AgentEvent::SleepAsked } else { AgentEvent::WakeAsked };
        let results = scene
            .at_once(move |_, store| {
                let commit = change(id, Check::Status(version), vec![happens(event.clone())]);
                async move { store.commit(commit).await }
            })
            .await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "one of the writers");
        for result in lost {
            assert!(matches!(conflict(result), Conflict::Status { wanted, .. } if wanted == version));
        }
        agent = scene.agent(id).await;
    }
}

async fn changes_of_one_agent_are_not_lost_among_many_writers(subject: Arc<dyn StoreUnderTest>) {
    const ROUNDS: u64 = 8;
    let scene = Scene::open(&*subject).await;
    let agent = scene.create("shared").await;
    let id = agent.id;
    let results = scene
        .at_once(move |n, store| async move {
            for round in 0..ROUNDS {
                let (_, accept) = message("one more");
                let told = AgentOp::SetCondition {
                    kind: ConditionKind::DiskFull,
                    status: true,
                    reason: format!("Writer{n}Round{round}"),
                    message: String::new(),
                };
                store.commit(change(id, Check::Alive, vec![accept, told])).await?;
            }
            Ok::<_, StoreError>(())
        })
        .await;
    for result in results {
        result.expect("the commit goes through");
    }
    let after = scene.agent(id).await;
    let written = WRITERS as u64 * ROUNDS;
    assert_eq!(after.inbox.queued, written);
    assert_eq!(after.status.version, agent.status.version + written);
    let page = scene.store.messages(&MessageQuery::of(id)).await.expect("the store answers");
    assert_eq!(page.items.len() as u64, written);
}

async fn a_commit_sent_again_gets_its_first_result(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let commit = creation(&TenantName::default(), "once", spec());
    let first = scene.commit(commit.clone()).await;
    // What comes between must not show in the answer.
    scene.accept(first.agents[0].id, "meanwhile").await;
    let log = scene.log(START).await;

    assert_eq!(scene.commit(commit.clone()).await, first);
    assert_eq!(scene.commit(commit).await, first);
    assert_eq!(scene.log(START).await, log, "nothing more has changed");
}

async fn a_commit_sent_by_many_at_once_happens_once(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.create("echo").await.id;
    let head = scene.head().await;
    let (_, accept) = message("once");
    let commit = change(agent, Check::Alive, vec![accept]);
    let results = scene
        .at_once(move |_, store| {
            let commit = commit.clone();
            async move { store.commit(commit).await }
        })
        .await;
    let results: Vec<_> = results.into_iter().map(|result| result.expect("the commit goes through")).collect();
    assert!(results.iter().all(|result| *result == results[0]), "all get the same result");
    assert_eq!(scene.agent(agent).await.inbox.last_seq, 1);
    assert_eq!(scene.log(head).await.len(), 1, "one event");
}

async fn a_commit_sent_again_after_a_restart_gets_its_first_result(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.create("patient").await;
    let (_, accept) = message("once");
    let commit = Commit { id: commit_id(), ..change(agent.id, Check::Generation(1), vec![accept]) };
    let first = scene.commit(commit.clone()).await;
    let head = scene.head().await;

    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.commit(commit).await, first);
    assert_eq!(scene.head().await, head);
}

async fn a_commit_that_deletes_an_agent_tells_nothing_of_its_inbox(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let agent = scene.idle("full").await.id;
    let accepted = scene.change(agent, (0..50).map(|_| message("waits").1).collect()).await;
    assert_eq!((accepted.inbox.queued, accepted.inbox.queued_bytes), (50, 250));
    let asked = AgentOp::SetDesired { desired: Desired::Deleted, retry: false };
    let delete = change(agent, Check::Alive, vec![asked, happens(AgentEvent::DeleteAsked)]);
    let first = scene.commit(delete.clone()).await;
    assert_eq!(first.messages, [], "one message of many would be all of them");
    assert_eq!(first.agents.iter().map(|agent| agent.id).collect::<Vec<_>>(), [agent]);
    assert_eq!(scene.commit(delete.clone()).await, first);

    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.commit(delete).await, first, "whoever sends it again is told no more");
    let messages = scene.store.messages(&MessageQuery::of(agent)).await.expect("the store answers").items;
    assert_eq!(messages.len(), 50);
    assert!(messages.iter().all(|message| message.state == MessageState::Cancelled && message.ended_at.is_some()));
    assert_eq!(scene.agent(agent).await.inbox.queued_bytes, 0);
}
