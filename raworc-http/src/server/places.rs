//! [`Places`]: who has the connections of a listener.
//!
//! A connection is a stranger's until a request on it bears a good token; from then on it is its owner's. Each owner has
//! so many connections and no more, owners together leave the strangers' share alone, and strangers give way to
//! newcomers, the oldest first: so nobody keeps others from being heard, however many connections they open and however
//! little they say on them.
//!
//! A connection on which another owner shows itself too is one of a proxy, which carries the calls of many. It is shared
//! from then on and counts for nobody in particular. Half of the places at most are of that kind, so that two accounts of
//! one person do not come by as many as they like.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How many connections there may be, and whose.
#[derive(Debug, Clone)]
pub(super) struct PlaceLimits {
    /// At one time. More wait for a place.
    pub(super) connections: usize,
    /// Of one owner, those left out that it shares.
    pub(super) per_owner: usize,
    /// Of strangers. No owner takes these places.
    pub(super) strangers: usize,
    /// How long a connection may be a stranger's.
    pub(super) introduction: Duration,
}

#[derive(Debug)]
pub(super) struct Places<O: Eq + Hash> {
    limits: PlaceLimits,
    table: Mutex<Table<O>>,
    left: Notify,
}

#[derive(Debug)]
struct Table<O> {
    came: u64,
    strangers: BTreeMap<u64, CancellationToken>,
    owners: HashMap<O, usize>,
    /// Connections of owners.
    known: usize,
    /// Those of them that several owners share.
    shared: usize,
}

impl<O: Eq + Hash> Table<O> {
    /// One connection less that counts for this owner.
    fn discount(&mut self, owner: &O) {
        if let Some(connections) = self.owners.get_mut(owner) {
            *connections -= 1;
            if *connections == 0 {
                self.owners.remove(owner);
            }
        }
    }
}

impl PlaceLimits {
    /// Of all owners together: one at least, and else what strangers leave.
    fn of_owners(&self) -> usize {
        self.connections.saturating_sub(self.strangers.max(1)).max(1)
    }
}

impl<O: Eq + Hash> Places<O> {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        let table = Table { came: 0, strangers: BTreeMap::new(), owners: HashMap::new(), known: 0, shared: 0 };
        Arc::new(Self { limits, table: Mutex::new(table), left: Notify::new() })
    }

    fn table(&self) -> MutexGuard<'_, Table<O>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether owners have all places that they may have.
    pub(super) fn is_full(&self) -> bool {
        self.table().known >= self.limits.of_owners()
    }

    /// A place for a connection that came, unless all are taken by owners: where there is but one.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place<O>> {
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
            shared: OnceLock::new(),
        })))
    }

    /// A place for a connection that came, once there is one.
    pub(super) async fn enter(self: &Arc<Self>) -> Place<O> {
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
#[derive(Debug)]
pub(super) struct Place<O: Eq + Hash>(Arc<Held<O>>);

impl<O: Eq + Hash> Clone for Place<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Held<O: Eq + Hash> {
    places: Arc<Places<O>>,
    number: u64,
    gone: CancellationToken,
    since: Instant,
    of: OnceLock<O>,
    /// Set under the table's lock, once another owner showed itself.
    shared: OnceLock<()>,
}

impl<O: Eq + Hash> Drop for Held<O> {
    fn drop(&mut self) {
        let mut table = self.places.table();
        match self.of.get() {
            Some(owner) => {
                table.known -= 1;
                match self.shared.get() {
                    Some(()) => table.shared -= 1,
                    None => table.discount(owner),
                }
            }
            None => {
                table.strangers.remove(&self.number);
            }
        }
        drop(table);
        self.places.left.notify_one();
    }
}

/// Why a connection stays a stranger's and ends as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Its owner has so many already, and may have no more.
    Own(usize),
    /// Owners together have so many already.
    All(usize),
}

impl Full {
    /// How many there are.
    pub(super) const fn limit(self) -> usize {
        match self {
            Self::Own(limit) | Self::All(limit) => limit,
        }
    }
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// A newcomer takes its place.
    GiveWay,
    /// It has not said in time whose it is.
    Unknown,
}

impl Leave {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::GiveWay => "gave way to a newcomer",
            Self::Unknown => "did not say in time whose it is",
        }
    }
}

impl<O: Eq + Hash + Clone> Place<O> {
    /// Whose it is, once that is known.
    pub(super) fn owner(&self) -> Option<&O> {
        self.0.of.get()
    }

    /// From now on this connection is an owner's: the first one's whose token it bore, or shared where that is another.
    ///
    /// # Errors
    /// Where the owner has as many as it may, or all have.
    pub(super) fn claim(&self, owner: &O) -> Result<(), Full> {
        let held = &*self.0;
        let is_settled = || held.shared.get().is_some() || held.of.get() == Some(owner);
        if is_settled() {
            return Ok(());
        }
        let (limits, mut table) = (&held.places.limits, held.places.table());
        if is_settled() {
            return Ok(());
        }
        if let Some(first) = held.of.get() {
            if table.shared < limits.connections / 2 {
                table.shared += 1;
                table.discount(first);
                let _ = held.shared.set(());
            }
            return Ok(());
        }
        let has = table.owners.get(owner).copied().unwrap_or_default();
        if has >= limits.per_owner || held.gone.is_cancelled() {
            return Err(Full::Own(limits.per_owner));
        }
        if table.known >= limits.of_owners() {
            return Err(Full::All(limits.of_owners()));
        }
        table.owners.insert(owner.clone(), has + 1);
        table.known += 1;
        table.strangers.remove(&held.number);
        // Under the table's lock, so that it is set once.
        let _ = held.of.set(owner.clone());
        Ok(())
    }

    /// An owner's connection counts for nobody in particular from now on. Whoever asks limits their number by itself.
    ///
    /// # Errors
    /// Where half of all are of that kind already: that many.
    pub(super) fn set_apart(&self) -> Result<(), usize> {
        let held = &*self.0;
        let (most, mut table) = (held.places.limits.connections / 2, held.places.table());
        let (Some(owner), None) = (held.of.get(), held.shared.get()) else { return Ok(()) };
        if table.shared >= most {
            return Err(most);
        }
        table.shared += 1;
        table.discount(owner);
        let _ = held.shared.set(());
        Ok(())
    }

    /// Is done once this connection has to end.
    pub(super) async fn must_go(&self) -> Leave {
        tokio::select! {
            () = self.gives_way() => Leave::GiveWay,
            () = self.overdue() => Leave::Unknown,
        }
    }

    /// Is done once a newcomer takes its place.
    pub(super) async fn gives_way(&self) {
        self.0.gone.cancelled().await;
    }

    /// Is done once it has been a stranger's for as long as it may be.
    pub(super) async fn overdue(&self) {
        let Held { places, since, of, .. } = &*self.0;
        sleep((*since + places.limits.introduction).saturating_duration_since(Instant::now())).await;
        if of.get().is_some() {
            std::future::pending::<()>().await;
        }
    }
}
