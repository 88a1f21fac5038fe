//! Preconditions of an agent's row.

use jiff::Timestamp;

use crate::agent::{Agent, Desired, State};
use crate::store::commit::{Check, Conflict};

impl Check {
    pub(super) fn on(&self, agent: &Agent, now: Timestamp) -> Result<(), Conflict> {
        let status = &agent.status;
        let queued = agent.inbox.queued;
        let refused = match *self {
            // Decided when the row was looked for.
            Self::Absent => None,
            Self::Alive => (status.state() == State::Deleted || agent.desired == Desired::Deleted)
                .then_some(Conflict::NoAgent(agent.id)),
            Self::Generation(wanted) => {
                (wanted != agent.generation).then_some(Conflict::Generation { wanted, found: agent.generation })
            }
            Self::Status(wanted) => {
                (wanted != status.version).then_some(Conflict::Status { wanted, found: status.version })
            }
            Self::Incarnation(wanted) => (wanted != status.incarnation)
                .then_some(Conflict::StaleIncarnation { wanted, found: status.incarnation }),
            Self::Desired(wanted) => (wanted != agent.desired).then_some(Conflict::Desired { found: agent.desired }),
            Self::NothingToDo => agent.has_work().then_some(Conflict::InboxNotEmpty(queued)),
            Self::InboxBelow(limit) => (queued >= limit).then_some(Conflict::InboxFull(limit)),
            Self::InboxBytesBelow(limit) => {
                (agent.inbox.queued_bytes >= limit).then_some(Conflict::InboxBytesFull(limit))
            }
            Self::Quiet => status.awake_until.filter(|until| *until > now).map(Conflict::NotQuiet),
            Self::SilentSince(heard) => status.heard_at.filter(|at| Some(*at) > heard).map(Conflict::Heard),
            Self::Holds(id) => (status.message != Some(id)).then_some(Conflict::NotHeld(id)),
            Self::Without(kind) => status.conditions.holds(kind).then_some(Conflict::Condition(kind)),
        };
        refused.map_or(Ok(()), Err)
    }
}
