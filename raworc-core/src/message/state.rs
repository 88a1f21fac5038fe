//! The message's state machine.
//!
//! ```text
//!  queued ──Lease──▶ leased ──Finish──▶ done
//!    ▲  ◀──Requeue───  │ ▲   ──Fail───▶ failed
//!    │             Park│ │Resume
//!    └─(three attempts)▼ │   ──Cancel─▶ cancelled
//!                    parked
//! ```

use serde::{Deserialize, Serialize};

use crate::ids::Incarnation;

/// How often a message is taken up before it fails.
pub const MAX_ATTEMPTS: u32 = 3;

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MessageState {
    /// Accepted; waits its turn.
    Queued,
    /// The agent's program holds it.
    Leased,
    /// It waits for an approval.
    Parked,
    /// Answered.
    Done,
    /// Ended without an answer, for the reason given.
    Failed,
    /// Ended because somebody asked for that.
    Cancelled,
}

impl MessageState {
    /// All states.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Leased, Self::Parked, Self::Done, Self::Failed, Self::Cancelled];

    /// The word for it in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Parked => "parked",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens to the message.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl std::fmt::Display for MessageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageEvent {
    /// The program of this incarnation took it up.
    Lease(Incarnation),
    /// It waits for an approval.
    Park,
    /// The approval came, to the program of this incarnation.
    Resume(Incarnation),
    /// Who held it is gone: it is queued again, or fails after the last attempt.
    Requeue {
        /// Why, for the record of a message that fails.
        reason: String,
    },
    /// It was answered.
    Finish,
    /// It ended without an answer.
    Fail {
        /// Why.
        reason: String,
    },
    /// It ended because somebody asked for that.
    Cancel {
        /// Who or what asked.
        reason: String,
    },
}

/// The answer of the transition function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageDecision {
    /// Go to this state.
    Move(MessageState),
    /// Nothing changes.
    Ignore,
    /// It cannot happen in this state.
    Deny,
}

impl MessageState {
    /// What an event does to a message in this state that was taken up `attempt` times.
    #[must_use]
    #[warn(clippy::wildcard_enum_match_arm)]
    pub const fn on(self, event: &MessageEvent, attempt: u32) -> MessageDecision {
        use MessageDecision::{Deny, Ignore, Move};
        use MessageEvent as E;
        let again = if attempt >= MAX_ATTEMPTS { Self::Failed } else { Self::Queued };
        match self {
            Self::Queued => match event {
                E::Lease(_) => Move(Self::Leased),
                E::Fail { .. } => Move(Self::Failed),
                E::Cancel { .. } => Move(Self::Cancelled),
                E::Requeue { .. } => Ignore,
                E::Park | E::Resume(_) | E::Finish => Deny,
            },
            Self::Leased => match event {
                E::Park => Move(Self::Parked),
                E::Requeue { .. } => Move(again),
                E::Finish => Move(Self::Done),
                E::Fail { .. } => Move(Self::Failed),
                E::Cancel { .. } => Move(Self::Cancelled),
                E::Lease(_) | E::Resume(_) => Deny,
            },
            Self::Parked => match event {
                E::Resume(_) => Move(Self::Leased),
                E::Requeue { .. } => Move(again),
                E::Fail { .. } => Move(Self::Failed),
                E::Cancel { .. } => Move(Self::Cancelled),
                E::Park => Ignore,
                E::Lease(_) | E::Finish => Deny,
            },
            Self::Done | Self::Failed | Self::Cancelled => match event {
                E::Requeue { .. } => Ignore,
                E::Lease(_) | E::Park | E::Resume(_) | E::Finish | E::Fail { .. } | E::Cancel { .. } => Deny,
            },
        }
    }
}

#[cfg(test)]
mod tests;
