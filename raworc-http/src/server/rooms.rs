//! [`Rooms`]: what large bodies take of memory, so much in all and so much of each owner, so that one owner does not keep
//! others from being heard, however much they send and however slowly they write.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes of a body that takes no room, as most are. How many of them are in memory is bounded by how many requests there are.
pub(super) const SMALL_BODY: usize = 16 << 10;

/// How much room there is, in bytes.
#[derive(Debug, Clone)]
pub(super) struct RoomLimits {
    pub(super) bytes: usize,
    pub(super) per_owner: usize,
    /// Whether an owner's body waits for another one of theirs to end too.
    pub(super) waits_for_own: bool,
}

#[derive(Debug)]
pub(super) struct Rooms<O: Eq + Hash> {
    limits: RoomLimits,
    left: Arc<Semaphore>,
    /// What is left to those who have bodies.
    owners: Mutex<HashMap<O, Arc<Semaphore>>>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    /// The owner's bodies take as much as they may: so many bytes.
    Own(usize),
    /// Those of all do.
    All,
}

impl<O: Clone + Eq + Hash> Rooms<O> {
    pub(super) fn new(limits: RoomLimits) -> Arc<Self> {
        let left = Arc::new(semaphore(limits.bytes));
        Arc::new(Self { limits, left, owners: Mutex::default() })
    }

    /// Room for a body of so many bytes, taken from what its owner has, where that is known, and then from what all have, in
    /// the order of asking.
    pub(super) async fn take(
        self: &Arc<Self>,
        owner: Option<O>,
        bytes: usize,
        wait: Duration,
    ) -> Result<Room<O>, Crowded> {
        let limits = &self.limits;
        let (deadline, permits) = (Instant::now() + wait, u32::try_from(bytes).unwrap_or(u32::MAX));
        let mut room = Room { rooms: Arc::clone(self), owner, own: None, shared: None };
        if let Some(owner) = &room.owner {
            let own = Arc::clone(
                locked(&self.owners).entry(owner.clone()).or_insert_with(|| Arc::new(semaphore(limits.per_owner))),
            );
            let acquired = if limits.waits_for_own {
                timeout_at(deadline, own.acquire_many_owned(permits)).await.ok().and_then(Result::ok)
            } else {
                own.try_acquire_many_owned(permits).ok()
            };
            room.own = Some(acquired.ok_or(Crowded::Own(limits.per_owner))?);
        }
        let acquired = timeout_at(deadline, Arc::clone(&self.left).acquire_many_owned(permits)).await;
        room.shared = Some(acquired.ok().and_then(Result::ok).ok_or(Crowded::All)?);
        Ok(room)
    }
}

/// Room for a body, until it is dropped.
#[derive(Debug)]
pub(super) struct Room<O: Eq + Hash> {
    rooms: Arc<Rooms<O>>,
    owner: Option<O>,
    own: Option<OwnedSemaphorePermit>,
    shared: Option<OwnedSemaphorePermit>,
}

impl<O: Eq + Hash> Drop for Room<O> {
    fn drop(&mut self) {
        self.shared.take();
        self.own.take();
        if let Some(owner) = &self.owner {
            let mut owners = locked(&self.rooms.owners);
            // Whoever has or waits for some of it holds it too.
            if owners.get(owner).is_some_and(|own| Arc::strong_count(own) == 1) {
                owners.remove(owner);
            }
        }
    }
}

fn semaphore(bytes: usize) -> Semaphore {
    Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn rooms(waits_for_own: bool) -> Arc<Rooms<&'static str>> {
        Rooms::new(RoomLimits { bytes: 10, per_owner: 6, waits_for_own })
    }

    #[tokio::test(start_paused = true)]
    async fn one_owner_has_a_part_of_what_all_have_and_nothing_is_remembered_of_who_has_left() {
        let rooms = rooms(false);
        let ada = rooms.take(Some("ada"), 4, WAIT).await.expect("there is room");
        assert_eq!(rooms.take(Some("ada"), 3, WAIT).await.expect_err("it is too much"), Crowded::Own(6));
        let bob = rooms.take(Some("bob"), 6, WAIT).await.expect("another has room");
        assert_eq!(rooms.take(None, 1, WAIT).await.expect_err("all of it is taken"), Crowded::All);
        assert_eq!(rooms.take(Some("cy"), 1, WAIT).await.expect_err("all of it is taken"), Crowded::All);
        drop(ada);
        let cy = rooms.take(Some("cy"), 4, WAIT).await.expect("there is room again");
        drop((bob, cy));
        assert!(rooms.owners.lock().expect("nobody fails").is_empty());
        assert_eq!(rooms.left.available_permits(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_may_wait_for_a_body_of_theirs_to_end() {
        let rooms = rooms(true);
        let first = rooms.take(Some("ada"), 6, WAIT).await.expect("there is room");
        let mut second = pin!(rooms.take(Some("ada"), 6, WAIT));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        drop(first);
        let second = second.now_or_never().expect("it is its turn").expect("there is room");
        assert_eq!(rooms.take(Some("ada"), 1, WAIT).await.expect_err("none came in time"), Crowded::Own(6));
        drop(second);
        rooms.take(Some("ada"), 6, WAIT).await.expect("there is room again");
    }
}
