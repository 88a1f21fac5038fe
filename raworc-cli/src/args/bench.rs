//! `raworc bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// Measure what Raworc takes on this machine, beside a floor.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The floor is a durable insert of one row into SQLite on the same disk. Rounds of floor and ours are interleaved; \
                  a floor that spreads over more than twofold voids what is compared with it. `docker` has another floor: calls \
                  of the same engine for containers that are made as Raworc makes them. That of `database` is an insert into a \
                  database of the same server; its user has to be one who may make databases, and what was made is taken away \
                  again. Build with --release: figures of a debug build say nothing.\n\nExamples:\n  raworc bench\n  raworc bench \
                  accept reply --rounds 3\n  raworc bench docker\n  raworc bench database --database \
                  postgres://raworc@127.0.0.1/raworc\n  raworc bench -o json > bench.json"
)]
pub struct BenchArgs {
    /// What to measure [default: all but what says otherwise]
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Vec<Subject>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How long each load lasts in a round, in seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Messages offered a second, whether or not those before them are answered.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Callers that each send one message after another, for the rate that is sustained.
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub callers: u32,
    /// Agents that sleep while `fleet` or `database` looks [default: 10000, and 100000 in a database]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub agents: Option<u32>,
    /// The database on whose server `database` measures, as `store` names one; others are made beside it and taken away again.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[arg(long, env = "RAWORC_BENCH_DATABASE", hide_env_values = true, value_name = "URL")]
    pub database: Option<String>,
    /// Streams of events that are followed while `database` accepts.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=800))]
    pub watchers: u32,
    /// On which disk: a directory for the data, which is taken away again [default: the system's for temporary files]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// End with 1 where a figure misses its bound, for whoever runs it in a script.
    #[arg(long)]
    pub strict: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Subject {
    /// Accepting a message over HTTP.
    Accept,
    /// A message to an idle agent, until its answer is seen on the stream of events.
    Reply,
    /// Create, sleep and wake, less what the engine takes.
    Life,
    /// What an installation costs whose agents all sleep, and one without any.
    Fleet,
    /// Servers on a database, beside that database's own inserts; only where it is named.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    Database,
    /// Streams through the proxy of a closed computer, beside a proxy on this machine; only where it is named.
    Egress,
    /// Agents on a real Docker engine, beside that engine's own commands; only where it is named.
    #[cfg(feature = "docker")]
    Docker,
}

/// The installation that is measured, in a process of its own.
#[derive(Debug, Clone, Args)]
pub struct BenchServerArgs {
    /// Where its data lies.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Its configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}
