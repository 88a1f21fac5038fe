//! Rows that this release cannot read: damaged ones, and those of a release after it.

use std::time::Duration;

use futures::StreamExt;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, Incarnation, Revision};
use raworc_core::store::{EventFilter, Store, StoreError, Touch};
use tokio::time::timeout;

use super::database::Database;
use super::watching::hear;
use super::{Tested, open};
use crate::sql::commits::{accept, create, message_id, wake};

pub(crate) async fn a_row_that_cannot_be_read_fails_those_alone_who_need_it<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let ((spoiled, made), (other, made_other)) = (create("spoiled"), create("other"));
    for commit in [made, made_other].into_iter().chain(wake(other)) {
        store.commit(commit).await.expect("goes through");
    }
    database.run(format!("UPDATE agents SET doc = '{{}}' WHERE id = '{spoiled}'")).await.expect("is spoiled");
    let touch = |agent| Touch {
        agent,
        incarnation: Incarnation(1),
        heartbeat: true,
        awake_for: Some(Duration::from_hours(24)),
    };
    let touches = [spoiled, other].map(touch);

    // All are queued before the writer runs, so that they meet in one batch.
    let (before, told, after, untouched) = tokio::join!(
        store.commit(accept(other, message_id(), "before")),
        store.commit(accept(spoiled, message_id(), "to nobody")),
        store.commit(accept(other, message_id(), "after")),
        store.touch(&touches),
    );
    before.expect("goes through");
    after.expect("goes through");
    assert_eq!(untouched.expect("those of others are taken"), [spoiled]);
    let error = told.expect_err("nobody knows what the agent is");
    assert!(matches!(error, StoreError::Unusable { .. }) && !error.is_retryable(), "{error:?}");
    let reason = error.to_string();
    assert!(reason.contains(&format!("agent {spoiled}")) && reason.contains("missing field"), "{reason}");
    let read = store.agent_by_id(other).await.expect("answers");
    let agent = read.value.expect("is there");
    assert_eq!(agent.inbox.last_seq, 2);
    assert!(agent.status.awake_until.expect("a time").duration_since(read.now).as_hours() >= 23, "{agent:?}");
    store.close().await;
}

/// Writes the next event as a later release may, of a kind that this one does not know.
async fn add_an_event_of_tomorrow(database: &Database, like: Revision, next: Revision) {
    let add = format!(
        "INSERT INTO log SELECT {next}, tenant, agent, REPLACE(REPLACE(doc, '\"revision\":{like}', '\"revision\":{next}'), \
            'agent.created', 'agent.of_tomorrow') FROM log WHERE revision = {like}; \
         UPDATE head SET revision = {next} WHERE id = 1"
    );
    database.run(add).await.expect("is written");
}

fn of(agent: AgentId) -> EventFilter {
    EventFilter { tenant: None, agent: Some(agent) }
}

fn agents(events: &[Event]) -> Vec<Option<AgentId>> {
    events.iter().map(|event| event.agent).collect()
}

pub(crate) async fn who_watches_is_told_of_an_event_that_cannot_be_read_and_hears_what_follows<D: Tested>(
    database: Database,
) {
    const SOON: Duration = Duration::from_secs(30);
    let store = open::<D>(&database).await;
    let ((one, made), (two, made_two)) = (create("one"), create("two"));
    store.commit(made).await.expect("goes through");
    store.commit(made_two).await.expect("goes through");
    let mut log = store.watch(Revision(2), EventFilter::default()).await.expect("begins");
    let mut of_two = store.watch(Revision(2), of(two)).await.expect("begins");
    add_an_event_of_tomorrow(&database, Revision(1), Revision(3)).await;
    store.commit(accept(two, message_id(), "hello")).await.expect("goes through");

    let told = timeout(SOON, log.next()).await.expect("hears of it").expect("goes on");
    assert!(matches!(told, Err(StoreError::Gone { oldest: Revision(4) })), "{told:?}");
    let mut log = store.watch(Revision(3), EventFilter::default()).await.expect("begins after it");
    hear(&mut log, Revision(4), Revision(4)).await;
    // Whom it does not concern hears nothing of it.
    let heard = timeout(SOON, of_two.next()).await.expect("hears it").expect("goes on").expect("is readable");
    assert_eq!(agents(&heard), [Some(two)]);
    // What stands before it is told, whoever begins there.
    let mut past = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    hear(&mut past, Revision(1), Revision(2)).await;
    let told = timeout(SOON, past.next()).await.expect("hears of it").expect("goes on");
    assert!(matches!(told, Err(StoreError::Gone { oldest: Revision(4) })), "{told:?}");

    // A process may begin, and connect anew, where it is the last one.
    add_an_event_of_tomorrow(&database, Revision(1), Revision(5)).await;
    let begun = open::<D>(&database).await;
    D::cut(&database).await.expect("the user may end connections");
    let mut of_one = begun.watch(Revision(5), of(one)).await.expect("begins");
    for store in [&store, &begun] {
        store.commit(accept(one, message_id(), "hello")).await.expect("goes through");
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let burst = timeout(SOON, of_one.next()).await.expect("hears it").expect("goes on");
        heard.extend(burst.expect("is readable").iter().map(|event| event.revision));
    }
    assert_eq!(heard, [Revision(6), Revision(7)]);
    begun.close().await;
    store.close().await;
}
