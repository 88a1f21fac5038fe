//! `raworc store`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::ConfigArgs;

/// What an installation keeps: its state, backups, and the way to another database.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Tell which store it is, and what state it is in.
    Status(StoreArgs),
    /// Bring its tables up to date, as the next start does.
    Migrate(StoreArgs),
    /// Write all that it keeps to a file or a pipe.
    Export(StoreExportArgs),
    /// Take an export into an empty store.
    Import(StoreImportArgs),
    /// Look at whether every row is sound, and the same as in an export.
    Verify(StoreVerifyArgs),
}

/// Which store.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "The store is that of the configuration, as `raworc up` has it: `store` and `store_password_file`, or \
                  RAWORC_STORE, else SQLite in the data directory.\n\nExamples:\n  raworc store status\n  raworc store \
                  migrate --data ./data\n  RAWORC_STORE=postgres://raworc@db/raworc raworc store status -o json"
)]
pub struct StoreArgs {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where everything is kept [default: ~/.local/share/raworc]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
}

/// Write all that it keeps to a file or a pipe.
#[derive(Debug, Args)]
#[command(
    after_help = "An export is of one moment, also beside a server that goes on. What is secret in it is sealed under the master \
                  key, which is not in it: keep that apart. A file is readable for you alone, and has its name only once it is \
                  whole.\n\nExamples:\n  raworc store export raworc-backup.jsonl\n  raworc store export | zstd > raworc-backup.jsonl.zst\n  \
                  raworc store export | RAWORC_STORE=postgres://raworc@db/raworc raworc store import"
)]
pub struct StoreExportArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The file; `-` for standard output, which may not be a terminal.
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
}

/// Take an export into an empty store.
#[derive(Debug, Args)]
#[command(
    after_help = "All of it is taken in, or nothing. The master key of the installation that it is of has to come along by itself.\n\n\
                  Examples:\n  RAWORC_STORE=mysql://raworc@db/raworc raworc store import raworc-backup.jsonl\n  zstd -dc \
                  raworc-backup.jsonl.zst | raworc store import --data ./data"
)]
pub struct StoreImportArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The file; `-` for standard input, which may not be a terminal.
    #[arg(value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// Look at whether every row is sound, and the same as in an export.
#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 1 where something is wrong, and says what.\n\nExamples:\n  raworc store verify\n  raworc store verify \
                  raworc-backup.jsonl"
)]
pub struct StoreVerifyArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// An export that the store is to be the same as; `-` for standard input, which may not be a terminal.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}
