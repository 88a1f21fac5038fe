//! What the engine answers, as what the caller is told.

use std::time::Duration;

use bollard::errors::Error;
use raworc_core::runtime::RuntimeError;

/// The engine's status where what was asked for is not there.
pub(super) const NOT_FOUND: u16 = 404;

/// The engine's status where something is in the way.
pub(super) const CONFLICT: u16 = 409;

/// The engine's status of an answer; `None` where there was none.
pub(super) const fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

pub(super) const fn is_missing(error: &Error) -> bool {
    matches!(status(error), Some(NOT_FOUND))
}

/// Whether a container cannot be started because what is below the engine still counts an earlier start of it, which the
/// engine itself has forgotten. It says so in words alone, and comes to it where it is killed in the middle of a start.
pub(super) fn is_stuck(error: &Error) -> bool {
    match error {
        Error::DockerResponseServerError { message, .. } => {
            // Newer engines say first what they were at.
            let message = message.strip_prefix("failed to create task for container: ").unwrap_or(message);
            // The task and the directory of its shim are containerd's, the id that of what it runs containers with.
            message.starts_with("task ") && message.ends_with(": already exists")
                || message.starts_with("failed to start shim: mkdir ") && message.contains(": file exists")
                || message == "id already in use"
        }
        _ => false,
    }
}

/// `None` where what was asked for is not there.
pub(super) fn if_there<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of a call that was to do `what`.
pub(super) fn of(what: &'static str) -> impl Fn(Error) -> RuntimeError {
    move |error| match error {
        Error::DockerResponseServerError { status_code: 502..=504, message } => RuntimeError::Unavailable(message),
        // It is not the engine that the version was agreed on with. The next call agrees on another one.
        Error::DockerResponseServerError { status_code: 400, message } if message.starts_with("client version ") => {
            RuntimeError::Unavailable(message)
        }
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message }
            if is_full(&message) =>
        {
            let way_out = "make room on the engine's machine; `docker system df` shows what takes it";
            RuntimeError::Full { what, reason: format!("{message}; {way_out}") }
        }
        // The engine says 500 of what it cannot do now and of what it never can.
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            RuntimeError::Refused { what, reason: message }
        }
        Error::RequestTimeoutError => RuntimeError::TimedOut { what, limit: LIMIT },
        error => RuntimeError::Unavailable(root(&error)),
    }
}

/// Whether this tells of a full disk, in the words of the kernel.
fn is_full(message: &str) -> bool {
    ["no space left on device", "disk quota exceeded"].iter().any(|words| message.contains(words))
}

/// How long the engine may take to begin an answer. Most callers have limits of their own, which are shorter; a start and an
/// upload go on without theirs, and have this one alone.
pub(super) const LIMIT: Duration = Duration::from_secs(900);

/// What is behind an error, and not what stands before it.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_way_out_and_is_not_what_the_engine_never_does() {
        let told = |message: &str| {
            of("make a volume")(Error::DockerResponseServerError { status_code: 500, message: message.into() })
        };
        let full = told("mkdir /var/lib/docker/volumes/raworc-1: no space left on device");
        assert!(matches!(&full, RuntimeError::Full { reason, .. } if reason.contains("docker system df")), "{full:?}");
        assert!(matches!(told("invalid mount config"), RuntimeError::Refused { .. }));
    }
    #[test]
    fn a_container_that_can_never_start_again_is_known_by_what_the_engine_says_of_it() {
        let stuck =
            |message: &str| is_stuck(&Error::DockerResponseServerError { status_code: 500, message: message.into() });
        assert!(stuck("task 0a1b2c: already exists"));
        assert!(stuck("id already in use"));
        assert!(stuck(
            "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/0a: file exists: unknown"
        ));
        assert!(!stuck(
            "failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/0a: no space left on device"
        ));
        assert!(stuck("failed to create task for container: task 0a1b2c: already exists"));
        assert!(stuck(
            "failed to create task for container: failed to start shim: mkdir /run/containerd/io.containerd.runtime.v2.task/moby/0a: file exists"
        ));
        assert!(!stuck("driver failed programming external connectivity: id already in use"));
        assert!(!stuck("network 0a1b2c not found"));
    }
}
