//! `raworc agent create`.

use std::time::Duration;

use raworc_core::agent::{Agent, ConditionKind, State};
use raworc_core::control::CreateAgent;
use raworc_http::client::Ask;

use super::spec;
use crate::args::CreateArgs;
use crate::commands::context::{Context, now};
use crate::duration::short;
use crate::exit::{Exit, Failure};
use crate::output::{Ink, agent};

pub(super) async fn run(context: &Context, args: CreateArgs) -> anyhow::Result<()> {
    let mut wanted = spec::whole(&args.spec)?;
    if args.runtime.is_some() {
        wanted.runtime = args.runtime;
    }
    let request = CreateAgent { name: args.name, spec: wanted };
    let limit = if args.wait { args.timeout } else { Duration::ZERO };
    let call = context.client.create_agent(&request, Ask::new().wait(limit));
    let made = if args.wait {
        let made = context.waiting_for(&request.name, &format!("{} is getting ready", request.name), call).await?;
        check_up(&made, limit)?;
        made
    } else {
        context.waiting(format!("making {}", request.name), call).await?
    };
    let console = &context.console;
    let name = made.name.to_string();
    console.show(&made, &name, || {
        if console.out_is_terminal { agent::page(&made, now(), console) } else { format!("agent {name} made") }
    })?;
    if !args.wait && console.out_is_terminal {
        let command = console.err.paint(Ink::Cyan, &format!("raworc send {name} '!uname -a'"));
        console.note(format!("Its computer is on the way. Send it work at once if you like: {command}"));
    }
    Ok(())
}

/// Fails where an agent that was waited for is not up.
pub(crate) fn check_up(agent: &Agent, limit: Duration) -> Result<(), Failure> {
    if agent.status.state().is_up() {
        return Ok(());
    }
    let name = &agent.name;
    let ready = agent.status.conditions.get(ConditionKind::Ready).filter(|ready| !ready.status);
    let failed = agent.status.restarts > 0 && agent.status.state() == State::Init;
    let failure = match ready {
        Some(ready) if failed => {
            Failure::new(Exit::Failed, format!("{name} does not start ({}): {}", ready.reason, ready.message.trim()))
        }
        _ => Failure::new(
            Exit::TimedOut,
            format!("{name} is not ready after {}; it is {} and still wanted", short(limit), agent.status.state()),
        ),
    };
    Err(failure.hint(format!("`raworc agent explain {name}` says why and what comes next")))
}
