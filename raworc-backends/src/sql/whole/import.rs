//! All of a store in.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use tokio::io::AsyncBufRead;

use super::format::Reader;
use super::status::{head, run, there};
use super::table::{HEAD, LEFT, Sum, TABLES, Table};
use super::words::Words;
use super::{Contents, Count, Told, WholeError, fault};
use crate::sql::batch::Head;
use crate::sql::convert::broken;
use crate::sql::script::{Cell, Script};
use crate::sql::statements as sql;

/// Rows, and bytes, that are written together.
const ROWS: usize = 256;
const BYTES: usize = 1 << 20;

/// Takes an export into an empty store, in one transaction: nobody sees half of it, and where it does not come to what it
/// was, nothing is there.
pub(super) async fn import<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    from: &mut (dyn AsyncBufRead + Send + Unpin),
    told: Told<'_>,
) -> Result<Contents, WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    // What is no export changes nothing, not even a schema.
    let mut reader = Reader::begin(from).await?;
    // Nor does a store that is in use, and whose release may be an older one, take what it did not ask for.
    let there = there::<D>(conn).await.map_err(failed)?;
    if there.contains(HEAD) {
        empty::<D>(conn, place, &there, "").await?;
    }
    D::migrate(conn, D::MIGRATIONS, place).await?;
    let there = self::there::<D>(conn).await.map_err(failed)?;
    run::<D>(conn, D::PATIENT).await.map_err(failed)?;
    run::<D>(conn, D::BEGIN).await.map_err(failed)?;
    let filled = async {
        empty::<D>(conn, place, &there, D::HOLD).await?;
        let ends = fill::<D>(conn, place, &mut reader, told).await?;
        let contents = reader.contents();
        let there = read_back::<D>(conn).await.map_err(failed)?;
        if let Some(difference) = there.differences("the database", &contents, "the export").first() {
            let reason = format!("the database {place} does not give back what was written to it: {difference}");
            return Err(WholeError::Unfit { reason });
        }
        let mut commit = Script::default();
        commit.0.push(D::commit(Some(ends.revision)));
        D::run(conn, commit).await.map_err(failed)?;
        Ok(contents)
    };
    match filled.await {
        Ok(contents) => {
            // It is there; only questions may be answered less fast.
            if let Err(error) = run::<D>(conn, D::SETTLE).await {
                tracing::warn!(%error, %place, "the database did not look at its tables anew");
            }
            Ok(contents)
        }
        Err(error) => {
            // A connection that is lost or closed takes its transaction back too.
            drop(run::<D>(conn, D::ROLLBACK).await);
            Err(error)
        }
    }
}

/// Looks whether there is anything in the tables that are there. The head is held as `hold` says, so that nobody else writes.
async fn empty<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    there: &BTreeSet<String>,
    hold: &str,
) -> Result<(), WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    let head = head::<D>(conn, hold).await.map_err(failed)?;
    let mut found = match head {
        Some(head) if head.revision.0 == 0 && head.commits == 0 => None,
        Some(head) => Some(format!("its log ends at revision {}", head.revision)),
        None => Some("its log has no end".to_owned()),
    };
    let tables = TABLES.iter().map(|table| table.name()).filter(|name| *name != HEAD).chain(LEFT.iter().copied());
    for name in tables.filter(|name| there.contains(*name)) {
        if found.is_none()
            && !run::<D>(conn, &format!("SELECT 1 FROM {name} LIMIT 1")).await.map_err(failed)?.is_empty()
        {
            found = Some(format!("{name} has rows"));
        }
    }
    found.map_or(Ok(()), |found| {
        Err(WholeError::Unfit {
            reason: format!(
                "the store in {place} is not empty ({found}), and an import would not add to it; import into another \
                 database or data directory"
            ),
        })
    })
}

/// Writes the rows of an export. Gives the head that it ends with.
async fn fill<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    reader: &mut Reader<'_>,
    told: Told<'_>,
) -> Result<Head, WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    let mut count = Count::new(told);
    let mut batch = Batch::default();
    let mut ends = None;
    while let Some((table, cells)) = reader.next().await? {
        count.row(table.name());
        if table.name() == HEAD {
            ends = Some(cells);
        } else if let Some((table, cells)) = batch.add(table, cells) {
            put::<D>(conn, table, cells).await.map_err(failed)?;
        }
    }
    if let Some(table) = batch.table {
        put::<D>(conn, table, batch.cells).await.map_err(failed)?;
    }
    let ends = ends.ok_or_else(|| super::format::damaged("it has no head"))?;
    let mut script = Script::default();
    script.add(sql::SET_HEAD, ends);
    D::run(conn, script).await.map_err(failed)?;
    let there = head::<D>(conn, "").await.map_err(failed)?;
    there.ok_or_else(|| failed(broken("there is no head")))
}

async fn put<D: Words>(conn: &mut D::Connection, table: &'static Table, cells: Vec<Cell>) -> Result<(), sqlx::Error> {
    let mut script = Script::default();
    script.put(&table.insert, cells);
    D::run(conn, script).await.map(drop)
}

/// What is there now, within the transaction.
async fn read_back<D: Words>(conn: &mut D::Connection) -> Result<Contents, sqlx::Error> {
    let mut contents = Contents::default();
    for table in TABLES {
        let mut sum = Sum::default();
        let mut rows = D::stream(conn, table.select());
        while let Some(row) = rows.try_next().await? {
            sum.add(&table.cells(&row)?)?;
        }
        contents.tables.push(sum.of(table.name()));
    }
    Ok(contents)
}

/// Rows of one table that are written together.
#[derive(Default)]
struct Batch {
    table: Option<&'static Table>,
    cells: Vec<Cell>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    /// Adds a row, and gives those before it where they are enough, or of another table.
    fn add(&mut self, table: &'static Table, cells: Vec<Cell>) -> Option<(&'static Table, Vec<Cell>)> {
        let other = self.table.is_some_and(|before| before.name() != table.name());
        let full = if other || self.rows >= ROWS || self.bytes >= BYTES { std::mem::take(self).given() } else { None };
        self.table = Some(table);
        self.rows += 1;
        self.bytes += cells.iter().map(size).sum::<usize>();
        self.cells.extend(cells);
        full
    }

    fn given(self) -> Option<(&'static Table, Vec<Cell>)> {
        self.table.map(|table| (table, self.cells))
    }
}

fn size(cell: &Cell) -> usize {
    match cell {
        Cell::Int(_) => 8,
        Cell::Text(text) => text.as_ref().map_or(0, String::len),
        Cell::Bytes(bytes) => bytes.len(),
    }
}
