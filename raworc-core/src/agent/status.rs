//! What is: written by the transition function and by the ops of a commit alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::condition::{Condition, ConditionKind, Conditions};
use super::state::State;
use crate::ids::{ComputerId, Incarnation, MessageId, ProcessId};
use crate::runtime::StartId;

/// After this long without a heartbeat, during which a server could have received one, a program counts as lost.
///
/// It counts from [`heard_at`](Status::heard_at). Servers write heartbeats down together every 10 s, so that this may be
/// later than the program was last heard, and one that would be the first in 15 s at once, so that it is never earlier than
/// a heartbeat that came in time.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// What is known of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    pub(super) state: State,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Counts changes of the status, so that a writer can say which one it saw.
    pub version: u64,
    /// The number of its computer's latest start.
    pub incarnation: Incarnation,
    /// Its computer.
    pub computer: Option<ComputerId>,
    /// The generation that its computer's latest start took account of.
    pub observed_generation: u64,
    /// What is worth knowing beside the state.
    pub conditions: Conditions,
    /// It is not put to sleep by time before this.
    pub awake_until: Option<Timestamp>,
    /// When its program was last heard.
    pub heard_at: Option<Timestamp>,
    /// Until when somebody asked to keep it awake.
    pub keep_awake_until: Option<Timestamp>,
    /// Starts that failed one after another, or programs that were lost; 0 after a message was done.
    pub restarts: u32,
    /// When the next start is tried.
    pub retry_at: Option<Timestamp>,
    /// The message that it works on.
    pub message: Option<MessageId>,
    /// When that message has taken too long.
    pub busy_until: Option<Timestamp>,
    /// When a cancel that was asked for counts as not obeyed.
    pub cancel_by: Option<Timestamp>,
    /// The latest start, until the engine has confirmed its end.
    pub run: Option<Run>,
    /// Whether its program has ever run. From then on its volume has to be there.
    #[serde(default)]
    pub has_booted: bool,
    /// The setup script that was run last.
    pub setup: Option<SetupRecord>,
    /// What is kept of the log of the start that died last.
    #[serde(default)]
    pub kept_log: Option<KeptLog>,
    /// Whether a start of its computer was given up without an answer, and none was answered since: the engine may make
    /// the computer yet.
    #[serde(default)]
    pub unsettled: bool,
    /// Up to when moves of the store's clock are known that its times moved along with: an operator that sees the same move
    /// after another has nothing to do.
    #[serde(default)]
    pub clock_known_at: Option<Timestamp>,
}

impl Status {
    /// The status of an agent that was just made.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: State::Init,
            since: now,
            version: 1,
            incarnation: Incarnation::default(),
            computer: None,
            observed_generation: 0,
            conditions: Conditions::default(),
            awake_until: None,
            heard_at: None,
            keep_awake_until: None,
            restarts: 0,
            retry_at: None,
            message: None,
            busy_until: None,
            cancel_by: None,
            run: None,
            has_booted: false,
            setup: None,
            kept_log: None,
            unsettled: false,
            clock_known_at: None,
        }
    }

    /// Whether the engine may still make its computer because of a start that it has not answered.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled || self.run.as_ref().is_some_and(Run::is_unanswered)
    }

    /// Where in its life the agent is. Only the transition function changes it.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Enters a state that [`State::on`] decided on.
    pub(crate) const fn state_moved(&mut self, to: State) {
        self.state = to;
        self.version += 1;
    }

    /// Sets a condition as it is now.
    pub(crate) fn set_condition(
        &mut self,
        kind: ConditionKind,
        status: bool,
        reason: &str,
        message: &str,
        since: Timestamp,
    ) {
        self.conditions.set(Condition { kind, status, reason: reason.to_owned(), message: message.to_owned(), since });
    }

    /// When a program that stays silent counts as lost.
    #[must_use]
    pub fn heartbeat_due(&self) -> Option<Timestamp> {
        self.heard_at.map(|heard| heard + SignedDuration::try_from(HEARTBEAT_LIMIT).unwrap_or_default())
    }
}

/// One start of a computer, from the commit that decides on it until the engine has confirmed its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Its fencing number.
    pub incarnation: Incarnation,
    /// When it was decided on.
    pub began_at: Timestamp,
    /// The operator that decided on it: it alone has the key, and nobody gives the start up while it lives.
    #[serde(default)]
    pub operator: Option<ProcessId>,
    /// When it counts as failed if its program is not ready by then.
    pub deadline: Timestamp,
    /// The engine's own identity of this start, once known.
    pub start_id: Option<StartId>,
    /// SHA-256 of the one-time key in hexadecimal, until the program has traded it in.
    pub key_hash: Option<String>,
    /// When its program traded the key for a token.
    pub booted_at: Option<Timestamp>,
    /// When its program was ready for messages.
    pub ready_at: Option<Timestamp>,
    /// The setup script that its program was told to run.
    #[serde(default)]
    pub setup: Option<SetupRun>,
    /// Bytes of the steps that it took since its last message was leased, or since it began; bounded by
    /// [`STEPS_TOTAL`](crate::step::STEPS_TOTAL).
    #[serde(default)]
    pub step_bytes: u64,
    /// Whether it is to be stopped, whatever it does.
    pub ending: bool,
    /// Whether the engine is not at work for this start any more, though it has not said that it started.
    #[serde(default)]
    pub settled: bool,
    /// Whether it died, so that the end of its log is to be kept.
    #[serde(default)]
    pub log_wanted: bool,
}

impl Run {
    pub(crate) const fn is_unanswered(&self) -> bool {
        self.start_id.is_none() && self.booted_at.is_none() && !self.settled
    }
}

/// A setup script in the hands of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetupRun {
    /// SHA-256 of the script's text, in hexadecimal.
    pub hash: String,
    /// When the program was told to run it. The time of the start counts from here on.
    pub began_at: Timestamp,
}

/// The setup script that was run last on a computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetupRecord {
    /// On which computer.
    pub computer: ComputerId,
    /// SHA-256 of the script's text, in hexadecimal.
    pub hash: String,
    /// The last 4 KiB of its output where it failed.
    pub failure: Option<String>,
}

/// What is kept of the log of a start that is over. The text stands apart, and goes with the agent or with the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptLog {
    /// Which start.
    pub incarnation: Incarnation,
    /// When it was found dead, or the next one began.
    pub at: Timestamp,
    /// Bytes that are kept, from the end of the log.
    pub bytes: u64,
}

/// What waits for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inbox {
    /// The number of the last message of this agent, of whatever role.
    pub last_seq: u64,
    /// Messages that are queued.
    pub queued: u64,
    /// Bytes of their text.
    #[serde(default)]
    pub queued_bytes: u64,
    /// The number of the last step.
    pub last_step: u64,
}
