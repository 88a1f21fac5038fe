//! What is PostgreSQL's own: its words, and how statements go to it.

use std::borrow::Cow;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use raworc_core::ids::Revision;
use raworc_core::store::StoreError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};
use tokio::time::Instant;

use crate::sql::batch::Head;
use crate::sql::convert::{broken, number, time};
use crate::sql::dialect::{Columns, Dialect};
use crate::sql::fault::Fault;
use crate::sql::schema::{Migrations, migrate};
use crate::sql::script::{Cell, Script, Step};
use crate::sql::server::{DatabaseOptions, Server, address};
use crate::sql::statements::{Insert, Keyed, Kind};
use crate::sql::time::Time;
use crate::sql::whole::words::Words;

/// The oldest server that this release is tested with.
const OLDEST: i64 = 15;

/// What commits are told by.
const CHANNEL: &str = "raworc_log";

/// What a session is asked to have that is a connection's own. A pooler refuses it, or passes over it.
const OWN: (&str, &str) = ("raworc.session", "own");

/// How long who holds the log's head may be silent.
const SILENCE: &str = "5s";

/// How long a row is waited for that others hold, before all is begun anew.
const TURN: &str = "3s";

/// How a session plans: a statement once and not for each value, since what is bound comes first in all of them and leads to
/// what is looked up by an index, also where a table is small yet or nothing is known of it.
const PLANS: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
];

/// The database's time in microseconds.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";

/// What may follow in an address, and which of it are files.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];
const FILES: &[&str] = &["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];

/// PostgreSQL.
#[derive(Debug)]
pub struct Postgres;

impl Columns for PgRow {
    fn count(&self) -> usize {
        self.len()
    }

    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<Option<Cow<'_, str>>, sqlx::Error> {
        Ok(self.try_get::<Option<&str>, _>(at)?.map(read))
    }

    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get(at)
    }
}

impl Dialect for Postgres {
    type Db = sqlx::Postgres;
    type Connection = PgConnection;
    type Row = PgRow;

    const BESIDE: bool = true;
    const TOUCH_AGENTS: &'static Keyed = &Keyed {
        text: "UPDATE agents SET awake_until = k.b, heard_at = k.c, due_at = k.d FROM {keys} WHERE agents.id = k.a",
        columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
        loads: false,
    };
    const DELETE_LABELS: &'static Keyed = &Keyed {
        text: "DELETE FROM agent_labels USING {keys} WHERE agent_labels.agent = k.a",
        columns: &[Kind::Text],
        loads: false,
    };
    const DELETE_COMPUTERS: &'static Keyed = &Keyed {
        text: "DELETE FROM computers USING {keys} WHERE computers.id = k.a",
        columns: &[Kind::Text],
        loads: false,
    };
    const FORGET_EXPIRED: [&'static str; 2] = [
        "DELETE FROM answers WHERE ctid = ANY(ARRAY( \
            SELECT ctid FROM answers WHERE expires <= ? ORDER BY expires LIMIT 512))",
        "DELETE FROM records WHERE ctid = ANY(ARRAY( \
            SELECT ctid FROM records WHERE expires <= ? ORDER BY expires LIMIT 512))",
    ];
    const SNAPSHOT: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const ROLLBACK: &'static str = "ROLLBACK";

    /// Each statement sees what was committed before it, and nobody commits while the head is held.
    async fn begin(
        conn: &mut PgConnection,
        _known: Head,
        clock: &Time,
        loads: Script,
    ) -> Result<(Head, Vec<PgRow>), sqlx::Error> {
        // The time is read after the row, which is waited for.
        let silence = if Self::is_own(conn) {
            String::new()
        } else {
            format!("SET LOCAL idle_in_transaction_session_timeout = '{SILENCE}'; ")
        };
        let lock = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {silence}SET LOCAL lock_timeout = '{TURN}'; \
             WITH h AS MATERIALIZED (SELECT revision, oldest, commits FROM head WHERE id = 1 FOR UPDATE) \
             SELECT revision, oldest, commits, {NOW} FROM h"
        );
        let asked = Instant::now();
        let rows = sqlx::raw_sql(AssertSqlSafe(lock)).fetch_all(&mut *conn).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        clock.tell(time(number(row, 3)?)?, asked);
        Ok((Head::of(row)?, Self::run(conn, loads).await?))
    }

    fn commit(grown: Option<Revision>) -> Step {
        let told = grown.map(|head| format!("NOTIFY {CHANNEL}, '{head}'; ")).unwrap_or_default();
        Step::Plain(format!("{told}COMMIT").into(), Vec::new())
    }

    /// Rows that are inserted go together with the statement after them, and what is loaded goes together: each statement that is
    /// waited for costs more than what it does.
    async fn run(conn: &mut PgConnection, script: Script) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut rows = Vec::new();
        let mut inserts = Vec::new();
        let mut loads = Prepared::default();
        for step in script.0 {
            let is_load = matches!(&step, Step::Keyed(keyed, _) if keyed.loads);
            if !is_load {
                rows.extend(std::mem::take(&mut loads).rows(conn).await?);
            }
            match step {
                Step::Keyed(keyed, cells) if is_load => loads.load(keyed, cells),
                Step::Insert(insert, cells) => inserts.push((insert, cells)),
                Step::Plain(text, cells) if cells.is_empty() => {
                    Prepared::of(&mut inserts).end().rows(conn).await?;
                    rows.extend(sqlx::raw_sql(AssertSqlSafe(plain(&text))).fetch_all(&mut *conn).await?);
                }
                step => {
                    let mut prepared = Prepared::of(&mut inserts);
                    prepared.finish(step);
                    rows.extend(prepared.rows(conn).await?);
                }
            }
        }
        rows.extend(loads.rows(conn).await?);
        Prepared::of(&mut inserts).end().rows(conn).await?;
        Ok(rows)
    }

    fn stream(conn: &mut PgConnection, step: Step) -> BoxStream<'_, Result<PgRow, sqlx::Error>> {
        let mut prepared = Prepared::default();
        prepared.finish(step);
        prepared.query(Self::is_own(conn)).fetch(conn).boxed()
    }

    fn fault(error: &sqlx::Error, place: &str) -> Fault {
        let Some(code) = error.as_database_error().and_then(|error| error.code()) else {
            return address::fault(error, place, "sslrootcert", "sslcert");
        };
        // From PostgreSQL's documentation (errcodes-appendix): the class, and the code where that says more.
        match &*code {
            "53100" => Fault::full(place),
            "28P01" | "28000" => Fault::unusable(format!(
                "the database {place} refuses the user or the password ({error}); mend the address or the password"
            )),
            "3D000" => Fault::unusable(format!("the database {place} does not exist; make it, or mend the address")),
            "42501" => Fault::unusable(format!(
                "the user has too few rights in the database {place} ({error}); grant them, or make it the owner"
            )),
            "42P01" => Fault::unusable(format!(
                "the database {place} lacks a table ({error}); restore a backup, or make the database anew"
            )),
            "25006" => Fault::read_only(error, place),
            "40001" | "40P01" | "55P03" => Fault::contended(error, place),
            // What can be nobody's but a row's or a statement's, and would be the same a second time.
            code if ["22", "23", "42", "54"].contains(&&code[..2]) => Fault::of_row(error),
            "XX001" | "XX002" => Fault::damaged(place, &error.to_string()),
            _ => Fault::unavailable(format!("{error} ({place})")),
        }
    }
}

impl Server for Postgres {
    type Listener = PgListener;

    const HEARS: bool = true;

    /// It tells of every commit; the poll is for what a listener cannot hear.
    const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

    fn options(options: &DatabaseOptions) -> Result<(PgConnectOptions, String), StoreError> {
        let to = connect_options(options)?;
        let place = format!("postgres://{}:{}/{}", to.get_host(), to.get_port(), to.get_database().unwrap_or_default());
        let to = to.statement_cache_capacity(512).options([
            OWN,
            // Whoever holds the log's head and is silent, stopped or cut off, holds up all others.
            ("idle_in_transaction_session_timeout", SILENCE),
            ("client_connection_check_interval", "1s"),
            ("tcp_user_timeout", "10s"),
        ]);
        Ok((to.options(PLANS), place))
    }

    /// Statements have no names there, and nothing is asked of the session. What PgBouncer takes by itself is asked for alone.
    fn pooled(options: &DatabaseOptions) -> Result<Option<PgConnectOptions>, StoreError> {
        Ok(Some(connect_options(options)?.statement_cache_capacity(0).extra_float_digits(None)))
    }

    fn port(to: &PgConnectOptions) -> u16 {
        to.get_port()
    }

    fn is_poolers(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(|error| error.message().contains("unsupported startup parameter"))
    }

    fn is_own(conn: &PgConnection) -> bool {
        conn.cached_statements_size() > 0
    }

    /// A session that is the connection's own keeps a statement from now on, which tells it from others.
    async fn greet(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (name, value) = OWN;
        let ask = format!("SELECT current_setting('{name}', true) IS NOT DISTINCT FROM '{value}'");
        let is_own = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *conn).await?;
        if is_own.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
            sqlx::query("SELECT 1").execute(conn).await?;
        }
        Ok(())
    }

    async fn check(conn: &mut PgConnection) -> Result<Result<(), String>, sqlx::Error> {
        let ask = "SELECT current_setting('server_version_num'), current_setting('server_encoding')";
        let rows = sqlx::raw_sql(ask).fetch_all(conn).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let version: i64 = row.text(0)?.unwrap_or_default().parse().map_err(broken)?;
        let (major, encoding) = (version / 10_000, row.text(1)?.unwrap_or_default());
        Ok(if major < OLDEST {
            Err(format!("it is PostgreSQL {major}, and {OLDEST} or newer is needed; upgrade it"))
        } else if encoding != "UTF8" {
            Err(format!("its encoding is {encoding}; make it anew with ENCODING 'UTF8' TEMPLATE template0"))
        } else {
            Ok(())
        })
    }

    async fn listen(to: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
        let own = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let mut listener = PgListener::connect_with(&own.connect_lazy_with(to.clone())).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    async fn heard(listener: &mut PgListener) -> Result<Option<Revision>, sqlx::Error> {
        Ok(listener.try_recv().await?.and_then(|told| told.payload().parse().ok()).map(Revision))
    }
}

impl Words for Postgres {
    const SERVER: &'static str = "SELECT 'PostgreSQL ' || current_setting('server_version')";
    const TABLES: &'static str = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()";
    const SIZE: &'static str = "SELECT pg_database_size(current_database())";
    // Not every version has each of the limits that a role or a database may bring along.
    const PATIENT: &'static str = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN \
            ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout'); \
        SET tcp_user_timeout = 0; SET enable_seqscan = on; SET enable_bitmapscan = on; SET enable_hashjoin = on; \
        SET enable_mergejoin = on; SET enable_sort = on";
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const HOLD: &'static str = " FOR UPDATE";
    const SETTLE: &'static str = "ANALYZE";
    #[cfg(test)]
    const CATALOG: &'static str = "SELECT table_name::text, column_name::text, \
            CAST(is_nullable = 'NO' AS integer)::bigint, data_type::text \
        FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position";
    const MIGRATIONS: Migrations = &[
        (1, "tables", include_str!("migrations/0001_tables.sql")),
        (2, "references, beside", include_str!("migrations/0002_references.sql")),
    ];

    async fn migrate(conn: &mut PgConnection, migrations: Migrations, place: &str) -> Result<(), StoreError> {
        if Self::is_own(conn) {
            return migrate(conn, migrations, place, Self::fault).await;
        }
        // The driver gives its statements names and keeps its lock in the session, which is the same to the end of a transaction.
        let fault = |error: sqlx::Error| StoreError::from(Self::fault(&error, place));
        let mut transaction = conn.begin().await.map_err(fault)?;
        let alone = "DEALLOCATE ALL; SELECT pg_advisory_xact_lock(hashtext('raworc'))";
        sqlx::raw_sql(alone).execute(&mut *transaction).await.map_err(fault)?;
        migrate(&mut *transaction, migrations, place, Self::fault).await?;
        sqlx::raw_sql("DEALLOCATE ALL").execute(&mut *transaction).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)
    }
}

/// What every connection has, whoever stands between.
fn connect_options(options: &DatabaseOptions) -> Result<PgConnectOptions, StoreError> {
    address::check(&options.url, PARAMETERS, FILES)?;
    let mut to = PgConnectOptions::from_str(&options.url).map_err(|error| StoreError::Unusable {
        reason: format!(
            "the address of the database is not one of PostgreSQL ({error}); write postgres://USER@HOST:PORT/DATABASE"
        ),
    })?;
    if let Some(password) = &options.password {
        to = to.password(password);
    }
    Ok(to.application_name("raworc").disable_statement_logging())
}

/// A statement with what is bound to it.
#[derive(Default)]
struct Prepared {
    text: String,
    arguments: Vec<Argument>,
}

/// A value, or a column of values.
enum Argument {
    One(Cell),
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Vec<u8>>),
}

impl Prepared {
    /// Takes rows to insert. The server begins with the last of such queries, and should another order ever be another outcome,
    /// a row is refused.
    fn of(inserts: &mut Vec<(&'static Insert, Vec<Cell>)>) -> Self {
        let mut prepared = Self::default();
        for (insert, cells) in inserts.drain(..).rev() {
            prepared.insert(insert, cells);
        }
        prepared
    }

    /// Adds rows to insert, as one of the queries that stand before a statement.
    fn insert(&mut self, insert: &Insert, cells: Vec<Cell>) {
        let n = self.text.matches(" AS (INSERT").count();
        self.text.push_str(if n == 0 { "WITH " } else { ", " });
        let kinds: Vec<_> = insert.columns.iter().map(|(_, kind)| *kind).collect();
        let table = insert.head();
        let table = table.trim_end_matches(" VALUES ");
        let rows = self.columns(&kinds, cells);
        // Writing to a text cannot fail.
        let _ = write!(self.text, "w{n} AS (INSERT INTO {table} SELECT * FROM {rows}{})", insert.on_conflict());
    }

    /// Adds the statement itself.
    fn finish(&mut self, step: Step) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        match step {
            Step::Plain(text, cells) => {
                let text = plain(&text);
                let mut parts = text.split('?');
                self.text.push_str(parts.next().unwrap_or_default());
                for (part, cell) in parts.zip(cells) {
                    self.arguments.push(Argument::One(cell));
                    let _ = write!(self.text, "${}{part}", self.arguments.len());
                }
            }
            Step::Keyed(keyed, cells) => self.keyed(keyed, cells),
            Step::Insert(insert, cells) => {
                self.insert(insert, cells);
                self.text.push_str(" SELECT 1");
            }
        }
    }

    /// Adds rows to load.
    fn load(&mut self, load: &Keyed, cells: Vec<Cell>) {
        if !self.text.is_empty() {
            self.text.push_str(" UNION ALL ");
        }
        self.keyed(load, cells);
    }

    fn keyed(&mut self, keyed: &Keyed, cells: Vec<Cell>) {
        let names = ["a", "b", "c", "d"];
        let keys = self.columns(keyed.columns, cells);
        let keys = format!("{keys} AS k({})", names[..keyed.columns.len()].join(", "));
        self.text.push_str(&keyed.text.replace("{keys}", &keys).replace("{join}", "JOIN"));
    }

    /// Binds the columns of rows whose cells come one after another, and gives the table of them.
    fn columns(&mut self, kinds: &[Kind], cells: Vec<Cell>) -> String {
        let first = self.arguments.len();
        self.arguments.extend(kinds.iter().map(|kind| match kind {
            Kind::Int => Argument::Ints(Vec::new()),
            Kind::Text => Argument::Texts(Vec::new()),
            Kind::Bytes => Argument::Bytes(Vec::new()),
        }));
        for (n, cell) in cells.into_iter().enumerate() {
            match (&mut self.arguments[first + n % kinds.len()], cell) {
                (Argument::Ints(column), Cell::Int(value)) => column.push(value),
                (Argument::Texts(column), Cell::Text(value)) => column.push(value.map(written)),
                (Argument::Bytes(column), Cell::Bytes(value)) => column.push(value.to_vec()),
                // A NULL of another kind.
                (Argument::Ints(column), _) => column.push(None),
                (Argument::Texts(column), _) => column.push(None),
                (Argument::Bytes(column), _) => column.push(Vec::new()),
                (Argument::One(_), _) => {}
            }
        }
        let of = |kind: &Kind| match kind {
            Kind::Int => "bigint",
            Kind::Text => "text",
            Kind::Bytes => "bytea",
        };
        let columns: Vec<_> =
            kinds.iter().enumerate().map(|(n, kind)| format!("${}::{}[]", first + n + 1, of(kind))).collect();
        format!("UNNEST({})", columns.join(", "))
    }

    /// With no statement after the rows to insert, if there are any.
    fn end(mut self) -> Self {
        if !self.text.is_empty() {
            self.text.push_str(" SELECT 1");
        }
        self
    }

    /// Runs it, unless it is nothing.
    async fn rows(self, conn: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        if self.text.is_empty() {
            return Ok(Vec::new());
        }
        let named = Postgres::is_own(conn);
        self.query(named).fetch_all(conn).await
    }

    /// Its name is the session's, which has to be the connection's own for that.
    fn query(self, named: bool) -> Query<'static, sqlx::Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(self.text)).persistent(named);
        self.arguments.into_iter().fold(query, |query, argument| match argument {
            Argument::One(Cell::Int(value)) => query.bind(value),
            Argument::One(Cell::Text(value)) => query.bind(value.map(written)),
            Argument::One(Cell::Bytes(value)) => query.bind(value.to_vec()),
            Argument::Ints(values) => query.bind(values),
            Argument::Texts(values) => query.bind(values),
            Argument::Bytes(values) => query.bind(values),
        })
    }
}

/// A text as the database can hold it, which is not so of U+0000: that is written as two of U+0001, and U+0001 as itself and
/// U+0002, so that texts are in the same order as before.
fn written(text: String) -> String {
    if text.contains(['\0', '\u{1}']) {
        return text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}");
    }
    text
}

/// A text as it was before it was [`written`].
fn read(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1}') {
        return Cow::Borrowed(text);
    }
    let mut read = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        read.push(match character {
            '\u{1}' if characters.next() == Some('\u{1}') => '\0',
            character => character,
        });
    }
    Cow::Owned(read)
}

fn plain(text: &str) -> String {
    text.replace("{now}", NOW)
}

/// A statement and how many values are bound to it, for [`EXPLAIN`](super::tests).
#[cfg(test)]
pub(super) fn text_and_values(step: Step) -> (String, usize) {
    let mut prepared = Prepared::default();
    prepared.finish(step);
    (prepared.text, prepared.arguments.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_cannot_hold_is_written_otherwise_and_read_back_in_the_same_order() {
        let mut texts = ["", "\0", "\0\0", "\0a", "\u{1}", "\u{1}\u{1}", "\u{1}\u{2}", "\u{2}", "a\0b", "a\u{1}", "ä"];
        texts.sort_unstable();
        let all: Vec<_> = texts.iter().map(|text| written((*text).to_owned())).collect();
        assert!(all.is_sorted(), "{all:?}");
        for (text, written) in texts.iter().zip(&all) {
            assert!(!written.contains('\0'), "{written:?}");
            assert_eq!(read(written), *text);
        }
    }
}
