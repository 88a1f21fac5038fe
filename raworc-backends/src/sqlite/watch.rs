//! The log as it grows: the newest events from memory, older ones from the database.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, BoxStream, StreamExt};
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, StoreError};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokio::sync::watch;

use super::convert::{count, doc, int};
use super::error::Fault;
use super::{Shared, sql};

/// Events that one burst holds at most.
const BURST: usize = 512;

/// Events that are kept in memory, so that watchers who keep up read nothing from the database.
const RECENT: usize = 4096;

/// The end of the log in memory.
#[derive(Debug)]
pub(super) struct Feed {
    recent: Mutex<VecDeque<Arc<Event>>>,
    oldest: AtomicU64,
    grown: watch::Receiver<Revision>,
}

impl Feed {
    pub(super) fn new(oldest: Revision, grown: watch::Receiver<Revision>) -> Self {
        Self { recent: Mutex::default(), oldest: AtomicU64::new(oldest.0), grown }
    }

    /// Adds events that were just made durable.
    pub(super) fn publish(&self, events: Vec<Event>, oldest: Revision) {
        self.oldest.store(oldest.0, Ordering::Release);
        if events.is_empty() {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.extend(events.into_iter().map(Arc::new));
        let surplus = recent.len().saturating_sub(RECENT);
        recent.drain(..surplus);
    }

    /// Forgets the events in memory, because some may be missing after them.
    pub(super) fn restart(&self, oldest: Revision) {
        self.oldest.store(oldest.0, Ordering::Release);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// That no event after `since` was forgotten.
    fn check(&self, since: Revision) -> Result<(), StoreError> {
        let oldest = Revision(self.oldest.load(Ordering::Acquire));
        if since.next() < oldest { Err(StoreError::Gone { oldest }) } else { Ok(()) }
    }

    /// Events after `since`, if the first of them is in memory.
    fn after(&self, since: Revision) -> Option<Vec<Arc<Event>>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.front()?.revision.0;
        let skip = usize::try_from(since.next().0.checked_sub(first)?).ok()?;
        Some(recent.iter().skip(skip).take(BURST).cloned().collect())
    }
}

/// Where somebody stands who reads the log.
struct Watcher {
    shared: Arc<Shared>,
    grown: watch::Receiver<Revision>,
    since: Revision,
    filter: EventFilter,
}

/// Every event after `since`, until the store is closed.
pub(super) fn watch(
    shared: &Arc<Shared>,
    since: Revision,
    filter: EventFilter,
) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
    shared.feed.check(since)?;
    let watcher = Watcher { shared: Arc::clone(shared), grown: shared.feed.grown.clone(), since, filter };
    Ok(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await? {
            Ok(events) => Some((Ok(events), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

impl Watcher {
    /// The next burst that has an event for this watcher; none once the store is closed.
    async fn next(&mut self) -> Option<Result<Vec<Event>, StoreError>> {
        loop {
            // Seen before the log is read, so that what is written after the read wakes the wait below.
            let head = *self.grown.borrow_and_update();
            if head <= self.since {
                self.grown.changed().await.ok()?;
                continue;
            }
            let burst = match self.shared.feed.after(self.since).filter(|events| !events.is_empty()) {
                Some(events) => Ok(self.recent(&events)),
                None => self.stored().await,
            };
            match burst {
                Ok(events) if events.is_empty() => {}
                other => return Some(other),
            }
        }
    }

    fn recent(&mut self, events: &[Arc<Event>]) -> Vec<Event> {
        if let Some(last) = events.last() {
            self.since = last.revision;
        }
        events.iter().filter(|event| self.filter.matches(event)).map(|event| Event::clone(event)).collect()
    }

    async fn stored(&mut self) -> Result<Vec<Event>, StoreError> {
        let rows =
            sqlx::query(sql::LOG).bind(int(self.since.0)).bind(int(BURST as u64)).fetch_all(&self.shared.readers).await;
        self.shared.feed.check(self.since)?;
        let fault = |error: sqlx::Error| Fault::of(&error, &self.shared.place);
        let rows = rows.map_err(fault)?;
        let Some((first, last)) = bounds(&rows).map_err(fault)? else { return Ok(Vec::new()) };
        // The log is cut before the feed is told of it.
        if first != self.since.next() {
            return Err(StoreError::Gone { oldest: first });
        }
        let events = self.wanted(&rows).map_err(fault)?;
        self.since = last;
        Ok(events)
    }

    /// The events that this watcher is to see.
    fn wanted(&self, rows: &[SqliteRow]) -> Result<Vec<Event>, sqlx::Error> {
        let mut events = Vec::new();
        let tenant = self.filter.tenant.as_ref().map(ToString::to_string);
        let agent = self.filter.agent.map(|agent| agent.to_string());
        for row in rows {
            let matches = |at, wanted: &Option<String>| {
                Ok::<_, sqlx::Error>(wanted.is_none() || row.try_get::<Option<&str>, _>(at)? == wanted.as_deref())
            };
            if matches(1, &tenant)? && matches(2, &agent)? {
                events.push(doc(row, 3)?);
            }
        }
        Ok(events)
    }
}

/// The first and the last revision of rows of the log.
fn bounds(rows: &[SqliteRow]) -> Result<Option<(Revision, Revision)>, sqlx::Error> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    Ok(Some((Revision(count(first, 0)?), Revision(count(last, 0)?))))
}
