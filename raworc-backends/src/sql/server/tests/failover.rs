//! A server that is lost for good, and the one that takes its place.

use std::io;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::database::{self, Database};
use super::own::Own;
use super::{Tested, made_once_each, not_tested};
use crate::sql::dialect::Columns;
use crate::sql::script::Script;
use crate::sql::server::{DatabaseOptions, connect};

/// An address that stays while servers come and go, as a name or a balancer is.
struct Way {
    address: String,
    to: watch::Sender<String>,
    task: JoinHandle<io::Result<()>>,
}

impl Way {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let to = watch::Sender::new(server);
        let leads = to.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await?;
                let mut leads = leads.clone();
                let to = leads.borrow_and_update().clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    tokio::select! {
                        ended = copy_bidirectional(&mut client, &mut server) => ended.map(drop),
                        _ = leads.changed() => Ok(()),
                    }
                });
            }
        });
        Self { address, to, task }
    }

    /// Leads elsewhere, and cuts what went the old way.
    fn turn_to(&self, server: String) {
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

pub(crate) async fn commits_over_a_server_that_another_takes_the_place_of_are_made_once_each<D: Tested>(
    kind: &'static str,
) {
    if let Err(lack) = database::server(kind) {
        return not_tested(kind, &lack);
    }
    let start = move || Own::start(kind, &["--followed"]);
    let primary = tokio::task::spawn_blocking(start).await.expect("it comes up");
    let database = Database::at(primary.url());
    let url = D::url_of_a_plain_user(&database).await.expect("may be made");
    let standby = D::standby(kind, &primary).await;
    let way = Way::to(database.address()).await;
    let stays = Database::at(&url.replace(&database.address(), &way.address));
    let standby_url = url.replace(&database.address(), &Database::at(standby.url()).address());
    let (to, _) = D::options(&DatabaseOptions::new(&standby_url)).expect("an address");
    let primary = Mutex::new(Some(primary));
    let take_over = async |_: Database| {
        let Some(primary) = primary.lock().await.take() else { return std::future::pending().await };
        until("the standby has what was committed first", || async {
            let mut conn = connect::<D>(&to).await?;
            let mut script = Script::default();
            script.add("SELECT COUNT(*) FROM agents", []);
            let rows = D::run(&mut conn, script).await?;
            Ok(rows.first().map(|row| row.int(0)).transpose()?.flatten() == Some(1))
        })
        .await;
        // It ends as when it is killed, in the middle of what it does, and is not started again.
        tokio::task::spawn_blocking(move || drop(primary)).await.expect("it ends");
        // Who comes before the standby may be written to is told so, and comes again.
        way.turn_to(Database::at(standby.url()).address());
        D::promote(&standby).await;
    };
    made_once_each::<D>(stays, 1, take_over).await;
}
