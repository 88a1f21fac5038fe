//! Shards: how several operators share the agents of a runtime.
//!
//! Each operator holds one lease a runtime as a sign of life. An agent falls into one of 4096 shards, and a shard belongs
//! to the live operator that weighs most for it. All operators reckon alike from the same leases, so nothing is written
//! for a shard; while two of them see different leases, both may look at an agent, and preconditions decide.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::control::{Presence, tell_again};
use crate::ids::{AgentId, CommitId, ProcessId, RuntimeName};
use crate::store::{Lease, LeaseClaim, Stamped, Store, StoreError};

/// Shards of a runtime: so many that the busiest of eight operators has a twentieth more than its share.
const SHARDS: u16 = 4096;

/// Shards as an operator reckons whose sign of life tells of none: one of an older release.
const SHARDS_UNTOLD: u16 = 64;

/// For how long an operator counts as live after its last sign.
const TTL: Duration = Duration::from_secs(5);

/// How often a sign of life is given, so that an operator that is gone is missed after 3 to 7 s.
const RENEW: Duration = Duration::from_secs(2);

/// How soon it is tried again where it could not be given.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shards {
    process: ProcessId,
    presence: Presence,
    known: RwLock<HashMap<RuntimeName, Known>>,
    runtimes: Vec<RuntimeName>,
    /// When the last sign of life was begun that went through.
    signed: watch::Sender<Instant>,
    /// When the last look who else lives was begun that has ended, whatever came of it.
    looked: watch::Sender<Instant>,
    /// Somebody has left, or this operator has given a sign of life.
    called: Notify,
    /// Signs from before the clock was set back.
    doubted: Mutex<HashMap<RuntimeName, Doubted>>,
}

/// Signs of life by who gave them and until when they are, and when each was first seen.
type Doubted = HashMap<(ProcessId, Timestamp), Instant>;

/// The operators of a runtime that live, and which of how many shards are this one's by that.
#[derive(Debug)]
struct Known {
    members: Vec<ProcessId>,
    own: Vec<bool>,
}

/// What the keys of a runtime's operators' signs of life begin with.
pub(crate) fn prefix(runtime: &RuntimeName) -> String {
    format!("operator/{runtime}/")
}

impl Shards {
    pub(super) async fn join(
        store: &Arc<dyn Store>,
        process: ProcessId,
        presence: Presence,
        runtimes: Vec<RuntimeName>,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let shards = Self {
            process,
            presence,
            known: RwLock::default(),
            runtimes,
            signed: watch::Sender::new(now),
            looked: watch::Sender::new(now),
            called: Notify::new(),
            doubted: Mutex::default(),
        };
        shards.renew_now(store).await?;
        Ok(shards)
    }

    /// Has this operator look at once who else lives.
    pub(super) fn call(&self) {
        self.called.notify_one();
    }

    /// Waits until it is to look at once.
    pub(super) async fn called(&self) {
        self.called.notified().await;
    }

    /// Gives signs of life, and has this operator look who else lives after each. It waits for no read of the store: others
    /// take the shards of an operator whose sign is late.
    pub(super) async fn give_signs(&self, store: &Arc<dyn Store>) {
        let mut tick = tokio::time::interval_at(Instant::now() + RENEW, RENEW);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.sign(store).await {
                tracing::warn!(%error, "this operator's sign of life could not be written");
                tick.reset_after(RENEW_AGAIN);
            }
            self.call();
        }
    }

    async fn sign(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let began = Instant::now();
        for runtime in &self.runtimes {
            store.claim(&LeaseClaim { key: self.key(runtime), holder: self.process, ttl: TTL }).await?;
        }
        self.signed.send_replace(began);
        Ok(())
    }

    /// Waits for a sign of life that was begun after this moment: the store takes writes.
    pub(super) async fn signed_after(&self, moment: Instant) {
        let _ = self.signed.subscribe().wait_for(|began| *began > moment).await.map(drop);
    }

    /// Learns who else lives. Returns the runtimes whose agents have moved between operators by that: nothing else tells an
    /// operator of those that are its own now.
    pub(super) async fn look_around(&self, store: &Arc<dyn Store>) -> Vec<RuntimeName> {
        let (began, mut moved) = (Instant::now(), Vec::new());
        for runtime in &self.runtimes {
            match self.look_at(store, runtime).await {
                Ok(true) => moved.push(runtime.clone()),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, %runtime, "who else looks after it cannot be read"),
            }
        }
        self.looked.send_replace(began);
        moved
    }

    /// Waits, where this operator has not looked for as long as its lease lasts, since it stood still or reads are slow, until it
    /// has looked once more.
    pub(super) async fn looked_lately(&self) {
        let mut looked = self.looked.subscribe();
        if looked.borrow_and_update().elapsed() >= TTL {
            // Where a look takes longer than that, the next one would come no sooner.
            let _ = looked.changed().await;
        }
    }

    /// Learns which operators of a runtime live, and whether that has changed.
    async fn look_at(&self, store: &Arc<dyn Store>, runtime: &RuntimeName) -> Result<bool, StoreError> {
        let signs = store.leases(&prefix(runtime)).await?;
        self.in_doubt(runtime, &signs);
        let live: Vec<_> = signs.value.iter().filter(|sign| is_true(sign, signs.now)).collect();
        let mut members: Vec<_> = live.iter().map(|sign| sign.holder).collect();
        members.sort_unstable();
        // All reckon by what the least of them knows.
        let told = live.iter().map(|sign| told_shards(sign, runtime));
        let shards = told.min().unwrap_or(SHARDS).clamp(1, SHARDS);
        let is_known = |known: &Known| known.members == members && known.own.len() == usize::from(shards);
        if self.known.read().unwrap_or_else(PoisonError::into_inner).get(runtime).is_some_and(is_known) {
            return Ok(false);
        }
        let is_own = |shard| owner(&members, shard).is_none_or(|owner| owner == self.process);
        let own = (0..shards).map(|shard| is_own(u64::from(shard))).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(runtime.clone(), Known { members, own });
        Ok(true)
    }

    /// Gives a sign of life and learns who else lives.
    pub(super) async fn renew_now(&self, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        self.sign(store).await?;
        for runtime in &self.runtimes {
            self.look_at(store, runtime).await?;
        }
        Ok(())
    }

    /// The key of this operator's sign of life. It tells how many shards this one reckons with, where an older release reads
    /// nothing.
    fn key(&self, runtime: &RuntimeName) -> String {
        self.presence.key(&prefix(runtime), format_args!("{}+{SHARDS}", self.process))
    }

    /// Lets the others take over at once: gives the leases back, and calls them by the log.
    pub(super) async fn leave(&self, store: &Arc<dyn Store>, mut commit: impl FnMut() -> CommitId) {
        for runtime in &self.runtimes {
            let claim = LeaseClaim { key: self.key(runtime), holder: self.process, ttl: Duration::ZERO };
            let left = async {
                store.claim(&claim).await?;
                tell_again(store, runtime, commit()).await
            };
            if let Err(error) = left.await {
                tracing::warn!(%error, %runtime, "other operators could not be told that this one leaves; they see it soon");
            }
        }
    }

    /// This operator.
    pub(super) const fn me(&self) -> ProcessId {
        self.process
    }

    /// The operators of a runtime that live. The store is asked anew where `wanted` is not among those that are known: it
    /// may have come after this operator's last sign of life.
    pub(super) async fn living(
        &self,
        store: &Arc<dyn Store>,
        runtime: &RuntimeName,
        wanted: Option<ProcessId>,
    ) -> Result<Vec<ProcessId>, StoreError> {
        let members = self.known.read().unwrap_or_else(PoisonError::into_inner).get(runtime).map(|k| k.members.clone());
        let members = members.unwrap_or_default();
        match wanted {
            Some(wanted) if !members.contains(&wanted) => {
                let signs = store.leases(&prefix(runtime)).await?;
                let in_doubt = self.in_doubt(runtime, &signs);
                let live = signs.value.iter().filter(|sign| is_true(sign, signs.now)).map(|sign| sign.holder);
                Ok(live.chain(in_doubt).collect())
            }
            Some(_) | None => Ok(members),
        }
    }

    /// Who gave a sign of life before the clock was set back, and has not had the time yet to give another.
    fn in_doubt(&self, runtime: &RuntimeName, signs: &Stamped<Vec<Lease>>) -> Vec<ProcessId> {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = doubted.remove(runtime).unwrap_or_default();
        let untrue =
            signs.value.iter().filter(|sign| !is_true(sign, signs.now)).map(|sign| (sign.holder, sign.expires));
        let seen: Doubted =
            untrue.map(|sign| (sign, before.get(&sign).copied().unwrap_or_else(Instant::now))).collect();
        let in_doubt = seen.iter().filter(|(_, seen)| seen.elapsed() < TTL).map(|((holder, _), _)| *holder).collect();
        doubted.insert(runtime.clone(), seen);
        in_doubt
    }

    /// Whether this operator looks after the agent.
    pub(super) fn owns(&self, runtime: &RuntimeName, agent: AgentId) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(runtime).is_some_and(|known| known.own[shard(agent, known.own.len())])
    }
}

/// A sign that lies farther ahead than one is ever given was given before the clock was set back.
fn is_true(sign: &Lease, now: Timestamp) -> bool {
    let farthest = now.checked_add(SignedDuration::try_from(TTL).unwrap_or_default());
    farthest.is_ok_and(|farthest| sign.expires <= farthest)
}

/// How many shards an operator reckons with.
fn told_shards(sign: &Lease, runtime: &RuntimeName) -> u16 {
    let who = sign.key.strip_prefix(&prefix(runtime)).and_then(|who| who.split('/').next());
    let told = who.and_then(|who| who.split_once('+')).and_then(|(_, shards)| shards.parse().ok());
    told.unwrap_or(SHARDS_UNTOLD)
}

fn shard(agent: AgentId, shards: usize) -> usize {
    // The last bytes of a UUIDv7 are random.
    let bytes = agent.as_uuid().into_bytes();
    usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) % shards
}

fn owner(members: &[ProcessId], shard: u64) -> Option<ProcessId> {
    members.iter().copied().max_by_key(|member| (weight(*member, shard), *member))
}

fn weight(member: ProcessId, shard: u64) -> u64 {
    // A hash that every build weighs alike by: two operators of different releases share the agents of one runtime.
    let hash = Sha256::new_with_prefix(member.as_uuid().as_bytes()).chain_update(shard.to_be_bytes()).finalize();
    hash.iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{EntropyExt, SystemEntropy};
    use crate::store::MemoryStore;

    #[test]
    fn every_release_weighs_alike() {
        let member = |n: u128| ProcessId::from_uuid(uuid::Uuid::from_u128(n));
        let owners: String = (0..u64::from(SHARDS_UNTOLD))
            .map(|shard| owner(&[member(1), member(2), member(3)], shard).expect("one"))
            .map(|owner| (1..=3_u8).find(|n| member(u128::from(*n)) == owner).expect("a member"))
            .map(|n| char::from(b'0' + n))
            .collect();
        insta::assert_snapshot!(owners, @"2212111211221111321231323223121133121111213121111313211122322223");
    }

    #[test]
    fn the_busiest_of_some_operators_has_little_more_than_its_share() {
        const SETS: u64 = 20;
        for count in 2..=8 {
            let busiest = (0..SETS).map(|set| {
                let members: Vec<_> =
                    (0..count).map(|n| ProcessId::from_uuid(uuid::Uuid::from_u64_pair(set, n))).collect();
                let owners: Vec<_> = (0..u64::from(SHARDS)).filter_map(|shard| owner(&members, shard)).collect();
                let own = |member| owners.iter().filter(|owner| **owner == member).count() as u64;
                members.iter().copied().map(own).max().expect("some")
            });
            let percent = busiest.sum::<u64>() * count * 100 / (SETS * u64::from(SHARDS));
            assert!((100..=106).contains(&percent), "the busiest of {count} has {percent} % of an even share");
        }
    }

    #[test]
    fn shards_spread_over_members_and_only_those_of_a_lost_one_move() {
        let process = || SystemEntropy.process_id(jiff::Timestamp::UNIX_EPOCH);
        let members = [process(), process(), process(), process()];
        let shards = 0..u64::from(SHARDS);
        let owners: Vec<_> = shards.map(|shard| owner(&members, shard).expect("one")).collect();
        for member in &members {
            assert!(owners.contains(member), "every operator has work");
        }
        for (shard, before) in owners.iter().enumerate() {
            let after = owner(&members[1..], shard as u64).expect("one");
            assert!(*before == members[0] || *before == after, "shard {shard} moved without need");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beside_an_operator_of_an_older_release_each_agent_is_one_operators_as_the_older_one_reckons() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let runtimes = [RuntimeName::new("local").expect("a name")];
        let runtime = &runtimes[0];
        let process = || SystemEntropy.process_id(Timestamp::UNIX_EPOCH);
        let join = |presence| Shards::join(&store, process(), presence, runtimes.to_vec());
        let first = join(Presence::apart()).await.expect("joined");
        let second = join(Presence::apart().at("host:9002")).await.expect("joined");
        first.renew_now(&store).await.expect("renewed");
        let agents: Vec<_> = (0..1000).map(|_| SystemEntropy.agent_id(Timestamp::UNIX_EPOCH)).collect();
        let own = |shards: &Shards, agent| shards.owns(runtime, agent);
        assert!(agents.iter().all(|agent| own(&first, *agent) != own(&second, *agent)), "each is one operator's");
        let reckoned = |shards: &Shards| shards.known.read().expect("nobody failed")[runtime].own.len();
        assert_eq!((reckoned(&first), reckoned(&second)), (4096, 4096));

        let older = process();
        let key = Presence::apart().at("host:9003").key(&prefix(runtime), older);
        let claim = |ttl| LeaseClaim { key: key.clone(), holder: older, ttl };
        store.claim(&claim(TTL)).await.expect("claimed");
        for shards in [&first, &second] {
            assert_eq!(shards.look_around(&store).await, runtimes);
        }
        let mut members = [first.me(), second.me(), older];
        members.sort_unstable();
        for agent in &agents {
            let shard = u64::from(agent.as_uuid().into_bytes()[15]) % 64;
            let owner = owner(&members, shard).expect("one");
            assert_eq!((own(&first, *agent), own(&second, *agent)), (owner == first.me(), owner == second.me()));
        }
        store.claim(&claim(Duration::ZERO)).await.expect("given back");
        assert_eq!(first.look_around(&store).await, runtimes);
        assert_eq!(reckoned(&first), 4096, "it is gone");
    }
}
