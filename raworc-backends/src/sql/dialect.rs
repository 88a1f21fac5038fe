//! What differs from database to database.

use std::borrow::Cow;
use std::fmt;

use futures::stream::BoxStream;
use raworc_core::ids::Revision;
use sqlx::Database;

use super::batch::Head;
use super::fault::Fault;
use super::script::{Script, Step};
use super::statements::Keyed;
use super::time::Time;

/// How a row is read, whichever database it comes from.
pub trait Columns: Send + Sync {
    /// How many columns it has.
    fn count(&self) -> usize;

    /// A number, unless it is NULL.
    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error>;

    /// A text, unless it is NULL.
    fn text(&self, at: usize) -> Result<Option<Cow<'_, str>>, sqlx::Error>;

    /// Bytes.
    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error>;
}

/// A database's own words and ways.
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// The database.
    type Db: Database<Connection = Self::Connection>;

    /// A connection to it.
    type Connection: sqlx::Connection<Database = Self::Db>;

    /// Its rows.
    type Row: Columns;

    /// Whether blobs, and rows that nobody changes any more, are written and taken away in transactions of their own, since
    /// other processes wait for the writer's.
    const BESIDE: bool;

    /// Moves the times of agents: each key is an agent's id with its `awake_until`, `heard_at` and `due_at`.
    const TOUCH_AGENTS: &'static Keyed;

    /// Takes away the labels of agents, by their ids.
    const DELETE_LABELS: &'static Keyed;

    /// Takes away computers, by their ids.
    const DELETE_COMPUTERS: &'static Keyed;

    /// Each takes away some of what ended before the time that is bound to it, the oldest first: answers and records.
    const FORGET_EXPIRED: [&'static str; 2];

    /// Begins a transaction that sees the database as it is at one moment.
    const SNAPSHOT: &'static str;

    /// Begins a transaction beside which nobody else writes, and runs `loads` in it. Gives the head as it is then, which
    /// is `known` where nobody else ever writes, and sets `time` by the database's where that tells the time.
    fn begin(
        conn: &mut Self::Connection,
        known: Head,
        time: &Time,
        loads: Script,
    ) -> impl Future<Output = Result<(Head, Vec<Self::Row>), sqlx::Error>> + Send;

    /// Ends a transaction that wrote nothing.
    const ROLLBACK: &'static str;

    /// Commits a transaction. Where the log has grown, it tells those who wait for that of its head.
    fn commit(grown: Option<Revision>) -> Step;

    /// Runs statements, and gives the rows of all of them.
    fn run(
        conn: &mut Self::Connection,
        script: Script,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Runs a statement, and gives its rows as they come.
    fn stream(conn: &mut Self::Connection, step: Step) -> BoxStream<'_, Result<Self::Row, sqlx::Error>>;

    /// What an error of the database at `place` comes to.
    fn fault(error: &sqlx::Error, place: &str) -> Fault;
}
