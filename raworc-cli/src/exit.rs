//! How the program ends: exit codes that scripts can rely on, and errors that name the way out.

mod refusal;

use std::fmt;
use std::process::ExitCode;

use raworc_http::client::ClientError;

use crate::output::talk::printable;

/// Why the program ends. The number is the same in every release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked.
    Ok = 0,
    /// It failed for a reason that has no number of its own.
    Failed = 1,
    /// The command line, the configuration or what was sent cannot be taken.
    Usage = 2,
    /// There is no such agent, message or file.
    NotFound = 3,
    /// Not logged in, or not allowed.
    Denied = 4,
    /// The name is taken, the thing changed meanwhile, or its state does not allow it.
    Conflict = 5,
    /// It did not happen in time. It may still happen.
    TimedOut = 6,
    /// The server cannot be reached.
    Unreachable = 7,
    /// The agent's work failed or was cancelled.
    WorkFailed = 8,
}

impl Exit {
    /// All of them, with what they mean, for help and documentation.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Ok, "done"),
        (Self::Failed, "failed"),
        (Self::Usage, "the command line, the configuration or what was sent cannot be taken"),
        (Self::NotFound, "there is no such agent, message or file"),
        (Self::Denied, "not logged in, or not allowed"),
        (Self::Conflict, "the name is taken, it changed meanwhile, or its state does not allow it"),
        (Self::TimedOut, "it did not happen in time, and may still happen"),
        (Self::Unreachable, "the server cannot be reached"),
        (Self::WorkFailed, "the agent's work failed or was cancelled"),
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error whose exit code and way out are known.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hints: Vec<String>,
    source: Option<anyhow::Error>,
}

impl Failure {
    /// A failure with a sentence for the user.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new(), source: None }
    }

    /// What it means to a person that a call of the server came to nothing.
    #[must_use]
    pub fn of(error: &ClientError) -> Self {
        refusal::failure(error)
    }

    /// With what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// With what brought it about.
    #[must_use]
    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Its exit code.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

/// Ends the program with this code and without a word: it was another program's, or nobody reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ended with exit code {0}")]
pub struct Silent(pub u8);

/// The exit code of an error.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit.code();
        }
        if let Some(silent) = cause.downcast_ref::<Silent>() {
            return silent.0;
        }
        if let Some(error) = refusal::in_cause(cause) {
            return Failure::of(error).exit.code();
        }
    }
    Exit::Failed.code()
}

/// The error as it is shown: what failed, each cause on a line of its own, and what to do about it.
#[must_use]
pub fn render(error: &anyhow::Error, error_word: &str, hint_word: &str) -> String {
    let (mut lines, mut hints) = (Vec::new(), Vec::new());
    let mut last = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let refused = refusal::in_cause(cause).map(Failure::of);
        let failure = refused.as_ref().or_else(|| cause.downcast_ref());
        hints.extend(failure.iter().flat_map(|failure| &failure.hints).cloned());
        // It may be what a computer wrote, which is not to be trusted.
        let text = printable(&failure.map_or_else(|| cause.to_string(), Failure::to_string));
        if text != last {
            lines.push(if depth == 0 { format!("{error_word}: {text}") } else { format!("  because: {text}") });
            last = text;
        }
        if refused.is_some() {
            // It has told what lies below it.
            break;
        }
    }
    lines.extend(hints.iter().map(|hint| format!("{hint_word}: {hint}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_once_with_its_causes_and_the_way_out() {
        let error = anyhow::Error::new(
            Failure::new(Exit::Unreachable, "no server answers at http://127.0.0.1:9000")
                .hint("start one with `raworc up`")
                .because(std::io::Error::other("connection refused")),
        );
        assert_eq!(
            render(&error, "error", "hint"),
            "error: no server answers at http://127.0.0.1:9000\n  because: connection refused\nhint: start one with `raworc up`"
        );
        assert_eq!(code_of(&error), 7);
    }

    #[test]
    fn what_a_computer_says_of_a_failure_does_not_play_with_the_terminal() {
        let error = anyhow::anyhow!("\x1b[31mgone\x07").context("\x1b]0;owned\x07failed\ntwice");
        assert_eq!(render(&error, "error", "hint"), "error: failed\ntwice\n  because: gone");
    }

    #[test]
    fn codes_are_found_below_context() {
        let error = anyhow::Error::new(Failure::new(Exit::NotFound, "there is no agent x")).context("cannot send");
        assert_eq!(code_of(&error), 3);
        assert_eq!(code_of(&anyhow::anyhow!("anything")), 1);
        assert_eq!(code_of(&Silent(42).into()), 42);
    }

    #[test]
    fn every_code_is_documented_under_its_number() {
        for (n, (exit, _)) in Exit::ALL.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), n);
        }
    }
}
