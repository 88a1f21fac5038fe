//! How a computer is, by what the engine says of its container.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status};
use raworc_core::ids::ComputerId;
use raworc_core::runtime::{LimitsReached, Observed, Phase, StartId};

/// The time of a start that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The identity of the container's present or last start; `None` before the first.
pub(super) fn start_id(container: &ContainerInspectResponse) -> Option<StartId> {
    let started_at = started_at(container)?;
    Some(StartId(format!("{}@{started_at}", container.id.as_deref()?)))
}

/// When its present or last start was, as the engine writes it.
pub(super) fn started_at(container: &ContainerInspectResponse) -> Option<&str> {
    container.state.as_ref()?.started_at.as_deref().filter(|at| *at != NEVER && !at.is_empty())
}

pub(super) fn is_running(container: &ContainerInspectResponse) -> bool {
    match container.state.as_ref().and_then(|state| state.status) {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => true,
        Some(Status::EMPTY | Status::CREATED | Status::REMOVING | Status::EXITED | Status::DEAD) | None => false,
    }
}

/// Whether its removal was begun and not finished.
pub(super) fn is_dead(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.status) == Some(Status::DEAD)
}

pub(super) fn observed(computer: ComputerId, container: &ContainerInspectResponse) -> Observed {
    let state = container.state.as_ref();
    let phase = match start_id(container) {
        Some(start) if is_running(container) => Phase::Running(start),
        Some(_) => Phase::Stopped { reason: state.map(ended) },
        None => Phase::Stopped { reason: None },
    };
    let mut reached = LimitsReached::default();
    reached.memory = state.and_then(|state| state.oom_killed).unwrap_or(false);
    Observed { computer, phase, reached }
}

fn ended(state: &ContainerState) -> String {
    let error = state.error.as_deref().filter(|error| !error.is_empty());
    match (error, state.oom_killed, state.exit_code) {
        (Some(error), ..) => error.into(),
        // Any process of it may have been ended for memory; the program itself was, if it was killed.
        (None, Some(true), Some(137)) => "out of memory".into(),
        (None, _, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}
