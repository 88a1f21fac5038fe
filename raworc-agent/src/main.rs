//! `raworc-agentd`: the program inside an agent's computer.

use std::process::ExitCode;

fn main() -> ExitCode {
    raworc_agent::main()
}
