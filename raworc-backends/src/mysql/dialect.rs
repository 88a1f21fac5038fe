//! What is MySQL's and MariaDB's own: their words, and how statements go to them.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use raworc_core::ids::Revision;
use raworc_core::store::StoreError;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlDatabaseError, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};
use tokio::time::Instant;

use crate::sql::batch::Head;
use crate::sql::convert::{broken, number, time};
use crate::sql::dialect::{Columns, Dialect};
use crate::sql::fault::Fault;
use crate::sql::schema::{Migrations, migrate};
use crate::sql::script::{Cell, Script, Step};
use crate::sql::server::tail::DEAF;
use crate::sql::server::{DatabaseOptions, Server, address};
use crate::sql::statements::{Insert, Keyed, Kind, There};
use crate::sql::time::Time;
use crate::sql::whole::words::Words;

/// The oldest servers that this release is tested with.
const OLDEST_MYSQL: (u32, u32) = (9, 0);
const OLDEST_MARIADB: (u32, u32) = (10, 11);

/// Rows that one statement writes at most. Others are powers of two below, so that few statements are prepared.
const ROWS: usize = 64;

/// Keys that one statement takes at most: no more than 65,535 values can be bound.
const KEYS: usize = 1024;

/// Bytes of rows that one statement writes at most, as far as rows can be told apart: servers take no larger packets than
/// 16 MiB unless they are told to.
const BYTES: usize = 4 << 20;

/// The database's time in microseconds. The connection's time zone is UTC.
const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6))";

/// What may follow in an address, and which of it are files.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslca",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "socket",
    "charset",
    "collation",
    "timezone",
    "time-zone",
    "statement-cache-capacity",
];
const FILES: &[&str] = &["sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];

/// MySQL and MariaDB.
#[derive(Debug)]
pub struct Mysql;

/// Texts are bytes in most columns, which the driver does not take for texts by itself.
impl Columns for MySqlRow {
    fn count(&self) -> usize {
        self.len()
    }

    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<Option<Cow<'_, str>>, sqlx::Error> {
        let bytes: Option<&[u8]> = self.try_get_unchecked(at)?;
        bytes.map(|bytes| std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(broken)).transpose()
    }

    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get_unchecked(at)
    }
}

impl Dialect for Mysql {
    type Db = sqlx::MySql;
    type Connection = MySqlConnection;
    type Row = MySqlRow;

    const BESIDE: bool = true;
    const TOUCH_AGENTS: &'static Keyed = &Keyed {
        text: "UPDATE {keys} {join} agents t ON t.id = k.a \
            SET t.awake_until = k.b, t.heard_at = k.c, t.due_at = k.d",
        columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
    };
    const DELETE_LABELS: &'static Keyed =
        &Keyed { text: "DELETE t FROM {keys} {join} agent_labels t ON t.agent = k.a", columns: &[Kind::Text] };
    const DELETE_COMPUTERS: &'static Keyed =
        &Keyed { text: "DELETE t FROM {keys} {join} computers t ON t.id = k.a", columns: &[Kind::Text] };
    const FORGET_EXPIRED: [&'static str; 2] = [
        "DELETE FROM answers WHERE expires <= ? ORDER BY expires LIMIT 512",
        "DELETE FROM records WHERE expires <= ? ORDER BY expires LIMIT 512",
    ];
    const FORGET_COMMITS: &'static str = "DELETE FROM commits WHERE at < ? ORDER BY at LIMIT 512";
    const SNAPSHOT: &'static str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
        START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT";
    const ROLLBACK: &'static str = "ROLLBACK; SET SESSION wait_timeout = 28800";

    /// Each statement sees what was committed before it, and nobody commits while the head is held. Whoever holds it and is
    /// silent, stopped or cut off, holds up all others, so that the server is to end such a connection soon.
    async fn begin(
        conn: &mut MySqlConnection,
        _known: Head,
        clock: &Time,
        loads: Script,
    ) -> Result<(Head, Vec<MySqlRow>), sqlx::Error> {
        let lock = format!(
            "SET SESSION wait_timeout = 5; START TRANSACTION; \
             SELECT revision, oldest, commits, {NOW} FROM head WHERE id = 1 FOR UPDATE"
        );
        let asked = Instant::now();
        let rows = sqlx::raw_sql(AssertSqlSafe(lock)).fetch_all(&mut *conn).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        clock.tell(time(number(row, 3)?)?, asked);
        Ok((Head::of(row)?, Self::run(conn, loads).await?))
    }

    fn commit(_grown: Option<Revision>) -> Step {
        Step::Plain("COMMIT; SET SESSION wait_timeout = 28800".into(), Vec::new())
    }

    async fn run(conn: &mut MySqlConnection, script: Script) -> Result<Vec<MySqlRow>, sqlx::Error> {
        let mut rows = Vec::new();
        for step in script.0 {
            match step {
                Step::Plain(text, cells) if cells.is_empty() => {
                    rows.extend(sqlx::raw_sql(AssertSqlSafe(plain(&text))).fetch_all(&mut *conn).await?);
                }
                Step::Insert(insert, cells) => {
                    for (count, some) in portions(insert.columns.len(), cells) {
                        query(insertion(insert, count), some).execute(&mut *conn).await?;
                    }
                }
                Step::Keyed(keyed, cells) => {
                    for some in cells.chunks(KEYS * keyed.columns.len()) {
                        let step = Step::Keyed(keyed, some.to_vec());
                        rows.extend(prepared(step).fetch_all(&mut *conn).await?);
                    }
                }
                step @ Step::Plain(..) => rows.extend(prepared(step).fetch_all(&mut *conn).await?),
            }
        }
        Ok(rows)
    }

    fn stream(conn: &mut MySqlConnection, step: Step) -> BoxStream<'_, Result<MySqlRow, sqlx::Error>> {
        prepared(step).fetch(conn).boxed()
    }

    fn fault(error: &sqlx::Error, place: &str) -> Fault {
        let told = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        let Some(told) = told else { return address::fault(error, place, "ssl-ca") };
        // From MySQL's and MariaDB's documentation (server error messages).
        match told.number() {
            FULL_DISK | FULL_TABLE => Fault::full(place),
            DENIED_DATABASE | DENIED_USER | DENIED_PLUGIN => Fault::unusable(format!(
                "the database {place} refuses the user or the password ({error}); mend the address or the password"
            )),
            NO_DATABASE => {
                Fault::unusable(format!("the database {place} does not exist; make it, or mend the address"))
            }
            DENIED_TABLE | DENIED_COLUMN | DENIED_PRIVILEGE => Fault::unusable(format!(
                "the user has too few rights in the database {place} ({error}); grant all rights on it"
            )),
            NO_TABLE => Fault::unusable(format!(
                "the database {place} lacks a table ({error}); restore a backup, or make the database anew"
            )),
            READ_ONLY | READ_ONLY_MODE | READ_ONLY_TRANSACTION => Fault::read_only(error, place),
            CRASHED_TABLE | CRASHED_REPAIR => Fault::damaged(place, &error.to_string()),
            LOCK_TIMEOUT | DEADLOCK => Fault::contended(error, place),
            // Of a user who has too many connections or statements: MySQL counts it to what is wrong with a statement.
            CONNECTIONS_OF_USER | LIMIT_OF_USER => Fault::unavailable(format!("{error} ({place})")),
            PACKET_TOO_LARGE | ROW_TOO_LARGE => Fault::of_row(error),
            // What can be nobody's but a row's or a statement's, and would be the same a second time.
            _ if told.code().is_some_and(|state| ["21", "22", "23", "42"].contains(&&state[..2])) => {
                Fault::of_row(error)
            }
            _ => Fault::unavailable(format!("{error} ({place})")),
        }
    }
}

const DENIED_DATABASE: u16 = 1044;
const DENIED_USER: u16 = 1045;
const NO_DATABASE: u16 = 1049;
const FULL_DISK: u16 = 1021;
const FULL_TABLE: u16 = 1114;
const ROW_TOO_LARGE: u16 = 1118;
const DENIED_TABLE: u16 = 1142;
const DENIED_COLUMN: u16 = 1143;
const NO_TABLE: u16 = 1146;
const PACKET_TOO_LARGE: u16 = 1153;
const CRASHED_TABLE: u16 = 1194;
const CRASHED_REPAIR: u16 = 1195;
const CONNECTIONS_OF_USER: u16 = 1203;
const LOCK_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const LIMIT_OF_USER: u16 = 1226;
const DENIED_PRIVILEGE: u16 = 1227;
const READ_ONLY: u16 = 1290;
const DENIED_PLUGIN: u16 = 1698;
const READ_ONLY_TRANSACTION: u16 = 1792;
const READ_ONLY_MODE: u16 = 1836;

impl Server for Mysql {
    /// Nobody tells.
    type Listener = ();

    const POLL: (Duration, Duration) = DEAF;

    fn options(options: &DatabaseOptions) -> Result<(MySqlConnectOptions, String), StoreError> {
        address::check(&options.url, PARAMETERS, FILES)?;
        let mut to = MySqlConnectOptions::from_str(&options.url).map_err(|error| StoreError::Unusable {
            reason: format!(
                "the address of the database is not one of MySQL ({error}); write mysql://USER@HOST:PORT/DATABASE"
            ),
        })?;
        if let Some(password) = &options.password {
            to = to.password(password);
        }
        let place = format!("mysql://{}:{}/{}", to.get_host(), to.get_port(), to.get_database().unwrap_or_default());
        // Whatever the address says, times are told in UTC, and every character can be kept.
        let to = to.timezone("+00:00".to_owned()).charset("utf8mb4").collation("utf8mb4_bin");
        Ok((to.statement_cache_capacity(512).disable_statement_logging(), place))
    }

    fn pooled(_options: &DatabaseOptions) -> Result<Option<MySqlConnectOptions>, StoreError> {
        Ok(None)
    }

    fn is_poolers(_error: &sqlx::Error) -> bool {
        false
    }

    fn is_own(_conn: &MySqlConnection) -> bool {
        true
    }

    async fn greet(conn: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        // Statements are written so that what is bound comes first, and what it leads to is looked up by an index: the
        // optimizer is not to turn them around, as it would where tables are small or their statistics old. What stands in
        // the comments is for one of the two alone.
        let session = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
            SET SESSION innodb_lock_wait_timeout = 3, SESSION net_read_timeout = 10, SESSION net_write_timeout = 10 \
                /*M! , SESSION join_cache_level = 0 */; \
            SET SESSION optimizer_switch = 'semijoin=off,materialization=off'; \
            SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES') \
                /*!80000 , SESSION optimizer_switch = 'block_nested_loop=off' */";
        sqlx::raw_sql(session).execute(conn).await.map(drop)
    }

    async fn check(conn: &mut MySqlConnection) -> Result<Result<(), String>, sqlx::Error> {
        let rows = sqlx::raw_sql("SELECT VERSION()").fetch_all(conn).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let version = row.text(0)?.unwrap_or_default();
        let (name, oldest) =
            if version.contains("MariaDB") { ("MariaDB", OLDEST_MARIADB) } else { ("MySQL", OLDEST_MYSQL) };
        let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Ok(if found < oldest {
            Err(format!("it is {name} {version}, and {}.{} or newer is needed; upgrade it", oldest.0, oldest.1))
        } else {
            Ok(())
        })
    }

    async fn listen(_to: &MySqlConnectOptions) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn heard(_listener: &mut ()) -> Result<Option<Revision>, sqlx::Error> {
        std::future::pending().await
    }
}

impl Words for Mysql {
    const SERVER: &'static str = "SELECT CONCAT(IF(VERSION() LIKE '%MariaDB%', 'MariaDB ', 'MySQL '), VERSION())";
    const TABLES: &'static str = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
    const SIZE: &'static str = "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) \
        FROM information_schema.tables WHERE table_schema = DATABASE()";
    const PATIENT: &'static str =
        "SET SESSION wait_timeout = 28800, SESSION net_read_timeout = 3600, SESSION net_write_timeout = 3600";
    const BEGIN: &'static str = "START TRANSACTION";
    const HOLD: &'static str = " FOR UPDATE";
    // It does so by itself.
    const SETTLE: &'static str = "DO 0";
    #[cfg(test)]
    const CATALOG: &'static str = "SELECT table_name, column_name, CAST(is_nullable = 'NO' AS SIGNED), data_type \
        FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position";
    const MIGRATIONS: Migrations = &[
        (1, "tables", include_str!("migrations/0001_tables.sql")),
        (2, "references, beside", include_str!("migrations/0002_references.sql")),
    ];

    /// Under a lock of its own: the driver's does not wait on MariaDB.
    async fn migrate(conn: &mut MySqlConnection, migrations: Migrations, place: &str) -> Result<(), StoreError> {
        let fault = |error: sqlx::Error| Self::fault(&error, place);
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT GET_LOCK(CONCAT('raworc.', LEFT(SHA2(DATABASE(), 256), 40)), 60)")
                .fetch_one(&mut *conn)
                .await
                .map_err(fault)?;
        if locked != Some(1) {
            let reason = format!("another process has been changing the tables of the database {place} for a minute");
            return Err(StoreError::Unavailable { reason });
        }
        migrate(conn, migrations, place, Self::fault).await?;
        let unlock = "DO RELEASE_LOCK(CONCAT('raworc.', LEFT(SHA2(DATABASE(), 256), 40)))";
        sqlx::raw_sql(unlock).execute(conn).await.map_err(fault)?;
        Ok(())
    }
}

/// Rows whose cells come one after another, in portions that one statement takes.
fn portions(columns: usize, cells: Vec<Cell>) -> Vec<(usize, Vec<Cell>)> {
    let size = |cell: &Cell| match cell {
        Cell::Int(_) => 8,
        Cell::Text(text) => text.as_ref().map_or(0, String::len),
        Cell::Bytes(bytes) => bytes.len(),
    };
    let mut portions = Vec::new();
    let sizes: Vec<usize> = cells.chunks(columns).map(|row| row.iter().map(size).sum()).collect();
    let mut cells = cells.into_iter();
    let mut at = 0;
    while at < sizes.len() {
        let mut room = BYTES;
        let fit = sizes[at..].iter().take(ROWS).take_while(|size| {
            let fits = **size <= room;
            room = room.saturating_sub(**size);
            fits
        });
        let count = 1 << fit.count().max(1).ilog2();
        portions.push((count, cells.by_ref().take(count * columns).collect()));
        at += count;
    }
    portions
}

fn prepared(step: Step) -> Query<'static, sqlx::MySql, MySqlArguments> {
    match step {
        Step::Plain(text, cells) => query(plain(&text), cells),
        Step::Keyed(keyed, mut cells) => {
            let width = keyed.columns.len();
            let keys = (cells.len() / width).next_power_of_two();
            // The last one again, so that few statements are prepared.
            let last = cells[cells.len() - width..].to_vec();
            while cells.len() < keys * width {
                cells.extend_from_slice(&last);
            }
            query(text_over(keyed, keys), cells)
        }
        Step::Insert(insert, cells) => query(insertion(insert, cells.len() / insert.columns.len()), cells),
    }
}

fn query(text: String, cells: Vec<Cell>) -> Query<'static, sqlx::MySql, MySqlArguments> {
    cells.into_iter().fold(sqlx::query(AssertSqlSafe(text)), |query, cell| match cell {
        Cell::Int(value) => query.bind(value),
        Cell::Text(value) => query.bind(value),
        Cell::Bytes(value) => query.bind(value.to_vec()),
    })
}

fn plain(text: &str) -> String {
    text.replace("{now}", NOW)
}

/// A statement over so many keys.
fn text_over(keyed: &Keyed, keys: usize) -> String {
    let names = ["a", "b", "c", "d"];
    let cells = keyed.columns.iter().zip(names).map(|(kind, name)| match kind {
        Kind::Int => format!("CAST(? AS SIGNED) AS {name}"),
        Kind::Text | Kind::Bytes => format!("CAST(? AS BINARY) AS {name}"),
    });
    let select = format!("SELECT {}", cells.collect::<Vec<_>>().join(", "));
    let all = vec![select; keys].join(" UNION ALL ");
    keyed.text.replace("{keys}", &format!("({all}) k")).replace("{join}", "STRAIGHT_JOIN")
}

/// The statement that writes so many rows.
fn insertion(insert: &Insert, rows: usize) -> String {
    let row = format!("({})", vec!["?"; insert.columns.len()].join(","));
    let set = |names: &[&str]| {
        let set: Vec<_> = names.iter().map(|name| format!("{name} = VALUES({name})")).collect();
        format!(" ON DUPLICATE KEY UPDATE {}", set.join(", "))
    };
    let there = match insert.there {
        There::Refused => String::new(),
        There::Kept(key) => format!(" ON DUPLICATE KEY UPDATE {0} = {0}", key[0]),
        There::Updated(_, names) | There::Replaced(_, names) => set(names),
    };
    format!("INSERT INTO {}{}{there}", insert.head(), vec![row; rows].join(","))
}

/// A statement with all that is bound to it written out, for [`EXPLAIN`](super::tests).
#[cfg(test)]
pub(super) fn literal(step: Step) -> String {
    let (text, cells) = match step {
        Step::Plain(text, cells) => (plain(&text), cells),
        Step::Keyed(keyed, cells) => (text_over(keyed, cells.len() / keyed.columns.len()), cells),
        Step::Insert(insert, cells) => (insertion(insert, cells.len() / insert.columns.len()), cells),
    };
    let mut parts = text.split('?');
    let mut literal = parts.next().unwrap_or_default().to_owned();
    for (part, cell) in parts.zip(cells) {
        // What limits a page is a number, and nothing else has to be.
        let quote = if literal.ends_with("LIMIT ") { "" } else { "'" };
        literal.push_str(quote);
        match cell {
            Cell::Int(value) => literal.push_str(&value.unwrap_or_default().to_string()),
            Cell::Text(value) => literal.push_str(&value.unwrap_or_default().replace('\'', "''")),
            Cell::Bytes(_) => {}
        }
        literal.push_str(quote);
        literal.push_str(part);
    }
    literal
}
