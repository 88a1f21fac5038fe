//! What is old and goes, and what never does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::scene::{START, Scene, change, commit_id, done, message, new_computer, runtime, soon, spec, tenant};
use super::{StoreCase, StoreUnderTest, case};
use crate::agent::{Agent, AgentEvent};
use crate::blob::BlobId;
use crate::ids::{AgentId, Revision, TenantName};
use crate::message::{Message, MessageState, Part, Role};
use crate::step::{NewStep, Step, StepKind};
use crate::store::{
    AgentOp, AuditEntry, AuditQuery, Change, Check, Commit, ComputerQuery, EventFilter, MessageQuery, NewMessage,
    Purge, PurgeFrom, PurgedRows, Retention, StepQuery, Store, StoreError,
};

pub(super) fn cases() -> Vec<StoreCase> {
    vec![
        case!(each_kind_goes_by_its_own_time_and_what_is_younger_stays shows "S28"),
        case!(a_message_that_has_not_ended_stays_with_its_steps_and_all_behind_it shows "S29"),
        case!(numbers_go_on_where_all_before_them_is_gone shows "S29", "S7", "S8"),
        case!(a_call_takes_away_no_more_than_it_may_and_leads_on shows "S30"),
        case!(a_deleted_agent_goes_once_its_computer_is_reclaimed shows "S31"),
        case!(a_blob_goes_once_no_message_has_referred_to_it_for_its_time shows "S32"),
        case!(blobs_go_a_few_at_a_time shows "S32", "S30"),
        case!(who_watches_from_before_what_is_gone_is_told shows "S19", "S28"),
        case!(a_commit_whose_events_are_gone_gets_its_first_result_again shows "S6", "S28"),
        case!(messages_that_come_while_others_go_are_all_there shows "S29"),
    ]
}

/// For longer than a case takes.
const LONG: Duration = Duration::from_hours(1);

const NOT_AT_ALL: Retention = Retention::of(Duration::ZERO);

/// Nothing but what the case is about.
fn only(set: impl FnOnce(&mut Retention)) -> Retention {
    let mut retention = Retention::for_ever();
    set(&mut retention);
    retention
}

/// Purges to the end, and tells what has gone.
async fn purge(store: &dyn Store, retention: Retention) -> PurgedRows {
    let mut purge = Purge::new(retention);
    let mut all = PurgedRows::default();
    loop {
        let purged = store.purge(&purge).await.expect("the store answers");
        all = all.with(&purged.rows);
        match purged.next {
            Some(from) => purge.from = from,
            None => return all,
        }
    }
}

fn step(text: &str) -> NewStep {
    NewStep { kind: StepKind::Log, tool: None, text: text.into() }
}

/// A message that is taken up, with a step on the way.
async fn hold(scene: &Scene, agent: AgentId, text: &str) -> Message {
    let question = scene.accept(agent, text).await;
    let add = AgentOp::AddSteps { message: Some(question.id), attempt: 1, steps: vec![step(text)] };
    scene.change(agent, vec![AgentOp::Lease(question.id), add]).await;
    question
}

/// A message, a step and a reply.
async fn exchange(scene: &Scene, agent: AgentId, text: &str) {
    let question = hold(scene, agent, text).await;
    scene.change(agent, vec![done(question.id, "an answer")]).await;
}

async fn messages(scene: &Scene, agent: AgentId) -> Vec<Message> {
    scene.store.messages(&MessageQuery::of(agent)).await.expect("the store answers").items
}

async fn steps(scene: &Scene, agent: AgentId) -> Vec<Step> {
    let query = StepQuery { agent, message: None, after: 0, limit: 500 };
    scene.store.steps(&query).await.expect("the store answers").items
}

async fn audited(scene: &Scene) -> usize {
    let query = AuditQuery { tenant: None, after: None, limit: 500 };
    scene.store.audit(&query).await.expect("the store answers").items.len()
}

async fn note(scene: &Scene, verb: &str) {
    let entry = AuditEntry {
        tenant: None,
        principal: "user:ada".into(),
        verb: verb.into(),
        resource: "thing".into(),
        allowed: true,
        request: None,
    };
    scene.commit(Commit { audit: Some(entry), ..Commit::new(commit_id(), vec![]) }).await;
}

async fn each_kind_goes_by_its_own_time_and_what_is_younger_stays(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("old").await.id;
    let setup = AgentOp::AddSteps { message: None, attempt: 0, steps: vec![step("of no message")] };
    scene.change(id, vec![setup]).await;
    exchange(&scene, id, "one").await;
    exchange(&scene, id, "two").await;
    note(&scene, "look").await;
    let there = (messages(&scene, id).await, steps(&scene, id).await, audited(&scene).await, scene.log(START).await);
    assert_eq!((there.0.len(), there.1.len(), there.2), (4, 3, 1));
    for retention in [Retention::of(LONG), Retention::for_ever(), Retention::default()] {
        assert_eq!(purge(&*scene.store, retention).await, PurgedRows::default(), "{retention:?}");
    }
    let now = (messages(&scene, id).await, steps(&scene, id).await, audited(&scene).await, scene.log(START).await);
    assert_eq!(now, there, "nothing is old");

    let at_once = Some(Duration::ZERO);
    let gone = purge(&*scene.store, only(|retention| retention.steps = at_once)).await;
    assert_eq!(gone, PurgedRows { steps: 3, ..PurgedRows::default() });
    assert_eq!((messages(&scene, id).await, steps(&scene, id).await), (there.0, vec![]));
    let gone = purge(&*scene.store, only(|retention| retention.messages = at_once)).await;
    assert_eq!(gone, PurgedRows { messages: 4, ..PurgedRows::default() });
    assert_eq!(messages(&scene, id).await, []);
    let gone = purge(&*scene.store, only(|retention| retention.audit = at_once)).await;
    assert_eq!(gone, PurgedRows { audit: 1, ..PurgedRows::default() });
    assert_eq!((audited(&scene).await, scene.log(START).await), (0, there.3.clone()));
    let gone = purge(&*scene.store, only(|retention| retention.events = at_once)).await;
    assert_eq!(gone, PurgedRows { events: there.3.len() as u64, ..PurgedRows::default() });
    note(&scene, "look again").await;
    assert_eq!(audited(&scene).await, 1);
    let scene = scene.reopen(&*subject).await;
    assert_eq!((messages(&scene, id).await, steps(&scene, id).await, audited(&scene).await), (vec![], vec![], 1));
    assert_eq!(scene.agent(id).await.inbox.last_seq, 4);
}

async fn a_message_that_has_not_ended_stays_with_its_steps_and_all_behind_it(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("busy").await.id;
    exchange(&scene, id, "done").await;
    let held = hold(&scene, id, "held").await;
    let queued = scene.accept(id, "queued").await;
    let cancelled = scene.accept(id, "cancelled").await;
    let cancel = AgentOp::RequestCancel { message: cancelled.id, obey: LONG };
    scene.change(id, vec![cancel]).await;
    let gone = purge(&*scene.store, NOT_AT_ALL).await;
    assert_eq!((gone.messages, gone.steps, gone.agents), (2, 1, 0));
    let left = messages(&scene, id).await;
    let numbers: Vec<_> = left.iter().map(|message| message.seq).collect();
    assert_eq!(numbers, [3, 4, 5], "what is left has no gap");
    assert_eq!(steps(&scene, id).await.len(), 1, "the next attempt sees what the last one did");
    let open = MessageQuery { open: true, ..MessageQuery::of(id) };
    let open = scene.store.messages(&open).await.expect("the store answers").items;
    assert_eq!(open.iter().map(|message| message.id).collect::<Vec<_>>(), [held.id, queued.id]);
    // Each goes on as if nothing had gone.
    let agent = scene.change(id, vec![done(held.id, "an answer"), AgentOp::Lease(queued.id)]).await;
    assert_eq!((agent.status.message, agent.inbox.queued), (Some(queued.id), 0));
    scene.change(id, vec![done(queued.id, "an answer")]).await;
    let gone = purge(&*scene.store, NOT_AT_ALL).await;
    assert_eq!((gone.messages, gone.steps), (5, 1));
    assert_eq!(messages(&scene, id).await, []);
}

async fn numbers_go_on_where_all_before_them_is_gone(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("counted").await.id;
    for round in 0..3 {
        exchange(&scene, id, "next").await;
        let (last, taken) = (messages(&scene, id).await, steps(&scene, id).await);
        let seqs: Vec<_> = last.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, [2 * round + 1, 2 * round + 2], "after {round} purges");
        assert_eq!(taken.iter().map(|step| step.seq).collect::<Vec<_>>(), [round + 1]);
        purge(&*scene.store, NOT_AT_ALL).await;
        assert_eq!((messages(&scene, id).await, steps(&scene, id).await), (vec![], vec![]));
    }
    let scene = scene.reopen(&*subject).await;
    assert_eq!(scene.accept(id, "after a restart").await.seq, 7);
    assert_eq!(scene.head().await, scene.agent(id).await.revision);
}

async fn a_call_takes_away_no_more_than_it_may_and_leads_on(subject: Arc<dyn StoreUnderTest>) {
    const LIMIT: u64 = 7;
    let scene = Scene::open(&*subject).await;
    let mut agents = Vec::new();
    for n in 0..3 {
        let id = scene.idle(&format!("agent-{n}")).await.id;
        for _ in 0..5 {
            exchange(&scene, id, "much").await;
            note(&scene, "look").await;
        }
        agents.push(id);
    }
    // Of this one nothing may go, whoever comes before and after it.
    let open = scene.create("waits").await.id;
    let waits = scene.accept(open, "waits").await;
    let all = PurgedRows { messages: 30, steps: 15, audit: 15, events: scene.head().await.0, ..PurgedRows::default() };
    let mut purge = Purge { limit: 7, ..Purge::new(NOT_AT_ALL) };
    let (mut gone, mut calls) = (PurgedRows::default(), 0);
    loop {
        let purged = scene.store.purge(&purge).await.expect("the store answers");
        assert!(purged.rows.all() <= LIMIT, "{purged:?}");
        gone = gone.with(&purged.rows);
        calls += 1;
        assert!(calls <= 2 * all.all() / LIMIT + 10, "it comes to an end: {purged:?}");
        let Some(from) = purged.next else { break };
        purge.from = from;
    }
    assert_eq!(gone, all);
    for id in agents {
        assert_eq!((messages(&scene, id).await, steps(&scene, id).await), (vec![], vec![]));
    }
    assert_eq!(messages(&scene, open).await, [waits]);
    let nothing = scene.store.purge(&Purge { limit: 0, from: PurgeFrom::Agents(None), ..purge }).await;
    let nothing = nothing.expect("the store answers");
    assert_eq!((nothing.rows, nothing.next), (PurgedRows::default(), Some(PurgeFrom::Blobs)));
}

async fn reclaimed(scene: &Scene) {
    let query = ComputerQuery { runtime: runtime(), reclaim: true, after: None, limit: 10 };
    for computer in scene.store.computers(&query).await.expect("the store answers").items {
        scene.commit(Commit::new(commit_id(), vec![Change::Reclaimed(computer.id())])).await;
    }
}

async fn a_deleted_agent_goes_once_its_computer_is_reclaimed(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let tenant = TenantName::default();
    let (gone, other) = (scene.idle("gone").await, scene.idle("other").await);
    exchange(&scene, gone.id, "before its end").await;
    scene.accept(gone.id, "cancelled with it").await;
    exchange(&scene, other.id, "of another").await;
    scene.delete(gone.id).await;
    let next = scene.create_with(&tenant, "gone", spec()).await;
    let agents = only(|retention| retention.deleted_agents = Some(Duration::ZERO));
    assert_eq!(purge(&*scene.store, only(|r| r.deleted_agents = Some(LONG))).await, PurgedRows::default());
    let first = purge(&*scene.store, agents).await;
    assert_eq!(first, PurgedRows { messages: 3, steps: 1, ..PurgedRows::default() });
    assert_eq!(scene.agent(gone.id).await.id, gone.id, "its computer is still there");
    reclaimed(&scene).await;
    assert_eq!(purge(&*scene.store, agents).await, PurgedRows { agents: 1, ..PurgedRows::default() });
    let found = |id, store: &Arc<dyn Store>| {
        let store = Arc::clone(store);
        async move { store.agent_by_id(id).await.expect("the store answers").value }
    };
    assert_eq!(found(gone.id, &scene.store).await, None);
    let scene = scene.reopen(&*subject).await;
    assert_eq!(found(gone.id, &scene.store).await, None);
    assert_eq!(found(next.id, &scene.store).await.map(|agent| agent.name), Some(next.name), "its name is another's");
    assert_eq!(messages(&scene, other.id).await.len(), 2, "others lose nothing by it");
    // Whoever comes late for it changes nothing, and does not bring it back.
    let late = AgentOp::Transition {
        event: AgentEvent::DeleteAsked,
        reason: "Late".into(),
        message: String::new(),
        backoff: None,
    };
    let refused = scene.store.commit(change(gone.id, Check::Alive, vec![late])).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(found(gone.id, &scene.store).await, None);
    let computer = AgentOp::Begin {
        operator: super::scene::process_id(),
        computer: Some(new_computer()),
        key_hash: String::new(),
        deadline: LONG,
        generation: 1,
    };
    let begun: Agent = scene.change(next.id, vec![computer]).await;
    assert!(begun.status.computer.is_some());
}

/// A message that refers to blobs.
async fn attach(scene: &Scene, agent: AgentId, blobs: &[BlobId]) -> Message {
    let id = super::scene::message_id();
    let part = |blob: &BlobId| Part::Blob { blob: *blob, media_type: "image/png".into() };
    let parts = blobs.iter().map(part).collect();
    let accept =
        AgentOp::Accept(NewMessage { id, role: Role::User, author: "user:ada".into(), parts, traceparent: None });
    let committed = scene.commit(change(agent, Check::Alive, vec![accept])).await;
    committed.messages.into_iter().find(|there| there.id == id).expect("the commit tells the message")
}

async fn a_blob_goes_once_no_message_has_referred_to_it_for_its_time(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let Some(blobs) = subject.blobs(&scene.store) else { return };
    let (ours, theirs) = (TenantName::default(), tenant("theirs"));
    let id = scene.idle("keeper").await.id;
    // More than one piece of whatever a store cuts it into.
    let contents = [Bytes::from_static(b"alone"), Bytes::from(vec![7; 600_000]), Bytes::from_static(b"ended")];
    for content in &contents {
        blobs.put(&ours, content.clone()).await.expect("the store answers");
    }
    // What is another tenant's is another blob.
    blobs.put(&theirs, contents[1].clone()).await.expect("the store answers");
    let [alone, open, ended] = [0, 1, 2].map(|n: usize| BlobId::of(&contents[n]));
    let first = attach(&scene, id, &[ended, open, ended]).await;
    scene.change(id, vec![AgentOp::Lease(first.id)]).await;
    scene.change(id, vec![done(first.id, "seen")]).await;
    let waits = attach(&scene, id, &[open]).await;
    let there = async |tenant: &TenantName, id| blobs.get(tenant, id, None).await.expect("the store answers").is_some();

    let old_blobs = only(|retention| retention.blobs = Some(Duration::ZERO));
    assert_eq!(purge(&*scene.store, only(|r| r.blobs = Some(LONG))).await, PurgedRows::default());
    assert_eq!(purge(&*scene.store, old_blobs).await, PurgedRows { blobs: 2, ..PurgedRows::default() });
    assert!(!there(&ours, alone).await && !there(&theirs, open).await, "nothing referred to them");
    assert!(there(&ours, open).await && there(&ours, ended).await, "a message has them");
    // From when the message is gone, its time begins anew.
    let gone = only(|retention| {
        retention.messages = Some(Duration::ZERO);
        retention.blobs = Some(LONG);
    });
    assert_eq!(purge(&*scene.store, gone).await, PurgedRows { messages: 2, ..PurgedRows::default() });
    assert!(there(&ours, ended).await);
    assert_eq!(purge(&*scene.store, old_blobs).await, PurgedRows { blobs: 1, ..PurgedRows::default() });
    assert!(!there(&ours, ended).await);
    let scene = scene.reopen(&*subject).await;
    let blobs = subject.blobs(&scene.store).expect("it has the same");
    assert_eq!(purge(&*scene.store, old_blobs).await, PurgedRows::default());
    let found = blobs.get(&ours, open, None).await.expect("the store answers");
    assert!(found.as_ref() == Some(&contents[1]), "what waits keeps what it refers to");
    // One that was put again may be referred to again, and one that is put once more goes by its new time.
    blobs.put(&ours, contents[2].clone()).await.expect("the store answers");
    attach(&scene, id, &[ended]).await;
    blobs.put(&ours, contents[2].clone()).await.expect("the store answers");
    assert_eq!(purge(&*scene.store, old_blobs).await, PurgedRows::default());
    let cancel = AgentOp::RequestCancel { message: waits.id, obey: LONG };
    scene.change(id, vec![cancel]).await;
    assert_eq!(purge(&*scene.store, NOT_AT_ALL).await.blobs, 1, "the last that referred to it has ended and is gone");
    let found = blobs.get(&ours, ended, None).await.expect("the store answers");
    assert!(found.is_some(), "and that of the message behind it is kept");
}

async fn blobs_go_a_few_at_a_time(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let Some(blobs) = subject.blobs(&scene.store) else { return };
    for n in 0..10_u8 {
        blobs.put(&TenantName::default(), Bytes::from(vec![n])).await.expect("the store answers");
    }
    let old_blobs = only(|retention| retention.blobs = Some(Duration::ZERO));
    let mut purge = Purge { limit: 4, ..Purge::new(old_blobs) };
    let mut gone = 0;
    loop {
        let purged = scene.store.purge(&purge).await.expect("the store answers");
        assert!(purged.rows.blobs <= 4, "{purged:?}");
        gone += purged.rows.blobs;
        let Some(from) = purged.next else { break };
        assert!(purged.rows.blobs > 0, "it makes headway: {purged:?}");
        purge.from = from;
    }
    assert_eq!(gone, 10);
}

async fn who_watches_from_before_what_is_gone_is_told(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("old").await.id;
    for n in 0..9 {
        scene.accept(id, &format!("line {n}")).await;
    }
    let events = only(|retention| retention.events = Some(Duration::ZERO));
    assert_eq!(purge(&*scene.store, events).await.events, 10);
    for since in [0, 5, 9] {
        let asked = scene.store.watch(Revision(since), EventFilter::default()).await;
        let gone = match asked {
            Err(error) => error,
            Ok(mut watch) => match soon(watch.next()).await.expect("the watch says why it ends") {
                Err(error) => error,
                Ok(events) => panic!("watching from {since} is gone, and there was {events:?}"),
            },
        };
        assert!(matches!(gone, StoreError::Gone { oldest: Revision(11) }), "{gone:?}");
    }
    // From the head on nothing is missed.
    let head = scene.head().await;
    assert_eq!(head, Revision(10));
    let mut watch = scene.watch(head, EventFilter::default()).await;
    scene.accept(id, "goes on").await;
    let events = super::scene::next(&mut watch).await;
    assert!(events.iter().map(|event| event.revision.0).eq([11]), "{events:?}");
}

async fn a_commit_whose_events_are_gone_gets_its_first_result_again(subject: Arc<dyn StoreUnderTest>) {
    let scene = Scene::open(&*subject).await;
    let id = scene.create("once").await.id;
    let (_, accept) = message("once");
    let commit = change(id, Check::Alive, vec![accept]);
    let first = scene.commit(commit.clone()).await;
    purge(&*scene.store, NOT_AT_ALL).await;
    assert_eq!(scene.commit(commit).await, first);
    assert_eq!(messages(&scene, id).await.len(), 1);
}

async fn messages_that_come_while_others_go_are_all_there(subject: Arc<dyn StoreUnderTest>) {
    const ROUNDS: usize = 6;
    let scene = Scene::open(&*subject).await;
    let id = scene.idle("loud").await.id;
    for _ in 0..20 {
        exchange(&scene, id, "ended").await;
    }
    let sent = scene
        .at_once(move |n, store| async move {
            let mut sent = Vec::new();
            for _ in 0..ROUNDS {
                if n % 4 == 0 {
                    purge(&*store, NOT_AT_ALL).await;
                } else {
                    let (message, accept) = message("kept");
                    store.commit(change(id, Check::Alive, vec![accept])).await.expect("the commit goes through");
                    sent.push(message);
                }
            }
            sent
        })
        .await;
    let mut sent = sent.concat();
    purge(&*scene.store, NOT_AT_ALL).await;
    let left = messages(&scene, id).await;
    let mut ids: Vec<_> = left.iter().map(|message| message.id).collect();
    ids.sort_unstable();
    sent.sort_unstable();
    assert_eq!(ids, sent, "none of them has ended");
    assert!(left.iter().map(|message| message.seq).eq(41..41 + sent.len() as u64));
    assert!(left.iter().all(|message| message.state == MessageState::Queued));
}
