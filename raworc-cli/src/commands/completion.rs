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
    // The shell gives the words of the line after a `--` of its own.
    let words: Vec<_> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let said = |option, variable| {
        let set = || std::env::var(variable).ok();
        value_of(&words, option).or_else(set).filter(|value| !value.is_empty())
    };
    let tenant = said("--tenant", "RAWORC_TENANT").map(|tenant| tenant.parse()).transpose()?;
    let global = GlobalArgs { server: said("--server", "RAWORC_SERVER"), tenant, ..GlobalArgs::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = context::client(&global)?;
    let agents = runtime.block_on(async {
        let all = Selector::default();
        let agents = tokio::time::timeout(PATIENCE, client.all_agents(None, &all));
        anyhow::Ok(agents.await.context("no answer in time")??)
    })?;
    Ok(agents.into_iter().map(|agent| agent.name.to_string()).collect())
}

/// What a line that is being written says of an option. bash takes words apart at `=` and `:`.
fn value_of(words: &[String], option: &str) -> Option<String> {
    let own = words.split(|word| word == "--").next()?;
    let at = own.iter().rposition(|word| word.split('=').next() == Some(option))?;
    if let Some((_, value)) = own[at].split_once('=') {
        return Some(value.to_owned());
    }
    let mut rest = own[at + 1..].iter().skip_while(|word| *word == "=").peekable();
    let mut value = rest.next()?.clone();
    while rest.next_if(|word| *word == ":").is_some() {
        value.push(':');
        value.extend(rest.next().map(String::as_str));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_found_in_the_words_that_a_shell_gives() {
        let found = |line: &str| value_of(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), "--server");
        assert_eq!(found("raworc --server http://a:9 send").as_deref(), Some("http://a:9"));
        assert_eq!(found("raworc send --server=http://a:9 ada").as_deref(), Some("http://a:9"));
        assert_eq!(found("raworc --server http : //a : 9 send").as_deref(), Some("http://a:9"));
        assert_eq!(found("raworc --server = http : //a send").as_deref(), Some("http://a"));
        assert_eq!(found("raworc --server"), None);
        assert_eq!(found("raworc agent exec ada -- x --server http://a"), None, "it is the command's");
    }
}
