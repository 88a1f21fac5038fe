//! What is MySQL's and MariaDB's own: their words, and how statements go to them.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use raworc_core::ids::Revision;
use raworc_core::store::StoreError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow};
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

/// Keys that one statement takes at most: each is a query of its own to the server.
const KEYS: usize = 1024;

/// Bytes from which on no more goes into one packet, as far as rows can be told apart.
const BYTES: usize = 4 << 20;

/// Bytes of the largest packet that a server has to take, as MariaDB does by itself. One that is larger than it takes ends as a
/// connection that is lost, whatever was in it.
const PACKET: i64 = 16 << 20;

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
        loads: false,
    };
    const DELETE_LABELS: &'static Keyed = &Keyed {
        text: "DELETE t FROM {keys} {join} agent_labels t ON t.agent = k.a",
        columns: &[Kind::Text],
        loads: false,
    };
    const DELETE_COMPUTERS: &'static Keyed =
        &Keyed { text: "DELETE t FROM {keys} {join} computers t ON t.id = k.a", columns: &[Kind::Text], loads: false };
    const FORGET_EXPIRED: [&'static str; 2] = [
        "DELETE FROM answers WHERE expires <= ? ORDER BY expires LIMIT 512",
        "DELETE FROM records WHERE expires <= ? ORDER BY expires LIMIT 512",
    ];
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
        let mut rows = run(conn, Packets::of(lock, loads)).await?.into_iter();
        let row = rows.next().ok_or(sqlx::Error::RowNotFound)?;
        let head = Head::of(&row)?;
        clock.tell(time(number(&row, 3)?)?, asked);
        Ok((head, rows.collect()))
    }

    fn commit(_grown: Option<Revision>) -> Step {
        Step::Plain("COMMIT; SET SESSION wait_timeout = 28800".into(), Vec::new())
    }

    async fn run(conn: &mut MySqlConnection, script: Script) -> Result<Vec<MySqlRow>, sqlx::Error> {
        run(conn, Packets::of(String::new(), script)).await
    }

    fn stream(conn: &mut MySqlConnection, step: Step) -> BoxStream<'_, Result<MySqlRow, sqlx::Error>> {
        sqlx::raw_sql(AssertSqlSafe(Packets::one(step))).fetch(conn).boxed()
    }

    fn fault(error: &sqlx::Error, place: &str) -> Fault {
        let told = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
        let Some(told) = told else { return address::fault(error, place, "ssl-ca", "ssl-cert") };
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

    const HEARS: bool = false;

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
        Ok((to.disable_statement_logging(), place))
    }

    fn pooled(_options: &DatabaseOptions) -> Result<Option<MySqlConnectOptions>, StoreError> {
        Ok(None)
    }

    fn port(to: &MySqlConnectOptions) -> u16 {
        to.get_port()
    }

    fn is_poolers(_error: &sqlx::Error) -> bool {
        false
    }

    fn is_own(_conn: &MySqlConnection) -> bool {
        true
    }

    async fn greet(conn: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        // Statements are written so that keys come first, and what they lead to is looked up by an index: the optimizer is not to
        // turn them around, as it would where tables are small or their statistics old. What stands in the comments is for one of
        // the two alone. How texts are read is not left to the server's configuration, nor whether a read ends its transaction.
        let session = "SET SESSION autocommit = 1; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
            SET SESSION innodb_lock_wait_timeout = 3, SESSION net_read_timeout = 10, SESSION net_write_timeout = 10 \
                /*M! , SESSION join_cache_level = 0 */; \
            SET SESSION optimizer_switch = 'semijoin=off,materialization=off'; \
            SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION' \
                /*!80000 , SESSION optimizer_switch = 'block_nested_loop=off' */";
        sqlx::raw_sql(session).execute(conn).await.map(drop)
    }

    async fn check(conn: &mut MySqlConnection) -> Result<Result<(), String>, sqlx::Error> {
        let ask = "SELECT VERSION(), CAST(@@max_allowed_packet AS SIGNED)";
        let rows = sqlx::raw_sql(ask).fetch_all(conn).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let packet = number(row, 1)?;
        let version = row.text(0)?.unwrap_or_default();
        let (name, oldest) =
            if version.contains("MariaDB") { ("MariaDB", OLDEST_MARIADB) } else { ("MySQL", OLDEST_MYSQL) };
        let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        Ok(if found < oldest {
            Err(format!("it is {name} {version}, and {}.{} or newer is needed; upgrade it", oldest.0, oldest.1))
        } else if packet < PACKET {
            Err(format!(
                "its max_allowed_packet is {packet}, and {PACKET} (16M) or more is needed; set it in the server's configuration"
            ))
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
    const PATIENT: &'static str = "SET SESSION wait_timeout = 28800, SESSION net_read_timeout = 3600, \
            SESSION net_write_timeout = 3600 /*M! , SESSION max_statement_time = 0, SESSION idle_transaction_timeout = 0, \
            SESSION idle_readonly_transaction_timeout = 0, SESSION idle_write_transaction_timeout = 0 */ \
            /*!80000 , SESSION max_execution_time = 0 */";
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

async fn run(conn: &mut MySqlConnection, packets: Packets) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let mut rows = Vec::new();
    for packet in packets.full.into_iter().chain([packets.last]).filter(|packet| !packet.is_empty()) {
        rows.extend(sqlx::raw_sql(AssertSqlSafe(packet)).fetch_all(&mut *conn).await?);
    }
    Ok(rows)
}

/// Statements as they go to the server, with their values written out, as many together as a packet holds. Each statement that is
/// waited for costs more than what it does, and what is prepared is planned anew each time all the same.
#[derive(Debug, Default)]
pub(super) struct Packets {
    full: Vec<String>,
    last: String,
}

impl Packets {
    /// The one statement that a step is.
    pub(super) fn one(step: Step) -> String {
        let Self { full, last } = Self::of(String::new(), Script(vec![step]));
        debug_assert!(full.is_empty(), "it is more than a packet holds");
        last
    }

    /// A statement, and those of a script after it.
    fn of(first: String, script: Script) -> Self {
        let mut packets = Self { full: Vec::new(), last: first };
        for step in script.0 {
            match step {
                Step::Plain(text, cells) => packets.add(&bound(&text.replace("{now}", NOW), &cells)),
                Step::Keyed(keyed, cells) => {
                    for some in cells.chunks(KEYS * keyed.columns.len()) {
                        packets.add(&over(keyed, some));
                    }
                }
                Step::Insert(insert, cells) => packets.insert(insert, &cells),
            }
        }
        packets
    }

    fn add(&mut self, statement: &str) {
        if !self.last.is_empty() && self.last.len() + statement.len() > BYTES {
            self.full.push(std::mem::take(&mut self.last));
        }
        if !self.last.is_empty() {
            self.last.push_str("; ");
        }
        self.last.push_str(statement);
    }

    fn insert(&mut self, insert: &Insert, cells: &[Cell]) {
        let set = |names: &[&str]| {
            let set: Vec<_> = names.iter().map(|name| format!("{name} = VALUES({name})")).collect();
            format!(" ON DUPLICATE KEY UPDATE {}", set.join(", "))
        };
        let there = match insert.there {
            There::Refused => String::new(),
            There::Kept(key) => format!(" ON DUPLICATE KEY UPDATE {0} = {0}", key[0]),
            There::Updated(_, names) | There::Replaced(_, names) => set(names),
        };
        let head = format!("INSERT INTO {}", insert.head());
        let mut statement = head.clone();
        for row in cells.chunks(insert.columns.len()) {
            let bytes: usize = row.iter().map(Cell::bytes).sum();
            if statement.len() > head.len() {
                if statement.len() + bytes > BYTES {
                    statement.push_str(&there);
                    self.add(&statement);
                    statement.clone_from(&head);
                } else {
                    statement.push(',');
                }
            }
            for (n, cell) in row.iter().enumerate() {
                statement.push(if n == 0 { '(' } else { ',' });
                literal(cell, &mut statement);
            }
            statement.push(')');
        }
        if statement.len() > head.len() {
            statement.push_str(&there);
            self.add(&statement);
        }
    }
}

/// A statement with what is bound to it.
fn bound(text: &str, cells: &[Cell]) -> String {
    let mut parts = text.splitn(cells.len() + 1, '?');
    let mut bound = parts.next().unwrap_or_default().to_owned();
    for (part, cell) in parts.zip(cells) {
        literal(cell, &mut bound);
        bound.push_str(part);
    }
    bound
}

/// A statement over these keys.
fn over(keyed: &Keyed, cells: &[Cell]) -> String {
    let names = ["a", "b", "c", "d"];
    let mut keys = String::new();
    for key in cells.chunks(keyed.columns.len()) {
        keys.push_str(if keys.is_empty() { "(SELECT " } else { " UNION ALL SELECT " });
        for (n, ((cell, kind), name)) in key.iter().zip(keyed.columns).zip(names).enumerate() {
            keys.push_str(if n == 0 { "CAST(" } else { ", CAST(" });
            literal(cell, &mut keys);
            keys.push_str(match kind {
                Kind::Int => " AS SIGNED) AS ",
                Kind::Text | Kind::Bytes => " AS BINARY) AS ",
            });
            keys.push_str(name);
        }
    }
    keys.push_str(") k");
    keyed.text.replace("{join}", "STRAIGHT_JOIN").replace("{keys}", &keys)
}

/// Writes a value as a statement has it. What a session is told of texts is taken for granted: they are UTF-8, see
/// [`Server::options`], and but for two characters everything in them stands for itself, see [`Server::greet`].
fn literal(cell: &Cell, statement: &mut String) {
    match cell {
        Cell::Int(None) | Cell::Text(None) => statement.push_str("NULL"),
        Cell::Int(Some(value)) => statement.push_str(&value.to_string()),
        Cell::Text(Some(text)) => {
            // In few steps: the log's head is held meanwhile, and a document may have a million backslashes.
            let text = text.replace('\\', "\\\\").replace('\'', "''");
            statement.push('\'');
            statement.push_str(&text);
            statement.push('\'');
        }
        Cell::Bytes(bytes) => {
            statement.push_str("X'");
            statement.push_str(&hex::encode(bytes));
            statement.push('\'');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statements as sql;

    fn packets(insert: &'static Insert, cells: Vec<Cell>) -> Vec<String> {
        let packets = Packets::of("BEGIN".to_owned(), Script(vec![Step::Insert(insert, cells)]));
        packets.full.into_iter().chain([packets.last]).collect()
    }

    #[test]
    fn a_text_ends_where_it_ends_whatever_is_in_it() {
        let text = "it's \\' OR 1 = 1; -- ? {keys} {now} \0 \u{1F600}";
        let step = Step::Plain("SELECT ? AS a, ?".into(), vec![text.into(), 7.into()]);
        let statement = Packets::one(step);
        assert_eq!(statement, "SELECT 'it''s \\\\'' OR 1 = 1; -- ? {keys} {now} \0 \u{1F600}' AS a, 7");
    }

    #[test]
    fn what_is_no_text_is_written_out_too() {
        let bytes = Cell::Bytes(bytes::Bytes::from_static(b"\0'\\"));
        let cells = vec![Cell::Int(None), Cell::Text(None), (-7).into(), bytes, Cell::Bytes(bytes::Bytes::new())];
        let statement = Packets::one(Step::Plain("? ? ? ? ?".into(), cells));
        assert_eq!(statement, "NULL NULL -7 X'00275c' X''");
    }

    #[test]
    fn a_key_is_a_key_whatever_is_in_it() {
        let keys = vec!["{join}'".into(), "{keys}".into(), "b".into(), "?".into()];
        let statement = Packets::one(Step::Keyed(sql::LOAD_USAGE, keys));
        let table = "(SELECT CAST('{join}''' AS BINARY) AS a, CAST('{keys}' AS BINARY) AS b \
            UNION ALL SELECT CAST('b' AS BINARY) AS a, CAST('?' AS BINARY) AS b) k";
        let wanted = sql::LOAD_USAGE.text.replace("{join}", "STRAIGHT_JOIN").replace("{keys}", table);
        assert_eq!(statement, wanted);
    }

    #[test]
    fn what_goes_to_the_server_goes_together_as_far_as_a_packet_holds_it() {
        let lease = |n: i64| [n.to_string().into(), "holder".into(), n.into(), n.into(), n.into()];
        let few = packets(sql::PUT_LEASES, (0..3).flat_map(lease).collect());
        assert_eq!(few.len(), 1, "{few:?}");
        assert_eq!(few[0].matches("INSERT").count(), 1, "{few:?}");
        let large = |n: i64| [n.into(), "x".into(), n.into(), "y".repeat(BYTES / 3).into()];
        let many = packets(sql::PUT_COMMITS, (0..7).flat_map(large).collect());
        assert_eq!(many.iter().map(|packet| packet.matches("yy'").count()).sum::<usize>(), 7);
        assert!(many.len() > 3 && many.iter().all(|packet| packet.len() < BYTES + 1024), "{}", many.len());
    }
}
