//! Writers and watchers in several processes at once.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, Store, StoreError};
use tokio::time::timeout;

use super::database::Database;
use super::{Tested, open};
use crate::sql::commits::{accept, create, message_id};
use crate::sql::server::DatabaseOptions;
use crate::sql::store::SqlStore;

const PROCESSES: usize = 4;

/// In each of the processes.
const WRITERS: usize = 8;

/// Of each of the writers, to an agent of its own.
const MESSAGES: usize = 25;

/// Of all of them: each commit is one event.
const EVENTS: u64 = (PROCESSES * WRITERS * (1 + MESSAGES)) as u64;

/// The database, in a process that writes.
const CHILD: &str = "RAWORC_TEST_DATABASE_CHILD";

/// A process that goes with the test.
struct Writers(Child);

impl Drop for Writers {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `child` is the test that is [`write_and_watch`] in a process of its own.
pub(crate) async fn watch_while_others_write<D: Tested>(database: Database, child: &str) {
    let store = open::<D>(&database).await;
    let log = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    let (_, name) = child.split_once("::").expect("a path within this crate");
    let start = |_| {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["--exact", name, "--nocapture"]).env(CHILD, database.url()).stdout(Stdio::null());
        Writers(command.spawn().expect("this program runs again"))
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    see_all(log).await;
    for mut child in children {
        let ended = tokio::task::block_in_place(|| child.0.wait());
        assert!(ended.expect("it is waited for").success(), "a process missed something, or saw it twice");
    }
    store.close().await;
}

/// Does nothing but in a process that [`watch_while_others_write`] has started.
pub(crate) async fn write_and_watch<D: Tested>() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let store = SqlStore::<D>::open(DatabaseOptions::new(url)).await.expect("the database can be used");
    let log = store.watch(Revision(0), EventFilter::default()).await.expect("begins");
    let write = async |_| {
        let name = format!("a{}", message_id().to_string().replace('-', ""));
        let (agent, made) = create(&name);
        store.commit(made).await.expect("goes through");
        for _ in 0..MESSAGES {
            store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
        }
    };
    tokio::join!(join_all((0..WRITERS).map(write)), see_all(log));
    store.close().await;
}

/// Follows the log until all is there: each revision once, in order.
async fn see_all(mut log: BoxStream<'static, Result<Vec<Event>, StoreError>>) {
    let mut next = Revision(1);
    while next.0 <= EVENTS {
        let burst = timeout(Duration::from_secs(60), log.next()).await.expect("hears of it");
        for event in burst.expect("goes on").expect("is readable") {
            assert_eq!(event.revision, next);
            next = next.next();
        }
    }
}
