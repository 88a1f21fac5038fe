//! `raworc completion`, and the names of agents for the shell.

use std::time::Duration;

use anyhow::Context as _;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::Shells;
use raworc_core::labels::Selector;

use super::context;
use crate::args::{CompletionArgs, GlobalArgs};
use crate::output::Console;

/// A shell that waits longer for names feels broken.
const PATIENCE: Duration = Duration::from_millis(800);

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
    names().unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
}

fn names() -> anyhow::Result<Vec<String>> {
    // The words before the cursor are not parsed here, so that of the options only the environment counts.
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let tenant = set("RAWORC_TENANT").map(|tenant| tenant.parse()).transpose()?;
    let global = GlobalArgs { server: set("RAWORC_SERVER"), tenant, ..GlobalArgs::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = context::client(&global)?;
    let agents = runtime.block_on(async {
        let all = Selector::default();
        let agents = tokio::time::timeout(PATIENCE, client.all_agents(None, &all));
        anyhow::Ok(agents.await.context("no answer in time")??)
    })?;
    Ok(agents.into_iter().map(|agent| agent.name.to_string()).collect())
}
