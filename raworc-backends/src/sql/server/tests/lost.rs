//! Answers that are lost: what was committed is found, and what was not is made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use raworc_core::store::Store;
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

/// Stands between a store and its database. It passes on all that is asked, and at times keeps what is answered to a commit.
struct Relay {
    address: String,
    /// Whether the next answer to a commit is to be lost.
    loses: Arc<watch::Sender<bool>>,
    task: JoinHandle<io::Result<()>>,
}

impl Relay {
    async fn before(to: String, commit: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let loses = Arc::new(watch::Sender::new(false));
        let asked = Arc::clone(&loses);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await?;
                let (to, asked) = (to.clone(), Arc::clone(&asked));
                tokio::spawn(async move { pass_on(client, &to, commit, &asked).await });
            }
        });
        Self { address, loses, task }
    }

    /// Has an answer to a commit be lost, and waits until one was.
    async fn lose_one(&self) {
        self.loses.send_replace(true);
        self.loses.subscribe().wait_for(|loses| !loses).await.expect("it is held here");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(mut client: TcpStream, to: &str, commit: &[u8], loses: &watch::Sender<bool>) -> io::Result<()> {
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
                server.write_all(asked).await?;
                let commits = asked.windows(commit.len()).any(|part| part == commit);
                if commits && loses.borrow().to_owned() {
                    // It is made once the last of what it is answered is there, of which nobody hears.
                    server.read_exact(&mut told[..1]).await?;
                    while timeout(QUIET, server.read(&mut told)).await.is_ok_and(|read| read.is_ok_and(|read| read > 0)) {}
                    loses.send_replace(false);
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
    made_once_each::<D>(by_relay, ANSWERS, async |_| relay.lose_one().await).await;
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
