//! The log as it grows: the newest events from memory, older ones from the database.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use raworc_core::event::Event;
use raworc_core::ids::Revision;
use raworc_core::store::{EventFilter, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::convert::{count, doc, to_doc};
use super::dialect::{Columns, Dialect};

/// Events that one burst holds at most.
pub(crate) const BURST: usize = 512;

/// After nothing was found where something was to be, before the next look.
const AGAIN: Duration = Duration::from_millis(100);

/// Events that are kept in memory, so that watchers who keep up read nothing from the database.
const RECENT: usize = 4096;

/// What watchers were told by some time: the last revision, and how often the log had gone back. What is found in the database
/// beside it counts only as long as it is so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) revision: Revision,
    returns: u64,
}

/// The end of the log in memory.
#[derive(Debug)]
pub(crate) struct Feed {
    recent: Mutex<VecDeque<Arc<Event>>>,
    oldest: AtomicU64,
    head: watch::Sender<Revision>,
    /// How often the log went back.
    returns: AtomicU64,
    /// Where it began anew after the last time.
    returned_to: AtomicU64,
}

impl Feed {
    pub(crate) fn new(head: Revision, oldest: Revision) -> Self {
        Self {
            recent: Mutex::default(),
            oldest: AtomicU64::new(oldest.0),
            head: watch::Sender::new(head),
            returns: AtomicU64::new(0),
            returned_to: AtomicU64::new(0),
        }
    }

    /// The last revision that watchers know of.
    pub(crate) fn head(&self) -> Revision {
        *self.head.borrow()
    }

    pub(crate) fn known(&self) -> Known {
        let _recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        Known { revision: self.head(), returns: self.returns.load(Ordering::Acquire) }
    }

    /// Adds events that are durable, as far as they come next in the log. Whether they reach its head now.
    pub(crate) fn publish(&self, events: Vec<Event>, oldest: Revision) -> bool {
        self.oldest.fetch_max(oldest.0, Ordering::AcqRel);
        let Some(last) = events.last().map(|event| event.revision) else { return true };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let head = self.head();
        let mut next = head;
        for event in events {
            if event.revision == next.next() {
                next = event.revision;
                recent.push_back(Arc::new(event));
            }
        }
        let surplus = recent.len().saturating_sub(RECENT);
        recent.drain(..surplus);
        if next > head {
            self.head.send_replace(next);
        }
        next >= last
    }

    /// Passes over an event that cannot be read, where it is the next one. Whoever is to see it comes to it in the database, and
    /// is told there.
    pub(crate) fn pass_over(&self, revision: Revision) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if revision == self.head().next() {
            recent.clear();
            self.head.send_replace(revision);
        }
    }

    /// Whether the log has another event at this place than watchers were told, as far as that is in memory. Where nothing is, it
    /// is kept for the next time. Also where the log has gone back meanwhile: what was found is of neither then. One that cannot be
    /// read is none, and another than any that was told.
    pub(crate) fn differs(&self, known: Known, event: Option<Event>) -> Result<bool, sqlx::Error> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.returns.load(Ordering::Acquire) != known.returns {
            return Ok(true);
        }
        let Some(first) = recent.front().map(|event| event.revision.0) else {
            recent.extend(event.filter(|event| event.revision == self.head()).map(Arc::new));
            return Ok(false);
        };
        let at = known.revision.0.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let Some(told) = at.and_then(|at| recent.get(at)) else { return Ok(false) };
        let Some(event) = event else { return Ok(true) };
        // As this release writes both: another one may have written more.
        Ok(to_doc(&**told)? != to_doc(&event)?)
    }

    /// Forgets the events in memory, because some are missing between them and the log's head.
    pub(crate) fn restart(&self, head: Revision, oldest: Revision) {
        self.begin_at(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner), head, oldest);
    }

    fn begin_at(&self, recent: &mut VecDeque<Arc<Event>>, head: Revision, oldest: Revision) {
        recent.clear();
        self.oldest.store(oldest.0, Ordering::Release);
        self.head.send_replace(head);
    }

    /// The log ends earlier than watchers were told, or had ended earlier and others have written since: the database lost the
    /// last of it, as where another takes its place that had not received them. Whoever watches is to read anew, once: nothing is
    /// done where somebody else has found it out since.
    pub(crate) fn went_back(&self, known: Known, head: Revision, oldest: Revision) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.returns.load(Ordering::Acquire) != known.returns {
            return;
        }
        self.returned_to.store(head.0, Ordering::Release);
        self.returns.fetch_add(1, Ordering::AcqRel);
        tracing::error!(%head, was = %self.head(), "the database has lost the last commits; what is watched is read anew");
        self.begin_at(&mut recent, head, oldest);
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
struct Watcher<D: Dialect> {
    shared: Arc<Shared<D>>,
    head: watch::Receiver<Revision>,
    returns: u64,
    since: Revision,
    filter: EventFilter,
}

/// Every event after `since`, until the store is closed.
pub(crate) fn watch<D: Dialect>(
    shared: &Arc<Shared<D>>,
    since: Revision,
    filter: EventFilter,
) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
    shared.feed.check(since)?;
    let returns = shared.feed.returns.load(Ordering::Acquire);
    let watcher = Watcher { shared: Arc::clone(shared), head: shared.feed.head.subscribe(), returns, since, filter };
    Ok(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await? {
            Ok(events) => Some((Ok(events), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed())
}

impl<D: Dialect> Watcher<D> {
    /// The next burst that has an event for this watcher; none once the store is closed.
    async fn next(&mut self) -> Option<Result<Vec<Event>, StoreError>> {
        loop {
            // Seen before the log is read, so that what is written after the read wakes the wait below.
            let head = *self.head.borrow_and_update();
            if self.shared.feed.returns.load(Ordering::Acquire) != self.returns {
                // However long it is by now: that it is gone from there tells it from a log that was cut.
                let returned_to = Revision(self.shared.feed.returned_to.load(Ordering::Acquire));
                return Some(Err(StoreError::Gone { oldest: returned_to.next() }));
            }
            if head <= self.since {
                tokio::select! {
                    // What was written before the end is still told.
                    biased;
                    changed = self.head.changed() => changed.ok()?,
                    () = self.shared.closed.cancelled() => return None,
                }
                continue;
            }
            let before = self.since;
            let burst = match self.shared.feed.after(self.since).filter(|events| !events.is_empty()) {
                Some(events) => Ok(self.recent(&events)),
                None => self.stored().await,
            };
            if burst.is_ok() && self.since == before {
                // The database does not have yet, or no more, what it is said to have.
                sleep(AGAIN).await;
            }
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
        let rows = self.shared.log(self.since, BURST).await;
        self.shared.feed.check(self.since)?;
        let fault = |error: sqlx::Error| self.shared.fault(&error);
        let rows = rows.map_err(fault)?;
        let Some((first, last)) = bounds(&rows).map_err(fault)? else { return Ok(Vec::new()) };
        // The log is cut before the feed is told of it.
        if first != self.since.next() {
            return Err(StoreError::Gone { oldest: first });
        }
        let (events, unreadable) = self.wanted(&rows).map_err(fault)?;
        self.since = match unreadable {
            // What it told has to be read elsewhere, as what is too old.
            Some(revision) if revision == first => return Err(StoreError::Gone { oldest: revision.next() }),
            Some(revision) => Revision(revision.0 - 1),
            None => last,
        };
        Ok(events)
    }

    /// The events that this watcher is to see, up to the first that cannot be read, with its revision.
    fn wanted(&self, rows: &[D::Row]) -> Result<(Vec<Event>, Option<Revision>), sqlx::Error> {
        let mut events = Vec::new();
        let tenant = self.filter.tenant.as_ref().map(ToString::to_string);
        let agent = self.filter.agent.map(|agent| agent.to_string());
        for row in rows {
            let matches = |at, wanted: &Option<String>| {
                Ok::<_, sqlx::Error>(wanted.is_none() || row.text(at)?.as_deref() == wanted.as_deref())
            };
            if matches(1, &tenant)? && matches(2, &agent)? {
                match doc(row, 3) {
                    Ok(event) => events.push(event),
                    Err(_) => return Ok((events, Some(Revision(count(row, 0)?)))),
                }
            }
        }
        Ok((events, None))
    }
}

/// The first and the last revision of rows of the log.
pub(crate) fn bounds(rows: &[impl Columns]) -> Result<Option<(Revision, Revision)>, sqlx::Error> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    Ok(Some((Revision(count(first, 0)?), Revision(count(last, 0)?))))
}
