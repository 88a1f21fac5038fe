//! What the conformance suite cannot see: plans of statements, files, faults.

mod batches;
mod checkpoints;
mod costs;
mod durable;
mod faults;
mod plans;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{Incarnation, Revision};
use raworc_core::store::{
    AgentOp, Check, EventFilter, IdempotencyKey, IdempotencyRecord, LeaseClaim, MessageQuery, Purge, Retention, Store,
    StoreError, Touch,
};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;

use super::{SqliteOptions, SqliteStore};
use crate::sql::commits::{accept, change, create, message_id, wake};
use crate::sql::purging;

async fn open(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(directory.path())).await.expect("an empty directory can be used")
}

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory can be made")
}

#[tokio::test]
async fn what_a_commit_came_to_reads_back_from_its_document_as_it_was() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    let mut commits = vec![made, accept(agent, message_id(), "a \u{0} and a \" and a 🦀")];
    commits[1].idempotency = Some(IdempotencyRecord {
        key: IdempotencyKey { principal: "user:ada".into(), key: "k".into() },
        request: "r".into(),
        ttl: Duration::from_secs(60),
    });
    let mut first = Vec::new();
    for commit in &commits {
        first.push(store.commit(commit.clone()).await.expect("goes through"));
    }
    store.close().await;
    let store = open(&directory).await;
    for (commit, first) in commits.iter().zip(&first) {
        assert_eq!(store.commit(commit.clone()).await.expect("is known"), *first);
    }
    store.close().await;
}

#[tokio::test]
async fn a_sign_of_activity_in_the_batch_of_a_commit_is_written_after_it() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    for commit in wake(agent) {
        store.commit(commit).await.expect("goes through");
    }
    let awake_for = Duration::from_secs(86_400);
    let incarnation = raworc_core::ids::Incarnation(1);
    let touch = [Touch { agent, incarnation, heartbeat: true, awake_for: Some(awake_for) }];

    // Both are queued before the writer runs, so that they meet in one batch.
    let (committed, touched) = tokio::join!(store.commit(accept(agent, message_id(), "hello")), store.touch(&touch));
    committed.expect("goes through");
    assert!(touched.expect("goes through").is_empty(), "the touch had its effect");
    let read = store.agent_by_id(agent).await.expect("answers");
    let seen = read.value.expect("there");
    let left = seen.status.awake_until.expect("a time").duration_since(read.now);
    assert!(left.as_secs() > 80_000, "awake for {left} only");
    store.close().await;
    assert!(store.agent_by_id(agent).await.is_err(), "a closed store remembers nothing");

    let store = open(&directory).await;
    let kept = store.agent_by_id(agent).await.expect("answers").value.expect("there");
    assert_eq!(kept, seen, "what the writer remembers is what stands in the database");
    store.close().await;
}

#[tokio::test]
async fn leases_of_a_process_that_is_gone_are_void_where_that_was_asked_for() {
    let directory = directory();
    let holder = SystemEntropy.process_id(SystemClock.now());
    let claim = LeaseClaim { key: "k".into(), holder, ttl: Duration::from_secs(3600) };
    let store = open(&directory).await;
    store.claim(&claim).await.expect("answers");
    store.close().await;
    let store = open(&directory).await;
    assert_eq!(store.leases("k").await.expect("answers").value.len(), 1);
    store.close().await;
    let options = SqliteOptions::new(directory.path()).without_leases();
    let store = SqliteStore::open(options).await.expect("can be used");
    assert!(store.leases("k").await.expect("answers").value.is_empty());
    store.close().await;
}

#[tokio::test]
async fn a_row_that_the_database_refuses_fails_alone() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    let (other, made_other) = create("other");
    store.commit(made).await.expect("goes through");
    store.commit(made_other).await.expect("goes through");
    let taken = message_id();
    store.commit(accept(agent, taken, "mine")).await.expect("goes through");

    // All are queued before the writer runs, so that they meet in one batch.
    let (before, refused, after) = tokio::join!(
        store.commit(accept(agent, message_id(), "before")),
        store.commit(accept(other, taken, "stolen")),
        store.commit(accept(other, message_id(), "after")),
    );
    before.expect("goes through");
    after.expect("goes through");
    let error = refused.expect_err("a message's id is used once");
    assert!(error.to_string().contains("refused a row"), "{error}");
    assert!(matches!(error, StoreError::Refused { .. }) && !error.is_retryable(), "{error:?}");
    let message = store.message(agent, taken).await.expect("answers").expect("is there");
    assert_eq!(message.text(), "mine");
    store.close().await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_fails_those_alone_who_need_it() {
    let directory = directory();
    let store = open(&directory).await;
    let ((spoiled, made), (other, made_other)) = (create("spoiled"), create("other"));
    let ((third, made_third), message) = (create("third"), message_id());
    for commit in [made, made_other, made_third, accept(third, message, "hello")].into_iter().chain(wake(other)) {
        store.commit(commit).await.expect("goes through");
    }
    store.close().await;
    spoil(&directory, format!("UPDATE messages SET doc = '{{}}' WHERE id = '{message}'")).await;
    spoil(&directory, format!("UPDATE agents SET doc = '{{}}' WHERE id = '{spoiled}'")).await;
    let store = open(&directory).await;
    let touch = |agent| Touch { agent, incarnation: Incarnation(1), heartbeat: true, awake_for: None };
    let touches = [spoiled, other].map(touch);
    let cancel = AgentOp::RequestCancel { message, obey: Duration::from_secs(60) };

    // All are queued before the writer runs, so that they meet in one batch.
    let (before, of_agent, of_message, after, untouched) = tokio::join!(
        store.commit(accept(other, message_id(), "before")),
        store.commit(accept(spoiled, message_id(), "to nobody")),
        store.commit(change(third, Check::Alive, cancel)),
        store.commit(accept(other, message_id(), "after")),
        store.touch(&touches),
    );
    before.expect("goes through");
    after.expect("goes through");
    assert_eq!(untouched.expect("those of others are taken"), [spoiled]);
    for (told, what) in [(of_agent, format!("agent {spoiled}")), (of_message, format!("message {message}"))] {
        let error = told.expect_err("nobody knows what it is");
        assert!(matches!(&error, StoreError::Unusable { reason } if reason.contains(&what)), "{error:?}");
    }
    store.commit(accept(third, message_id(), "next")).await.expect("needs nothing of what cannot be read");
    store.close().await;
}

#[tokio::test]
async fn a_closed_store_says_that_it_is_closed() {
    let directory = directory();
    let store = open(&directory).await;
    store.close().await;
    for error in
        [store.commit(create("one").1).await.expect_err("closed"), store.head().await.map(drop).expect_err("closed")]
    {
        assert!(error.to_string().contains("it was closed"), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_is_closed_at_once_gives_its_directory_free() {
    let directory = directory();
    for _ in 0..20 {
        let store = open(&directory).await;
        tokio::time::timeout(Duration::from_secs(20), store.close()).await.expect("closes");
    }
}

#[tokio::test]
async fn what_is_too_old_is_taken_away_and_what_is_to_be_kept_stays() {
    let directory = directory();
    let mut options = SqliteOptions::new(directory.path()).with_keep_events(100);
    options.keep_commits = Duration::ZERO;
    let store = SqliteStore::open(options).await.expect("opens");
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    for n in 0..600 {
        store.commit(accept(agent, message_id(), &n.to_string())).await.expect("goes through");
    }
    let head = store.head().await.expect("answers").value;
    let gone = store.watch(Revision(0), EventFilter::default()).await.err().expect("the first events are gone");
    let StoreError::Gone { oldest } = gone else { panic!("{gone}") };
    assert!(oldest.0 + 99 <= head.0 && oldest.0 + 400 > head.0, "the log begins at {oldest} and ends at {head}");
    let mut log = store.watch(Revision(oldest.0 - 1), EventFilter::default()).await.expect("is there");
    let mut next = oldest;
    while next <= head {
        for event in log.next().await.expect("goes on").expect("is readable") {
            assert_eq!(event.revision, next);
            next = next.next();
        }
    }
    let rows: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM commits").fetch_one(&store.shared.readers).await.expect("answers");
    assert!(rows < 400, "{rows} commits are kept");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_go_a_few_at_a_time_while_others_write() {
    let directory = directory();
    let store = Arc::new(open(&directory).await);
    purging::many_rows_go_a_few_at_a_time_while_others_write(Arc::clone(&store)).await;
    store.close().await;
}

#[tokio::test]
async fn a_lease_that_ended_long_ago_is_forgotten() {
    let directory = directory();
    let store = open(&directory).await;
    let holder = SystemEntropy.process_id(SystemClock.now());
    for (key, ttl) in [("long ago", 0), ("held", 3600), ("lately", 0)] {
        for ttl in [3600, ttl] {
            let claim = LeaseClaim { key: key.into(), holder, ttl: Duration::from_secs(ttl) };
            store.claim(&claim).await.expect("answers");
        }
    }
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    let aged = "UPDATE leases SET expires = expires - 90000000000 WHERE name = 'long ago'";
    assert_eq!(sqlx::query(aged).execute(&mut conn).await.expect("is set").rows_affected(), 1);
    conn.close().await.expect("closes");
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    for n in 0..300 {
        store.commit(accept(agent, message_id(), &n.to_string())).await.expect("goes through");
    }
    let names = "SELECT name FROM leases ORDER BY name";
    let kept: Vec<String> = sqlx::query_scalar(names).fetch_all(&store.shared.readers).await.expect("answers");
    assert_eq!(kept, ["held", "lately"]);
    store.close().await;
}

#[tokio::test]
async fn a_watcher_from_whom_the_log_was_cut_meanwhile_is_told_and_misses_nothing_in_silence() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    for n in 0..10 {
        store.commit(accept(agent, message_id(), &n.to_string())).await.expect("goes through");
    }
    // As it is between the transaction that cuts and the word of it.
    store.shared.feed.restart(store.shared.feed.head(), Revision(1));
    let mut conn =
        SqliteConnection::connect_with(&SqliteOptions::new(directory.path()).writer()).await.expect("is there");
    sqlx::query("DELETE FROM log WHERE revision < 5").execute(&mut conn).await.expect("is cut");
    conn.close().await.expect("closes");
    let mut log = store.watch(Revision(2), EventFilter::default()).await.expect("nobody knows yet");
    let told = log.next().await.expect("goes on");
    assert!(matches!(told, Err(StoreError::Gone { oldest: Revision(5) })), "{told:?}");
    let mut log = store.watch(Revision(4), EventFilter::default()).await.expect("is there");
    let events = log.next().await.expect("goes on").expect("is readable");
    assert_eq!(events.first().map(|event| event.revision), Some(Revision(5)));
    store.close().await;
}

/// Has another program write to the database.
async fn spoil(directory: &TempDir, statement: String) {
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut conn).await.expect("is done");
    assert_eq!(done.rows_affected(), 1);
    conn.close().await.expect("closes");
}

#[tokio::test]
async fn who_watches_is_told_of_an_event_that_cannot_be_read_and_hears_what_follows() {
    let directory = directory();
    let store = open(&directory).await;
    let ((one, made), (two, made_two)) = (create("one"), create("two"));
    store.commit(made).await.expect("goes through");
    store.commit(made_two).await.expect("goes through");
    store.commit(accept(one, message_id(), "hello")).await.expect("goes through");
    store.commit(accept(two, message_id(), "hello")).await.expect("goes through");
    store.close().await;
    let of_tomorrow = "UPDATE log SET doc = replace(doc, 'message.accepted', 'message.of_tomorrow') WHERE revision = 3";
    spoil(&directory, of_tomorrow.into()).await;

    let store = open(&directory).await;
    let mut log = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    let events = log.next().await.expect("goes on").expect("is readable");
    assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [1, 2]);
    let told = log.next().await.expect("goes on");
    assert!(matches!(told, Err(StoreError::Gone { oldest: Revision(4) })), "{told:?}");
    for (since, filter) in [(3, EventFilter::default()), (2, EventFilter { tenant: None, agent: Some(two) })] {
        let mut log = store.watch(Revision(since), filter).await.expect("begins");
        let events = log.next().await.expect("goes on").expect("is readable");
        assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [4]);
    }
    store.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_stays_and_keeps_nothing_else_from_being_taken_away() {
    let directory = directory();
    let store = open(&directory).await;
    let agents = ["one", "two", "three", "four"].map(create);
    for (agent, made) in &agents {
        store.commit(made.clone()).await.expect("goes through");
        for _ in 0..3 {
            let message = message_id();
            store.commit(accept(*agent, message, "old")).await.expect("goes through");
            let cancel = AgentOp::RequestCancel { message, obey: Duration::from_secs(60) };
            store.commit(change(*agent, Check::Alive, cancel)).await.expect("goes through");
        }
    }
    let head = store.head().await.expect("answers").value;
    let [one, two, three, four] = agents.map(|(agent, _)| agent);
    for (agent, seq) in [(one, 1), (two, 2)] {
        spoil(&directory, format!("UPDATE messages SET doc = '{{}}' WHERE agent = '{agent}' AND seq = {seq}")).await;
    }
    for revision in [1, 4] {
        spoil(
            &directory,
            format!("UPDATE log SET doc = replace(doc, '\"kind\":\"', '\"kind\":\"not_') WHERE revision = {revision}"),
        )
        .await;
    }
    spoil(&directory, "UPDATE log SET doc = '{}' WHERE revision = 2".into()).await;
    let mut purge = Purge::new(Retention::of(Duration::ZERO));
    while let Some(from) = store.purge(&purge).await.expect("goes on").next {
        purge.from = from;
    }
    for (agent, left) in [(one, 3), (two, 3), (three, 0), (four, 0)] {
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM messages WHERE agent = ?")
            .bind(agent.to_string())
            .fetch_one(&store.shared.readers)
            .await
            .expect("answers");
        assert_eq!(there, left, "of {agent}");
    }
    let gone = store.watch(Revision(0), EventFilter::default()).await.err();
    assert!(matches!(gone, Some(StoreError::Gone { oldest }) if oldest == head.next()), "{gone:?}");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_never_seen_as_it_was_before_a_message_that_was_seen() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let writes = async {
        for n in 0..2000 {
            store.commit(accept(agent, message_id(), &n.to_string())).await.expect("goes through");
        }
    };
    let query = MessageQuery { newest_first: true, limit: 1, ..MessageQuery::of(agent) };
    let reads = async {
        loop {
            let newest = store.messages(&query).await.expect("answers").items;
            let seen = store.agent_by_id(agent).await.expect("answers").value.expect("there").inbox.last_seq;
            assert!(newest.iter().all(|message| message.seq <= seen), "{newest:?} was seen, and then {seen}");
        }
    };
    tokio::select! {
        () = writes => {}
        () = reads => {}
    }
    store.close().await;
}
