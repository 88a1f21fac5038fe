//! What goes over a connection to an engine in another process.

use std::time::Duration;

use raworc_core::ids::{ComputerId, VolumeId};
use raworc_core::runtime::{ComputerSpec, LimitsReached, Observed, Phase, RuntimeError, StartId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an engine is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum Ask {
    Ensure(ComputerSpec),
    Start { id: ComputerId, line: String },
    Stop { id: ComputerId, start: StartId, grace: Duration },
    Remove { id: ComputerId },
    Observe { id: ComputerId },
    List,
    Watch,
    Logs { id: ComputerId, tail: Option<u64> },
    HasVolume { id: VolumeId },
    RemoveVolume { id: VolumeId },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done(Value),
    NotFound(ComputerId),
    VolumeMissing(VolumeId),
    Refused(String),
    Unavailable(String),
}

impl From<RuntimeError> for Answer {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::NotFound(id) => Self::NotFound(id),
            RuntimeError::VolumeMissing(id) => Self::VolumeMissing(id),
            error if error.is_retryable() => Self::Unavailable(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<Answer> for Result<Value, RuntimeError> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done(value) => Ok(value),
            Answer::NotFound(id) => Err(RuntimeError::NotFound(id)),
            Answer::VolumeMissing(id) => Err(RuntimeError::VolumeMissing(id)),
            Answer::Refused(reason) => Err(RuntimeError::Refused { what: "do what it was asked", reason }),
            Answer::Unavailable(reason) => Err(RuntimeError::Unavailable(reason)),
        }
    }
}

/// A computer as it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    computer: ComputerId,
    /// Its start, and whether that is about to stop.
    start: Option<(StartId, bool)>,
    reason: Option<String>,
    reached: LimitsReached,
}

impl From<Observed> for Seen {
    fn from(Observed { computer, phase, reached }: Observed) -> Self {
        let (start, reason) = match phase {
            Phase::Running(start) => (Some((start, false)), None),
            Phase::Stopping(start) => (Some((start, true)), None),
            Phase::Stopped { reason } => (None, reason),
            Phase::Unfit { reason } => (None, Some(reason)),
        };
        Self { computer, start, reason, reached }
    }
}

impl From<Seen> for Observed {
    fn from(Seen { computer, start, reason, reached }: Seen) -> Self {
        let phase = match start {
            Some((start, false)) => Phase::Running(start),
            Some((start, true)) => Phase::Stopping(start),
            None => Phase::Stopped { reason },
        };
        Self { computer, phase, reached }
    }
}
