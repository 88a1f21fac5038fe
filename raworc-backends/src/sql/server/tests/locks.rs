//! Others at the same database, who do not keep to the order in which a store takes its locks, and who stand between.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, Store};
use tokio::time::{sleep, timeout};

use super::database::{self, Database};
use super::{Tested, a_connection, open};
use crate::sql::commits::{accept, create, message_id};
use crate::sql::script::{Script, Step};
use crate::sql::server::DatabaseOptions;
use crate::sql::store::SqlStore;

const HOLD: &str = "SELECT revision FROM head WHERE id = 1 FOR UPDATE";

async fn say<D: Tested>(conn: &mut D::Connection, text: impl Into<String>) -> Result<Vec<D::Row>, sqlx::Error> {
    D::run(conn, Script(vec![Step::Plain(text.into().into(), Vec::new())])).await
}

pub(crate) async fn a_deadlock_with_somebody_else_costs_no_commit<D: Tested>(database: Database) {
    let store = Arc::new(open::<D>(&database).await);
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let mut other = a_connection::<D>(&database).await;
    let mut looks = a_connection::<D>(&database).await;
    database.run("CREATE TABLE of_others (n INT)").await.expect("is made");
    let mut revision = Revision(1);
    loop {
        // Somebody takes the agent's row first and the log's head after it, as no store does.
        let first = format!("BEGIN; {}; UPDATE agents SET due_at = due_at WHERE id = '{agent}'", D::SPARED);
        say::<D>(&mut other, first).await.expect("nobody holds it");
        let commit = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.commit(accept(agent, message_id(), "hello")).await }
        });
        let held = async {
            while !say::<D>(&mut looks, format!("{HOLD} SKIP LOCKED")).await.expect("answers").is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), held).await.expect("the store has the head, and waits for the row");
        // The server ends one of the two, since neither could go on: the other one goes on only where it was the store's.
        let answered =
            timeout(Duration::from_secs(30), say::<D>(&mut other, HOLD)).await.expect("nobody waits for ever");
        say::<D>(&mut other, "ROLLBACK").await.expect("is done");
        let committed = timeout(Duration::from_secs(60), commit).await.expect("in time").expect("does not panic");
        revision = revision.next();
        assert_eq!(committed.expect("goes through").revision, revision);
        if answered.is_ok() {
            break;
        }
        // On a busy machine it may be the other one.
        assert!(revision < Revision(10), "the store's transaction is never ended");
    }
    assert_eq!(store.head().await.expect("answers").value, revision);
    store.close().await;
}

pub(crate) async fn a_commit_that_has_waited_too_long_for_its_turn_is_told_and_made_when_it_is_sent_again<D: Tested>(
    database: Database,
) {
    let store = open::<D>(&database).await;
    let mut other = a_connection::<D>(&database).await;
    say::<D>(&mut other, format!("BEGIN; {HOLD}")).await.expect("nobody holds it");
    let busy = async {
        // Who works is not silent, so that the database leaves it alone.
        say::<D>(&mut other, D::TWENTY_SECONDS).await.expect("is done");
        say::<D>(&mut other, "ROLLBACK").await.expect("is done");
    };
    let (_, made) = create("one");
    let (told, ()) = tokio::join!(store.commit(made.clone()), busy);
    let error = told.expect_err("its turn has not come");
    assert!(error.is_retryable(), "{error:?}");
    store.commit(made).await.expect("goes through");
    assert_eq!(store.head().await.expect("answers").value, Revision(1));
    store.close().await;
}

pub(crate) async fn what_comes_while_others_write_is_written_with_what_waits<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let ((one, made), (two, other_made)) = (create("one"), create("two"));
    for made in [&made, &other_made] {
        store.commit(made.clone()).await.expect("goes through");
    }
    let mut log = store.watch(Revision(2), EventFilter::default()).await.expect("is followed");
    let mut other = a_connection::<D>(&database).await;
    say::<D>(&mut other, format!("BEGIN; {HOLD}")).await.expect("nobody holds it");
    let others = async {
        while !store.queue.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        // The writer has the first, and waits with it. The others are asked for before they are let go on.
        let second = store.commit(accept(two, message_id(), "another"));
        let (second, again, let_go) =
            tokio::join!(biased; second, store.commit(made), say::<D>(&mut other, "ROLLBACK"));
        let_go.expect("it was not ended before");
        (second.expect("goes through").revision, again.expect("was made").revision)
    };
    let first = store.commit(accept(one, message_id(), "one"));
    let (first, others, burst) = tokio::join!(biased; first, others, log.next());
    assert_eq!(first.expect("goes through").revision, Revision(3));
    assert_eq!(others, (Revision(4), Revision(1)), "what they look at is loaded, and what was made is found");
    let burst = burst.expect("goes on").expect("is read");
    let revisions: Vec<_> = burst.iter().map(|event| event.revision.0).collect();
    assert_eq!(revisions, [3, 4], "one transaction has both");
    store.close().await;
}

pub(crate) async fn who_finds_every_connection_in_use_is_told_and_reads_once_one_is_free<D: Tested>(
    database: Database,
) {
    let options = DatabaseOptions::new(database.url()).with_connections(1);
    let store = SqlStore::<D>::open(options).await.expect("the database can be used");
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let mut other = a_connection::<D>(&database).await;
    let (lock, unlock) = D::AGENTS_LOCKED;
    say::<D>(&mut other, lock).await.expect("nobody reads");
    // The first has the only connection until somebody else lets it read.
    let (first, second) = tokio::join!(biased; store.agent_by_id(agent), async {
        let second = store.agent_by_id(agent).await;
        say::<D>(&mut other, unlock).await.expect("is done");
        second
    });
    let error = second.expect_err("it waits for no longer than for a connection");
    assert!(error.is_retryable() && error.to_string().contains("all connections"), "{error:?}");
    for read in [first, store.agent_by_id(agent).await] {
        assert!(read.expect("answers").value.is_some());
    }
    store.close().await;
}

pub(crate) async fn a_pooler_is_noticed<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let server = |url: &str| url.rsplit_once('/').map(|(server, _)| server.to_owned());
    let pooler = database::server("pgbouncer").ok();
    let is_pooler = pooler.is_some_and(|pooler| server(&pooler) == server(&database.url()));
    assert_eq!(store.shared.pooled, is_pooler);
    store.close().await;
}
