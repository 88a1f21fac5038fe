//! From the first instruction to the exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};
use crate::commands;
use crate::exit::{Silent, code_of, render};
use crate::output::{Console, Ink};

/// Runs the command line and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let Cli { global, command } = Cli::parse();
    let console = Console::new(&global);
    match run(command, global, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.downcast_ref::<Silent>().is_none() {
                let word = |ink, word: &str| console.err.paint(ink, word);
                console.say(render(&error, &word(Ink::Red, "error"), &word(Ink::Cyan, "hint")));
            }
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(command: Command, global: crate::args::GlobalArgs, console: &Console) -> anyhow::Result<()> {
    match command {
        Command::Version => commands::version::run(console),
        Command::Completion(args) => commands::completion::run(console, &args),
        Command::Reference(args) => commands::reference::run(console, &args),
        _ => anyhow::bail!("not yet"),
    }
}
