//! Terminals that programs run on.

use std::io;

use pty_process::{Pts, Pty, Size};

/// A new terminal of so many rows and columns: our end, and the programs' end.
pub(crate) fn open(rows: u16, columns: u16) -> io::Result<(Pty, Pts)> {
    let (terminal, end) = pty_process::open().map_err(failed)?;
    terminal.resize(Size::new(rows, columns)).map_err(failed)?;
    Ok((terminal, end))
}

/// As the system said it.
pub(crate) fn failed(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_is_kept() {
        let full = failed(pty_process::Error::Rustix(rustix::io::Errno::NOSPC));
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let shut = failed(pty_process::Error::Io(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(shut.kind(), io::ErrorKind::PermissionDenied);
    }
}
