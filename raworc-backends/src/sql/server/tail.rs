//! Reads the log as it grows, once for all who watch it in this process.

use std::sync::Arc;
use std::time::Duration;

use raworc_core::event::Event;
use raworc_core::ids::Revision;
use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::look::{before, look};
use super::signals::Signals;
use super::{CONNECT_LIMIT, ConnectTo, Server, connect, timed_out};
use crate::sql::Shared;
use crate::sql::batch::Head;
use crate::sql::convert::{count, doc};
use crate::sql::fault::what_is_wrong;
use crate::sql::feed::{BURST, bounds};
use crate::sql::read::{log, plain, within};
use crate::sql::script::Script;
use crate::sql::statements as sql;

/// After a failure, before the next attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the log's head is asked for where nobody tells of it: at least, and at most.
pub(crate) const DEAF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

pub(super) struct Tail<D: Server> {
    shared: Arc<Shared<D>>,
    to: ConnectTo<D>,
    listener: Option<D::Listener>,
    /// Its own: however many read, the log is followed.
    conn: Option<D::Connection>,
    signals: Arc<Signals>,
    /// The last turn before which none of the connections was there.
    made_after: Instant,
    closing: CancellationToken,
}

impl<D: Server> Tail<D> {
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        to: ConnectTo<D>,
        signals: Arc<Signals>,
        closing: CancellationToken,
    ) -> Self {
        let made_after = signals.turned();
        Self { shared, to, listener: None, conn: None, signals, made_after, closing }
    }

    pub(super) async fn run(mut self) {
        let closing = self.closing.clone();
        closing.run_until_cancelled(self.follow()).await;
        if let Some(conn) = self.conn {
            drop(timeout(CONNECT_LIMIT, conn.close()).await);
        }
    }

    async fn follow(&mut self) {
        let poll = if self.shared.pooled { DEAF } else { D::POLL };
        let mut period = poll.0;
        let mut well = true;
        loop {
            match self.round(period).await {
                Ok(found) => {
                    period = if found { poll.0 } else { (period * 3 / 2).min(poll.1) };
                    well = true;
                }
                Err(error) => {
                    if well {
                        let place = &self.shared.place;
                        tracing::warn!(%error, %place, "the log is not read for now");
                    }
                    (self.listener, self.conn, well) = (None, None, false);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Leaves connections that may lead to another server than the one that is written to.
    fn leave_old(&mut self) {
        let turned = self.signals.turned();
        if turned > self.made_after {
            (self.listener, self.conn, self.made_after) = (None, None, turned);
        }
    }

    /// Waits until there may be something new, for the period at most, and reads it. Whether there was.
    async fn round(&mut self, period: Duration) -> Result<bool, sqlx::Error> {
        self.leave_old();
        if D::HEARS && self.listener.is_none() && !self.shared.pooled {
            return self.listen().await;
        }
        let hear = async {
            match &mut self.listener {
                Some(listener) => D::heard(listener).await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            biased;
            heard = hear => heard?,
            () = self.signals.grown.notified() => None,
            () = sleep(period) => {
                let found = self.poll().await?;
                if found {
                    // It should have been heard: a connection may be cut without a word to either end.
                    self.listener = None;
                }
                return Ok(found);
            }
        };
        if heard.is_none_or(|revision| revision > self.shared.feed.head()) {
            self.read().await?;
        }
        Ok(true)
    }

    /// Begins to listen, and reads what there is. Whether there was something new.
    async fn listen(&mut self) -> Result<bool, sqlx::Error> {
        // This fails at once where nobody answers, and reads where nobody can listen.
        let found = self.poll().await?;
        let listener = timeout(CONNECT_LIMIT, D::listen(&self.to)).await;
        self.listener = Some(listener.unwrap_or_else(|_| Err(timed_out()))?);
        // What came in between was told to nobody. Where who has heard of one commits the next, that would be so every time.
        Ok(self.poll().await? || found)
    }

    /// Runs statements that only read, over another connection where the last one turns out to be lost.
    async fn ask(&mut self, script: Script) -> Result<Vec<D::Row>, sqlx::Error> {
        self.leave_old();
        if let Some(conn) = &mut self.conn {
            match within(self.shared.run_on(conn, script.clone())).await {
                Err(error) if self.shared.may_be_lost(&error) => {}
                rows => return rows,
            }
        }
        let conn = self.conn.insert(connect::<D>(&self.to).await?);
        within(self.shared.run_on(conn, script)).await
    }

    async fn poll(&mut self) -> Result<bool, sqlx::Error> {
        let (asked, known) = (Instant::now(), self.shared.feed.known());
        let rows = self.ask(look(known.revision)).await?;
        let found = self.shared.looked(known, &rows)?;
        self.shared.time.tell(found.time, asked);
        if found.went_back {
            return Ok(true);
        }
        self.shared.feed.publish(Vec::new(), found.head.oldest);
        let grown = found.head.revision > self.shared.feed.head();
        if grown {
            self.read().await?;
        }
        Ok(grown)
    }

    /// Goes on behind an event that cannot be read, such as one of a kind that a later release knows.
    fn pass_over(&self, revision: Revision, error: &sqlx::Error) {
        let (place, error) = (&self.shared.place, what_is_wrong(error));
        tracing::error!(%revision, error, %place, "an event cannot be read: whoever is to see it is told that it is gone");
        self.shared.feed.pass_over(revision);
    }

    /// Takes up what follows in the log. It is read from what was told last: another server may have another event there.
    async fn read(&mut self) -> Result<(), sqlx::Error> {
        let shared = Arc::clone(&self.shared);
        let feed = &shared.feed;
        loop {
            let known = feed.known();
            let since = known.revision;
            let rows = self.ask(log(before(since), BURST + 1)).await?;
            if shared.differs(known, &rows)? {
                let rows = self.ask(Script(vec![plain(sql::HEAD, [])])).await?;
                let head = Head::of(rows.first().ok_or(sqlx::Error::RowNotFound)?)?;
                feed.went_back(known, head.revision, head.oldest);
                return Ok(());
            }
            let told = bounds(&rows)?.is_some_and(|(first, _)| first <= since);
            let rows = &rows[usize::from(told)..];
            let Some((first, _)) = bounds(rows)? else { return Ok(()) };
            if first > since.next() {
                // What lies between was taken away: whoever has not seen it is told that it is gone.
                feed.restart(Revision(first.0 - 1), first);
            }
            let mut events: Vec<Event> = Vec::with_capacity(rows.len());
            for row in rows {
                match doc(row, 3) {
                    Ok(event) => events.push(event),
                    Err(error) => {
                        feed.publish(std::mem::take(&mut events), Revision(0));
                        self.pass_over(Revision(count(row, 0)?), &error);
                    }
                }
            }
            feed.publish(events, Revision(0));
            if rows.len() < BURST {
                return Ok(());
            }
        }
    }
}
