//! Computers as the store knows them: which agent one serves, and which are to be reclaimed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, ComputerId, RuntimeName, TenantName};
use crate::runtime::ComputerSpec;

/// A computer that was decided on. The engine may or may not have made it yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Computer {
    /// The tenant of its agent.
    pub tenant: TenantName,
    /// The agent that it serves, or served before it was put on the reclaim list.
    pub agent: AgentId,
    /// The runtime that makes it.
    pub runtime: RuntimeName,
    /// What the engine is asked for.
    pub spec: ComputerSpec,
    /// Since when it stands on the reclaim list: no agent owns it, and it is to be removed.
    pub reclaim_since: Option<Timestamp>,
    /// Whether its volume stays when it is removed, because another computer has it.
    pub keep_volume: bool,
    /// Whether the engine may have been at work for a start of it when it was put on the reclaim list, and make it, and
    /// its volume, once more.
    #[serde(default)]
    pub unsettled: bool,
    /// Whether its engine limits the disk of its volume. Where it does not, its program measures it.
    #[serde(default)]
    pub disk_limit: bool,
}

impl Computer {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ComputerId {
        self.spec.id
    }
}
