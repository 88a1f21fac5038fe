//! What a caller of the control plane is told when something cannot be done.

use std::time::Duration;

use crate::agent::{Denial, InvalidSpec, State};
use crate::ids::{AgentName, Incarnation, InvalidName, MessageId, Revision, TenantName};
use crate::labels::InvalidLabel;
use crate::message::MessageState;
use crate::principal::Denied;
use crate::store::{Conflict, QuotaKind, StoreError};

/// Why a use case of the [`ControlPlane`](crate::control::ControlPlane) was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not there, or the caller may not know of it.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The caller is known and may not do that.
    #[error("{principal} may not {action} {resource}")]
    Forbidden {
        /// Who.
        principal: String,
        /// What they wanted to do.
        action: &'static str,
        /// To what.
        resource: String,
    },
    /// The caller is not known: wrong password, bad or revoked token.
    #[error("not logged in: {reason}")]
    Unauthenticated {
        /// Why.
        reason: &'static str,
    },
    /// The program belongs to a start that is over. It ends itself.
    #[error("this start of the computer is over: the present one is {present}")]
    StaleIncarnation {
        /// The present incarnation.
        present: Incarnation,
    },
    /// What was given cannot be taken.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field or parameter at fault.
        field: String,
        /// What is wrong with it and what would be taken.
        reason: String,
    },
    /// The name is in use.
    #[error("an agent named {0} exists already; choose another name, or delete that one")]
    NameTaken(AgentName),
    /// The thing changed since the caller read it.
    #[error("generation {wanted} was expected and {found} found; read it again and repeat the change")]
    GenerationMismatch {
        /// What the caller saw.
        wanted: u64,
        /// What is.
        found: u64,
    },
    /// The agent sleeps and the call asked not to wake it.
    #[error("agent {0} is asleep; wake it, or leave out wake=false")]
    AgentAsleep(AgentName),
    /// Its computer cannot be started, and waiting does not mend that.
    #[error("agent {name} does not start ({reason}): {message}; change its spec, or try again with wake --retry")]
    StartFailed {
        /// The agent.
        name: AgentName,
        /// One word for it: the reason of its condition `Ready`.
        reason: String,
        /// What is the matter.
        message: String,
    },
    /// The agent's state does not allow it.
    #[error("not while the agent is {state}: {denial}")]
    AgentState {
        /// The state.
        state: State,
        /// Why not.
        denial: Denial,
    },
    /// The message's state does not allow it.
    #[error("message {id} is {state}")]
    MessageState {
        /// Which message.
        id: MessageId,
        /// How it is.
        state: MessageState,
    },
    /// The program does not hold the message that it reports on, or not any more.
    #[error("message {0} is not in the agent's hand, or not any more; leave it")]
    NotHeld(MessageId),
    /// Too many messages wait, or messages that are too large in all.
    #[error("{limit} {unit} wait for agent {name} already; wait until some messages are done, or cancel them")]
    InboxFull {
        /// The agent.
        name: AgentName,
        /// The limit that was reached.
        limit: u64,
        /// Of what: `messages`, or `bytes` of their text.
        unit: &'static str,
    },
    /// A quota is used up.
    #[error("tenant {tenant} has used its quota of {limit} {kind}; delete some, or ask for more")]
    QuotaExceeded {
        /// Whose.
        tenant: TenantName,
        /// Of what.
        kind: QuotaKind,
        /// The limit.
        limit: u64,
    },
    /// The key of idempotency stands for another request.
    #[error("this Idempotency-Key was used for another request; use a new one")]
    IdempotencyMismatch,
    /// The caller's time is over; what it asked for may still happen.
    #[error("{what} did not happen within {limit:?}; it is not lost: look again")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// The program in the computer cannot be reached now.
    #[error("the computer of agent {name} cannot be reached: {reason}")]
    Unreachable {
        /// The agent.
        name: AgentName,
        /// Why.
        reason: String,
    },
    /// Something else changed at the same time, again and again.
    #[error("others changed the same thing at the same time; try again")]
    Contended(#[source] Conflict),
    /// There is no room to keep what was to be changed.
    #[error("the disk of the server is full, so nothing was changed; free some room there and try again")]
    DiskFull(#[source] StoreError),
    /// The log of events does not go back so far any more, or went back before that.
    #[error("the log goes on at revision {oldest}: read what there is now, and go on from there")]
    Gone {
        /// The first revision that is kept, or that is to come.
        oldest: Revision,
    },
    /// The store did not do its part.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// Something that should not be: a sealed record that cannot be opened, a user without a password.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Every [code](Self::code) that there is.
    pub const CODES: [&str; 22] = [
        "not_found",
        "forbidden",
        "unauthenticated",
        "stale_incarnation",
        "invalid",
        "name_taken",
        "generation_mismatch",
        "agent_asleep",
        "start_failed",
        "agent_state",
        "message_state",
        "not_held",
        "inbox_full",
        "quota_exceeded",
        "idempotency_mismatch",
        "timed_out",
        "unreachable",
        "contended",
        "disk_full",
        "gone",
        "store_unavailable",
        "internal",
    ];

    /// A word for programs, the same in every release.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Forbidden { .. } => "forbidden",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::StaleIncarnation { .. } => "stale_incarnation",
            Self::Invalid { .. } => "invalid",
            Self::NameTaken(_) => "name_taken",
            Self::GenerationMismatch { .. } => "generation_mismatch",
            Self::AgentAsleep(_) => "agent_asleep",
            Self::StartFailed { .. } => "start_failed",
            Self::AgentState { .. } => "agent_state",
            Self::MessageState { .. } => "message_state",
            Self::NotHeld(_) => "not_held",
            Self::InboxFull { .. } => "inbox_full",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::TimedOut { .. } => "timed_out",
            Self::Unreachable { .. } => "unreachable",
            Self::Contended(_) => "contended",
            Self::DiskFull(_) => "disk_full",
            Self::Gone { .. } => "gone",
            Self::Store(_) => "store_unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::InboxFull { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Contended(_)
            | Self::DiskFull(_) => true,
            Self::Store(error) => error.is_retryable(),
            Self::NotFound { .. }
            | Self::Forbidden { .. }
            | Self::Unauthenticated { .. }
            | Self::StaleIncarnation { .. }
            | Self::Invalid { .. }
            | Self::NameTaken(_)
            | Self::GenerationMismatch { .. }
            | Self::AgentAsleep(_)
            | Self::StartFailed { .. }
            | Self::AgentState { .. }
            | Self::MessageState { .. }
            | Self::NotHeld(_)
            | Self::QuotaExceeded { .. }
            | Self::IdempotencyMismatch
            | Self::Gone { .. }
            | Self::Internal(_) => false,
        }
    }

    pub(crate) fn no_agent(name: impl ToString) -> Self {
        Self::NotFound { what: "agent", name: name.to_string() }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

impl From<InvalidSpec> for Error {
    fn from(error: InvalidSpec) -> Self {
        Self::invalid(format!("spec.{}", error.field), error.reason)
    }
}

impl From<InvalidName> for Error {
    fn from(error: InvalidName) -> Self {
        Self::invalid(error.what, error.to_string())
    }
}

impl From<InvalidLabel> for Error {
    fn from(error: InvalidLabel) -> Self {
        Self::invalid("labels", error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(conflict) => conflict.into(),
            StoreError::Gone { oldest } => Self::Gone { oldest },
            full @ StoreError::Full { .. } => Self::DiskFull(full),
            // What cannot be kept came with the request.
            StoreError::Refused { reason } => Self::invalid("request", format!("it cannot be kept: {reason}")),
            other => Self::Store(other),
        }
    }
}

impl From<Conflict> for Error {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::NoAgent(id) => Self::no_agent(id),
            Conflict::NameTaken(name) => Self::NameTaken(name),
            Conflict::Generation { wanted, found } => Self::GenerationMismatch { wanted, found },
            Conflict::StaleIncarnation { found, .. } => Self::StaleIncarnation { present: found },
            Conflict::Denied { state, denial } => Self::AgentState { state, denial },
            Conflict::NoMessage(id) => Self::NotFound { what: "message", name: id.to_string() },
            Conflict::NotHeld(id) => Self::NotHeld(id),
            Conflict::MessageState { id, state } => Self::MessageState { id, state },
            Conflict::Quota { tenant, kind, limit } => Self::QuotaExceeded { tenant, kind, limit },
            Conflict::IdempotencyMismatch => Self::IdempotencyMismatch,
            Conflict::BootKey => Self::Unauthenticated { reason: "the boot key is not good, or was used before" },
            Conflict::Unconditional(id) => Self::Internal(Conflict::Unconditional(id).to_string()),
            other => Self::Contended(other),
        }
    }
}

/// What a refusal is for a caller who asked for `what` named `name`.
pub(crate) fn refusal(
    denied: Denied,
    principal: &crate::principal::Principal,
    action: &'static str,
    what: &'static str,
    name: &str,
) -> Error {
    match denied {
        Denied::Hidden => Error::NotFound { what, name: name.to_owned() },
        Denied::Forbidden => {
            Error::Forbidden { principal: principal.to_string(), action, resource: format!("{what} {name:?}") }
        }
        Denied::StaleIncarnation { present } => Error::StaleIncarnation { present },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_list_of_codes() {
        let source = include_str!("error.rs");
        let (_, arms) = source.split_once("pub const fn code").expect("the function is here");
        let (arms, _) = arms.split_once("/// Whether").expect("another function follows");
        let codes: Vec<_> = arms.split("=> \"").skip(1).map(|arm| arm.split('"').next().expect("quoted")).collect();
        assert_eq!(codes, Error::CODES);
    }
}
