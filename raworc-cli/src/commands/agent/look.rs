//! `raworc agent list`, `get`, `explain` and `logs`: they change nothing.

use futures::TryStreamExt;
use raworc_core::agent::State;

use crate::args::{GetArgs, ListArgs, LogsArgs, NameArg};
use crate::commands::context::{Context, now};
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
    let mut agents = Vec::with_capacity(args.names.len());
    for name in &args.names {
        agents.push(context.waiting(format!("asking for {name}"), context.client.agent(name)).await?);
    }
    console.show_all(&agents, |agent| agent.name.to_string(), || agent::table(&agents, now(), console))
}

pub(super) async fn explain(context: &Context, args: NameArg) -> anyhow::Result<()> {
    let call = context.client.explain(&args.name);
    let explanation = context.waiting(format!("asking about {}", args.name), call).await?;
    let (console, name) = (&context.console, args.name.as_str());
    console.show(&explanation, name, || agent::explanation(name, &explanation, now(), console))
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
    while let Some(bytes) = next {
        context.console.write(&bytes)?;
        next = log.try_next().await?;
    }
    Ok(())
}
