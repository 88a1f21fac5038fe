//! A store in a database server, which many processes share.
//!
//! Whoever writes holds the row of the log's head from the beginning of the transaction to its end: revisions are dense and
//! in commit order over all processes, nobody meets a deadlock, and a commit whose outcome was lost with its connection is
//! looked up by its id as soon as the old transaction has let go. What one process holds at a time is bounded by the
//! database, which ends a transaction whose process is silent.

pub(crate) mod address;
mod look;
mod most;
mod nodelay;
mod options;
mod signals;
pub(crate) mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use raworc_core::ids::Revision;
use raworc_core::store::StoreError;
use sqlx::Connection;
use sqlx::pool::PoolOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::options::DatabaseOptions;

use self::signals::Signals;
use self::tail::Tail;
use self::writer::Writer;
use super::batch::{Batches, Head, Retention};
use super::convert::{number, time};
use super::dialect::Dialect;
use super::feed::Feed;
use super::read::{plain, within};
use super::recent::Recent;
use super::schema::bring_up_to_date;
use super::script::Script;
use super::statements as sql;
use super::store::{Shared, SqlStore};
use super::time::Time;
use super::whole::words::Words;
use super::whole::{Whole, WholeStore};

/// How long a connection is waited for.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// For how long a connection that has answered is taken for one that will.
const FRESH: Duration = Duration::from_secs(1);

/// How a server is connected to.
pub(crate) type ConnectTo<D> = <<D as Dialect>::Connection as Connection>::Options;

/// A database server's own ways, beside what it has to say as a [`Dialect`].
pub trait Server: Words {
    /// Who hears of commits of other processes.
    type Listener: Send + Sync;

    /// Whether a listener hears of commits. Where none does, nobody listens.
    const HEARS: bool;

    /// How often it is asked for the log's head at least, and at most, beside what a listener hears.
    const POLL: (Duration, Duration);

    /// How a database is connected to, and how people are told of it, without what is secret.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names what is wrong with the address.
    fn options(options: &DatabaseOptions) -> Result<(ConnectTo<Self>, String), StoreError>;

    /// How a database is connected to through a pooler, of which each transaction may have another session. None where the server
    /// has no such poolers that this release knows.
    ///
    /// # Errors
    /// As [`options`](Self::options).
    fn pooled(options: &DatabaseOptions) -> Result<Option<ConnectTo<Self>>, StoreError>;

    /// The port that is connected to.
    fn port(to: &ConnectTo<Self>) -> u16;

    /// Whether this is what a pooler says to who asks for a session of its own.
    fn is_poolers(error: &sqlx::Error) -> bool;

    /// Whether the session of a connection that has been greeted is its own.
    fn is_own(conn: &Self::Connection) -> bool;

    /// What each connection begins with.
    fn greet(conn: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Whether the server is one that this release can use.
    ///
    /// # Errors
    /// Says in words what it lacks.
    fn check(conn: &mut Self::Connection) -> impl Future<Output = Result<Result<(), String>, sqlx::Error>> + Send;

    /// Begins to listen.
    fn listen(options: &ConnectTo<Self>) -> impl Future<Output = Result<Self::Listener, sqlx::Error>> + Send;

    /// Waits for a commit of which the listener hears, and tells the revision that it left; none where some may have been
    /// missed.
    fn heard(listener: &mut Self::Listener) -> impl Future<Output = Result<Option<Revision>, sqlx::Error>> + Send;
}

impl<D: Server> SqlStore<D> {
    /// Opens the store in a database, and brings its tables up to date. To be called within a Tokio runtime, on which the
    /// store's writer then runs.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names the database and the way out: a wrong address or password, rights that are missing, a
    /// server that is too old, or a schema of a newer release. [`StoreError::Unavailable`] where it does not answer.
    pub async fn open(options: DatabaseOptions) -> Result<Self, StoreError> {
        let (connect, place) = D::options(&options)?;
        let Usable { mut conn, to: connect, pooled } = usable::<D>(&options, connect, &place).await?;
        bring_up_to_date::<D>(&mut conn, &place).await?;
        let fault = |error: sqlx::Error| StoreError::from(D::fault(&error, &place));
        let asked = Instant::now();
        let rows = within(D::run(&mut conn, Script(vec![plain(sql::HEAD, [])]))).await.map_err(fault)?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(fault)?;
        let head = Head::of(row).map_err(fault)?;
        let clock = Time::of_database(number(row, 3).and_then(time).map_err(fault)?, asked);
        let signals = Arc::new(Signals::new());
        let turns = Arc::clone(&signals);
        let port = D::port(&connect);
        let readers = PoolOptions::<D::Db>::new()
            .max_connections(options.connections.max(1))
            .acquire_timeout(CONNECT_LIMIT)
            // A slow database would have each call write a line; who waits for longer is told.
            .acquire_slow_threshold(CONNECT_LIMIT)
            // Asking each connection whether it is there, before it is asked anything, would be as much again as what it is asked.
            .test_before_acquire(false)
            .before_acquire(move |conn, used| {
                let is_old = turns.is_old(used.age);
                Box::pin(async move { Ok(!is_old && (used.idle_for < FRESH || conn.ping().await.is_ok())) })
            })
            .after_connect(move |conn, _| {
                nodelay::send_at_once(port);
                Box::pin(D::greet(conn))
            })
            .connect_lazy_with(connect.clone());
        let shared = Arc::new(Shared {
            time: Arc::new(clock),
            readers,
            feed: Feed::new(head.revision, head.oldest),
            recent: Recent::default(),
            closed: CancellationToken::new(),
            place,
            pooled,
        });
        // What stands at the head is known from now on, should another server answer.
        shared.look_over(&mut conn).await.map_err(|error| shared.fault(&error))?;
        let keep = Retention { events: options.keep_events, commits: options.keep_commits };
        let batches = Batches::new(head, keep);
        Ok(Self::new(shared, options.queue, |shared, jobs, closing| {
            let tail = Tail::<D>::new(Arc::clone(&shared), connect.clone(), Arc::clone(&signals), closing);
            let writer = Writer::<D>::new(shared, jobs, connect, conn, batches, options.batch, signals);
            let following = tokio::spawn(tail.run());
            async move {
                writer.run().await;
                if let Err(error) = following.await {
                    tracing::error!(%error, "what follows the log did not end well");
                }
            }
        }))
    }
}

impl<D: Server> SqlStore<D> {
    /// Opens a database as a whole, beside processes that may have it open as a store.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the release that made its tables.
    pub async fn whole(options: &DatabaseOptions) -> Result<Box<dyn WholeStore>, StoreError> {
        let (connect, place) = D::options(options)?;
        let Usable { conn, .. } = usable::<D>(options, connect, &place).await?;
        Ok(Box::new(Whole::<D>::new(place, conn, None)))
    }
}

/// A connection to a database that this release can use, and how others are made.
struct Usable<D: Server> {
    conn: D::Connection,
    to: ConnectTo<D>,
    pooled: bool,
}

async fn usable<D: Server>(options: &DatabaseOptions, to: ConnectTo<D>, place: &str) -> Result<Usable<D>, StoreError> {
    let fault = |error: sqlx::Error| StoreError::from(D::fault(&error, place));
    let connected = connect::<D>(&to).await;
    let is_pooled = match &connected {
        Ok(conn) => !D::is_own(conn),
        Err(error) => D::is_poolers(error),
    };
    let mut usable = match D::pooled(options)?.filter(|_| is_pooled) {
        Some(to) => {
            tracing::warn!(%place, "a pooler stands before the database: the log is polled, and reads are transactions");
            Usable { conn: connect::<D>(&to).await.map_err(fault)?, to, pooled: true }
        }
        None => Usable { conn: connected.map_err(fault)?, to, pooled: false },
    };
    let lack = D::check(&mut usable.conn).await.map_err(fault)?;
    lack.map_err(|lack| StoreError::Unusable { reason: format!("the database {place} cannot be used: {lack}") })?;
    Ok(usable)
}

/// A connection that has been greeted.
pub(crate) async fn connect<D: Server>(to: &ConnectTo<D>) -> Result<D::Connection, sqlx::Error> {
    let connect = async {
        let mut conn = D::Connection::connect_with(to).await?;
        nodelay::send_at_once(D::port(to));
        D::greet(&mut conn).await?;
        Ok(conn)
    };
    tokio::time::timeout(CONNECT_LIMIT, connect).await.unwrap_or_else(|_| Err(timed_out()))
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}
