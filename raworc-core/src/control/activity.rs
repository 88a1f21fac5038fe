//! Activity: what keeps an agent awake, and the signs of life of programs.
//!
//! A reason is held by whoever serves it, as a guard. While one is held, this process moves the agent's `awake_until`
//! forward every few seconds; when the process dies, that stops. Heartbeats go in the same write.

use std::collections::{BTreeMap, btree_map};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::presence::Presence;
use crate::agent::Agent;
use crate::error::Error;
use crate::ids::{AgentId, Incarnation, ProcessId};
use crate::store::{Store, StoreError, Touch};

/// How often what is active is written down.
const PERIOD: Duration = Duration::from_secs(10);

/// A program that was not heard for so long by what is written down may count as lost before the next such write: the
/// heartbeat that ends its silence is written at once.
const SILENCE: SignedDuration = SignedDuration::from_secs(15);

/// How long one such write holds.
pub(crate) const HOLD: Duration = Duration::from_secs(25);

/// Agents that one write is about: it reads each of them while others wait for their turn.
const AT_ONCE: usize = 256;

/// What kind of reason keeps an agent awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActivityKind {
    /// It works on a message.
    Message,
    /// Its model is thinking.
    ModelCall,
    /// Somebody runs a command in its computer.
    Command,
    /// Somebody moves files.
    Files,
    /// Its setup script runs.
    Setup,
    /// Somebody asked to keep it awake.
    KeepAwake,
}

/// A reason that keeps an agent awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActivityReason {
    /// What kind.
    pub kind: ActivityKind,
    /// When it began, where that is known.
    pub since: Option<Timestamp>,
    /// When it ends unless it is renewed, where that is known.
    pub until: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    incarnation: Incarnation,
    idle: Duration,
    reasons: BTreeMap<u64, (ActivityKind, Timestamp)>,
    heard: bool,
    /// A reason ended since the last write: the time without activity begins anew.
    ended: bool,
}

type Entries = Arc<Mutex<BTreeMap<AgentId, Entry>>>;

/// What is active in this process.
#[derive(Debug)]
pub struct Activity {
    store: Arc<dyn Store>,
    entries: Entries,
    next: Mutex<u64>,
    _stop: DropGuard,
}

/// Holds a reason until it is dropped.
#[derive(Debug)]
pub struct ActivityGuard {
    entries: Entries,
    agent: AgentId,
    number: u64,
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(&self.agent)
            && entry.reasons.remove(&self.number).is_some()
        {
            entry.ended = true;
        }
    }
}

impl Activity {
    pub(super) async fn start(
        store: Arc<dyn Store>,
        process: ProcessId,
        presence: Presence,
    ) -> Result<Self, StoreError> {
        let entries = Entries::default();
        let stop = CancellationToken::new();
        presence.announce(&*store, process).await?;
        let (task_store, task_entries, stopped) = (store.clone(), Arc::clone(&entries), stop.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(PERIOD / 2);
            // After a store that stood still there is one write due, and not all that it has missed.
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut due = false;
            loop {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => break,
                    _ = tick.tick() => {}
                }
                if let Err(error) = presence.announce(&*task_store, process).await {
                    tracing::warn!(%error, "this server's sign of life could not be written");
                }
                // What could not be written is due again by the next tick.
                due = !due || !write_down(&*task_store, &task_entries).await;
            }
        });
        Ok(Self { store, entries, next: Mutex::new(0), _stop: stop.drop_guard() })
    }

    /// Holds a reason for this agent from now on.
    ///
    /// # Errors
    /// [`Error::AgentAsleep`] where the agent went to sleep, or was started anew, before the reason was written down.
    pub async fn hold(&self, agent: &Agent, kind: ActivityKind, now: Timestamp) -> Result<ActivityGuard, Error> {
        let idle = Duration::from_secs(agent.spec.idle_timeout.into());
        let touch = Touch {
            agent: agent.id,
            incarnation: agent.status.incarnation,
            heartbeat: false,
            awake_for: Some(idle.max(HOLD)),
        };
        if !self.store.touch(&[touch]).await?.is_empty() {
            return Err(Error::AgentAsleep(agent.name.clone()));
        }
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entry(&mut entries, agent);
        entry.reasons.insert(number, (kind, now));
        Ok(ActivityGuard { entries: Arc::clone(&self.entries), agent: agent.id, number })
    }

    /// Notes that the agent's program was heard.
    pub(super) async fn heard(&self, agent: &Agent, now: Timestamp) {
        if agent.status.heard_at.is_some_and(|heard| now.duration_since(heard) >= SILENCE) {
            let incarnation = agent.status.incarnation;
            let touch = Touch { agent: agent.id, incarnation, heartbeat: true, awake_for: None };
            match self.store.touch(&[touch]).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(agent = %agent.id, %error, "a late heartbeat was not written down at once")
                }
            }
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entry(&mut entries, agent).heard = true;
    }

    /// The reasons that this process holds for an agent.
    #[must_use]
    pub fn reasons(&self, agent: AgentId) -> Vec<ActivityReason> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = entries.get(&agent).into_iter().flat_map(|entry| entry.reasons.values());
        reasons.map(|&(kind, since)| ActivityReason { kind, since: Some(since), until: None }).collect()
    }
}

fn entry<'a>(entries: &'a mut BTreeMap<AgentId, Entry>, agent: &Agent) -> &'a mut Entry {
    let entry = entries.entry(agent.id).or_insert_with(|| Entry {
        incarnation: agent.status.incarnation,
        idle: Duration::ZERO,
        reasons: BTreeMap::new(),
        heard: false,
        ended: false,
    });
    entry.incarnation = agent.status.incarnation;
    entry.idle = Duration::from_secs(agent.spec.idle_timeout.into());
    entry
}

/// Writes down what is active and who was heard since the last time. Returns whether that went through: what could not
/// be written is still there for the next time.
async fn write_down(store: &dyn Store, entries: &Entries) -> bool {
    let (touches, mut taken) = take(entries);
    for (number, some) in touches.chunks(AT_ONCE).enumerate() {
        if let Err(error) = store.touch(some).await {
            let left = taken.split_off(number * AT_ONCE);
            tracing::warn!(%error, agents = left.len(), "activity could not be written down; trying again");
            put_back(entries, left);
            return false;
        }
    }
    true
}

/// What is to be written, and what it was made from. Nobody waits for an entry that says nothing any more.
fn take(entries: &Entries) -> (Vec<Touch>, Vec<(AgentId, Entry)>) {
    let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut touches, mut taken) = (Vec::new(), Vec::new());
    for (&agent, entry) in entries.iter_mut() {
        let active = !entry.reasons.is_empty();
        let ended = !active && std::mem::take(&mut entry.ended);
        let heard = std::mem::take(&mut entry.heard);
        let awake_for = match (active, ended) {
            (true, _) => Some(entry.idle.max(HOLD)),
            (false, true) => Some(entry.idle),
            (false, false) => None,
        };
        if heard || awake_for.is_some() {
            touches.push(Touch { agent, incarnation: entry.incarnation, heartbeat: heard, awake_for });
            // The reasons that are held stay where they are.
            taken.push((agent, Entry { reasons: BTreeMap::new(), heard, ended, ..*entry }));
        }
    }
    entries.retain(|_, entry| !entry.reasons.is_empty() || entry.ended);
    (touches, taken)
}

fn put_back(entries: &Entries, taken: Vec<(AgentId, Entry)>) {
    let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
    for (agent, was) in taken {
        match entries.entry(agent) {
            btree_map::Entry::Vacant(place) => {
                place.insert(was);
            }
            btree_map::Entry::Occupied(mut place) => {
                let entry = place.get_mut();
                // What a start that is over said is of no interest to the one after it.
                if entry.incarnation == was.incarnation {
                    entry.heard |= was.heard;
                    entry.ended |= was.ended;
                }
            }
        }
    }
}
