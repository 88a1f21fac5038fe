//! The store's time is the database's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use super::database::Database;
use super::{Tested, a_connection, open};
use crate::sql::convert::{number, time};
use crate::sql::read::plain;
use crate::sql::script::Script;
use crate::sql::statements as sql;

async fn of_database<D: Tested>(conn: &mut D::Connection) -> Timestamp {
    let rows = D::run(conn, Script(vec![plain(sql::HEAD, [])])).await.expect("answers");
    number(rows.first().expect("the head"), 3).and_then(time).expect("a time")
}

pub(crate) async fn a_time_that_was_ahead_is_the_databases_again_though_nothing_is_written<D: Tested>(
    database: Database,
) {
    let store = open::<D>(&database).await;
    let mut conn = a_connection::<D>(&database).await;
    let clock = store.clock();
    // As a server told it that another has taken the place of.
    let ahead = clock.now() + SignedDuration::from_secs(7);
    store.shared.time.tell(ahead, Instant::now());
    let mut last = clock.now();
    assert!(last >= ahead, "it was believed");
    let again = async {
        loop {
            let now = clock.now();
            assert!(now >= last, "it never goes back so little: {last}, {now}");
            last = now;
            if now.duration_since(of_database::<D>(&mut conn).await).abs() < SignedDuration::from_secs(1) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), again)
        .await
        .expect("it waits until the database's has come to it, and goes on by that");
    store.close().await;
}
