//! How much one transaction writes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use raworc_core::entropy::SystemClock;
use raworc_core::ids::Revision;
use raworc_core::store::{AgentOp, Change, Store};
use tokio_util::sync::CancellationToken;

use super::{SqliteOptions, directory, open};
use crate::sql::batch::{Batches, Head, Retention};
use crate::sql::commits::{accept, create, message_id};
use crate::sql::queue::{Queue, Work};
use crate::sql::time::Time;
use crate::sqlite::dialect::{self, Sqlite};
use crate::sqlite::schema;

const LINES: usize = 256;

#[tokio::test]
async fn lines_to_a_large_agent_are_as_many_as_its_documents_leave_room_for() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, mut made) = create("one");
    let [Change::Agent(change)] = &mut made.changes[..] else { panic!("one change") };
    let [AgentOp::Create(new)] = &mut change.ops[..] else { panic!("one operation") };
    new.spec.instructions = Some("x".repeat(400 << 10));
    store.commit(made).await.expect("goes through");
    let lines: Vec<_> = (0..LINES).map(|_| accept(agent, message_id(), "hello")).collect();
    store.close().await;

    let options = SqliteOptions::new(directory.path());
    let mut conn = schema::prepare(&options).await.expect("can be opened");
    let head: Head = dialect::head(&mut conn).await.expect("answers");
    let (queue, mut jobs) = Queue::new(LINES, CancellationToken::new());
    let asked: Vec<_> = lines
        .iter()
        .map(|line| {
            let (queue, work) = (queue.clone(), Work::Commit(Box::new(line.clone())));
            tokio::spawn(async move { queue.write(work).await })
        })
        .collect();
    let mut batch = Vec::new();
    while batch.len() < LINES {
        batch.extend(jobs.next(LINES).await.expect("some wait"));
    }
    let keep = Retention { events: 1 << 20, commits: Duration::from_secs(3600) };
    let (mut batches, time) = (Batches::new(head, keep), Time::of_machine(Arc::new(SystemClock)));
    let written = batches.write::<Sqlite>(&mut conn, &time, &mut batch, |_| {}, |_, _| {}).await.expect("is written");
    let many = written.outcomes.len();
    assert!((32..128).contains(&many), "{many} of {LINES}");
    assert_eq!(written.head.revision, Revision(head.revision.0 + many as u64));
    drop((batch, jobs));
    assert!(join_all(asked).await.iter().all(|told| matches!(told, Ok(Err(_)))), "nobody was answered");
    drop(conn);

    // Whoever is left is served after them, and who was served is so once.
    let store = open(&directory).await;
    let told = join_all(lines.into_iter().map(|line| store.commit(line))).await;
    let mut seen: Vec<_> = told.into_iter().map(|told| told.expect("goes through").messages[0].seq).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=LINES as u64), "each once");
    store.close().await;
}
