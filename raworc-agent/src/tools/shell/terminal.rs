//! The terminal on which the shell's commands run.
//!
//! Commands see a terminal, so they print as they go and lay tables out for its width. It is nobody's controlling
//! terminal: the end of one shell would send a hangup to the background jobs that are to live on, and a program that
//! asks for a password past its standard input fails at once instead of waiting for somebody to type.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pty_process::Pty;
use rustix::termios::{self, OptionalActions, SpecialCodeIndex, Termios};

use crate::terminal;

/// Wide enough that listings are not cut.
const SIZE: (u16, u16) = (50, 200);

/// A new terminal: the end from which its output is read, and the end that commands hold.
pub(super) fn open() -> io::Result<(Pty, OwnedFd)> {
    let (rows, columns) = SIZE;
    let (terminal, end) = terminal::open(rows, columns)?;
    calm(terminal.as_fd())?;
    Ok((terminal, end.as_fd().try_clone_to_owned()?))
}

/// Puts it into its quiet state, whatever a command has made of it: what is printed comes out as it is, nothing is
/// echoed, and who reads finds the end of input at once, because nobody types.
pub(super) fn calm(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let mut state: Termios = termios::tcgetattr(terminal)?;
    state.make_raw();
    state.special_codes[SpecialCodeIndex::VMIN] = 0;
    state.special_codes[SpecialCodeIndex::VTIME] = 0;
    Ok(termios::tcsetattr(terminal, OptionalActions::Now, &state)?)
}
