//! What the database says, in the words of a [`StoreError`].

use std::path::Path;

use raworc_core::store::StoreError;
use sqlx::migrate::MigrateError;

/// A [`StoreError`] that can be told to many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) reason: String,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Time, or a second attempt.
    Unavailable,
    /// Room on the disk.
    Full,
    /// Somebody has to mend something first.
    Unusable,
    /// One row was refused, and the database is well: whoever wrote it.
    OfRow,
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        let reason = fault.reason;
        match fault.kind {
            FaultKind::Unavailable => Self::Unavailable { reason },
            FaultKind::Full => Self::Full { reason },
            FaultKind::Unusable => Self::Unusable { reason },
            FaultKind::OfRow => Self::Refused { reason },
        }
    }
}

impl Fault {
    fn unavailable(reason: String) -> Self {
        Self { kind: FaultKind::Unavailable, reason }
    }

    fn unusable(reason: String) -> Self {
        Self { kind: FaultKind::Unusable, reason }
    }

    fn full(place: &Path) -> Self {
        let reason = format!("there is no room left for the database {}; free some", place.display());
        Self { kind: FaultKind::Full, reason }
    }

    pub(super) fn closed() -> Self {
        Self::unavailable("it was closed".into())
    }

    pub(super) fn damaged(place: &Path, what: &str) -> Self {
        Self::unusable(format!(
            "the database {} is damaged ({what}); restore a backup of its directory, or move it away to begin anew",
            place.display()
        ))
    }

    /// What an error of the database at `place` comes to.
    pub(super) fn of(error: &sqlx::Error, place: &Path) -> Self {
        let place_text = place.display();
        let Some(code) = primary_code(error) else {
            return match error {
                sqlx::Error::PoolClosed => Self::closed(),
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::damaged(place, &error.to_string()),
                _ => Self::unavailable(format!("{error} ({place_text})")),
            };
        };
        match code {
            BUSY | LOCKED => {
                Self::unavailable(format!("another program holds the database {place_text} locked; close it there"))
            }
            FULL => Self::full(place),
            // The index of the write-ahead log is a file of its own, whose growth is told in this way alone.
            IOERR if extended_code(error) == Some(IOERR_SHMSIZE) => Self::full(place),
            IOERR | NOMEM => Self::unavailable(format!("reading or writing the database {place_text} failed: {error}")),
            CORRUPT | NOTADB => Self::damaged(place, &error.to_string()),
            PERM | READONLY | CANTOPEN | AUTH => Self::unusable(format!(
                "the database {place_text} cannot be opened for writing ({error}); \
                 make the directory and its files writable for this user"
            )),
            // Without the place: whoever wrote the row may not know it.
            TOOBIG | CONSTRAINT => {
                Self { kind: FaultKind::OfRow, reason: format!("the database refused a row: {error}") }
            }
            _ => Self::unavailable(format!("{error} ({place_text})")),
        }
    }

    /// What an error of a migration of the database at `place` comes to.
    pub(super) fn of_migration(error: &MigrateError, place: &Path, newest: i64) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::of(error, place),
            MigrateError::VersionMissing(version) => Self::unusable(format!(
                "the database {} was written by a newer release: its schema is {version}, this release knows up to \
                 {newest}; use the newer release, or a backup from before it",
                place.display()
            )),
            _ => Self::unusable(format!(
                "the schema of the database {} is not one of this release's ({error}); restore a backup",
                place.display()
            )),
        }
    }
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

/// The low byte of the extended result code, if the database itself said no.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}
