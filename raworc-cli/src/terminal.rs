//! The terminal: questions, passwords, size, raw mode.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Context;
use raworc_core::program::TerminalSize;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use secrecy::SecretString;

use crate::exit::Silent;

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// Whether a person types at standard input.
#[must_use]
pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// How large the terminal is, where standard output is one.
#[must_use]
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(TerminalSize { rows: size.ws_row.max(1), cols: size.ws_col.max(1) })
}

/// Sets the terminal's ways back when it is dropped.
#[derive(Debug)]
pub struct Restore {
    before: Termios,
}

impl Restore {
    /// Passes every key on as it is, Ctrl-C too.
    ///
    /// # Errors
    /// Where standard input is no terminal.
    pub fn raw() -> anyhow::Result<Self> {
        Self::change(Termios::make_raw)
    }

    /// Shows nothing of what is typed.
    ///
    /// # Errors
    /// Where standard input is no terminal.
    pub fn without_echo() -> anyhow::Result<Self> {
        Self::change(|modes| {
            modes.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
            modes.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
            // Ctrl-C ends the line instead of the process, which would leave the terminal without echo.
            modes.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        })
    }

    fn change(change: impl FnOnce(&mut Termios)) -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("standard input is no terminal")?;
        let mut modes = before.clone();
        change(&mut modes);
        tcsetattr(&stdin, OptionalActions::Now, &modes).context("the terminal cannot be set up")?;
        Ok(Self { before })
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Asks for a password without showing it; from a pipe, its first line is taken.
///
/// # Errors
/// Where standard input is closed.
pub fn ask_password(question: &str) -> anyhow::Result<SecretString> {
    const NONE: &str = "no password came on standard input; give one, or use --password-file";
    if !stdin_is_terminal() {
        return Ok(SecretString::from(read_line()?.context(NONE)?));
    }
    let mut err = std::io::stderr().lock();
    write!(err, "{question}: ").and_then(|()| err.flush()).context("cannot ask for the password")?;
    let _echo = Restore::without_echo()?;
    let mut stdin = std::io::stdin().lock();
    // A terminal gives one line a read, so that the line that Ctrl-C ended is seen at once.
    let line = stdin.fill_buf().context("cannot read standard input")?.to_vec();
    stdin.consume(line.len());
    match line.as_slice() {
        [] => Err(anyhow::anyhow!(NONE)),
        [.., INTERRUPT] => Err(Silent(130).into()),
        line => Ok(SecretString::from(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned())),
    }
}

/// Asks a question that is answered by y or n; nothing is no.
///
/// # Errors
/// Where standard input cannot be read.
pub fn confirm(question: &str) -> anyhow::Result<bool> {
    let mut err = std::io::stderr().lock();
    write!(err, "{question} [y/N] ").and_then(|()| err.flush()).context("cannot ask")?;
    let answer = read_line()?.unwrap_or_default();
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn read_line() -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).context("cannot read standard input")?;
    Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}
