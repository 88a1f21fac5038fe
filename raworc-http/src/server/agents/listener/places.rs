//! [`Places`]: whose connections and bodies take what the agents' listener has.
//!
//! A connection is a stranger's until a request on it bears a good token; from then on it is that computer's. Each
//! computer has so many connections and bytes and no more, and strangers give way to newcomers, the oldest first: so
//! one hostile computer keeps no other from being heard, however many connections it opens or however slowly it writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use raworc_core::ids::ComputerId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ListenerLimits;
use crate::server::error::ApiError;

#[derive(Debug)]
pub(super) struct Places {
    limits: ListenerLimits,
    table: Mutex<Table>,
    left: Notify,
    bytes: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Table {
    came: u64,
    strangers: BTreeMap<u64, CancellationToken>,
    computers: HashMap<ComputerId, Used>,
    /// Connections of computers.
    known: usize,
}

/// What a computer takes.
#[derive(Debug, Default)]
struct Used {
    connections: usize,
    bytes: usize,
}

impl Places {
    pub(super) fn new(limits: ListenerLimits) -> Arc<Self> {
        let bytes = limits.bytes.min(Semaphore::MAX_PERMITS);
        Arc::new(Self { limits, table: Mutex::default(), left: Notify::new(), bytes: Arc::new(Semaphore::new(bytes)) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that came, unless all are taken by computers.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        let strangers = table.strangers.len();
        if strangers >= self.limits.strangers.max(1) || table.known + strangers >= self.limits.connections {
            let (_, oldest) = table.strangers.pop_first()?;
            oldest.cancel();
        }
        table.came += 1;
        let (number, gone) = (table.came, CancellationToken::new());
        table.strangers.insert(number, gone.clone());
        drop(table);
        Some(Place(Arc::new(Held {
            places: Arc::clone(self),
            number,
            gone,
            since: Instant::now(),
            of: OnceLock::new(),
        })))
    }

    /// A place for a connection that came, once there is one.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            // Whoever leaves from here on is noticed.
            let left = self.left.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            left.await;
        }
    }
}

/// A connection's place among those that are allowed, for as long as any clone of it is held.
#[derive(Debug, Clone)]
pub(in super::super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    number: u64,
    gone: CancellationToken,
    since: Instant,
    of: OnceLock<ComputerId>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.places.table();
        match self.of.get() {
            Some(computer) => {
                table.known -= 1;
                give_back(&mut table, *computer, |used| used.connections -= 1);
            }
            None => {
                table.strangers.remove(&self.number);
            }
        }
        drop(table);
        self.places.left.notify_one();
    }
}

fn give_back(table: &mut Table, computer: ComputerId, back: impl FnOnce(&mut Used)) {
    let Some(used) = table.computers.get_mut(&computer) else { return };
    back(used);
    if used.connections == 0 && used.bytes == 0 {
        table.computers.remove(&computer);
    }
}

impl Place {
    /// From now on this connection is a computer's: the first one's whose token it bore.
    ///
    /// # Errors
    /// Where the computer has as many as it may. The connection stays a stranger's and ends as such.
    pub(in super::super) fn claim(&self, computer: ComputerId) -> Result<(), ApiError> {
        let held = &*self.0;
        let mut table = held.places.table();
        if held.of.get().is_some() {
            return Ok(());
        }
        let limit = held.places.limits.connections_per_computer;
        let used = table.computers.entry(computer).or_default();
        if used.connections >= limit || held.gone.is_cancelled() {
            let full = format!("this computer has {limit} connections, and may have no more; close some of them");
            return Err(ApiError::new("too_many_requests", full).with_detail("limit", limit).with_retry_after(1));
        }
        used.connections += 1;
        table.known += 1;
        table.strangers.remove(&held.number);
        // Under the table's lock, so that it is set once.
        let _ = held.of.set(computer);
        Ok(())
    }

    /// Is done once this connection has to end: it gives way to a newcomer, or has not said whose it is in time.
    pub(super) async fn must_go(&self) -> &'static str {
        let Held { places, gone, since, of, .. } = &*self.0;
        let overdue = async {
            sleep((*since + places.limits.introduction).saturating_duration_since(Instant::now())).await;
            if of.get().is_some() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = gone.cancelled() => "gave way to a newcomer",
            () = overdue => "did not say in time whose it is",
        }
    }

    pub(in super::super) fn limits(&self) -> &ListenerLimits {
        &self.0.places.limits
    }

    /// Room for a body of so many bytes, taken from what its computer has and then from what all have, in the order of
    /// asking.
    ///
    /// # Errors
    /// Where the computer's bodies take as much as they may, or no room comes in time.
    pub(in super::super) async fn room(&self, bytes: usize) -> Result<Room, ApiError> {
        let Held { places, of, .. } = &*self.0;
        let busy = |message: String| ApiError::new("too_many_requests", message).with_retry_after(5);
        let limits = &places.limits;
        let own = match of.get() {
            Some(&computer) => {
                let mut table = places.table();
                let used = table.computers.entry(computer).or_default();
                if used.bytes.saturating_add(bytes) > limits.bytes_per_computer {
                    let limit = limits.bytes_per_computer >> 20;
                    return Err(busy(format!("the requests of this computer take {limit} MiB; wait for some to end")));
                }
                used.bytes += bytes;
                drop(table);
                Some(OwnRoom { places: Arc::clone(places), computer, bytes })
            }
            None => None,
        };
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        match timeout(limits.room_wait, Arc::clone(&places.bytes).acquire_many_owned(wanted)).await {
            Ok(Ok(shared)) => Ok(Room { _own: own, _shared: shared }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(busy("the requests of all computers take what there is for them".into())),
        }
    }
}

/// Room for a body, until it is dropped.
#[derive(Debug)]
pub(in super::super) struct Room {
    _own: Option<OwnRoom>,
    _shared: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct OwnRoom {
    places: Arc<Places>,
    computer: ComputerId,
    bytes: usize,
}

impl Drop for OwnRoom {
    fn drop(&mut self) {
        give_back(&mut self.places.table(), self.computer, |used| used.bytes -= self.bytes);
    }
}
