//! `raworc send`, `chat`, `history` and `events`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use raworc_core::ids::Revision;

use super::{NameArg, agent_names};
use crate::duration::parse as duration;

/// Send an agent work, and see it done.
#[derive(Debug, Args)]
#[command(
    after_help = "A message that begins with `!` is a shell command and is run without a model.\nCtrl-C cancels the \
                        message; the agent stays awake.\n\nExamples:\n  raworc send ada 'Summarise /agent/in/report.pdf'\n  \
                        raworc send ada '!make test'\n  git diff | raworc send ada 'Review this change:' -\n  raworc send ada \
                        --file task.md --no-wait -o name"
)]
pub struct SendArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// What to say; words are joined. `-` at the end adds standard input, and no text with a pipe is that alone. Words
    /// that begin with a hyphen go after `--`.
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,
    /// Say what is in this file, after the text; may be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Vec<PathBuf>,
    /// Speak as the system, about how to behave.
    #[arg(long)]
    pub system: bool,
    /// Leave as soon as the message is accepted, and print its id.
    #[arg(long)]
    pub no_wait: bool,
    /// Leave after this time; the work goes on.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "no_wait")]
    pub timeout: Option<Duration>,
    /// Show the answer alone, without the steps that lead to it.
    #[arg(long)]
    pub no_steps: bool,
    /// Send the same message under this key no more than once.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Talk with an agent.
#[derive(Debug, Args)]
#[command(
    after_help = "Inside: /help lists the commands, Ctrl-C cancels the running message, /quit or Ctrl-D leaves. The agent \
                        stays awake when you leave."
)]
pub struct ChatArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// Show answers alone, without the steps that lead to them.
    #[arg(long)]
    pub no_steps: bool,
}

/// Read what was said.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// At most so many messages, the newest; 0 for all.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub limit: usize,
    /// Show the steps too.
    #[arg(long)]
    pub steps: bool,
}

/// Read the log of everything that changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  raworc events --follow\n  raworc events --since 0 --agent ada -o json")]
pub struct EventsArgs {
    /// Go on with what happens from now on.
    #[arg(long, short = 'F')]
    pub follow: bool,
    /// After this revision; 0 for all that is kept [default: the latest 100, or with --follow from now on]
    #[arg(long, value_name = "REVISION")]
    pub since: Option<Revision>,
    /// Only of this agent.
    #[arg(long, value_name = "NAME", add = agent_names())]
    pub agent: Option<raworc_core::ids::AgentName>,
}
