//! The tables as they are carried from store to store: one description that export, import and verification share.

use std::cmp::Ordering;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::TableSum;
use crate::sql::convert::{broken, number, text};
use crate::sql::dialect::Columns;
use crate::sql::script::{Cell, Step};
use crate::sql::statements::{Insert, Kind, There};
use Kind::{Bytes as Blob, Int, Text};

/// A table that is carried.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name and its columns. A row that is there already is an error.
    pub(crate) insert: Insert,
    /// The columns that may be NULL.
    pub(crate) nullable: &'static [&'static str],
    /// The columns that rows are ordered by, which no two rows share.
    pub(crate) order: &'static [&'static str],
}

macro_rules! tables {
    ($($table:literal, [$($column:ident $kind:ident),+], nullable [$($nullable:literal),*], by [$($order:literal),+];)+) => {
        /// Each table that is carried, in the order in which they are.
        pub(crate) static TABLES: &[Table] = &[$(Table {
            insert: Insert {
                table: $table,
                columns: &[$((stringify!($column), $kind)),+],
                there: There::Refused,
            },
            nullable: &[$($nullable),*],
            order: &[$($order),+],
        }),+];
    };
}

// A change here is another form of exports: count `super::format::VERSION` up with it.
tables! {
    "head", [revision Int, oldest Int, commits Int], nullable [], by ["revision"];
    "agents", [id Text, tenant Text, live_name Text, owner Text, state Text, runtime Text, due_at Int, awake_until Int,
        heard_at Int, doc Text], nullable ["live_name", "due_at", "awake_until", "heard_at"], by ["id"];
    "agent_labels", [agent Text, name Text, value Text], nullable [], by ["agent", "name"];
    "messages", [agent Text, seq Int, tenant Text, id Text, open_seq Int, doc Text], nullable ["open_seq"],
        by ["agent", "seq"];
    "steps", [agent Text, seq Int, tenant Text, message Text, doc Text], nullable ["message"], by ["agent", "seq"];
    "computers", [id Text, tenant Text, runtime Text, reclaim Int, doc Text], nullable [], by ["id"];
    "records", [kind Text, tenant Text, name Text, version Int, expires Int, body Text], nullable ["expires"],
        by ["kind", "tenant", "name"];
    "quotas", [tenant Text, kind Text, used Int], nullable [], by ["tenant", "kind"];
    // SQLite forgets them in the order in which they were written, which is to be that of their end.
    "answers", [principal Text, name Text, expires Int, doc Text], nullable [], by ["expires", "principal", "name"];
    "log", [revision Int, tenant Text, agent Text, doc Text], nullable ["agent"], by ["revision"];
    "commits", [seq Int, id Text, at Int, doc Text], nullable [], by ["seq"];
    "audit", [seq Int, tenant Text, revision Int, at Int, doc Text], nullable [], by ["seq"];
    "blobs", [tenant Text, id Text, size Int, idle_since Int], nullable ["idle_since"], by ["tenant", "id"];
    "blob_refs", [agent Text, seq Int, tenant Text, content Text], nullable [], by ["agent", "seq", "tenant", "content"];
    "blob_chunks", [tenant Text, id Text, n Int, data Blob], nullable [], by ["tenant", "id", "n"];
}

/// What is in the database and is not carried: signs of life of processes that are not those of the next store.
pub(crate) const LEFT: &[&str] = &["leases"];

/// The table with one row, which is there in an empty store too.
pub(crate) const HEAD: &str = "head";

impl Table {
    /// Its name.
    pub(crate) const fn name(&self) -> &'static str {
        self.insert.table
    }

    /// The names of its columns.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.insert.columns.iter().map(|(name, _)| *name)
    }

    /// Asks for all rows in their order.
    pub(crate) fn select(&self) -> Step {
        let columns: Vec<_> = self.columns().collect();
        let (columns, name, order) = (columns.join(", "), self.name(), self.order.join(", "));
        let only = if name == HEAD { " WHERE id = 1" } else { "" };
        Step::Plain(format!("SELECT {columns} FROM {name}{only} ORDER BY {order}").into(), Vec::new())
    }

    /// The cells of a row.
    pub(crate) fn cells(&self, row: &impl Columns) -> Result<Vec<Cell>, sqlx::Error> {
        let cell = |(at, (name, kind)): (usize, &(&str, Kind))| {
            let is_null = self.nullable.contains(name);
            Ok(match kind {
                Int if is_null => Cell::Int(row.int(at)?),
                Int => number(row, at)?.into(),
                Text if is_null => Cell::Text(row.text(at)?.map(Into::into)),
                Text => text(row, at)?.into_owned().into(),
                Blob => Cell::Bytes(Bytes::copy_from_slice(row.bytes(at)?)),
            })
        };
        self.insert.columns.iter().enumerate().map(cell).collect()
    }

    /// The cells of a line of an export. Says what is wrong with it.
    pub(crate) fn parse(&self, line: &[u8]) -> Result<Vec<Cell>, String> {
        let values: Vec<Value> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let columns = self.insert.columns;
        if values.len() != columns.len() {
            return Err(format!("a row of {} values, not {}", values.len(), columns.len()));
        }
        let cell = |(value, (name, kind)): (Value, &(&str, Kind))| {
            let cell = match (kind, value) {
                (Int, Value::Null) if self.nullable.contains(name) => Some(Cell::Int(None)),
                (Text, Value::Null) if self.nullable.contains(name) => Some(Cell::Text(None)),
                (Int, Value::Number(number)) => number.as_i64().map(Cell::from),
                (Text, Value::String(text)) => Some(text.into()),
                (Blob, Value::String(text)) => STANDARD.decode(text).ok().map(|bytes| Cell::Bytes(bytes.into())),
                (Int | Text | Blob, _) => None,
            };
            cell.ok_or_else(|| format!("no {} in column {name}", word(*kind)))
        };
        values.into_iter().zip(columns).map(cell).collect()
    }

    /// Whether a row comes before another one.
    pub(crate) fn precedes(&self, one: &[Cell], other: &[Cell]) -> bool {
        let place = |name: &&str| self.columns().position(|column| column == *name);
        let each = self.order.iter().filter_map(place).map(|at| compare(&one[at], &other[at]));
        each.fold(Ordering::Equal, Ordering::then) == Ordering::Less
    }
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Int => "whole number",
        Text => "text",
        Blob => "base64",
    }
}

/// Numbers as such, texts by their bytes, as every database has them.
fn compare(one: &Cell, other: &Cell) -> Ordering {
    match (one, other) {
        (Cell::Int(one), Cell::Int(other)) => one.cmp(other),
        (Cell::Text(one), Cell::Text(other)) => one.cmp(other),
        (Cell::Bytes(one), Cell::Bytes(other)) => one.cmp(other),
        (Cell::Int(_) | Cell::Text(_) | Cell::Bytes(_), _) => Ordering::Equal,
    }
}

/// Writes a row in the one way that it is written in: a JSON array on a line of its own, bytes as base64.
pub(crate) fn write_row(cells: &[Cell], line: &mut Vec<u8>) -> Result<(), sqlx::Error> {
    line.clear();
    line.push(b'[');
    for (n, cell) in cells.iter().enumerate() {
        if n > 0 {
            line.push(b',');
        }
        match cell {
            Cell::Int(None) | Cell::Text(None) => line.extend_from_slice(b"null"),
            Cell::Int(Some(number)) => write!(line, "{number}").map_err(broken)?,
            Cell::Text(Some(text)) => serde_json::to_writer(&mut *line, text).map_err(broken)?,
            Cell::Bytes(bytes) => {
                line.push(b'"');
                line.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                line.push(b'"');
            }
        }
    }
    line.extend_from_slice(b"]\n");
    Ok(())
}

/// Counts and sums rows, each as it is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sum {
    rows: u64,
    hash: Sha256,
    line: Vec<u8>,
}

impl Sum {
    /// Adds a row, and gives it as it is written.
    pub(crate) fn add(&mut self, cells: &[Cell]) -> Result<&[u8], sqlx::Error> {
        write_row(cells, &mut self.line)?;
        self.hash.update(&self.line);
        self.rows += 1;
        Ok(&self.line)
    }

    /// Rows so far.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// What they come to.
    pub(crate) fn of(self, table: &str) -> TableSum {
        TableSum { table: table.to_owned(), rows: self.rows, sha256: hex::encode(self.hash.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statements::INSERTS;

    fn table(name: &str) -> &'static Table {
        TABLES.iter().find(|table| table.name() == name).expect("is described")
    }

    #[test]
    fn every_table_that_is_written_to_is_described_with_its_columns_or_left_on_purpose() {
        for (name, insert) in INSERTS {
            if LEFT.contains(&insert.table) {
                continue;
            }
            assert_eq!(table(insert.table).insert.columns, insert.columns, "{name}");
        }
    }

    #[test]
    fn a_row_reads_back_from_its_line_as_it_was() {
        let texts = ["", "\0", "\u{1}\"\\\n\r\u{2028}", "🦀 e\u{301}", "\u{ffff}\u{7f}"];
        for text in texts {
            let cells: Vec<Cell> =
                vec![text.into(), text.into(), (i64::MIN).into(), Cell::Bytes(Bytes::from_static(&[0, 255]))];
            let mut line = Vec::new();
            write_row(&cells, &mut line).expect("is written");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
            assert_eq!(table("blob_chunks").parse(&line).expect("is read"), cells);
        }
        let nulls = br#"["a",1,"t","m",null,"{}"]"#;
        let cells = table("messages").parse(nulls).expect("is read");
        assert_eq!(cells[4], Cell::Int(None));
    }

    #[test]
    fn a_line_that_is_no_row_says_what_is_wrong() {
        let wrong = [
            (r#"["a",1,"t","m",null]"#, "5 values, not 6"),
            (r#"["a",1,"t",null,null,"{}"]"#, "no text in column id"),
            (r#"["a",1.5,"t","m",null,"{}"]"#, "no whole number in column seq"),
            (r#"["a",1,"t","m",null,"{}""#, "EOF"),
        ];
        for (line, told) in wrong {
            let error = table("messages").parse(line.as_bytes()).expect_err("is refused");
            assert!(error.contains(told), "{line}: {error}");
        }
        let error = table("blob_chunks").parse(br#"["t","b",0,"no base64!"]"#).expect_err("is refused");
        assert_eq!(error, "no base64 in column data");
    }

    #[test]
    fn rows_are_ordered_by_the_bytes_of_texts_and_the_value_of_numbers() {
        let row = |agent: &str, seq: i64| -> Vec<Cell> {
            vec![agent.into(), seq.into(), "t".into(), "m".into(), None::<i64>.into(), "{}".into()]
        };
        let messages = table("messages");
        for (one, other) in
            [(row("a", 9), row("a", 10)), (row("Z", 1), row("a", 1)), (row("a\u{ffff}", 1), row("a🦀", 1))]
        {
            assert!(messages.precedes(&one, &other) && !messages.precedes(&other, &one), "{one:?} {other:?}");
        }
        assert!(!messages.precedes(&row("a", 1), &row("a", 1)), "no two rows share a key");
    }
}
