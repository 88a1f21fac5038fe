//! An agent: what its owner wants of it, and what is.

mod condition;
mod disk;
mod egress;
mod restart;
mod spec;
mod state;
mod status;
mod times;

pub use condition::{Condition, ConditionKind, Conditions};
pub(crate) use disk::{IDLE_TIMEOUT, Measured};
pub use egress::{EgressRule, is_host_pattern, names};
pub use spec::{
    AgentSpec, DEFAULT_BUSY_TIMEOUT, DEFAULT_IDLE_TIMEOUT, InvalidSpec, Network, NetworkMode, Port, Resources,
    SpecChange,
};
pub use state::{AgentEvent, Decision, Denial, Effect, State};
pub use status::{HEARTBEAT_LIMIT, Inbox, KeptLog, Run, SetupRecord, SetupRun, Status};
pub use times::ClockMove;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, AgentName, Revision, TenantName, UserName};

/// What an agent's owner wants it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// Its computer runs.
    Awake,
    /// Its computer is stopped and every file kept.
    Asleep,
    /// Nothing of it remains.
    Deleted,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// Its id, never used again.
    pub id: AgentId,
    /// The tenant to which it belongs.
    pub tenant: TenantName,
    /// Its name, unique among the living agents of its tenant.
    pub name: AgentName,
    /// The user who made it.
    pub owner: UserName,
    /// What its owner asks for.
    pub spec: AgentSpec,
    /// What its owner wants it to be.
    pub desired: Desired,
    /// What is.
    pub status: Status,
    /// Counts changes of `spec` and `desired`, from 1.
    pub generation: u64,
    /// The place in the log of its last change.
    pub revision: Revision,
    /// When it was made.
    pub created_at: Timestamp,
    /// What waits in its inbox.
    pub inbox: Inbox,
}

impl Agent {
    /// When the operator has something to do for this agent even if nothing happens until then.
    ///
    /// Every store keeps this beside the row, so that [`Store::due`](crate::store::Store::due) finds it by an index.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let status = &self.status;
        // A wish that is not met waits for nothing, except a sleep for the end of the message in hand.
        match (status.state(), self.desired) {
            (State::Deleted, _) => return None,
            (_, Desired::Deleted) | (State::Init | State::Idle, Desired::Asleep) | (State::Slept, Desired::Awake) => {
                return Some(status.since);
            }
            (State::Init | State::Idle | State::Busy, Desired::Awake)
            | (State::Busy | State::Slept, Desired::Asleep) => {}
        }
        match status.state() {
            State::Init => match &status.run {
                Some(run) if run.ending => Some(status.since),
                Some(run) => Some(run.deadline.max(run.began_at)),
                None => Some(status.retry_at.unwrap_or(status.since)),
            },
            State::Idle => {
                let sleeps = self.spec.idle_timeout > 0 && !self.has_work();
                let sleep = status.awake_until.filter(|_| sleeps);
                earliest([sleep, status.heartbeat_due()])
            }
            State::Busy => earliest([status.busy_until, status.cancel_by, status.heartbeat_due()]),
            State::Slept => status.run.as_ref().map(|_| status.since),
            State::Deleted => None,
        }
    }
}

fn earliest<const N: usize>(times: [Option<Timestamp>; N]) -> Option<Timestamp> {
    times.into_iter().flatten().min()
}
