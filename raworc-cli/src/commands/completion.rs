//! `raworc completion`, and the names of agents for the shell.

use anyhow::Context;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;

use crate::args::CompletionArgs;
use crate::output::Console;

/// Prints what makes a shell complete.
///
/// # Errors
/// Where standard output is closed.
pub fn run(console: &Console, args: &CompletionArgs) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let name = args.shell.as_str();
    let shell = shells.completer(name).with_context(|| format!("{name} cannot be taught"))?;
    let mut script = Vec::new();
    shell.write_registration("COMPLETE", "raworc", "raworc", "raworc", &mut script)?;
    console.write(&script)
}

/// The names of the agents that the user can see; none where the server does not answer at once.
pub(crate) fn agent_candidates() -> Vec<CompletionCandidate> {
    Vec::new()
}
