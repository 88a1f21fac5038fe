//! What is printed, and how: for people on a terminal, for programs in a pipe.

pub mod agent;
mod progress;
mod style;
mod table;
pub mod talk;
mod transcript;
mod yaml;

pub use progress::Progress;
pub use style::{Ink, Style};
pub use table::Table;
pub use transcript::Transcript;

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::args::{Colour, GlobalArgs};
use crate::exit::Silent;

/// How to print what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: a table or a few lines.
    #[default]
    Table,
    /// JSON, as the API has it.
    Json,
    /// The same in YAML.
    Yaml,
    /// Names or ids alone, one a line.
    Name,
}

/// Standard output and standard error, and how they are to be used.
#[derive(Debug, Clone)]
pub struct Console {
    /// How to print what was asked for.
    pub format: Format,
    /// How much to say: below zero for nothing but what was asked for.
    pub verbosity: i8,
    /// How standard output is styled.
    pub out: Style,
    /// How standard error is styled.
    pub err: Style,
    /// Whether a person reads standard output.
    pub out_is_terminal: bool,
    /// Whether a person reads standard error.
    pub err_is_terminal: bool,
}

impl Console {
    /// As the command line and the environment ask for it.
    #[must_use]
    pub fn new(global: &GlobalArgs) -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let style = |terminal| match global.color {
            Colour::Always => Style::new(true),
            Colour::Never => Style::new(false),
            Colour::Auto => Style::new(terminal && style::wanted()),
        };
        Self {
            format: global.output,
            verbosity: if global.quiet { -1 } else { i8::try_from(global.verbose).unwrap_or(i8::MAX) },
            out: style(out),
            err: style(err),
            out_is_terminal: out,
            err_is_terminal: err,
        }
    }

    /// Writes to standard output as it is.
    ///
    /// # Errors
    /// Where standard output is closed: the program ends then without a word.
    pub fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // As with `raworc events | head`: whoever read it has enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Silent(0).into()),
            Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
        }
    }

    /// Writes a line to standard output.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn line(&self, line: impl AsRef<str>) -> anyhow::Result<()> {
        self.write(format!("{}\n", line.as_ref()).as_bytes())
    }

    /// Says something beside what was asked for, on standard error, unless asked to be quiet.
    pub fn note(&self, line: impl AsRef<str>) {
        if self.verbosity >= 0 {
            self.say(line);
        }
    }

    /// Says something on standard error, whatever was asked.
    pub fn say(&self, line: impl AsRef<str>) {
        // Nothing is left to tell it to where standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
    }

    /// A spinner on standard error where a person waits there.
    #[must_use]
    pub fn progress(&self, what: impl Into<String>) -> Progress {
        Progress::start(self.err_is_terminal && self.verbosity >= 0, what.into())
    }

    /// Prints one thing in the format that was asked for.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn show<T: Serialize>(&self, value: &T, name: &str, people: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.line(people().trim_end_matches('\n')),
            Format::Json => self.line(serde_json::to_string_pretty(value)?),
            Format::Yaml => self.write(yaml::to_string(&serde_json::to_value(value)?).as_bytes()),
            Format::Name => self.line(name),
        }
    }

    /// Prints many things in the format that was asked for.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn show_all<T: Serialize>(
        &self,
        values: &[T],
        name: impl Fn(&T) -> String,
        people: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let names = || values.iter().map(|value| name(value) + "\n").collect::<String>();
        match self.format {
            Format::Table => self.write(people().as_bytes()),
            Format::Json => self.line(serde_json::to_string_pretty(values)?),
            Format::Yaml => self.write(yaml::to_string(&serde_json::to_value(values)?).as_bytes()),
            Format::Name => self.write(names().as_bytes()),
        }
    }

    /// Prints one of many things that come one after another: a line of JSON, a YAML document, a name.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn show_next<T: Serialize>(
        &self,
        value: &T,
        name: impl Fn(&T) -> String,
        people: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.line(people()),
            Format::Json => self.line(serde_json::to_string(value)?),
            Format::Yaml => self.write(format!("---\n{}", yaml::to_string(&serde_json::to_value(value)?)).as_bytes()),
            Format::Name => self.line(name(value)),
        }
    }
}
