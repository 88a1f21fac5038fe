//! What an export is: lines of JSON, of which the first says what it is and the last what it comes to.
//!
//! Between them come the tables in a fixed order, each after a line with its name and columns, each row as an array of its
//! values. Numbers are whole, times are microseconds since 1970, and bytes are base64. The last line has the number of each
//! table's rows and the SHA-256 of their lines, so that nothing that was cut, changed or moved is taken for whole.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::table::{Sum, TABLES, Table};
use super::{Contents, WholeError};
use crate::sql::script::Cell;

/// What exports call themselves.
pub(super) const FORMAT: &str = "raworc-export";

/// The form of exports that this release writes, and the only one that it takes.
pub(super) const VERSION: u32 = 1;

/// Bytes of one line at most, which is far more than any row has.
const LINE: u64 = 256 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    /// The release that wrote it.
    pub(super) raworc: String,
    /// The database that it is of.
    pub(super) database: String,
    /// That database's schema.
    pub(super) schema: i64,
}

/// The line before the rows of a table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

impl Section {
    pub(super) fn of(table: &Table) -> Self {
        Self { table: table.name().to_owned(), columns: table.columns().map(str::to_owned).collect() }
    }
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Trailer {
    pub(super) end: Contents,
}

/// Reads an export, and checks each part of it as it comes.
pub(super) struct Reader<'a> {
    from: &'a mut (dyn AsyncBufRead + Send + Unpin),
    line: Vec<u8>,
    /// Lines so far.
    lines: u64,
    /// Tables so far, the last of which is being read.
    sums: Vec<Sum>,
    before: Option<Vec<Cell>>,
}

impl<'a> Reader<'a> {
    /// Reads the first line.
    pub(super) async fn begin(from: &'a mut (dyn AsyncBufRead + Send + Unpin)) -> Result<Self, WholeError> {
        let mut reader = Self { from, line: Vec::new(), lines: 0, sums: Vec::new(), before: None };
        if !reader.next_line().await? {
            return Err(damaged("it is empty or cut off in its first line"));
        }
        let none = || damaged("its first line is not that of an export; name a file that `raworc store export` wrote");
        let named: serde_json::Value = serde_json::from_slice(&reader.line).map_err(|_| none())?;
        if named["format"] != FORMAT {
            return Err(none());
        }
        let (version, release) = (&named["version"], named["raworc"].as_str().unwrap_or("unknown"));
        if *version != VERSION {
            return Err(damaged(format!(
                "its form is {version}, written by release {release}, and this release takes {VERSION}; import it with that \
                 release, and then bring the store up to date with this one"
            )));
        }
        serde_json::from_slice::<Header>(&reader.line).map_err(|error| damaged(format!("its first line: {error}")))?;
        Ok(reader)
    }

    /// The next row, with its table; nothing at the end, when all that was read is what was written.
    pub(super) async fn next(&mut self) -> Result<Option<(&'static Table, Vec<Cell>)>, WholeError> {
        loop {
            if !self.next_line().await? {
                let place = self
                    .table()
                    .map_or_else(|| "before the first table".into(), |table| format!("in {}", table.name()));
                return Err(damaged(format!("it is cut off {place}, after line {}", self.lines)));
            }
            match self.line.first() {
                Some(b'[') => return self.row().map(Some),
                _ if self.line.starts_with(b"{\"end\"") => {
                    self.end().await?;
                    return Ok(None);
                }
                _ => self.section()?,
            }
        }
    }

    /// What was read, once all of it was.
    pub(super) fn contents(self) -> Contents {
        let sums = self.sums.into_iter().zip(TABLES);
        Contents { tables: sums.map(|(sum, table)| sum.of(table.name())).collect() }
    }

    fn table(&self) -> Option<&'static Table> {
        self.sums.len().checked_sub(1).and_then(|at| TABLES.get(at))
    }

    fn row(&mut self) -> Result<(&'static Table, Vec<Cell>), WholeError> {
        let lines = self.lines;
        let Some(table) = self.table() else { return Err(damaged(format!("line {lines} is a row of no table"))) };
        let wrong = |what: &str| damaged(format!("line {lines}, in {}: {what}", table.name()));
        let cells = table.parse(&self.line).map_err(|what| wrong(&what))?;
        if self.before.as_ref().is_some_and(|before| !table.precedes(before, &cells)) {
            return Err(wrong("the row is not in its place"));
        }
        let sum = self.sums.last_mut().ok_or_else(|| wrong("a row of no table"))?;
        sum.add(&cells).map_err(|error| wrong(&error.to_string()))?;
        self.before = Some(cells.clone());
        Ok((table, cells))
    }

    fn section(&mut self) -> Result<(), WholeError> {
        let lines = self.lines;
        let section: Section = serde_json::from_slice(&self.line)
            .map_err(|error| damaged(format!("line {lines} is neither a row nor the beginning of a table: {error}")))?;
        let Some(table) = TABLES.get(self.sums.len()) else {
            return Err(damaged(format!("line {lines}: {} comes after the last table", section.table)));
        };
        if section.table != table.name() {
            return Err(damaged(format!("line {lines}: {} is where {} was to come", section.table, table.name())));
        }
        if !table.columns().eq(section.columns.iter().map(String::as_str)) {
            return Err(damaged(format!("line {lines}: {} has other columns than it was to have", table.name())));
        }
        self.sums.push(Sum::default());
        self.before = None;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), WholeError> {
        let trailer: Trailer = serde_json::from_slice(&self.line)
            .map_err(|error| damaged(format!("its last line, {}: {error}", self.lines)))?;
        let sums = self.sums.iter().zip(TABLES);
        let read = Contents { tables: sums.map(|(sum, table)| sum.clone().of(table.name())).collect() };
        if let Some(difference) = read.differences("the file", &trailer.end, "its last line").first() {
            return Err(damaged(difference));
        }
        if self.sums.len() != TABLES.len() {
            return Err(damaged(format!("it has {} tables, and not {}", self.sums.len(), TABLES.len())));
        }
        if self.next_line().await? || !self.line.is_empty() {
            return Err(damaged("something comes after its last line"));
        }
        Ok(())
    }

    /// Reads a line. Tells whether there is a whole one.
    async fn next_line(&mut self) -> Result<bool, WholeError> {
        self.line.clear();
        (&mut *self.from).take(LINE).read_until(b'\n', &mut self.line).await.map_err(WholeError::Read)?;
        if self.line.last() != Some(&b'\n') {
            if self.line.len() as u64 == LINE {
                return Err(damaged(format!("line {} is longer than any row", self.lines + 1)));
            }
            return Ok(false);
        }
        self.line.pop();
        self.lines += 1;
        Ok(true)
    }
}

pub(super) fn damaged(reason: impl Into<String>) -> WholeError {
    WholeError::Export { reason: reason.into() }
}
