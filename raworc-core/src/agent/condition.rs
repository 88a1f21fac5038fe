//! Conditions: what is worth knowing of an agent beside its state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a condition tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConditionKind {
    /// Whether its program runs and takes messages; where not, the reason says why.
    Ready,
    /// A sleep was asked for and waits for the message in hand.
    SleepPending,
    /// Changed fields of the spec take effect at the next start; the message names them.
    RestartNeeded,
    /// Whether its network is known to be cut off as its spec asks.
    NetworkIsolated,
    /// Whether its limits on cpu, memory and processes are enforced.
    LimitsEnforced,
    /// Whether root inside is an unprivileged user of its own outside. Told of computers whose spec asks for root.
    RootMapped,
    /// A process of it was ended because memory ran out, or could not be made because there were too many. It stays until
    /// the agent is woken from sleep or its spec changes.
    LimitReached,
    /// Its volume holds more than `resources.disk`, by its program's measure: new messages wait until there is room.
    DiskFull,
}

/// One fact about an agent, after Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// What it tells about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: bool,
    /// One word for programs, such as `ImageMissing`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Since when `status` and `reason` are as they are.
    pub since: Timestamp,
}

/// At most one condition of each kind, in the order of the kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Conditions(Vec<Condition>);

impl Condition {
    /// Whether it tells of what is not as it should be, or not yet.
    #[must_use]
    pub const fn is_remarkable(&self) -> bool {
        match self.kind {
            ConditionKind::Ready
            | ConditionKind::NetworkIsolated
            | ConditionKind::LimitsEnforced
            | ConditionKind::RootMapped => !self.status,
            ConditionKind::SleepPending
            | ConditionKind::RestartNeeded
            | ConditionKind::LimitReached
            | ConditionKind::DiskFull => self.status,
        }
    }
}

impl Conditions {
    /// The condition of this kind.
    #[must_use]
    pub fn get(&self, kind: ConditionKind) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.kind == kind)
    }

    /// Whether the condition of this kind is there and holds.
    #[must_use]
    pub fn holds(&self, kind: ConditionKind) -> bool {
        self.get(kind).is_some_and(|condition| condition.status)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Sets a condition; `since` stays where neither its status nor its reason changes.
    pub(crate) fn set(&mut self, mut condition: Condition) {
        match self.0.binary_search_by_key(&condition.kind, |there| there.kind) {
            Ok(at) => {
                let there = &self.0[at];
                if there.status == condition.status && there.reason == condition.reason {
                    condition.since = there.since;
                }
                self.0[at] = condition;
            }
            Err(at) => self.0.insert(at, condition),
        }
    }

    /// Takes a condition away.
    pub(crate) fn clear(&mut self, kind: ConditionKind) {
        self.0.retain(|condition| condition.kind != kind);
    }
}
