//! What was acknowledged is there after `kill -9`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use raworc_core::ids::{AgentId, Revision};
use raworc_core::store::{MessageQuery, Store};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use super::super::schema;
use super::{SqliteOptions, SqliteStore, accept, create, message_id, open};

#[tokio::test]
async fn what_the_writer_has_committed_outlasts_a_loss_of_power() {
    const FULL: i64 = 2;
    let directory = super::directory();
    let options = SqliteOptions::new(directory.path());
    let first = schema::prepare(&options).await.expect("is made");
    let again = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    for mut conn in [first, again] {
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut conn).await.expect("answers");
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await.expect("answers");
        assert_eq!((synchronous, journal.as_str()), (FULL, "wal"));
        conn.close().await.expect("closes");
    }
}

/// The data directory, in the process that is to be killed.
const CHILD: &str = "RAWORC_TEST_SQLITE_CHILD";

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let directory = super::directory();
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", "sqlite::tests::durable::child_that_is_killed", "--nocapture", "--include-ignored"])
        .env(CHILD, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs again");
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let mut agent: Option<AgentId> = None;
    let mut acknowledged = 0;
    for line in lines {
        let line = line.expect("it is text");
        if let Some((_, id)) = line.split_once("agent=") {
            agent = Some(id.trim().parse().expect("it is an id"));
        } else if let Some((_, seq)) = line.split_once("seq=") {
            acknowledged = seq.trim().parse().expect("it is a number");
            if acknowledged >= 200 {
                break;
            }
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let agent = agent.expect("the child said which agent it made");
    assert!(acknowledged >= 200, "the child ended early, after {acknowledged}");
    runtime().block_on(check(&directory, agent, acknowledged));
}

async fn check(directory: &TempDir, agent: AgentId, acknowledged: u64) {
    let store = open(directory).await;
    let mut query = MessageQuery::of(agent);
    let mut last = 0;
    loop {
        let page = store.messages(&query).await.expect("answers");
        for message in &page.items {
            assert_eq!(message.seq, last + 1, "a message is missing");
            last = message.seq;
        }
        query.after = page.next.map(|next| next.parse().expect("a number"));
        if query.after.is_none() {
            break;
        }
    }
    assert!(last >= acknowledged, "{acknowledged} were acknowledged, {last} are there");
    let seen = store.agent_by_id(agent).await.expect("answers").value.expect("is there");
    assert_eq!(seen.inbox.last_seq, last);
    assert_eq!(store.head().await.expect("answers").value, Revision(last + 1), "one event each, and one of the agent");
    store.close().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime can be made")
}

#[test]
fn child_that_is_killed() {
    // Only `what_was_acknowledged_survives_a_kill` starts it with a directory.
    let Some(directory) = std::env::var_os(CHILD) else { return };
    runtime().block_on(async {
        let store = SqliteStore::open(SqliteOptions::new(directory)).await.expect("opens");
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");
        say(&format!("agent={agent}"));
        loop {
            let commits = std::array::from_fn::<_, 4, _>(|_| store.commit(accept(agent, message_id(), "hello")));
            for committed in futures::future::join_all(commits).await {
                say(&format!("seq={}", committed.expect("goes through").messages[0].seq));
            }
        }
    });
}

/// Straight to standard output, which the parent reads.
fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent reads");
}
