//! Rows to the core's types, and back.

use std::borrow::Cow;
use std::cell::RefCell;

use jiff::Timestamp;
use raworc_core::agent::Agent;
use raworc_core::ids::{ProcessId, TenantName};
use raworc_core::store::{Lease, QuotaKind, Record, RecordKey, RecordKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dialect::Columns;

/// A row that does not hold what this release wrote there.
pub(crate) fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// A document as text. The core's types have string keys and no other way to fail.
pub(crate) fn to_doc<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
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
pub(crate) fn doc<T: DeserializeOwned>(row: &impl Columns, at: usize) -> Result<T, sqlx::Error> {
    serde_json::from_str(&text(row, at)?).map_err(broken)
}

/// The text in column `at`.
pub(crate) fn text(row: &impl Columns, at: usize) -> Result<Cow<'_, str>, sqlx::Error> {
    row.text(at)?.ok_or_else(|| broken(format!("NULL in column {at}")))
}

/// The number in column `at`.
pub(crate) fn number(row: &impl Columns, at: usize) -> Result<i64, sqlx::Error> {
    row.int(at)?.ok_or_else(|| broken(format!("NULL in column {at}")))
}

pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

pub(crate) fn time(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(micros).map_err(broken)
}

/// A count as the database keeps it.
pub(crate) fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that the database kept.
pub(crate) fn count(row: &impl Columns, at: usize) -> Result<u64, sqlx::Error> {
    u64::try_from(number(row, at)?).map_err(broken)
}

/// The tenant as a key holds it: empty for the installation.
pub(crate) fn tenant_key(tenant: Option<&TenantName>) -> String {
    tenant.map_or_else(String::new, ToString::to_string)
}

/// An agent from `awake_until, heard_at, doc` from column `first` on: the two columns move between commits, and the document
/// does not.
pub(crate) fn agent(row: &impl Columns, first: usize) -> Result<Agent, sqlx::Error> {
    let mut agent: Agent = doc(row, first + 2)?;
    let columns = [&mut agent.status.awake_until, &mut agent.status.heard_at];
    for (at, field) in columns.into_iter().enumerate() {
        let column = row.int(first + at)?;
        if field.map(micros) != column {
            *field = column.map(time).transpose()?;
        }
    }
    Ok(agent)
}

/// A record from `kind, tenant, name, version, expires, body`, given its kind.
pub(crate) fn record(row: &impl Columns) -> Result<Record, sqlx::Error> {
    let kind = text(row, 0)?;
    let kind: RecordKind = serde_json::from_value(kind.into_owned().into()).map_err(broken)?;
    let tenant = text(row, 1)?;
    let tenant = if tenant.is_empty() { None } else { Some(TenantName::new(tenant.into_owned()).map_err(broken)?) };
    Ok(Record {
        key: RecordKey { kind, tenant, name: text(row, 2)?.into_owned() },
        version: count(row, 3)?,
        expires: row.int(4)?.map(time).transpose()?,
        body: doc(row, 5)?,
    })
}

/// A lease from `name, holder, epoch, since, expires`.
pub(crate) fn lease(row: &impl Columns) -> Result<Lease, sqlx::Error> {
    let holder: ProcessId = text(row, 1)?.parse().map_err(broken)?;
    Ok(Lease {
        key: text(row, 0)?.into_owned(),
        holder,
        epoch: count(row, 2)?,
        since: time(number(row, 3)?)?,
        expires: time(number(row, 4)?)?,
    })
}

/// The word for a quota in a key: the one that it has in JSON.
pub(crate) fn quota_word(kind: QuotaKind) -> Result<String, sqlx::Error> {
    Ok(to_doc(&kind)?.trim_matches('"').to_owned())
}
