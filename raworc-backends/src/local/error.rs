//! Errors of the system, as a [`RuntimeError`] that says what can be done.

use std::io;
use std::path::Path;

use raworc_core::runtime::RuntimeError;

/// Says what was tried and where.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, RuntimeError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, RuntimeError> {
        self.map_err(|error| from_io(what, &format!("{}: ", path.display()), &error.into()))
    }
}

/// What a person has to change is refused; what may pass is not.
pub(crate) fn from_io(what: &'static str, prefix: &str, error: &io::Error) -> RuntimeError {
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::Unsupported
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::NotADirectory => RuntimeError::Refused { what, reason: format!("{prefix}{error}") },
        _ => RuntimeError::Unavailable(format!("could not {what}: {prefix}{error}")),
    }
}

/// A refusal.
pub(crate) fn refused(what: &'static str, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Refused { what, reason: reason.into() }
}
