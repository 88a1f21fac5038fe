//! A look at the log's head, and at what stands where watchers were told that it ends.
//!
//! Another server may answer than before, which had not received all that was told. Others may have written to it since, so that
//! its log is as long as before, or longer: only what stands in it tells that it is another one.

use raworc_core::ids::Revision;

use super::Server;
use crate::sql::Shared;
use crate::sql::batch::Head;
use crate::sql::convert::{count, doc, number, time};
use crate::sql::feed::Known;
use crate::sql::read::{log, plain, within};
use crate::sql::script::Script;
use crate::sql::statements as sql;

/// What was found.
pub(super) struct Look {
    pub(super) head: Head,
    /// The database's time.
    pub(super) time: jiff::Timestamp,
    /// Whether it is another log than was told of, which the feed knows by now.
    pub(super) went_back: bool,
}

/// Asks for the event that was told last, and for the head after it: an event that is missing and yet stands before the head
/// was taken away as too old.
pub(super) fn look(told: Revision) -> Script {
    let mut script = log(before(told), 1);
    script.0.push(plain(sql::HEAD, []));
    script
}

/// What to read after, so that `told` comes first.
pub(super) const fn before(told: Revision) -> Revision {
    Revision(told.0.saturating_sub(1))
}

impl<D: Server> Shared<D> {
    /// Takes up the rows of [`look`].
    pub(super) fn looked(&self, known: Known, rows: &[D::Row]) -> Result<Look, sqlx::Error> {
        let (row, events) = rows.split_last().ok_or(sqlx::Error::RowNotFound)?;
        let (head, time) = (Head::of(row)?, time(number(row, 3)?)?);
        let went_back = head.revision < known.revision || self.differs(known, events)?;
        if went_back {
            self.feed.went_back(known, head.revision, head.oldest);
        }
        Ok(Look { head, time, went_back })
    }

    /// Whether rows of the log begin with another event than was told, where they begin at its place.
    pub(super) fn differs(&self, known: Known, rows: &[D::Row]) -> Result<bool, sqlx::Error> {
        match rows.first() {
            Some(first) if count(first, 0)? == known.revision.0 => self.feed.differs(known, doc(first, 3).ok()),
            Some(_) | None => Ok(false),
        }
    }

    /// Looks over a connection that somebody has just made, who is about to go on from there.
    pub(super) async fn look_over(&self, conn: &mut D::Connection) -> Result<Look, sqlx::Error> {
        let known = self.feed.known();
        let rows = within(self.run_on(conn, look(known.revision))).await?;
        self.looked(known, &rows)
    }
}
