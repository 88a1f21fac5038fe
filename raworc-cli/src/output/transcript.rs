//! The work on one message as it happens: words as they are written, steps, the answer.

use raworc_core::message::Message;
use raworc_core::step::{Step, StepKind};

use super::Console;
use super::talk::{printable, step as shown};

/// What is shown of the work on one message, and where: steps on standard error, the answer on standard output.
///
/// Words are shown as the model writes them only on a terminal, where both are one.
#[derive(Debug)]
pub struct Transcript {
    console: Console,
    steps: bool,
    /// The message is a command, whose result is the answer.
    command: bool,
    /// Words that are shown already and may come again in a step or in the answer.
    streamed: String,
    /// Set before each line of a step.
    indent: &'static str,
}

/// Something to write, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Out(String),
    Err(String),
}

impl Transcript {
    /// The transcript of the work on `message`.
    #[must_use]
    pub fn of(message: &Message, console: &Console, steps: bool) -> Self {
        let command = Message::command(&message.parts).is_some();
        Self {
            console: console.clone(),
            steps: steps && console.verbosity >= 0,
            command,
            streamed: String::new(),
            indent: "",
        }
    }

    /// With steps set in.
    #[must_use]
    pub const fn indented(mut self, indent: &'static str) -> Self {
        self.indent = indent;
        self
    }

    /// Words that the model writes.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn delta(&mut self, text: &str) -> anyhow::Result<()> {
        let pieces = self.on_delta(text);
        self.write(pieces)
    }

    /// A step.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let pieces = self.on_step(step);
        self.write(pieces)
    }

    /// The answer.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        let pieces = self.on_answer(text);
        self.write(pieces)
    }

    /// Ends a line that was begun, as before an error is told.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn break_off(&mut self) -> anyhow::Result<()> {
        let pieces = self.end_line();
        self.write(pieces)
    }

    fn on_delta(&mut self, text: &str) -> Vec<Piece> {
        if !self.console.out_is_terminal || self.command {
            return Vec::new();
        }
        let text = printable(text);
        self.streamed.push_str(&text);
        vec![Piece::Out(text)]
    }

    fn on_step(&mut self, step: &Step) -> Vec<Piece> {
        let told = match step.kind {
            StepKind::Thought => self.was_streamed(&step.text),
            StepKind::ToolResult => self.command,
            StepKind::ToolCall | StepKind::Screenshot | StepKind::Log => false,
        };
        let mut pieces = self.end_line();
        if self.steps && !told {
            let lines = shown(step, self.console.err);
            pieces.push(Piece::Err(lines.lines().map(|line| format!("{}{line}\n", self.indent)).collect()));
        }
        pieces
    }

    fn on_answer(&mut self, text: &str) -> Vec<Piece> {
        let text = if self.console.out_is_terminal { printable(text) } else { text.to_owned() };
        let text = text.trim_end();
        if self.was_streamed(text) {
            return self.end_line();
        }
        let mut pieces = self.end_line();
        pieces.push(Piece::Out(format!("{text}\n")));
        pieces
    }

    fn was_streamed(&self, text: &str) -> bool {
        !self.streamed.trim().is_empty() && self.streamed.trim() == printable(text).trim()
    }

    fn end_line(&mut self) -> Vec<Piece> {
        let open = !self.streamed.is_empty() && !self.streamed.ends_with('\n');
        self.streamed.clear();
        if open { vec![Piece::Out("\n".into())] } else { Vec::new() }
    }

    fn write(&self, pieces: Vec<Piece>) -> anyhow::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Out(text) => self.console.write(text.as_bytes())?,
                Piece::Err(text) => self.console.say(text.trim_end_matches('\n')),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::GlobalArgs;

    fn transcript(terminal: bool, command: bool) -> Transcript {
        let console = Console { out_is_terminal: terminal, ..Console::new(&GlobalArgs::default()) };
        Transcript { console, steps: true, command, streamed: String::new(), indent: "" }
    }

    fn out(text: &str) -> Vec<Piece> {
        vec![Piece::Out(text.into())]
    }

    #[test]
    fn an_answer_that_was_seen_as_it_was_written_is_not_shown_again() {
        let mut transcript = transcript(true, false);
        assert_eq!(transcript.on_delta("Hello "), out("Hello "));
        assert_eq!(transcript.on_delta("there"), out("there"));
        assert_eq!(transcript.on_answer("Hello there"), out("\n"));
    }

    #[test]
    fn an_answer_that_was_not_seen_whole_is_shown_whole() {
        let mut transcript = transcript(true, false);
        transcript.on_delta("lo there");
        let pieces = transcript.on_answer("Hello there");
        assert_eq!(pieces, [out("\n"), out("Hello there\n")].concat());
    }

    #[test]
    fn in_a_pipe_the_answer_comes_once_and_untouched() {
        let mut transcript = transcript(false, false);
        assert_eq!(transcript.on_delta("Hello"), []);
        assert_eq!(transcript.on_answer("\x1b[31mHello\n"), out("\x1b[31mHello\n"));
    }
}
