//! The binary `raworc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    raworc_cli::main()
}
