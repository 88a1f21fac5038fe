//! All of a store out.

use std::time::Duration;

use futures::TryStreamExt;
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::format::{FORMAT, Header, Section, Trailer, VERSION};
use super::status::{fit, newest, run};
use super::table::{Sum, TABLES};
use super::words::Words;
use super::{Contents, Count, Told, WholeError, fault};
use crate::sql::convert::text;

/// Bytes that are gathered before they are written.
const GATHERED: usize = 256 << 10;

/// Writes all that is kept, as it is at one moment.
pub(super) async fn export<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    to: &mut (dyn AsyncWrite + Send + Unpin),
    told: Told<'_>,
) -> Result<Contents, WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    run::<D>(conn, D::PATIENT).await.map_err(failed)?;
    run::<D>(conn, D::SNAPSHOT).await.map_err(failed)?;
    let written = async {
        fit::<D>(conn, place).await?;
        write::<D>(conn, place, to, told).await
    };
    let written = written.await;
    // It wrote nothing that would be lost, whatever became of it.
    drop(run::<D>(conn, D::ROLLBACK).await);
    written
}

async fn write<D: Words>(
    conn: &mut D::Connection,
    place: &str,
    to: &mut (dyn AsyncWrite + Send + Unpin),
    told: Told<'_>,
) -> Result<Contents, WholeError> {
    let failed = |error: sqlx::Error| fault::<D>(&error, place);
    let rows = run::<D>(conn, D::SERVER).await.map_err(failed)?;
    let database = rows.first().map(|row| text(row, 0)).transpose().map_err(failed)?.unwrap_or_default();
    let mut gathered = Vec::with_capacity(2 * GATHERED);
    line(
        &mut gathered,
        &Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            raworc: env!("CARGO_PKG_VERSION").to_owned(),
            database: database.into_owned(),
            schema: newest::<D>(),
        },
    )?;
    let mut count = Count::new(told);
    let mut contents = Contents::default();
    for table in TABLES {
        line(&mut gathered, &Section::of(table))?;
        let mut sum = Sum::default();
        let mut rows = D::stream(conn, table.select());
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let cells = table.cells(&row).map_err(failed)?;
            gathered.extend_from_slice(sum.add(&cells).map_err(failed)?);
            count.row(table.name());
            if gathered.len() >= GATHERED {
                in_time(to.write_all(&gathered)).await?;
                gathered.clear();
            }
        }
        contents.tables.push(sum.of(table.name()));
    }
    line(&mut gathered, &Trailer { end: contents.clone() })?;
    in_time(to.write_all(&gathered)).await?;
    in_time(to.flush()).await?;
    Ok(contents)
}

/// How long whoever reads an export may take for a part of it: the database keeps what is old for as long as it is read.
const STALL: Duration = Duration::from_secs(120);

async fn in_time(write: impl Future<Output = std::io::Result<()>>) -> Result<(), WholeError> {
    let written = tokio::time::timeout(STALL, write).await;
    written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(WholeError::Write)
}

fn line(to: &mut Vec<u8>, value: &impl Serialize) -> Result<(), WholeError> {
    serde_json::to_writer(&mut *to, value).map_err(|error| WholeError::Write(error.into()))?;
    to.push(b'\n');
    Ok(())
}
