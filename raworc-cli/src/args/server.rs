//! `raworc up`, `server`, `operator`, `quickstart` and `login`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use raworc_core::ids::{AgentName, UserName};

use super::ConfigArgs;

/// What a serving process is made of. Each wins over `RAWORC_*`, which wins over the file.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct AssemblyArgs {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where everything is kept [default: ~/.local/share/raworc]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// The address of the API; port 0 takes a free one [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The file with the master key [default: master.key in the data directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub master_key_file: Option<PathBuf>,
    /// What to log, such as `info` or `warn,raworc_core=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// What makes agents' computers: `docker`, `local`, or what there is [default: auto]
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// Give the local runtime's computers no walls: agents can do to this machine what you can.
    #[arg(long)]
    pub no_isolation: bool,
}

/// Serve an installation on this machine: server and operator in one process.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "The first start makes the data directory, a master key and the first admin, and logs you in.\n\nExamples:\n  \
                        raworc up\n  raworc up --data ./data --listen 127.0.0.1:9100\n  RAWORC_MODEL__URL=http://gpu:11434 raworc up"
)]
pub struct UpArgs {
    /// What it is made of.
    #[command(flatten)]
    pub assembly: AssemblyArgs,
    /// The first admin.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Do not log this user's command line in.
    #[arg(long)]
    pub no_login: bool,
}

/// Serve callers and agents, with an operator elsewhere.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "Any number of servers share one database, and one master key. Put them behind a balancer.\n\nExamples:\n  \
                        RAWORC_STORE=postgres://raworc@db/raworc raworc server --listen 0.0.0.0:9000\n  raworc server --config \
                        /etc/raworc.toml --admin-password-file /run/secrets/admin"
)]
pub struct ServerArgs {
    /// What it is made of.
    #[command(flatten)]
    pub assembly: AssemblyArgs,
    /// The first admin.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The first admin, whom the first start makes.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminArgs {
    /// The first admin's name [default: admin]
    #[arg(long, value_name = "NAME")]
    pub admin: Option<UserName>,
    /// The file with the first admin's password; without it one is made up.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub admin_password_file: Option<PathBuf>,
}

/// Keep computers as their owners want them, with servers elsewhere.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "Any number of operators share the agents of a runtime; each has to reach its engine. Servers learn of the \
                        runtimes by the database.\n\nExamples:\n  RAWORC_STORE=postgres://raworc@db/raworc raworc operator \
                        --runtime docker\n  raworc operator --config /etc/raworc.toml --listen 127.0.0.1:9003",
    mut_arg("listen", |arg| arg.help("Where it answers /livez, /readyz and /metrics [default: nowhere]"))
)]
pub struct OperatorArgs {
    /// What it is made of.
    #[command(flatten)]
    pub assembly: AssemblyArgs,
}

/// See it work: an agent takes messages, sleeps, wakes, and has every file still.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "Uses SQLite unless the configuration names a database. A second run carries on with the same data.\n\nExamples:\n  raworc \
                        quickstart\n  raworc quickstart --exit --data /tmp/raworc"
)]
pub struct QuickstartArgs {
    /// What it is made of.
    #[command(flatten)]
    pub assembly: AssemblyArgs,
    /// The agent's name [default: quickstart]
    #[arg(long, value_name = "NAME")]
    pub agent: Option<AgentName>,
    /// End the server when the tour is over, instead of leaving it up.
    #[arg(long)]
    pub exit: bool,
    /// Leave out the task in words, even where a model answers.
    #[arg(long)]
    pub no_model: bool,
}

/// Log in to a server.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  raworc login ann --server https://raworc.example.org\n  raworc login ann --password-file \
                        ~/.raworc-password\n  pass raworc | raworc login ann"
)]
pub struct LoginArgs {
    /// Your name there.
    #[arg(value_name = "USER", default_value = "admin")]
    pub user: String,
    /// The file with your password; without it standard input is read, or you are asked.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,
}
