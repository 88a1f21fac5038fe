//! What clients were answered, to be held against what is in the end.

use std::collections::BTreeMap;

use crate::ids::{AgentId, AgentName, MessageId, TenantName};

/// Every answer that binds.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// What was said to agents, and the message that it became where that is known.
    pub(super) sent: Vec<Sent>,
    /// Clients that go away in their next call, after so many polls.
    pub(super) leaving: BTreeMap<u64, u64>,
}

/// Something that was said to an agent, once or again and again under one key.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) tenant: TenantName,
    pub(super) name: AgentName,
    pub(super) text: String,
    /// The answer, where there was one.
    pub(super) accepted: Option<(AgentId, MessageId)>,
}
