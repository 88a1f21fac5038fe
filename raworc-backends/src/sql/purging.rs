//! Purges of many rows, for tests of stores in databases.

use std::sync::Arc;
use std::time::Duration;

use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::AgentId;
use raworc_core::message::{Part, Role};
use raworc_core::step::{NewStep, StepKind};
use raworc_core::store::{AgentOp, Check, MAX_PAGE, MessageQuery, NewMessage, Purge, PurgedRows, Retention, Store};
use tokio_util::sync::CancellationToken;

use super::commits::{accept, change, changes, create, message_id};
use super::convert::{int, number};
use super::dialect::Dialect;
use super::script::{Cell, Script};
use super::store::SqlStore;

/// Rows of one kind that a commit of [`fill`] writes.
const EACH: u64 = 500;

/// How many rows a statement counts.
async fn count<D: Dialect>(store: &SqlStore<D>, statement: &'static str, cell: Cell) -> u64 {
    let mut script = Script::default();
    script.add(statement, [cell]);
    let rows = store.shared.run(script).await.expect("answers");
    u64::try_from(number(&rows[0], 0).expect("a number")).expect("no less than nothing")
}

/// Gives an agent 15,000 steps, and 5,000 messages that have ended.
async fn fill<D: Dialect>(store: &SqlStore<D>, agent: AgentId) {
    let begin = AgentOp::Begin {
        operator: SystemEntropy.process_id(SystemClock.now()),
        computer: None,
        key_hash: "hash".into(),
        deadline: Duration::from_mins(1),
        generation: 1,
    };
    store.commit(change(agent, Check::Alive, begin)).await.expect("goes through");
    let step = NewStep { kind: StepKind::Log, tool: None, text: "a step".into() };
    for _ in 0..30 {
        let steps = (0..EACH).map(|_| step.clone()).collect();
        let add = AgentOp::AddSteps { message: None, attempt: 0, steps };
        store.commit(change(agent, Check::Alive, add)).await.expect("goes through");
    }
    for _ in 0..10 {
        let ids: Vec<_> = (0..EACH).map(|_| message_id()).collect();
        let new = |id| NewMessage {
            id,
            role: Role::User,
            author: "user:ada".into(),
            parts: vec![Part::text("old")],
            traceparent: None,
        };
        let accept = ids.iter().map(|id| AgentOp::Accept(new(*id))).collect();
        store.commit(changes(agent, Check::Alive, accept)).await.expect("goes through");
        let obey = Duration::from_mins(1);
        let cancel = ids.iter().map(|id| AgentOp::RequestCancel { message: *id, obey }).collect();
        store.commit(changes(agent, Check::Alive, cancel)).await.expect("goes through");
    }
}

/// Takes away more than 20,000 rows while others write. Counts what is there before and after each call.
pub(crate) async fn many_rows_go_a_few_at_a_time_while_others_write<D: Dialect>(store: Arc<SqlStore<D>>) {
    let (old, made) = create("old");
    store.commit(made).await.expect("goes through");
    fill(&store, old).await;
    let (other, made) = create("other");
    store.commit(made).await.expect("goes through");
    let head = store.head().await.expect("answers").value;
    let key = |agent: AgentId| Cell::from(agent.to_string());
    let there = async || PurgedRows {
        messages: count(&store, "SELECT COUNT(*) FROM messages WHERE agent = ?", key(old)).await,
        steps: count(&store, "SELECT COUNT(*) FROM steps WHERE agent = ?", key(old)).await,
        events: count(&store, "SELECT COUNT(*) FROM log WHERE revision <= ?", int(head.0).into()).await,
        ..PurgedRows::default()
    };
    let first = there().await;
    assert_eq!((first.messages, first.steps, first.events), (10 * EACH, 30 * EACH, head.0));
    let done = CancellationToken::new();
    let writing = {
        let (store, done) = (Arc::clone(&store), done.clone());
        tokio::spawn(async move {
            let mut sent = 0_u64;
            while !done.is_cancelled() {
                store.commit(accept(other, message_id(), "meanwhile")).await.expect("goes through");
                sent += 1;
            }
            sent
        })
    };
    let mut purge = Purge::new(Retention::of(Duration::ZERO));
    let (mut before, mut gone) = (first, PurgedRows::default());
    loop {
        let purged = store.purge(&purge).await.expect("answers");
        let after = there().await;
        let fewer = |rows: &PurgedRows| rows.messages + rows.steps + rows.events;
        assert!(purged.rows.all() <= MAX_PAGE as u64, "{purged:?}");
        assert!(fewer(&before) - fewer(&after) <= purged.rows.all(), "no more than it says: {purged:?}");
        (before, gone) = (after, gone.with(&purged.rows));
        match purged.next {
            Some(from) => purge.from = from,
            None => break,
        }
    }
    done.cancel();
    let sent = writing.await.expect("does not panic");
    assert_eq!(before, PurgedRows::default(), "nothing of what was old is left");
    assert_eq!((gone.messages, gone.steps), (first.messages, first.steps));
    assert!(gone.events >= first.events, "and some of those that came meanwhile: {gone:?}");
    assert!(sent > 0, "somebody wrote meanwhile");
    let inbox = store.agent_by_id(other).await.expect("answers").value.expect("is there").inbox;
    assert_eq!(inbox.last_seq, sent);
    let newest = MessageQuery { newest_first: true, limit: 1, ..MessageQuery::of(other) };
    let newest = store.messages(&newest).await.expect("answers").items;
    assert_eq!(newest.first().map(|message| message.seq), Some(sent));
    assert_eq!(count(&store, "SELECT COUNT(*) FROM messages WHERE agent = ?", key(other)).await, sent);
}
