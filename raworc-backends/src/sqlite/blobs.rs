//! Blobs as rows of pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use raworc_core::blob::BlobId;
use raworc_core::ids::TenantName;
use sqlx::{Row, SqliteConnection};

use super::convert::{count, int};
use super::sql;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// Writes a blob, unless it is there.
pub(super) async fn write(
    conn: &mut SqliteConnection,
    tenant: &TenantName,
    id: BlobId,
    content: &Bytes,
) -> Result<(), sqlx::Error> {
    let put = sqlx::AssertSqlSafe(sql::PUT_BLOBS.text(1));
    let size = int(content.len() as u64);
    let new = sqlx::query(put).bind(tenant.to_string()).bind(id.to_string()).bind(size).execute(&mut *conn).await?;
    if new.rows_affected() == 0 {
        return Ok(());
    }
    for (n, piece) in content.chunks(PIECE).enumerate() {
        sqlx::query(sqlx::AssertSqlSafe(sql::PUT_CHUNKS.text(1)))
            .bind(tenant.to_string())
            .bind(id.to_string())
            .bind(int(n as u64))
            .bind(piece.to_vec())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Takes a blob away.
pub(super) async fn delete(conn: &mut SqliteConnection, tenant: &TenantName, id: BlobId) -> Result<(), sqlx::Error> {
    for statement in [sql::DELETE_BLOB, sql::DELETE_CHUNKS] {
        sqlx::query(statement).bind(tenant.to_string()).bind(id.to_string()).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Reads a blob, or the part of it that lies in `range`.
pub(super) async fn read(
    readers: &sqlx::SqlitePool,
    tenant: &TenantName,
    id: BlobId,
    range: Option<Range<u64>>,
) -> Result<Option<Bytes>, sqlx::Error> {
    // One transaction, so that a blob that is unlinked meanwhile is there whole or not at all.
    let mut snapshot = readers.begin().await?;
    let size = sqlx::query(sql::BLOB).bind(tenant.to_string()).bind(id.to_string()).fetch_optional(&mut *snapshot);
    let Some(size) = size.await? else { return Ok(None) };
    let size = count(&size, 0)?;
    let Range { start, end } = range.unwrap_or(0..size);
    let (start, end) = (start.min(size), end.min(size));
    if start >= end {
        return Ok(Some(Bytes::new()));
    }
    let piece = PIECE as u64;
    let first = start / piece;
    let rows = sqlx::query(sql::CHUNKS)
        .bind(tenant.to_string())
        .bind(id.to_string())
        .bind(int(first))
        .bind(int((end - 1) / piece))
        .fetch_all(&mut *snapshot)
        .await?;
    let mut content = BytesMut::with_capacity(rows.len() * PIECE);
    for row in &rows {
        content.extend_from_slice(row.try_get(0)?);
    }
    let place = |at: u64| usize::try_from(at - first * piece).map_err(super::convert::broken);
    let (start, end) = (place(start)?, place(end)?);
    let content = content.freeze();
    if end > content.len() {
        return Err(super::convert::broken(format!("blob {id} lacks a piece")));
    }
    Ok(Some(content.slice(start..end)))
}
