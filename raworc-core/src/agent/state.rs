//! The agent's state machine: one enum, one pure function, three answers.
//!
//! ```text
//!            Ready            Leased
//!  init ───────────────▶ idle ◀─────▶ busy
//!   ▲ ▲◀────── Lost ───────┘  Ended    │
//!   │ └◀── Lost, BusyExpired, CancelIgnored
//!   │ WakeAsked          │ SleepAsked, IdleExpired
//!   └────────── slept ◀──┘                       any ── DeleteAsked ──▶ deleted
//! ```
//!
//! **init**: a computer is being started, or waits to be tried again.
//! **idle**: its program runs and has no message.
//! **busy**: its program holds one message.
//! **slept**: it holds nothing and leases nothing; its computer is stopped or about to be.
//! **deleted**: nothing of it is served; its computer waits to be reclaimed.

use serde::{Deserialize, Serialize};

use crate::ids::MessageId;

/// Where in its life an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A computer is being started, or waits to be tried again.
    Init,
    /// Its program runs and has no message.
    Idle,
    /// Its program holds one message.
    Busy,
    /// Its computer is stopped or about to be; every file is kept.
    Slept,
    /// Nothing of it is served any more.
    Deleted,
}

impl State {
    /// All states, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Init, Self::Idle, Self::Busy, Self::Slept, Self::Deleted];

    /// The word for it in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Slept => "slept",
            Self::Deleted => "deleted",
        }
    }

    /// Whether a program runs that can be called.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Idle | Self::Busy)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a state: use init, idle, busy, slept or deleted"))
    }
}

/// What happens to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentEvent {
    /// Its computer is up, its program has booted, and its setup is done.
    Ready,
    /// A start failed, for the reason given: it took too long, the engine refused it, its setup failed.
    StartFailed,
    /// Sleep was asked for.
    SleepAsked,
    /// Its time without activity is over.
    IdleExpired,
    /// Its program took a message.
    Leased(MessageId),
    /// The message that it held ended, or was parked.
    Ended,
    /// The message that it held took too long.
    BusyExpired,
    /// A cancel was not obeyed in time.
    CancelIgnored,
    /// Its program or its computer is gone.
    Lost,
    /// A message, a wake or a call needs its computer.
    WakeAsked,
    /// Delete was asked for.
    DeleteAsked,
}

impl AgentEvent {
    /// One event of each kind.
    #[must_use]
    pub const fn all(message: MessageId) -> [Self; 11] {
        [
            Self::Ready,
            Self::StartFailed,
            Self::SleepAsked,
            Self::IdleExpired,
            Self::Leased(message),
            Self::Ended,
            Self::BusyExpired,
            Self::CancelIgnored,
            Self::Lost,
            Self::WakeAsked,
            Self::DeleteAsked,
        ]
    }
}

/// What must be done along with a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The present run is to be stopped.
    EndRun,
    /// The next start waits its turn.
    BackOff,
    /// The message in hand is queued again, or fails after three attempts.
    RequeueMessage,
    /// The message in hand has failed.
    FailMessage,
    /// The message in hand is cancelled.
    CancelMessage,
    /// Every message that has not ended is cancelled.
    CancelInbox,
    /// Its computer and volume go on the reclaim list.
    Reclaim,
}

/// Why an event cannot happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// Its program is not ready.
    #[error("its computer is not up yet")]
    NotUp,
    /// A computer is being started, or runs, already.
    #[error("its computer is up, or about to be")]
    Up,
    /// It holds a message.
    #[error("it works on a message")]
    MessageInHand,
    /// It sleeps.
    #[error("it is asleep")]
    Asleep,
    /// It is deleted.
    #[error("it is deleted")]
    Deleted,
}

/// The answer of the transition function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go to `to`, along with the effects.
    Move {
        /// The state after the event.
        to: State,
        /// What must be done with it.
        effects: &'static [Effect],
    },
    /// Nothing changes: the event tells nothing new.
    Ignore,
    /// The event cannot happen in this state.
    Deny(Denial),
}

impl State {
    /// What an event does in this state.
    #[must_use]
    #[warn(clippy::wildcard_enum_match_arm)]
    pub const fn on(self, event: &AgentEvent) -> Decision {
        use AgentEvent as E;
        use Decision::{Deny, Ignore};
        use Effect::{BackOff, CancelInbox, CancelMessage, EndRun, FailMessage, Reclaim, RequeueMessage};
        const fn go(to: State, effects: &'static [Effect]) -> Decision {
            Decision::Move { to, effects }
        }
        match self {
            Self::Init => match event {
                E::Ready => go(Self::Idle, &[]),
                E::StartFailed | E::Lost => go(Self::Init, &[EndRun, BackOff]),
                E::SleepAsked => go(Self::Slept, &[EndRun]),
                E::DeleteAsked => go(Self::Deleted, &[EndRun, CancelInbox, Reclaim]),
                E::Leased(_) => Deny(Denial::NotUp),
                E::IdleExpired | E::Ended | E::BusyExpired | E::CancelIgnored | E::WakeAsked => Ignore,
            },
            Self::Idle => match event {
                E::Leased(_) => go(Self::Busy, &[]),
                E::SleepAsked | E::IdleExpired => go(Self::Slept, &[EndRun]),
                E::Lost => go(Self::Init, &[EndRun, BackOff]),
                E::DeleteAsked => go(Self::Deleted, &[EndRun, CancelInbox, Reclaim]),
                E::Ready | E::StartFailed | E::Ended | E::BusyExpired | E::CancelIgnored | E::WakeAsked => Ignore,
            },
            Self::Busy => match event {
                E::Ended => go(Self::Idle, &[]),
                E::BusyExpired => go(Self::Init, &[EndRun, FailMessage]),
                E::CancelIgnored => go(Self::Init, &[EndRun, CancelMessage]),
                E::Lost => go(Self::Init, &[EndRun, RequeueMessage, BackOff]),
                E::DeleteAsked => go(Self::Deleted, &[EndRun, CancelInbox, Reclaim]),
                E::Leased(_) | E::SleepAsked | E::IdleExpired => Deny(Denial::MessageInHand),
                E::Ready | E::StartFailed | E::WakeAsked => Ignore,
            },
            Self::Slept => match event {
                E::WakeAsked => go(Self::Init, &[]),
                E::DeleteAsked => go(Self::Deleted, &[EndRun, CancelInbox, Reclaim]),
                E::Ready | E::Leased(_) => Deny(Denial::Asleep),
                E::StartFailed
                | E::SleepAsked
                | E::IdleExpired
                | E::Ended
                | E::BusyExpired
                | E::CancelIgnored
                | E::Lost => Ignore,
            },
            Self::Deleted => match event {
                E::Ready | E::Leased(_) | E::WakeAsked => Deny(Denial::Deleted),
                E::StartFailed
                | E::SleepAsked
                | E::IdleExpired
                | E::Ended
                | E::BusyExpired
                | E::CancelIgnored
                | E::Lost
                | E::DeleteAsked => Ignore,
            },
        }
    }
}

#[cfg(test)]
mod tests;
