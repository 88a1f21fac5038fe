//! What is SQLite's own: its words, and how statements go to it.

use std::borrow::Cow;
use std::fmt::Write;

use futures::stream::{BoxStream, StreamExt};
use raworc_core::ids::Revision;
use raworc_core::store::StoreError;
use serde_json::Value;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::schema::MIGRATIONS;
use crate::sql::batch::Head;
use crate::sql::dialect::{Columns, Dialect};
use crate::sql::fault::Fault;
use crate::sql::schema::{Migrations, migrate};
use crate::sql::script::{Cell, Script, Step};
use crate::sql::statements::{self as sql, Insert, Keyed, Kind, There};
use crate::sql::time::Time;
use crate::sql::whole::words::Words;

/// Rows that one statement writes at most. Others are powers of two below, so that few statements are prepared.
const ROWS: usize = 64;

/// SQLite.
#[derive(Debug)]
pub struct Sqlite;

impl Columns for SqliteRow {
    fn count(&self) -> usize {
        self.len()
    }

    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }

    fn text(&self, at: usize) -> Result<Option<Cow<'_, str>>, sqlx::Error> {
        Ok(self.try_get::<Option<&str>, _>(at)?.map(Cow::Borrowed))
    }

    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get(at)
    }
}

impl Dialect for Sqlite {
    type Db = sqlx::Sqlite;
    type Connection = SqliteConnection;
    type Row = SqliteRow;

    const BESIDE: bool = false;
    const TOUCH_AGENTS: &'static Keyed = &Keyed {
        text: "UPDATE agents SET awake_until = k.b, heard_at = k.c, due_at = k.d FROM {keys} WHERE agents.id = k.a",
        columns: &[Kind::Text, Kind::Int, Kind::Int, Kind::Int],
        loads: false,
    };
    const DELETE_LABELS: &'static Keyed = &Keyed {
        text: "DELETE FROM agent_labels WHERE agent IN (SELECT a FROM {keys})",
        columns: &[Kind::Text],
        loads: false,
    };
    const DELETE_COMPUTERS: &'static Keyed = &Keyed {
        text: "DELETE FROM computers WHERE id IN (SELECT a FROM {keys})",
        columns: &[Kind::Text],
        loads: false,
    };
    const FORGET_EXPIRED: [&'static str; 2] = [
        "DELETE FROM answers WHERE rowid < (SELECT MIN(rowid) FROM answers) + 512 AND expires <= ?",
        "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires <= ? ORDER BY expires LIMIT 512)",
    ];
    const SNAPSHOT: &'static str = "BEGIN";
    const ROLLBACK: &'static str = "ROLLBACK";

    /// Nobody else ever writes, so that the head is what it was.
    async fn begin(
        conn: &mut SqliteConnection,
        known: Head,
        _time: &Time,
        mut loads: Script,
    ) -> Result<(Head, Vec<SqliteRow>), sqlx::Error> {
        loads.0.insert(0, Step::Plain("BEGIN IMMEDIATE".into(), Vec::new()));
        Ok((known, Self::run(conn, loads).await?))
    }

    fn commit(_grown: Option<Revision>) -> Step {
        Step::Plain("COMMIT".into(), Vec::new())
    }

    /// The way to the connection's thread and back is a good part of what a small commit costs, so all goes together but
    /// for many rows of a kind.
    async fn run(conn: &mut SqliteConnection, script: Script) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut together = Prepared::default();
        for step in script.0 {
            match step {
                Step::Plain(text, cells) => together.add(&plain(&text), cells),
                Step::Keyed(keyed, keys) => together.add(&text_over(keyed), [Cell::from(list(keyed, keys))]),
                Step::Insert(insert, cells) => {
                    let mut rows = cells.len() / insert.columns.len();
                    let mut cells = cells.into_iter();
                    while rows > 1 {
                        let some = ROWS.min(1 << rows.ilog2());
                        let mut many = Prepared::default();
                        many.add(&insertion(insert, some), cells.by_ref().take(some * insert.columns.len()));
                        many.query().execute(&mut *conn).await?;
                        rows -= some;
                    }
                    if rows == 1 {
                        together.add(&insertion(insert, 1), cells);
                    }
                }
            }
        }
        if together.text.is_empty() {
            return Ok(Vec::new());
        }
        together.query().fetch_all(conn).await
    }

    fn stream(conn: &mut SqliteConnection, step: Step) -> BoxStream<'_, Result<SqliteRow, sqlx::Error>> {
        let mut one = Prepared::default();
        match step {
            Step::Plain(text, cells) => one.add(&plain(&text), cells),
            Step::Keyed(keyed, keys) => one.add(&text_over(keyed), [Cell::from(list(keyed, keys))]),
            Step::Insert(insert, cells) => one.add(&insertion(insert, cells.len() / insert.columns.len()), cells),
        }
        one.query().fetch(conn).boxed()
    }

    fn fault(error: &sqlx::Error, place: &str) -> Fault {
        let Some(code) = extended_code(error) else { return Fault::of_driver(error, place) };
        match code & 0xff {
            BUSY | LOCKED => {
                Fault::unavailable(format!("another program holds the database {place} locked; close it there"))
            }
            FULL => Fault::full(place),
            // The index of the write-ahead log is a file of its own, whose growth is told in this way alone.
            IOERR if code == IOERR_SHMSIZE => Fault::full(place),
            IOERR | NOMEM => Fault::unavailable(format!("reading or writing the database {place} failed: {error}")),
            CORRUPT | NOTADB => Fault::damaged(place, &error.to_string()),
            PERM | READONLY | CANTOPEN | AUTH => Fault::unusable(format!(
                "the database {place} cannot be opened for writing ({error}); \
                 make the directory and its files writable for this user"
            )),
            TOOBIG | CONSTRAINT => Fault::of_row(error),
            _ => Fault::unavailable(format!("{error} ({place})")),
        }
    }
}

impl Words for Sqlite {
    const SERVER: &'static str = "SELECT 'SQLite ' || sqlite_version()";
    const TABLES: &'static str = "SELECT name FROM sqlite_master WHERE type = 'table'";
    const SIZE: &'static str = "SELECT n.page_count * s.page_size FROM pragma_page_count() n, pragma_page_size() s";
    // What has to be sorted may be more than memory holds.
    const PATIENT: &'static str = "PRAGMA temp_store = file";
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const HOLD: &'static str = "";
    const SETTLE: &'static str = "PRAGMA optimize";
    #[cfg(test)]
    const CATALOG: &'static str = "SELECT t.name, c.name, c.\"notnull\", lower(c.type) \
        FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid";
    const MIGRATIONS: Migrations = MIGRATIONS;

    async fn migrate(conn: &mut SqliteConnection, migrations: Migrations, place: &str) -> Result<(), StoreError> {
        migrate(conn, migrations, place, Self::fault).await
    }
}

/// The head, as the database has it.
pub(super) async fn head(conn: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query(AssertSqlSafe(plain(sql::HEAD))).fetch_one(conn).await?;
    Head::of(&row)
}

/// Statements that go to the connection's thread together, with what is bound to them.
#[derive(Default)]
struct Prepared {
    text: String,
    cells: Vec<Cell>,
}

impl Prepared {
    fn add(&mut self, statement: &str, cells: impl IntoIterator<Item = Cell>) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(statement);
        self.cells.extend(cells);
    }

    fn query(self) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
        self.cells.into_iter().fold(sqlx::query(AssertSqlSafe(self.text)), |query, cell| match cell {
            Cell::Int(value) => query.bind(value),
            Cell::Text(value) => query.bind(value),
            Cell::Bytes(value) => query.bind(value.to_vec()),
        })
    }
}

/// A statement in SQLite's words. It is not the one that tells the time.
pub(super) fn plain(text: &str) -> String {
    text.replace("{now}", "NULL")
}

/// A statement over keys that are bound as one JSON array, so that it is prepared once for any number of them.
pub(super) fn text_over(keyed: &Keyed) -> String {
    let mut keys = "(SELECT ".to_owned();
    for at in 0..keyed.columns.len() {
        let comma = if at == 0 { "" } else { ", " };
        let name = char::from(b'a' + u8::try_from(at).unwrap_or_default());
        // Writing to a text cannot fail.
        let _ = if keyed.columns.len() == 1 {
            write!(keys, "value AS {name}")
        } else {
            write!(keys, "{comma}value ->> {at} AS {name}")
        };
    }
    keys.push_str(" FROM json_each(?)) k");
    keyed.text.replace("{keys}", &keys).replace("{join}", "CROSS JOIN")
}

/// Keys as a JSON array, each an array where it has several parts.
fn list(keyed: &Keyed, cells: Vec<Cell>) -> String {
    let value = |cell| match cell {
        Cell::Int(value) => value.into(),
        Cell::Text(value) => value.into(),
        Cell::Bytes(value) => String::from_utf8_lossy(&value).into(),
    };
    let mut values: Vec<Value> = cells.into_iter().map(value).collect();
    if keyed.columns.len() > 1 {
        values = values.chunks(keyed.columns.len()).map(|key| Value::Array(key.to_vec())).collect();
    }
    Value::Array(values).to_string()
}

/// The statement that writes so many rows.
pub(super) fn insertion(insert: &Insert, rows: usize) -> String {
    let replaces = matches!(insert.there, There::Replaced(..));
    let mut text = if replaces { "INSERT OR REPLACE INTO " } else { "INSERT INTO " }.to_owned();
    text.push_str(&insert.head());
    let mut row = "(?".to_owned();
    row.push_str(&",?".repeat(insert.columns.len() - 1));
    row.push(')');
    text.reserve(rows * (row.len() + 1));
    for n in 0..rows {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&row);
    }
    if !replaces {
        text.push_str(&insert.on_conflict());
    }
    text
}

// Result codes, from SQLite's documentation (rescode.html).
const PERM: u32 = 3;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const NOMEM: u32 = 7;
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const TOOBIG: u32 = 18;
const CONSTRAINT: u32 = 19;
const AUTH: u32 = 23;
const NOTADB: u32 = 26;

const IOERR_SHMSIZE: u32 = 4874;

/// The extended result code, if the database itself said no. Its low byte is the primary one.
fn extended_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}
