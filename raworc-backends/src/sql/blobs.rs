//! Blobs as rows of pieces.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use raworc_core::blob::BlobId;
use raworc_core::ids::TenantName;
use sqlx::Connection;

use super::Shared;
use super::convert::{broken, count, int, micros};
use super::dialect::{Columns, Dialect};
use super::read::within;
use super::script::{Cell, Script};
use super::statements as sql;

/// Bytes of a piece.
pub(crate) const PIECE: usize = 256 << 10;

/// Each in a transaction of its own, on one of the connections for reading.
impl<D: Dialect> Shared<D> {
    pub(crate) async fn put_blob(&self, tenant: &TenantName, id: BlobId, content: &Bytes) -> Result<(), sqlx::Error> {
        self.insist(async || {
            let mut conn = self.answering().await?;
            let put = async {
                let mut transaction = conn.get()?.begin().await?;
                write::<D>(&mut transaction, tenant, id, content, self.time.now()).await?;
                transaction.commit().await
            };
            within(put).await?;
            conn.give_back();
            Ok(())
        })
        .await
    }

    pub(crate) async fn unlink_blob(&self, tenant: &TenantName, id: BlobId) -> Result<(), sqlx::Error> {
        self.insist(async || {
            let mut conn = self.answering().await?;
            let unlink = async {
                let mut transaction = conn.get()?.begin().await?;
                delete::<D>(&mut transaction, tenant, id).await?;
                transaction.commit().await
            };
            within(unlink).await?;
            conn.give_back();
            Ok(())
        })
        .await
    }

    pub(crate) async fn get_blob(
        &self,
        tenant: &TenantName,
        id: BlobId,
        range: Option<Range<u64>>,
    ) -> Result<Option<Bytes>, sqlx::Error> {
        let mut conn = self.answering().await?;
        let get = async {
            let mut snapshot = conn.get()?.begin_with(D::SNAPSHOT).await?;
            let found = read::<D>(&mut snapshot, tenant, id, range).await?;
            snapshot.commit().await?;
            Ok(found)
        };
        let found = within(get).await?;
        conn.give_back();
        Ok(found)
    }
}

/// Writes a blob, unless it is there. One that is idle is so from now on: whoever has put it is yet to refer to it.
pub(crate) async fn write<D: Dialect>(
    conn: &mut D::Connection,
    tenant: &TenantName,
    id: BlobId,
    content: &Bytes,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let key = [Cell::from(tenant.to_string()), Cell::from(id.to_string())];
    // First, so that it is not taken away meanwhile.
    let mut again = Script::default();
    again.add(sql::PUT_BLOB_AGAIN, [&[micros(now).into()], &key[..]].concat());
    D::run(conn, again).await?;
    if size::<D>(conn, &key).await?.is_some() {
        return Ok(());
    }
    let with = |cells: &[Cell]| [&key, cells].concat();
    let mut script = Script::default();
    script.put(sql::PUT_BLOBS, with(&[int(content.len() as u64).into(), micros(now).into()]));
    D::run(conn, script).await?;
    let mut rest = content.clone();
    let mut n = 0_u64;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(PIECE));
        let mut script = Script::default();
        script.put(sql::PUT_CHUNKS, with(&[int(n).into(), Cell::Bytes(piece)]));
        D::run(conn, script).await?;
        n += 1;
    }
    Ok(())
}

/// Takes a blob away.
pub(crate) async fn delete<D: Dialect>(
    conn: &mut D::Connection,
    tenant: &TenantName,
    id: BlobId,
) -> Result<(), sqlx::Error> {
    let mut script = Script::default();
    // The blob first, as whoever takes away what is old does: one that is written beside that waits for its row.
    for statement in [sql::DELETE_BLOB, sql::DELETE_CHUNKS] {
        script.add(statement, [tenant.to_string().into(), id.to_string().into()]);
    }
    D::run(conn, script).await.map(drop)
}

/// Reads a blob, or the part of it that lies in `range`, from what is seen of the database in one transaction: a blob that
/// is unlinked meanwhile is there whole or not at all.
async fn read<D: Dialect>(
    conn: &mut D::Connection,
    tenant: &TenantName,
    id: BlobId,
    range: Option<Range<u64>>,
) -> Result<Option<Bytes>, sqlx::Error> {
    let key = [Cell::from(tenant.to_string()), Cell::from(id.to_string())];
    let Some(size) = size::<D>(conn, &key).await? else { return Ok(None) };
    let Range { start, end } = range.unwrap_or(0..size);
    let (start, end) = (start.min(size), end.min(size));
    if start >= end {
        return Ok(Some(Bytes::new()));
    }
    let piece = PIECE as u64;
    let first = start / piece;
    let mut script = Script::default();
    let bounds = [int(first).into(), int((end - 1) / piece).into()];
    script.add(sql::CHUNKS, key.into_iter().chain(bounds));
    let rows = D::run(conn, script).await?;
    let mut content = BytesMut::with_capacity(rows.len() * PIECE);
    for row in &rows {
        content.extend_from_slice(row.bytes(0)?);
    }
    let place = |at: u64| usize::try_from(at - first * piece).map_err(broken);
    let (start, end) = (place(start)?, place(end)?);
    let content = content.freeze();
    if end > content.len() {
        return Err(broken(format!("blob {id} lacks a piece")));
    }
    Ok(Some(content.slice(start..end)))
}

/// How many bytes a blob has, if it is there.
async fn size<D: Dialect>(conn: &mut D::Connection, key: &[Cell; 2]) -> Result<Option<u64>, sqlx::Error> {
    let mut script = Script::default();
    script.add(sql::BLOB, key.clone());
    let rows = D::run(conn, script).await?;
    rows.first().map(|row| count(row, 0)).transpose()
}
