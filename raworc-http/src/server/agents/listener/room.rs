//! A connection's [`Place`], and the [`Room`] that a large body takes of what its computer has.

use std::sync::{Arc, Weak};

use raworc_core::ids::ComputerId;

use super::ListenerLimits;
use crate::server::error::ApiError;
use crate::server::places::{self, Full, Leave, PlaceLimits};
use crate::server::rooms::{self, Crowded, RoomLimits, Rooms};

/// Room for a computer's body, until it is dropped.
pub(in super::super) type Room = rooms::Room<ComputerId>;

/// What the agents' listener has.
#[derive(Debug)]
pub(super) struct Places {
    limits: Arc<ListenerLimits>,
    places: Arc<places::Places<ComputerId>>,
    rooms: Arc<Rooms<ComputerId>>,
}

impl Places {
    pub(super) fn new(limits: ListenerLimits) -> Self {
        let places = places::Places::new(PlaceLimits {
            connections: limits.connections,
            per_owner: limits.connections_per_computer,
            strangers: limits.strangers,
            introduction: limits.introduction,
        });
        let rooms =
            Rooms::new(RoomLimits { bytes: limits.bytes, per_owner: limits.bytes_per_computer, waits_for_own: false });
        Self { limits: Arc::new(limits), places, rooms }
    }

    /// A place for a connection that came, once there is one.
    pub(super) async fn enter(&self) -> Place {
        let (limits, rooms) = (Arc::clone(&self.limits), Arc::clone(&self.rooms));
        Place { limits, place: self.places.enter().await, rooms }
    }

    /// Whose the connections are.
    pub(super) fn table(&self) -> Weak<places::Places<ComputerId>> {
        Arc::downgrade(&self.places)
    }
}

/// A connection's place among those that are allowed, for as long as any clone of it is held.
#[derive(Debug, Clone)]
pub(in super::super) struct Place {
    limits: Arc<ListenerLimits>,
    place: places::Place<ComputerId>,
    rooms: Arc<Rooms<ComputerId>>,
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
        &self.limits
    }

    /// Room for a body of so many bytes.
    ///
    /// # Errors
    /// Where the computer's bodies take as much as they may, or no room comes in time.
    pub(in super::super) async fn room(&self, bytes: usize) -> Result<Room, ApiError> {
        self.rooms.take(self.place.owner().copied(), bytes, self.limits.room_wait).await.map_err(|crowded| {
            let message = match crowded {
                Crowded::Own(limit) => {
                    format!("the requests of this computer take {} MiB; wait for some to end", limit >> 20)
                }
                Crowded::All => "the requests of all computers take what there is for them".into(),
            };
            ApiError::new("too_many_requests", message).with_retry_after(5)
        })
    }
}
