//! Shards: how several operators share the agents of a runtime.
//!
//! Each operator holds one lease a runtime as a sign of life. An agent falls into one of 64 shards, and a shard belongs
//! to the live operator that weighs most for it. All operators reckon alike from the same leases, so nothing is written
//! for a shard; while two of them see different leases, both may look at an agent, and preconditions decide.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::control::{Presence, tell_again};
use crate::ids::{AgentId, CommitId, ProcessId, RuntimeName};
use crate::store::{LeaseClaim, Store, StoreError};

/// Shards of a runtime.
const SHARDS: u64 = 64;

/// For how long an operator counts as live after its last sign.
const TTL: Duration = Duration::from_secs(5);

/// The least time between two signs of life. An operator looks once a second whether it is time, and a little early at times:
/// with a second and a half it is every other time, so that one that is gone is missed after 3 to 7 s.
const RENEW: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub(super) struct Shards {
    process: ProcessId,
    presence: Presence,
    members: RwLock<HashMap<RuntimeName, Vec<ProcessId>>>,
    runtimes: Vec<RuntimeName>,
    renewed: std::sync::Mutex<tokio::time::Instant>,
    /// Somebody has left.
    called: Notify,
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
        let shards = Self {
            process,
            presence,
            members: RwLock::default(),
            runtimes,
            renewed: std::sync::Mutex::new(tokio::time::Instant::now()),
            called: Notify::new(),
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

    /// Gives a sign of life where it is time for one, and learns who else lives. Returns the runtimes whose agents have
    /// moved between operators by that: nothing else tells an operator of those that are its own now.
    pub(super) async fn renew(&self, store: &Arc<dyn Store>, at_once: bool) -> Vec<RuntimeName> {
        let due = self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= RENEW;
        if !due && !at_once {
            return Vec::new();
        }
        match self.renew_now(store).await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::warn!(%error, "this operator's sign of life could not be written");
                Vec::new()
            }
        }
    }

    pub(super) async fn renew_now(&self, store: &Arc<dyn Store>) -> Result<Vec<RuntimeName>, StoreError> {
        let began = tokio::time::Instant::now();
        let mut moved = Vec::new();
        for runtime in &self.runtimes {
            let key = self.presence.key(&prefix(runtime), self.process);
            store.claim(&LeaseClaim { key, holder: self.process, ttl: TTL }).await?;
            let live = store.leases(&prefix(runtime)).await?;
            // A sign that lies farther ahead than one is ever given was given before the clock was set back.
            let farthest = live.now.checked_add(SignedDuration::try_from(TTL).unwrap_or_default());
            let true_signs =
                live.value.iter().filter(|lease| farthest.as_ref().is_ok_and(|farthest| lease.expires <= *farthest));
            let mut members: Vec<_> = true_signs.map(|lease| lease.holder).collect();
            members.sort_unstable();
            let mut known = self.members.write().unwrap_or_else(PoisonError::into_inner);
            if known.get(runtime) != Some(&members) {
                moved.push(runtime.clone());
                known.insert(runtime.clone(), members);
            }
        }
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = began;
        Ok(moved)
    }

    /// Lets the others take over at once: gives the leases back, and calls them by the log.
    pub(super) async fn leave(&self, store: &Arc<dyn Store>, mut commit: impl FnMut() -> CommitId) {
        for runtime in &self.runtimes {
            let key = self.presence.key(&prefix(runtime), self.process);
            let claim = LeaseClaim { key, holder: self.process, ttl: Duration::ZERO };
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
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner).get(runtime).cloned();
        let members = members.unwrap_or_default();
        match wanted {
            Some(wanted) if !members.contains(&wanted) => {
                let live = store.leases(&prefix(runtime)).await?;
                Ok(live.value.iter().map(|lease| lease.holder).collect())
            }
            Some(_) | None => Ok(members),
        }
    }

    /// Whether this operator looks after the agent.
    pub(super) fn owns(&self, runtime: &RuntimeName, agent: AgentId) -> bool {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = members.get(runtime) else { return false };
        owner(members, shard(agent)).is_none_or(|owner| owner == self.process)
    }
}

fn shard(agent: AgentId) -> u64 {
    // The last bytes of a UUIDv7 are random.
    let bytes = agent.as_uuid().into_bytes();
    u64::from(bytes[15]) % SHARDS
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

    #[test]
    fn every_release_weighs_alike() {
        let member = |n: u128| ProcessId::from_uuid(uuid::Uuid::from_u128(n));
        let owners: String = (0..SHARDS)
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
                let owners: Vec<_> = (0..SHARDS).filter_map(|shard| owner(&members, shard)).collect();
                let own = |member| owners.iter().filter(|owner| **owner == member).count() as u64;
                members.iter().copied().map(own).max().expect("some")
            });
            let percent = busiest.sum::<u64>() * count * 100 / (SETS * SHARDS);
            assert!((100..=160).contains(&percent), "the busiest of {count} has {percent} % of an even share");
        }
    }

    #[test]
    fn shards_spread_over_members_and_only_those_of_a_lost_one_move() {
        let process = || SystemEntropy.process_id(jiff::Timestamp::UNIX_EPOCH);
        let members = [process(), process(), process(), process()];
        let owners: Vec<_> = (0..SHARDS).map(|shard| owner(&members, shard).expect("one")).collect();
        for member in &members {
            assert!(owners.contains(member), "every operator has work");
        }
        for (shard, before) in owners.iter().enumerate() {
            let after = owner(&members[1..], shard as u64).expect("one");
            assert!(*before == members[0] || *before == after, "shard {shard} moved without need");
        }
    }
}
