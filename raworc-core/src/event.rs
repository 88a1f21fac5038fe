//! Events: the log of everything that changed, one entry for each change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, AgentName, MessageId, Revision, TenantName};

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// An agent was made.
    #[serde(rename = "agent.created")]
    AgentCreated,
    /// Its owner changed its spec.
    #[serde(rename = "agent.edited")]
    AgentEdited,
    /// Its owner, a message or its idle time changed what it should be.
    #[serde(rename = "agent.desired")]
    AgentDesired,
    /// It went from one state to another.
    #[serde(rename = "agent.state")]
    AgentState,
    /// Something else about it is new: a start, a condition, a lease to keep it awake.
    #[serde(rename = "agent.status")]
    AgentStatus,
    /// A message was accepted.
    #[serde(rename = "message.accepted")]
    MessageAccepted,
    /// A message went from one state to another.
    #[serde(rename = "message.state")]
    MessageState,
    /// Somebody asked to cancel a message that is held.
    #[serde(rename = "message.cancel")]
    MessageCancel,
    /// The agent answered.
    #[serde(rename = "message.reply")]
    MessageReply,
    /// The agent took steps.
    #[serde(rename = "steps.added")]
    StepsAdded,
    /// A user, a key or a binding changed.
    #[serde(rename = "access.changed")]
    AccessChanged,
}

impl EventKind {
    /// The name of this kind, as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentCreated => "agent.created",
            Self::AgentEdited => "agent.edited",
            Self::AgentDesired => "agent.desired",
            Self::AgentState => "agent.state",
            Self::AgentStatus => "agent.status",
            Self::MessageAccepted => "message.accepted",
            Self::MessageState => "message.state",
            Self::MessageCancel => "message.cancel",
            Self::MessageReply => "message.reply",
            Self::StepsAdded => "steps.added",
            Self::AccessChanged => "access.changed",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its place in the log.
    pub revision: Revision,
    /// When it was committed.
    pub at: Timestamp,
    /// The tenant that it belongs to; none for what belongs to the installation.
    pub tenant: Option<TenantName>,
    /// What changed.
    pub kind: EventKind,
    /// The agent that it is about.
    pub agent: Option<AgentId>,
    /// That agent's name.
    pub name: Option<AgentName>,
    /// The message that it is about.
    pub message: Option<MessageId>,
    /// A few words more, under 1 KiB of JSON: states, reasons, numbers of steps.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub summary: serde_json::Value,
}
