//! `raworc agent ...`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use raworc_core::agent::{DEFAULT_BUSY_TIMEOUT, DEFAULT_IDLE_TIMEOUT, NetworkMode};
use raworc_core::ids::{AgentName, RuntimeName, SecretName};
use raworc_core::labels::Selector;
use raworc_core::quantity::{Bytes, Cpu};

use super::{NameArg, agent_names};
use crate::duration::{parse as duration, parse_seconds as seconds};

/// Make agents, look at them, and tell them what to be.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make an agent.
    Create(Box<CreateArgs>),
    /// List agents.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Look at one agent, or several.
    Get(GetArgs),
    /// Change an agent's spec.
    Edit(Box<EditArgs>),
    /// Wake an agent.
    Wake(WakeArgs),
    /// Put an agent to sleep; every file stays.
    Sleep(SleepArgs),
    /// Cancel the message that an agent works on.
    Cancel(CancelArgs),
    /// Delete an agent and its files.
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Explain why an agent is as it is, and what comes next.
    Explain(NameArg),
    /// Print what an agent's program wrote.
    Logs(LogsArgs),
    /// Show what a closed computer reached, and was refused, since the server began.
    Egress(NameArg),
    /// Run a command in an agent's computer.
    Exec(ExecArgs),
    /// Copy files from or to an agent's computer.
    Cp(CpArgs),
    /// Keep an agent awake for a time.
    KeepAwake(KeepAwakeArgs),
}

/// The fields of an agent's spec.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Spec")]
pub struct SpecArgs {
    /// The spec, or some fields of it, in JSON or TOML; `-` reads JSON from standard input. Options win over it.
    #[arg(long, short = 'f', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// The image of its computer.
    #[arg(long)]
    pub image: Option<String>,
    /// The model that it thinks with.
    #[arg(long)]
    pub model: Option<String>,
    /// What it is told before every conversation; `@FILE` reads a file.
    #[arg(long, value_name = "TEXT")]
    pub instructions: Option<String>,
    /// A shell script that prepares its computer, once; `@FILE` reads a file.
    #[arg(long, value_name = "SCRIPT")]
    pub setup: Option<String>,
    /// An environment variable of its processes; may be repeated. KEY alone takes its value from here.
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// A secret that it may use; may be repeated. Refused: this release keeps none yet.
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<SecretName>,
    /// A label to select it by; may be repeated.
    #[arg(long, short = 'l', value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A sentence about it for people.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Whatever you want to keep with it, as a JSON object.
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
    /// Processor time: `2`, `0.5` or `500m`.
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<Cpu>,
    /// Memory: `512Mi`, `2Gi`.
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<Bytes>,
    /// Disk of its volume: `10Gi`. New messages wait while it holds more.
    #[arg(long, value_name = "BYTES")]
    pub disk: Option<Bytes>,
    /// Processes and threads at one time.
    #[arg(long, value_name = "COUNT")]
    pub pids: Option<u32>,
    /// Whether it is root inside its computer.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub root: Option<bool>,
    #[arg(long, value_name = "TIME", value_parser = seconds, help = idle_help())]
    #[expect(missing_docs, reason = "the help is made from the constant")]
    pub idle_timeout: Option<u32>,
    #[arg(long, value_name = "TIME", value_parser = seconds, help = busy_help())]
    #[expect(missing_docs, reason = "the help is made from the constant")]
    pub busy_timeout: Option<u32>,
    /// What its computer can reach.
    #[arg(long, value_enum, value_name = "MODE")]
    pub network: Option<NetworkArg>,
    /// A host that a closed computer may reach all the same, as HOST or HOST:PORT; may be repeated.
    #[arg(long, value_name = "HOST")]
    pub egress: Vec<String>,
    /// A port of its computer that is served to people; may be repeated. Refused: this release serves none yet.
    #[arg(long = "port", value_name = "NAME=PORT")]
    pub ports: Vec<String>,
}

fn idle_help() -> String {
    format!("Time without activity after which it is put to sleep; 0 for never [default: {DEFAULT_IDLE_TIMEOUT}s]")
}

fn busy_help() -> String {
    format!("Time that one message may take [default: {DEFAULT_BUSY_TIMEOUT}s]")
}

/// How far a computer's network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    /// Nothing but the model gateway and what `--egress` names.
    Closed,
    /// The engine's network, cut off from neighbours and private addresses.
    Open,
}

impl From<NetworkArg> for NetworkMode {
    fn from(mode: NetworkArg) -> Self {
        match mode {
            NetworkArg::Closed => Self::Closed,
            NetworkArg::Open => Self::Open,
        }
    }
}

/// Make an agent.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  raworc agent create ada\n  raworc agent create ada --wait --idle-timeout 10m --memory \
                        1Gi -l team=research\n  raworc agent create ada -f ada.json --instructions @role.md"
)]
pub struct CreateArgs {
    /// Its name: lower-case letters, digits and hyphens.
    #[arg(value_name = "NAME")]
    pub name: AgentName,
    /// The runtime that makes its computer; cannot be changed later.
    #[arg(long)]
    pub runtime: Option<RuntimeName>,
    /// Its spec.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Wait until it is ready for work.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
}

/// List agents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  raworc agent list\n  raworc agent list --state busy\n  raworc agent list -l \
                        team=research,!old -o name")]
pub struct ListArgs {
    /// Only those in this state.
    #[arg(long, value_enum)]
    pub state: Option<StateArg>,
    /// Only those with such labels: `team=research,tier!=db,beta,!old`.
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<Selector>,
}

/// A state to list by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Its computer is on the way.
    Init,
    /// It waits for a message.
    Idle,
    /// It works on a message.
    Busy,
    /// It sleeps.
    Slept,
}

impl From<StateArg> for raworc_core::agent::State {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Init => Self::Init,
            StateArg::Idle => Self::Idle,
            StateArg::Busy => Self::Busy,
            StateArg::Slept => Self::Slept,
        }
    }
}

/// Look at one agent, or several.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The agents' names.
    #[arg(value_name = "NAME", required = true, add = agent_names())]
    pub names: Vec<AgentName>,
}

/// Change an agent's spec.
#[derive(Debug, Args)]
#[command(
    after_help = "Without options, on a terminal, the spec is opened in $VISUAL or $EDITOR.\n\nExamples:\n  raworc \
                        agent edit ada --memory 2Gi\n  raworc agent edit ada -l team=research -l old-\n  raworc agent edit \
                        ada --unset description --unset env.DEBUG"
)]
pub struct EditArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// The fields to change. `-e KEY-` and `-l KEY-` take one away.
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Take a field back to its default, such as `description` or `resources.memory`; may be repeated.
    #[arg(long, value_name = "FIELD")]
    pub unset: Vec<String>,
    /// Only if this is still its generation.
    #[arg(long, value_name = "NUMBER")]
    pub if_generation: Option<u64>,
}

/// Wake an agent.
#[derive(Debug, Args)]
pub struct WakeArgs {
    /// The agents' names.
    #[arg(value_name = "NAME", required = true, add = agent_names())]
    pub names: Vec<AgentName>,
    /// Try at once what waits to be tried again: a failed setup, an image that was missing.
    #[arg(long)]
    pub retry: bool,
    /// Do not wait until it is ready.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
}

/// Put an agent to sleep; every file stays.
#[derive(Debug, Args)]
pub struct SleepArgs {
    /// The agents' names.
    #[arg(value_name = "NAME", required = true, add = agent_names())]
    pub names: Vec<AgentName>,
    /// Cancel the message that it works on instead of waiting for its end.
    #[arg(long)]
    pub now: bool,
    /// Do not wait until its computer has stopped.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
}

/// Cancel the message that an agent works on.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// Cancel this message instead, which may be queued.
    #[arg(long, value_name = "ID")]
    pub message: Option<raworc_core::ids::MessageId>,
}

/// Delete an agent and its files.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The agents' names.
    #[arg(value_name = "NAME", required = true, add = agent_names())]
    pub names: Vec<AgentName>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Do not fail where there is no such agent.
    #[arg(long)]
    pub ignore_missing: bool,
    /// Do not wait until it is gone and its name is free.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    pub timeout: Duration,
}

/// Print what an agent's program wrote.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// Go on with what is written from now on.
    #[arg(long, short = 'F')]
    pub follow: bool,
    /// Only the last so many bytes.
    #[arg(long, value_name = "BYTES")]
    pub tail: Option<u64>,
    /// The log of the start before the present one, as far as it is kept.
    #[arg(long, conflicts_with = "follow")]
    pub previous: bool,
}

/// Run a command in an agent's computer.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with the exit code of the command. Wakes the agent unless --no-wake is given.\n\nExamples:\n  \
                        raworc agent exec ada -- ls -l /agent\n  raworc agent exec -it ada -- bash\n  tar c . | raworc agent \
                        exec -i ada -- tar x -C /agent/work"
)]
pub struct ExecArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// Pass standard input on.
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Give the command a terminal.
    #[arg(long, short = 't')]
    pub tty: bool,
    /// Where to run it [default: /agent]
    #[arg(long, short = 'w', value_name = "DIR")]
    pub workdir: Option<String>,
    /// An environment variable; may be repeated.
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Fail where the agent sleeps, instead of waking it.
    #[arg(long)]
    pub no_wake: bool,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Copy files from or to an agent's computer.
#[derive(Debug, Args)]
#[command(
    after_help = "A directory is copied with all in it. `-` is standard output or input.\n\nExamples:\n  raworc agent cp \
                        report.pdf ada:/agent/in/\n  raworc agent cp ada:/agent/out .\n  raworc agent cp ada:/agent/log.txt -"
)]
pub struct CpArgs {
    /// From where: PATH, or NAME:PATH in an agent's computer.
    #[arg(value_name = "FROM")]
    pub from: String,
    /// To where: PATH, or NAME:PATH in an agent's computer.
    #[arg(value_name = "TO")]
    pub to: String,
}

/// Keep an agent awake for a time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  raworc agent keep-awake ada --for 1h\n  raworc agent keep-awake ada --release")]
pub struct KeepAwakeArgs {
    /// Which agent.
    #[command(flatten)]
    pub agent: NameArg,
    /// For how long.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, required_unless_present = "release")]
    pub time: Option<Duration>,
    /// No longer than its idle time from now on.
    #[arg(long, conflicts_with = "time")]
    pub release: bool,
}
