//! Why a commit changed nothing.

use jiff::Timestamp;

use super::QuotaKind;
use crate::agent::{ConditionKind, Denial, Desired, State};
use crate::ids::{AgentId, AgentName, ComputerId, Incarnation, MessageId, TenantName};
use crate::message::MessageState;

/// A precondition that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The agent is not there.
    #[error("agent {0} is not there")]
    NoAgent(AgentId),
    /// A living agent has this name, or this id was used before.
    #[error("an agent named {0} exists already")]
    NameTaken(AgentName),
    /// Its owner changed something meanwhile.
    #[error("the generation is {found}, not {wanted}")]
    Generation {
        /// What the writer saw.
        wanted: u64,
        /// What is.
        found: u64,
    },
    /// Its status changed meanwhile.
    #[error("the version of the status is {found}, not {wanted}")]
    Status {
        /// What the writer saw.
        wanted: u64,
        /// What is.
        found: u64,
    },
    /// The writer belongs to another start than the present one.
    #[error("incarnation {wanted} is over: the present one is {found}")]
    StaleIncarnation {
        /// The writer's.
        wanted: Incarnation,
        /// The present one.
        found: Incarnation,
    },
    /// Its owner wants something else of it.
    #[error("the agent is to be {found:?}")]
    Desired {
        /// What is wanted.
        found: Desired,
    },
    /// Messages are queued.
    #[error("{0} messages are queued")]
    InboxNotEmpty(u64),
    /// No more messages can be queued.
    #[error("{0} messages are queued already, which is the limit")]
    InboxFull(u64),
    /// No more text can be queued.
    #[error("{0} bytes of text are queued already, which is the limit")]
    InboxBytesFull(u64),
    /// Something was active meanwhile.
    #[error("the agent is kept awake until {0}")]
    NotQuiet(Timestamp),
    /// Its program was heard meanwhile.
    #[error("the program was heard at {0}")]
    Heard(Timestamp),
    /// It does not hold that message.
    #[error("the agent does not hold message {0}")]
    NotHeld(MessageId),
    /// Such a condition holds.
    #[error("the agent is {0:?}")]
    Condition(ConditionKind),
    /// The transition function said no.
    #[error("not while {state}: {denial}")]
    Denied {
        /// The agent's state.
        state: State,
        /// Why not.
        denial: Denial,
    },
    /// The message is not there.
    #[error("message {0} is not there")]
    NoMessage(MessageId),
    /// The message's state does not allow it.
    #[error("message {id} is {state}")]
    MessageState {
        /// Which.
        id: MessageId,
        /// How it is.
        state: MessageState,
    },
    /// The one-time key was used before, or is not the right one.
    #[error("the boot key is not good, or was used before")]
    BootKey,
    /// The computer is not on the reclaim list.
    #[error("computer {0} is not to be reclaimed")]
    NotReclaimable(ComputerId),
    /// A quota would be exceeded.
    #[error("the quota of {limit} {kind} is used up in tenant {tenant}")]
    Quota {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        kind: QuotaKind,
        /// The limit.
        limit: u64,
    },
    /// The record changed meanwhile.
    #[error("{kind} {name:?} is at version {found}")]
    Record {
        /// What it is.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Its version; 0 where it is not there.
        found: u64,
    },
    /// The key of idempotency stands for another request.
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyMismatch,
    /// The commit names no precondition.
    #[error("a change of agent {0} names no precondition")]
    Unconditional(AgentId),
}
