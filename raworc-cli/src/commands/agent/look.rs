//! `raworc agent list`, `get`, `explain` and `logs`: they change nothing.

use futures::TryStreamExt;
use raworc_core::agent::State;

use crate::args::{GetArgs, ListArgs, LogsArgs, NameArg};
use crate::commands::context::{Context, now};
use crate::output::{Format, agent};

pub(super) async fn list(context: &Context, args: ListArgs) -> anyhow::Result<()> {
    let progress = context.console.progress("asking for agents");
    let agents = context.client.all_agents(args.state.map(State::from), &args.selector.unwrap_or_default()).await?;
    drop(progress);
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
        let found = context.client.agent(name).await?;
        return console.show(&found, found.name.as_str(), || agent::page(&found, now(), console));
    }
    let mut agents = Vec::with_capacity(args.names.len());
    for name in &args.names {
        agents.push(context.client.agent(name).await?);
    }
    console.show_all(&agents, |agent| agent.name.to_string(), || agent::table(&agents, now(), console))
}

pub(super) async fn explain(context: &Context, args: NameArg) -> anyhow::Result<()> {
    let explanation = context.client.explain(&args.name).await?;
    let (console, name) = (&context.console, args.name.as_str());
    console.show(&explanation, name, || agent::explanation(name, &explanation, now(), console))
}

pub(super) async fn logs(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let (name, tail) = (&args.agent.name, args.tail);
    let mut log = if args.previous {
        context.client.previous_logs(name, tail).await?
    } else {
        context.client.logs(name, tail, args.follow).await?
    };
    while let Some(bytes) = log.try_next().await? {
        context.console.write(&bytes)?;
    }
    Ok(())
}
