//! What can be written on the command line.

mod agent;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "docker")]
mod image;
mod message;
mod server;
mod store;

pub use agent::{
    AgentCommand, CancelArgs, CpArgs, CreateArgs, DeleteArgs, EditArgs, ExecArgs, GetArgs, KeepAwakeArgs, ListArgs,
    LogsArgs, SleepArgs, SpecArgs, WakeArgs,
};
#[cfg(feature = "bench")]
pub use bench::{BenchArgs, BenchServerArgs, Subject};
#[cfg(feature = "docker")]
pub use image::{ImageBuildArgs, ImageCommand};
pub use message::{ChatArgs, EventsArgs, HistoryArgs, SendArgs};
pub use server::{AdminArgs, AssemblyArgs, LoginArgs, OperatorArgs, QuickstartArgs, ServerArgs, UpArgs};
pub use store::{StoreArgs, StoreCommand, StoreExportArgs, StoreImportArgs, StoreVerifyArgs};

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use raworc_core::ids::{AgentName, TenantName};

use crate::output::Format;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Run fleets of AI agents, each with a computer of its own.
#[derive(Debug, Parser)]
#[command(
    name = "raworc",
    version,
    styles = STYLES,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Start here:\n  raworc quickstart           see it work, from nothing\n  raworc up                   serve an \
                  installation on this machine\n  raworc agent create ada     make an agent\n  raworc send ada '!uname -a' \
                  send it work\n\nUse `raworc help COMMAND` for more on a command.",
    after_long_help = exit_codes()
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// The server to speak to [default: that of the latest login, else http://127.0.0.1:9000]
    #[arg(long, global = true, env = "RAWORC_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Work in this tenant instead of your own.
    #[arg(long, global = true, env = "RAWORC_TENANT", value_name = "TENANT")]
    pub tenant: Option<TenantName>,
    /// How to print what was asked for.
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
    /// When to use colours.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Colour,
    /// Say more of what happens; twice for still more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but what was asked for.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: an agent takes messages, sleeps, wakes, and has every file still.
    Quickstart(QuickstartArgs),
    /// Serve an installation on this machine: server and operator in one process.
    Up(UpArgs),
    /// Serve callers and agents, with an operator elsewhere.
    Server(ServerArgs),
    /// Keep computers as their owners want them, with a server elsewhere.
    Operator(OperatorArgs),
    /// Log in to a server.
    Login(LoginArgs),
    /// Log out, here and at the server.
    Logout,
    /// Make agents, look at them, and tell them what to be.
    #[command(subcommand, visible_alias = "agents")]
    Agent(AgentCommand),
    /// Send an agent work, and see it done.
    Send(SendArgs),
    /// Talk with an agent.
    Chat(ChatArgs),
    /// Read what was said.
    History(HistoryArgs),
    /// Read the log of everything that changes.
    Events(EventsArgs),
    /// Tell whether the server is well, and who you are to it.
    Status,
    /// Look after what is kept: its state, backups, the way to another database.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make the images of agents' computers.
    #[cfg(feature = "docker")]
    #[command(subcommand)]
    Image(ImageCommand),
    /// Measure what Raworc takes on this machine, beside a floor.
    #[cfg(feature = "bench")]
    Bench(BenchArgs),
    /// Print the version.
    Version,
    /// Print what makes your shell complete commands and agents' names.
    Completion(CompletionArgs),
    /// The program inside an agent's computer.
    #[command(hide = true)]
    Agentd {
        /// Say the version and end: whether it can run here.
        #[arg(long)]
        version: bool,
    },
    /// The installation that is measured, in a process of its own.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchServer(BenchServerArgs),
    /// Print a page of the reference.
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// Print what makes your shell complete commands and agents' names.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  source <(raworc completion bash)          for this shell\n  raworc completion fish > \
                        ~/.config/fish/completions/raworc.fish\n  raworc completion zsh > \"${fpath[1]}/_raworc\""
)]
pub struct CompletionArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that can be taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names of the shells say it all")]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Shell {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

/// Print a page of the reference.
#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// Which page.
    #[arg(value_enum)]
    pub page: ReferencePage,
}

/// A page of the reference that is made from the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReferencePage {
    /// The command line.
    Cli,
    /// The configuration.
    Configuration,
}

/// An agent's name, completed by the shell.
#[derive(Debug, Clone, Args)]
pub struct NameArg {
    /// The agent's name.
    #[arg(value_name = "NAME", add = agent_names())]
    pub name: AgentName,
}

/// Completes the names of agents.
pub(crate) fn agent_names() -> ArgValueCandidates {
    ArgValueCandidates::new(crate::commands::completion::agent_candidates)
}

/// Where the configuration of a server lies.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file [default: raworc.toml here, else in raworc of $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, env = "RAWORC_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The exit codes, as they stand in the long help.
#[must_use]
pub fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in crate::exit::Exit::ALL {
        text.push_str(&format!("  {}  {meaning}\n", exit.code()));
    }
    text.push_str("  `raworc agent exec` ends with the exit code of its command.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_a_sentence_of_help() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no help");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path} {}: no help", arg.get_id());
            }
            command.get_subcommands().for_each(|below| look(below, &path));
        }
        look(&Cli::command(), "");
    }
}
