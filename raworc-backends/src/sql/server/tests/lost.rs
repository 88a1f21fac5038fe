//! Answers that are lost: what was committed is found, and what was not is made.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raworc_core::ids::Revision;
use raworc_core::store::{Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::database::Database;
use super::{Tested, made_once_each, open};
use crate::sql::commits::create;
use crate::sql::server::nodelay::how_many_send_at_once;

/// So many answers, one after another.
const ANSWERS: usize = 25;

/// An answer of which nothing came for so long is a whole one.
const QUIET: Duration = Duration::from_millis(50);

/// Connections that a store has once it has written and read: who writes, who reads and who follows the log.
const CONNECTIONS: usize = 3;

/// What becomes of the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loses {
    Nothing,
    /// It is made, and its answer is lost.
    Answer,
    /// It is lost itself.
    Question,
}

/// Stands between a store and its database. It passes on all that is asked, and at times keeps a commit or what is answered to it.
pub(super) struct Relay {
    pub(super) address: String,
    state: Arc<State>,
    task: JoinHandle<io::Result<()>>,
}

struct State {
    loses: watch::Sender<Loses>,
    /// Whether connections that are new have to wait.
    holds: watch::Sender<bool>,
    /// Commits that were passed on.
    commits: AtomicUsize,
}

impl Relay {
    pub(super) async fn before(to: String, commit: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let (loses, holds) = (watch::Sender::new(Loses::Nothing), watch::Sender::new(false));
        let state = Arc::new(State { loses, holds, commits: AtomicUsize::new(0) });
        let asked = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await?;
                let (to, asked) = (to.clone(), Arc::clone(&asked));
                tokio::spawn(async move { pass_on(client, &to, commit, &asked).await });
            }
        });
        Self { address, state, task }
    }

    /// Has this be lost, from now on until it was, which is waited for.
    pub(super) fn lose(&self, what: Loses) -> impl Future<Output = ()> {
        self.state.loses.send_replace(what);
        let mut loses = self.state.loses.subscribe();
        async move {
            let lost = loses.wait_for(|loses| *loses == Loses::Nothing);
            timeout(Duration::from_secs(60), lost).await.expect("it is lost").expect("it is held here");
        }
    }

    /// Has new connections wait, or go on.
    fn hold(&self, holds: bool) {
        self.state.holds.send_replace(holds);
    }

    fn commits(&self) -> usize {
        self.state.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut client: TcpStream, to: &str, commit: &[u8], state: &State) -> io::Result<()> {
    state.holds.subscribe().wait_for(|holds| !holds).await.map_err(io::Error::other)?;
    let mut server = TcpStream::connect(to).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut asked, mut told) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let asked = &asked[..read?];
                if asked.is_empty() {
                    return Ok(());
                }
                let commits = asked.windows(commit.len()).any(|part| part == commit);
                let loses = if commits { *state.loses.borrow() } else { Loses::Nothing };
                if loses == Loses::Question {
                    state.loses.send_replace(Loses::Nothing);
                    return Ok(());
                }
                server.write_all(asked).await?;
                state.commits.fetch_add(usize::from(commits), Ordering::Relaxed);
                if loses == Loses::Answer {
                    // It is made once the last of what it is answered is there, of which nobody hears.
                    server.read_exact(&mut told[..1]).await?;
                    while timeout(QUIET, server.read(&mut told)).await.is_ok_and(|read| read.is_ok_and(|read| read > 0)) {}
                    state.loses.send_replace(Loses::Nothing);
                    return Ok(());
                }
            }
            read = server.read(&mut told) => {
                let told = &told[..read?];
                if told.is_empty() {
                    return Ok(());
                }
                client.write_all(told).await?;
            }
        }
    }
}

pub(crate) async fn commits_whose_answers_are_lost_are_made_once_each<D: Tested>(database: Database) {
    let relay = Relay::before(database.address(), D::COMMITS).await;
    let by_relay = database.by_way_of(&relay.address, D::TLS.none);
    made_once_each::<D>(by_relay, ANSWERS, async |_| relay.lose(Loses::Answer).await).await;
}

pub(crate) async fn what_is_written_leaves_at_once<D: Tested>(database: Database) {
    // It has a port that nobody else connects to.
    let relay = Relay::before(database.address(), D::COMMITS).await;
    let store = open::<D>(&database.by_way_of(&relay.address, D::TLS.none)).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    store.agent_by_id(agent).await.expect("is read");
    let port = relay.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("its port");
    let so_many = async |wanted| {
        let all = async {
            while how_many_send_at_once(port) < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), all).await.expect("every connection does");
    };
    so_many(CONNECTIONS).await;
    // More to read by, after all others.
    let reads = (0..8).map(|_| store.agent_by_id(agent));
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    so_many(CONNECTIONS + 1).await;
    store.close().await;
}

pub(crate) async fn what_may_have_been_done_is_not_told_as_refused<D: Tested>(database: Database) {
    let relay = Relay::before(database.address(), D::COMMITS).await;
    let store = open::<D>(&database.by_way_of(&relay.address, D::TLS.none)).await;
    let (_, made) = create("one");
    relay.hold(true);
    let lost = relay.lose(Loses::Answer);
    let (told, ()) = tokio::join!(store.commit(made.clone()), async {
        lost.await;
        // It is looked for where nobody can look.
        database.run("ALTER TABLE head RENAME TO away").await.expect("is done");
        relay.hold(false);
    });
    let error = told.expect_err("nobody knows");
    assert!(error.is_retryable() && error.to_string().contains("send the same again"), "{error:?}");
    let refused = store.commit(create("two").1).await.expect_err("there is no head");
    assert!(matches!(refused, StoreError::Unusable { .. }), "of another, it is known: {refused:?}");
    database.run("ALTER TABLE away RENAME TO head").await.expect("is done");
    assert_eq!(store.commit(made).await.expect("was made").revision, Revision(1));
    assert_eq!(store.head().await.expect("answers").value, Revision(1));
    store.close().await;
}

pub(crate) async fn what_comes_while_a_batch_is_tried_again_is_another_batch<D: Tested>(database: Database) {
    let relay = Relay::before(database.address(), D::COMMITS).await;
    let store = open::<D>(&database.by_way_of(&relay.address, D::TLS.none)).await;
    let before = relay.commits();
    relay.hold(true);
    let lost = relay.lose(Loses::Question);
    let (first, second) = tokio::join!(store.commit(create("one").1), async {
        lost.await;
        let (second, ()) = tokio::join!(biased; store.commit(create("two").1), async { relay.hold(false) });
        second
    });
    assert_eq!(first.expect("goes through").revision, Revision(1));
    assert_eq!(second.expect("goes through").revision, Revision(2));
    assert_eq!(relay.commits() - before, 2, "each in a transaction of its own");
    store.close().await;
}
