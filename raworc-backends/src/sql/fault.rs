//! What a database says, in the words of a [`StoreError`].

use raworc_core::store::StoreError;
use sqlx::migrate::MigrateError;

/// A [`StoreError`] that can be told to many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) reason: String,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Time, or a second attempt.
    Unavailable,
    /// A second attempt: others held a row, or waited for one that was held here.
    Contended,
    /// Another server, or the same in a moment: this one takes no writes.
    ReadOnly,
    /// Room on the disk.
    Full,
    /// Somebody has to mend something first.
    Unusable,
    /// One row was refused, and the database is well: whoever wrote it.
    OfRow,
    /// One row cannot be read, and others can: somebody has to mend it for those who need it.
    Unreadable,
}

impl FaultKind {
    /// Whether others may do what they want all the same.
    pub(crate) const fn is_of_one(self) -> bool {
        matches!(self, Self::OfRow | Self::Unreadable)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        let reason = fault.reason;
        match fault.kind {
            FaultKind::Unavailable | FaultKind::Contended | FaultKind::ReadOnly => Self::Unavailable { reason },
            FaultKind::Full => Self::Full { reason },
            FaultKind::Unusable | FaultKind::Unreadable => Self::Unusable { reason },
            FaultKind::OfRow => Self::Refused { reason },
        }
    }
}

impl Fault {
    pub(crate) const fn unavailable(reason: String) -> Self {
        Self { kind: FaultKind::Unavailable, reason }
    }

    pub(crate) fn contended(error: &sqlx::Error, place: &str) -> Self {
        Self { kind: FaultKind::Contended, reason: format!("others were in the way in the database {place} ({error})") }
    }

    pub(crate) const fn unusable(reason: String) -> Self {
        Self { kind: FaultKind::Unusable, reason }
    }

    /// It may be written to again in a moment, such as where one server takes another's place.
    pub(crate) fn read_only(error: &sqlx::Error, place: &str) -> Self {
        let reason = format!(
            "the database {place} is read-only ({error}); where it is to stay so, name the server that may be written to"
        );
        Self { kind: FaultKind::ReadOnly, reason }
    }

    pub(crate) fn full(place: &str) -> Self {
        let reason = format!("there is no room left for the database {place}; free some");
        Self { kind: FaultKind::Full, reason }
    }

    /// Without the place: whoever wrote the row may not know it.
    pub(crate) fn of_row(error: &sqlx::Error) -> Self {
        Self { kind: FaultKind::OfRow, reason: format!("the database refused a row: {error}") }
    }

    /// Whether another attempt may do it, and not only for want of room.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, FaultKind::Unavailable | FaultKind::Contended | FaultKind::ReadOnly)
    }

    /// The same to somebody for whom an attempt before was not answered, and may have done what was asked. That nothing was done
    /// cannot be said: they are to ask again.
    pub(crate) fn after_one_without_an_answer(self) -> Self {
        match self.kind {
            FaultKind::Full | FaultKind::Unusable | FaultKind::Unreadable => Self::unavailable(format!(
                "{}; an attempt before that was not answered and may have gone through: send the same again",
                self.reason
            )),
            FaultKind::Unavailable | FaultKind::Contended | FaultKind::ReadOnly | FaultKind::OfRow => self,
        }
    }

    pub(crate) fn closed() -> Self {
        Self::unavailable("it was closed".into())
    }

    pub(crate) fn damaged(place: &str, what: &str) -> Self {
        Self::unusable(format!(
            "the database {place} is damaged ({what}); restore a backup of it, or move it away to begin anew"
        ))
    }

    /// A row is damaged, or a later release has written it.
    pub(crate) fn unreadable(place: &str, error: &sqlx::Error) -> Self {
        let reason = format!(
            "the database {place} has a row that this release cannot read ({}); use the release that wrote it, or a backup from \
             before it: `raworc store verify` names all of them",
            what_is_wrong(error)
        );
        Self { kind: FaultKind::Unreadable, reason }
    }

    /// A schema that a newer release made.
    pub(crate) fn newer(place: &str, version: i64, newest: i64) -> Self {
        Self::unusable(format!(
            "the database {place} was written by a newer release: its schema is {version}, this release knows up to \
             {newest}; use the newer release, or a backup from before it"
        ))
    }

    /// What an error comes to that is not of the database itself: of a connection, or of a row that cannot be read.
    pub(crate) fn of_driver(error: &sqlx::Error, place: &str) -> Self {
        match error {
            sqlx::Error::PoolClosed => Self::closed(),
            sqlx::Error::PoolTimedOut => {
                Self::unavailable(format!("all connections to the database {place} are in use"))
            }
            sqlx::Error::Configuration(_) => Self::unusable(format!(
                "no connection to the database {place} can be made as it is set up ({error}); mend its address"
            )),
            _ if is_of_a_row(error) => Self::unreadable(place, error),
            _ => Self::unavailable(format!("{error} ({place})")),
        }
    }

    /// What an error of a migration of the database at `place` comes to; `of` tells of those that are the database's own.
    pub(crate) fn of_migration(
        error: &MigrateError,
        place: &str,
        newest: i64,
        of: impl FnOnce(&sqlx::Error, &str) -> Self,
    ) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => of(error, place),
            MigrateError::VersionMissing(version) => Self::newer(place, *version, newest),
            MigrateError::Dirty(version) => Self::unusable(cut_short(place, *version)),
            _ => Self::unusable(format!(
                "the schema of the database {place} is not one of this release's ({error}); restore a backup"
            )),
        }
    }
}

/// A change of the tables has ended between two of its statements, which MySQL and MariaDB do not take back.
pub(crate) fn cut_short(place: &str, version: i64) -> String {
    format!(
        "a change of the tables of the database {place} to schema {version} was cut short between two of its statements. Where this \
         was the first start, make the database anew. Else run those that are missing of this release's \
         raworc-backends/src/mysql/migrations/{version:04}_*.sql, then UPDATE _sqlx_migrations SET success = TRUE WHERE version = \
         {version}, and start again; or restore a backup"
    )
}

/// Whether it is of a row that this release cannot read.
pub(crate) const fn is_of_a_row(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// What is wrong with a row that cannot be read.
pub(crate) fn what_is_wrong(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Decode(what) => what.to_string(),
        error => error.to_string(),
    }
}
