//! How what is committed is heard of.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, Store, StoreError};
use tokio::time::{Instant, timeout};

use super::database::Database;
use super::failover::Way;
use super::{Tested, open};
use crate::sql::commits::{accept, create, message_id};

type Log = BoxStream<'static, Result<Vec<Event>, StoreError>>;

/// Takes what was committed from the next one on, up to the last one. Tells which is next after it.
pub(super) async fn hear(log: &mut Log, mut next: Revision, last: Revision) -> Revision {
    while next <= last {
        let burst = timeout(Duration::from_secs(30), log.next()).await.expect("hears of it");
        for event in burst.expect("goes on").expect("is readable") {
            assert_eq!(event.revision, next);
            next = next.next();
        }
    }
    next
}

pub(crate) async fn a_watcher_hears_of_what_another_process_commits<D: Tested>(database: Database) {
    // Connections take as long as where the server is busy.
    let way = Way::slow_to(database.address(), Duration::from_millis(200)).await;
    let here = open::<D>(&database.by_way_of(&way.address, D::TLS.none)).await;
    let there = open::<D>(&database).await;
    let mut log = here.watch(Revision(0), EventFilter::default()).await.expect("begins");
    let (agent, made) = create("one");
    there.commit(made).await.expect("goes through");
    let (mut next, mut heard_after) = (Revision(1), Vec::new());
    for n in 0..50 {
        // Now by this process, now by the other; and only by the other once one was found of which nobody was told.
        let by_this = n < 15 && n % 3 == 0;
        let store = if by_this { &here } else { &there };
        if n == 15 {
            let untold = format!(
                "INSERT INTO log SELECT {next}, tenant, agent, REPLACE(doc, '\"revision\":{last}', '\"revision\":{next}') \
                    FROM log WHERE revision = {last}; UPDATE head SET revision = {next} WHERE id = 1",
                last = next.0 - 1,
            );
            database.run(untold).await.expect("is written");
            next = hear(&mut log, next, next).await;
        }
        let committed = store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
        let told = Instant::now();
        next = hear(&mut log, next, committed.revision).await;
        heard_after.extend((!by_this).then(|| told.elapsed()));
    }
    // Where it is told, and where it is asked for often. Who is not told asks no more than once a second.
    heard_after.sort_unstable();
    let usual = heard_after[heard_after.len() / 2];
    assert!(usual < Duration::from_millis(500), "{usual:?}");
    here.close().await;
    there.close().await;
}
