//! A connection's [`Place`], and the [`Room`] that a large body takes: so much in all and so much of each computer, so
//! that one hostile computer keeps no other from being heard, however slowly it writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use raworc_core::ids::ComputerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::ListenerLimits;
use crate::server::error::ApiError;
use crate::server::places::{self, Full, Leave, PlaceLimits};

/// What the agents' listener has.
#[derive(Debug)]
pub(super) struct Places {
    places: Arc<places::Places<ComputerId>>,
    rooms: Arc<Rooms>,
}

#[derive(Debug)]
struct Rooms {
    limits: ListenerLimits,
    /// Bytes that each computer's bodies take.
    used: Mutex<HashMap<ComputerId, usize>>,
    left: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new(limits: ListenerLimits) -> Self {
        let places = places::Places::new(PlaceLimits {
            connections: limits.connections,
            per_owner: limits.connections_per_computer,
            strangers: limits.strangers,
            introduction: limits.introduction,
        });
        let left = Arc::new(Semaphore::new(limits.bytes.min(Semaphore::MAX_PERMITS)));
        Self { places, rooms: Arc::new(Rooms { limits, used: Mutex::default(), left }) }
    }

    /// A place for a connection that came, once there is one.
    pub(super) async fn enter(&self) -> Place {
        Place { place: self.places.enter().await, rooms: Arc::clone(&self.rooms) }
    }

    /// Whose the connections are.
    pub(super) fn table(&self) -> Weak<places::Places<ComputerId>> {
        Arc::downgrade(&self.places)
    }
}

/// A connection's place among those that are allowed, for as long as any clone of it is held.
#[derive(Debug, Clone)]
pub(in super::super) struct Place {
    place: places::Place<ComputerId>,
    rooms: Arc<Rooms>,
}

impl Place {
    /// From now on this connection is a computer's: the first one's whose token it bore.
    ///
    /// # Errors
    /// Where the computer has as many as it may, or all have. The connection stays a stranger's and ends as such.
    pub(in super::super) fn claim(&self, computer: ComputerId) -> Result<(), ApiError> {
        self.place.claim(&computer).map_err(|full| {
            let message = match full {
                Full::Own(limit) => {
                    format!("this computer has {limit} connections, and may have no more; close some of them")
                }
                Full::All(limit) => format!("computers have {limit} connections open already; try again in a moment"),
            };
            ApiError::new("too_many_requests", message).with_detail("limit", full.limit()).with_retry_after(1)
        })
    }

    /// Its computer may have another connection in the place of this one, whose number is limited elsewhere.
    ///
    /// # Errors
    /// Where half of all connections are of that kind: the rest is for calls.
    pub(in super::super) fn set_apart(&self) -> Result<(), ApiError> {
        self.place.set_apart().map_err(|limit| {
            let message = format!("computers have {limit} connections to the outside already; try again in a moment");
            ApiError::new("too_many_requests", message).with_detail("limit", limit).with_retry_after(1)
        })
    }

    /// Is done once this connection has to end.
    pub(super) async fn must_go(&self) -> Leave {
        self.place.must_go().await
    }

    pub(in super::super) fn limits(&self) -> &ListenerLimits {
        &self.rooms.limits
    }

    /// Room for a body of so many bytes, taken from what its computer has and then from what all have, in the order of
    /// asking.
    ///
    /// # Errors
    /// Where the computer's bodies take as much as they may, or no room comes in time.
    pub(in super::super) async fn room(&self, bytes: usize) -> Result<Room, ApiError> {
        let (rooms, limits) = (&self.rooms, &self.rooms.limits);
        let busy = |message: String| ApiError::new("too_many_requests", message).with_retry_after(5);
        let own = match self.place.owner() {
            Some(&computer) => {
                let mut used = rooms.used.lock().unwrap_or_else(PoisonError::into_inner);
                let has = used.get(&computer).copied().unwrap_or_default();
                if has.saturating_add(bytes) > limits.bytes_per_computer {
                    let limit = limits.bytes_per_computer >> 20;
                    return Err(busy(format!("the requests of this computer take {limit} MiB; wait for some to end")));
                }
                used.insert(computer, has + bytes);
                drop(used);
                Some(OwnRoom { rooms: Arc::clone(rooms), computer, bytes })
            }
            None => None,
        };
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        match timeout(limits.room_wait, Arc::clone(&rooms.left).acquire_many_owned(wanted)).await {
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
    rooms: Arc<Rooms>,
    computer: ComputerId,
    bytes: usize,
}

impl Drop for OwnRoom {
    fn drop(&mut self) {
        let mut used = self.rooms.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = used.get_mut(&self.computer) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                used.remove(&self.computer);
            }
        }
    }
}
