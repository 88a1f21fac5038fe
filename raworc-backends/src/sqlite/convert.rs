//! Rows to the core's types, and back.

use std::cell::RefCell;

use jiff::Timestamp;
use raworc_core::agent::Agent;
use raworc_core::ids::{ProcessId, TenantName};
use raworc_core::store::{Lease, QuotaKind, Record, RecordKey, RecordKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// A row that does not hold what this release wrote there.
pub(super) fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// A document as text. The core's types have string keys and no other way to fail.
pub(super) fn to_doc<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    thread_local! {
        // Grown once, so that a document is one allocation of its own size.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Encode(error);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
        serde_json::to_writer(&mut *scratch, value).map_err(|error| failed(error.into()))?;
        std::str::from_utf8(scratch).map(str::to_owned).map_err(|error| failed(error.into()))
    })
}

/// Bytes that a thread keeps for writing documents.
const SCRATCH_KEPT: usize = 64 << 10;

/// The document in column `at`.
pub(super) fn doc<T: DeserializeOwned>(row: &SqliteRow, at: usize) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get::<&str, _>(at)?).map_err(broken)
}

pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(super) fn time(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(micros).map_err(broken)
}

/// A count as the database keeps it.
pub(super) fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that the database kept.
pub(super) fn count(row: &SqliteRow, at: usize) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(at)?).map_err(broken)
}

/// The tenant as a key holds it: empty for the installation.
pub(super) fn tenant_key(tenant: Option<&TenantName>) -> String {
    tenant.map_or_else(String::new, ToString::to_string)
}

/// An agent from `awake_until, heard_at, doc`: the two columns move between commits, and the document does not.
pub(super) fn agent(row: &SqliteRow) -> Result<Agent, sqlx::Error> {
    let mut agent: Agent = doc(row, 2)?;
    let columns = [&mut agent.status.awake_until, &mut agent.status.heard_at];
    for (at, field) in columns.into_iter().enumerate() {
        let column: Option<i64> = row.try_get(at)?;
        if field.map(micros) != column {
            *field = column.map(time).transpose()?;
        }
    }
    Ok(agent)
}

/// A record from `kind, tenant, name, version, expires, body`, given its kind.
pub(super) fn record(row: &SqliteRow) -> Result<Record, sqlx::Error> {
    let kind: &str = row.try_get(0)?;
    let kind: RecordKind = serde_json::from_value(kind.into()).map_err(broken)?;
    let tenant: &str = row.try_get(1)?;
    let tenant = if tenant.is_empty() { None } else { Some(TenantName::new(tenant).map_err(broken)?) };
    let expires: Option<i64> = row.try_get(4)?;
    Ok(Record {
        key: RecordKey { kind, tenant, name: row.try_get(2)? },
        version: count(row, 3)?,
        expires: expires.map(time).transpose()?,
        body: doc(row, 5)?,
    })
}

/// A lease from `name, holder, epoch, since, expires`.
pub(super) fn lease(row: &SqliteRow) -> Result<Lease, sqlx::Error> {
    let holder: ProcessId = row.try_get::<&str, _>(1)?.parse().map_err(broken)?;
    Ok(Lease {
        key: row.try_get(0)?,
        holder,
        epoch: count(row, 2)?,
        since: time(row.try_get(3)?)?,
        expires: time(row.try_get(4)?)?,
    })
}

/// The word for a quota in a key: the one that it has in JSON.
pub(super) fn quota_word(kind: QuotaKind) -> Result<String, sqlx::Error> {
    Ok(to_doc(&kind)?.trim_matches('"').to_owned())
}
