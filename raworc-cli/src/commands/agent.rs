//! `raworc agent ...`, one module for each verb.

pub(crate) mod cp;
mod create;
mod edit;
mod exec;
mod lifecycle;
mod look;
pub mod spec;

pub(crate) use create::check_up;

use crate::args::AgentCommand;
use crate::commands::context::Context;

/// Runs a command on agents.
///
/// # Errors
/// As the command has them.
pub async fn run(context: &Context, command: AgentCommand) -> anyhow::Result<()> {
    match command {
        AgentCommand::Create(args) => create::run(context, *args).await,
        AgentCommand::List(args) => look::list(context, args).await,
        AgentCommand::Get(args) => look::get(context, args).await,
        AgentCommand::Edit(args) => edit::run(context, *args).await,
        AgentCommand::Wake(args) => lifecycle::wake(context, args).await,
        AgentCommand::Sleep(args) => lifecycle::sleep(context, args).await,
        AgentCommand::Cancel(args) => lifecycle::cancel(context, args).await,
        AgentCommand::Delete(args) => lifecycle::delete(context, args).await,
        AgentCommand::Explain(args) => look::explain(context, args).await,
        AgentCommand::Logs(args) => look::logs(context, args).await,
        AgentCommand::Egress(args) => look::egress(context, args).await,
        AgentCommand::Exec(args) => exec::run(context, args).await,
        AgentCommand::Cp(args) => cp::run(context, args).await,
        AgentCommand::KeepAwake(args) => lifecycle::keep_awake(context, args).await,
    }
}
