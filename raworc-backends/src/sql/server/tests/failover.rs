//! A server that is lost for good, and the one that takes its place.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use raworc_core::store::{EventFilter, MessageQuery, Store};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::database::{self, Database};
use super::lost::{Loses, Relay};
use super::own::Own;
use super::{Tested, made_once_each, not_tested, open};
use crate::sql::commits::{accept, create, message_id};
use crate::sql::dialect::Columns;
use crate::sql::script::Script;
use crate::sql::server::{DatabaseOptions, connect};
use crate::sql::store::SqlStore;

/// An address at which nothing answers.
pub(super) const NOWHERE: &str = "127.0.0.1:1";

/// An address that stays while servers come and go, as a name or a balancer is.
pub(super) struct Way {
    pub(super) address: String,
    to: watch::Sender<String>,
    cuts: watch::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Way {
    pub(super) async fn to(server: String) -> Self {
        Self::slow_to(server, Duration::ZERO).await
    }

    /// One on which connections take so long to be made.
    pub(super) async fn slow_to(server: String, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let (to, cuts) = (watch::Sender::new(server), watch::Sender::new(()));
        let (leads, cut) = (to.subscribe(), cuts.subscribe());
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await?;
                let mut cut = cut.clone();
                cut.mark_unchanged();
                let to = leads.borrow().clone();
                tokio::spawn(async move {
                    sleep(takes).await;
                    let mut server = TcpStream::connect(to).await?;
                    tokio::select! {
                        ended = copy_bidirectional(&mut client, &mut server) => ended.map(drop),
                        _ = cut.changed() => Ok(()),
                    }
                });
            }
        });
        Self { address, to, cuts, task }
    }

    /// Leads elsewhere, and cuts what went the old way.
    pub(super) fn turn_to(&self, server: String) {
        self.lead_to(server);
        self.cuts.send_replace(());
    }

    /// Leads elsewhere from now on. What goes the old way still does.
    fn lead_to(&self, server: String) {
        self.to.send_replace(server);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks until it is so.
pub(crate) async fn until<F: Future<Output = Result<bool, sqlx::Error>>>(what: &str, is_so: impl Fn() -> F) {
    for _ in 0..600 {
        if is_so().await.unwrap_or(false) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

async fn until_it_has_an_agent<D: Tested>(standby: &Database) {
    let (to, _) = D::options(&DatabaseOptions::new(standby.url())).expect("an address");
    until("the standby has what was committed first", || async {
        let mut conn = connect::<D>(&to).await?;
        let mut script = Script::default();
        script.add("SELECT COUNT(*) FROM agents", []);
        let rows = D::run(&mut conn, script).await?;
        Ok(rows.first().map(|row| row.int(0)).transpose()?.flatten() == Some(1))
    })
    .await;
}

/// A server, another one that follows it, and a way that leads to the first.
struct Followed {
    primary: Own,
    standby: Own,
    way: Way,
    /// The first one's, by a user with no rights but those that a store needs.
    database: Database,
}

impl Followed {
    /// None where this machine has no such servers, which is said.
    async fn start<D: Tested>(kind: &'static str) -> Option<Self> {
        if let Err(lack) = database::server(kind) {
            not_tested(kind, &lack);
            return None;
        }
        let start = move || Own::start(kind, &["--followed"]);
        let primary = tokio::task::spawn_blocking(start).await.expect("it comes up");
        let url = D::url_of_a_plain_user(&Database::at(primary.url())).await.expect("may be made");
        let standby = D::standby(kind, &primary).await;
        let database = Database::at(&url);
        let way = Way::to(database.address()).await;
        Some(Self { primary, standby, way, database })
    }

    /// By the way, wherever it leads.
    fn by_way(&self) -> Database {
        self.database.by_way_of(&self.way.address, "")
    }

    fn at_standby(&self) -> Database {
        self.database.by_way_of(&Database::at(self.standby.url()).address(), "")
    }

    /// Has the standby take writes, while the first one lives on.
    async fn promote<D: Tested>(&self) {
        D::promote(&self.standby).await;
        let standby = Database::at(self.standby.url());
        until("the new one may be written to", || async {
            D::read_only(&standby, false).await?;
            Ok(true)
        })
        .await;
    }
}

pub(crate) async fn commits_over_a_server_that_another_takes_the_place_of_are_made_once_each<D: Tested>(
    kind: &'static str,
) {
    let Some(followed) = Followed::start::<D>(kind).await else { return };
    let (stays, at_standby) = (followed.by_way(), followed.at_standby());
    let Followed { primary, standby, way, .. } = followed;
    let primary = Mutex::new(Some(primary));
    let take_over = async |_: Database| {
        let Some(primary) = primary.lock().await.take() else { return std::future::pending().await };
        until_it_has_an_agent::<D>(&at_standby).await;
        // It ends as when it is killed, in the middle of what it does, and is not started again.
        tokio::task::spawn_blocking(move || drop(primary)).await.expect("it ends");
        // Who comes before the standby may be written to is told so, and comes again.
        way.turn_to(at_standby.address());
        D::promote(&standby).await;
    };
    made_once_each::<D>(stays, 1, take_over).await;
}

pub(crate) async fn a_server_that_takes_no_writes_any_more_is_left_by_who_reads_too<D: Tested>(kind: &'static str) {
    let Some(followed) = Followed::start::<D>(kind).await else { return };
    let (way, at_standby) = (&followed.way, followed.at_standby());
    let store = open::<D>(&followed.by_way()).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    until_it_has_an_agent::<D>(&at_standby).await;
    // Until it takes the other's place, it serves who reads all of a store.
    let mut whole = SqlStore::<D>::whole(&DatabaseOptions::new(at_standby.url())).await.expect("can be used");
    let exported = whole.export(&mut Vec::new(), &|_, _| {}).await.expect("is read");
    let verified = whole.verify(&|_, _| {}).await.expect("is read");
    assert_eq!(verified.contents, exported);
    whole.close().await;

    D::read_only(&Database::at(followed.primary.url()), true).await.expect("may be set");
    let commit = accept(agent, message_id(), "hello");
    store.commit(commit.clone()).await.expect_err("may not be written to");
    // Several connections to read by, all of them to the old server.
    let query = MessageQuery::of(agent);
    let read = || join_all((0..8).map(|_| store.messages(&query)));
    assert!(read().await.iter().all(Result::is_ok));
    let head = store.head().await.expect("answers").value;
    let mut log = store.watch(head, EventFilter::default()).await.expect("begins");

    // The old one goes on to answer whoever is there.
    followed.promote::<D>().await;
    way.lead_to(at_standby.address());
    let written = async {
        while let Err(error) = store.commit(commit.clone()).await {
            assert!(error.is_retryable(), "{error}");
        }
    };
    timeout(Duration::from_secs(60), written).await.expect("it is written at the new one");
    let others = open::<D>(&at_standby).await;
    let last = others.commit(accept(agent, message_id(), "hello")).await.expect("goes through").revision;
    for found in read().await {
        assert_eq!(found.expect("is read").items.len(), 2, "by way of the new one");
    }
    let mut seen = head;
    while seen < last {
        let burst = timeout(Duration::from_secs(30), log.next()).await.expect("hears of it").expect("goes on");
        for event in burst.expect("nothing was lost") {
            assert_eq!(event.revision, seen.next());
            seen = event.revision;
        }
    }
    others.close().await;
    store.close().await;
}

pub(crate) async fn who_writes_to_another_server_than_before_reads_there_too<D: Tested>(kind: &'static str) {
    let Some(followed) = Followed::start::<D>(kind).await else { return };
    let (way, at_standby) = (&followed.way, followed.at_standby());
    let (agent, made) = create("one");
    // The user is known at both from now on, and so may come without TLS, which nobody between could look into.
    let first = open::<D>(&followed.by_way()).await;
    first.commit(made).await.expect("goes through");
    first.close().await;
    until_it_has_an_agent::<D>(&at_standby).await;

    let relay = Relay::before(followed.database.address(), D::COMMITS).await;
    way.lead_to(relay.address.clone());
    let store = open::<D>(&followed.database.by_way_of(&way.address, D::TLS.none)).await;
    let query = MessageQuery::of(agent);
    let read = || join_all((0..8).map(|_| store.messages(&query)));
    assert!(read().await.iter().all(Result::is_ok), "by way of the old one");

    // The old one goes on to answer whoever is there, and would take writes. Only who writes loses the connection to it.
    followed.promote::<D>().await;
    way.lead_to(at_standby.address());
    let lost = relay.lose(Loses::Question);
    let (written, ()) = tokio::join!(store.commit(accept(agent, message_id(), "hello")), lost);
    written.expect("it is written at the new one");
    for found in read().await {
        assert_eq!(found.expect("is read").items.len(), 1, "by way of the new one");
    }
    store.close().await;
}
