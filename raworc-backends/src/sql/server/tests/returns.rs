//! A log that went back: the database has lost the last of it.

use std::time::Duration;

use futures::StreamExt;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, Store, StoreError};
use tokio::time::timeout;

use super::database::Database;
use super::failover::{NOWHERE, Way};
use super::watching::hear;
use super::{Tested, open};
use crate::sql::commits::{accept, create, message_id};

pub(crate) async fn who_watches_a_log_that_went_back_is_told<D: Tested>(database: Database) {
    let store = open::<D>(&database).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let mut log = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    for _ in 0..3 {
        store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
    }
    hear(&mut log, Revision(1), Revision(4)).await;
    // As a replica has it that had not received the last of it.
    database
        .run("DELETE FROM log WHERE revision > 2; UPDATE head SET revision = 2 WHERE id = 1")
        .await
        .expect("is written");
    let told = timeout(Duration::from_secs(30), log.next()).await.expect("hears of it").expect("goes on");
    assert!(matches!(told, Err(StoreError::Gone { oldest: Revision(3) })), "{told:?}");
    let mut log = store.watch(Revision(2), EventFilter::default()).await.expect("begins");
    store.commit(create("two").1).await.expect("goes through");
    let burst = timeout(Duration::from_secs(30), log.next()).await.expect("hears of it").expect("goes on");
    let events = burst.expect("is readable");
    assert_eq!(events.first().and_then(|event| event.name.clone()).map(|name| name.to_string()), Some("two".into()));
    store.close().await;
}

pub(crate) async fn who_watches_a_log_that_went_back_and_has_grown_since_is_told<D: Tested>(database: Database) {
    let way = Way::to(database.address()).await;
    let store = open::<D>(&database.by_way_of(&way.address, D::TLS.none)).await;
    let others = open::<D>(&database).await;
    // As long as it was before, and longer; and this process only reads, or writes first of all.
    for (n, (grown, writes)) in [(2, false), (4, false), (2, true), (4, true)].into_iter().enumerate() {
        let (agent, made) = create(&format!("agent-{n}"));
        let begun = store.commit(made).await.expect("goes through").revision;
        let mut log = store.watch(begun, EventFilter::default()).await.expect("begins");
        for _ in 0..3 {
            store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
        }
        hear(&mut log, begun.next(), Revision(begun.0 + 3)).await;
        // As a replica has it that had not received the last of it, and that others find first.
        way.turn_to(NOWHERE.to_owned());
        let kept = begun.0 + 1;
        let back = format!("DELETE FROM log WHERE revision > {kept}; UPDATE head SET revision = {kept} WHERE id = 1");
        database.run(back).await.expect("is written");
        for _ in 0..grown {
            others.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
        }
        way.turn_to(database.address());
        let head = kept + grown;
        if writes {
            let mine = store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
            assert_eq!(mine.revision.0, head + 1);
        }
        let told = timeout(Duration::from_secs(30), log.next()).await.expect("hears of it").expect("goes on");
        assert!(matches!(told, Err(StoreError::Gone { oldest }) if oldest.0 == head + 1), "{grown} {writes}: {told:?}");
        // Only once, and from there on it goes on.
        let mut log = store.watch(Revision(head), EventFilter::default()).await.expect("begins");
        let last = store.commit(accept(agent, message_id(), "hello")).await.expect("goes through").revision;
        hear(&mut log, Revision(head + 1), last).await;
    }
    others.close().await;
    store.close().await;
}
