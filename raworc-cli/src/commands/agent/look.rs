//! `raworc agent list`, `get`, `explain`, `egress` and `logs`: they change nothing.

use futures::TryStreamExt;
use raworc_core::agent::State;
use raworc_core::ids::Incarnation;

use crate::args::{GetArgs, ListArgs, LogsArgs, NameArg};
use crate::commands::context::{Context, now};
use crate::output::talk::printable;
use crate::output::{Format, agent};

pub(super) async fn list(context: &Context, args: ListArgs) -> anyhow::Result<()> {
    let selector = args.selector.unwrap_or_default();
    let call = context.client.all_agents(args.state.map(State::from), &selector);
    let agents = context.waiting("asking for agents", call).await?;
    let console = &context.console;
    console.show_all(&agents, |agent| agent.name.to_string(), || agent::table(&agents, now(), console))?;
    if agents.is_empty() && console.format == Format::Table {
        console.note("There are no such agents. Make one with: raworc agent create NAME");
    }
    Ok(())
}

pub(super) async fn get(context: &Context, args: GetArgs) -> anyhow::Result<()> {
    let console = &context.console;
    if let [name] = args.names.as_slice() {
        let found = context.waiting(format!("asking for {name}"), context.client.agent(name)).await?;
        return console.show(&found, found.name.as_str(), || agent::page(&found, now(), console));
    }
    // Those that came before a failure are told too.
    let (mut agents, mut outcome) = (Vec::with_capacity(args.names.len()), Ok(()));
    for name in &args.names {
        match context.waiting(format!("asking for {name}"), context.client.agent(name)).await {
            Ok(agent) => agents.push(agent),
            Err(error) => {
                outcome = Err(error.into());
                break;
            }
        }
    }
    if !agents.is_empty() || outcome.is_ok() || console.format != Format::Table {
        console.show_all(&agents, |agent| agent.name.to_string(), || agent::table(&agents, now(), console))?;
    }
    outcome
}

pub(super) async fn explain(context: &Context, args: NameArg) -> anyhow::Result<()> {
    let call = context.client.explain(&args.name);
    let explanation = context.waiting(format!("asking about {}", args.name), call).await?;
    let (console, name) = (&context.console, args.name.as_str());
    console.show(&explanation, name, || agent::explanation(name, &explanation, now(), console))
}

pub(super) async fn egress(context: &Context, args: NameArg) -> anyhow::Result<()> {
    let counts = context.waiting(format!("asking about {}", args.name), context.client.egress(&args.name)).await?;
    let console = &context.console;
    console.show_all(&counts, |count| count.target.clone(), || agent::egress(&counts, console))?;
    if counts.is_empty() && console.format == Format::Table {
        console.note("Nothing was reached or refused. What it may reach is its spec's network.egress");
    }
    Ok(())
}

pub(super) async fn logs(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let (name, tail) = (&args.agent.name, args.tail);
    let begun = context.waiting(format!("reading the log of {name}"), async {
        let mut log = match args.previous {
            true => context.client.previous_logs(name, tail).await?,
            false => context.client.logs(name, tail, args.follow).await?,
        };
        let first = log.try_next().await?;
        Ok::<_, anyhow::Error>((first, log))
    });
    let (mut next, mut log) = begun.await?;
    let console = &context.console;
    if !args.previous
        && let Ok(agent) = context.client.agent(name).await
        && agent.status.run.is_none()
        && agent.status.incarnation > Incarnation(0)
    {
        console.note(format!("{name} is {}: this is the log of its last start.", agent.status.state()));
    }
    let mut lines = Lines::default();
    while let Some(bytes) = next {
        // As it is for programs, and for people without what would play with their terminal.
        if console.out_is_terminal {
            console.write(lines.take(&bytes).as_bytes())?
        } else {
            console.write(&bytes)?
        }
        next = log.try_next().await?;
    }
    console.write(lines.rest().as_bytes())
}

/// Bytes of a line that are kept until its end.
const LINE: usize = 64 << 10;

/// Whole lines of a text that comes in pieces, as they can be printed.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let end = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = if self.begun.len() - end > LINE { self.begun.len() } else { end };
        let whole: Vec<u8> = self.begun.drain(..end).collect();
        printable(&String::from_utf8_lossy(&whole))
    }

    fn rest(self) -> String {
        printable(&String::from_utf8_lossy(&self.begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_sequence_that_comes_in_pieces_is_left_out_too() {
        let mut lines = Lines::default();
        let pieces: [&[u8]; 6] = [b"one\ntw\x1b", b"[2", b"Jo\n", b"thr\xc3", b"\xa9e\n", b"fo\x1b]0;x"];
        let shown: String = pieces.iter().map(|piece| lines.take(piece)).collect();
        assert_eq!(shown + &lines.rest(), "one\ntwo\nthr\u{e9}e\nfo");
        let mut lines = Lines::default();
        let long = "x".repeat(LINE + 1);
        assert_eq!(lines.take(long.as_bytes()), long, "a line without an end is not kept for ever");
    }
}
