//! `raworc agent wake`, `sleep`, `cancel`, `delete` and `keep-awake`.

use std::time::Duration;

use raworc_core::agent::{Agent, Desired, State};
use raworc_http::client::Ask;

use super::create::check_up;
use crate::args::{CancelArgs, DeleteArgs, KeepAwakeArgs, SleepArgs, WakeArgs};
use crate::commands::context::{Context, now};
use crate::duration::{ahead, short};
use crate::exit::{Exit, Failure};
use crate::terminal;

pub(super) async fn wake(context: &Context, args: WakeArgs) -> anyhow::Result<()> {
    let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
    for name in &args.names {
        let progress = context.console.progress(format!("waking {name}"));
        let agent = context.client.wake(name, args.retry, Ask::new().wait(limit)).await?;
        drop(progress);
        if !args.no_wait {
            check_up(&agent, limit)?;
        }
        told(context, &agent)?;
    }
    Ok(())
}

pub(super) async fn sleep(context: &Context, args: SleepArgs) -> anyhow::Result<()> {
    let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
    for name in &args.names {
        let progress = context.console.progress(format!("putting {name} to sleep"));
        let agent = context.client.sleep(name, args.now, Ask::new().wait(limit)).await?;
        drop(progress);
        let asleep = agent.status.state() == State::Slept && agent.status.run.is_none();
        if !args.no_wait && !asleep {
            return Err(not_asleep(&agent, limit).into());
        }
        told(context, &agent)?;
    }
    Ok(())
}

fn not_asleep(agent: &Agent, limit: Duration) -> Failure {
    let name = &agent.name;
    if agent.desired != Desired::Asleep {
        return Failure::new(
            Exit::Conflict,
            format!("{name} stays awake: a message or somebody else woke it meanwhile"),
        );
    }
    let failure = Failure::new(Exit::TimedOut, format!("{name} is not asleep after {}; it will be", short(limit)));
    match agent.status.state() {
        State::Busy => failure.hint("it works on a message; --now cancels that first"),
        State::Init | State::Idle | State::Slept | State::Deleted => {
            failure.hint(format!("`raworc agent explain {name}` says what it waits for"))
        }
    }
}

pub(super) async fn cancel(context: &Context, args: CancelArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    if let Some(id) = args.message {
        let message = context.client.cancel_message(name, id, Ask::new()).await?;
        return context.console.show(&message, &id.to_string(), || match message.state.is_ended() {
            true => format!("message {id} is {}", message.state.as_str()),
            false => format!("message {id} is being cancelled"),
        });
    }
    let agent = context.client.cancel(name, Ask::new()).await?;
    context.console.show(&agent, name.as_str(), || match agent.status.message {
        Some(id) => format!("message {id} is being cancelled"),
        None => format!("{name} works on no message"),
    })
}

pub(super) async fn delete(context: &Context, args: DeleteArgs) -> anyhow::Result<()> {
    if !args.yes && terminal::stdin_is_terminal() {
        let names: Vec<_> = args.names.iter().map(|name| name.as_str()).collect();
        let question = format!("Delete {} with all files?", names.join(", "));
        if !terminal::confirm(&question)? {
            return Err(Failure::new(Exit::Failed, "nothing was deleted").into());
        }
    }
    for name in &args.names {
        match context.client.delete_agent(name, Ask::new()).await {
            Ok(agent) => context.console.show(&agent, name.as_str(), || format!("agent {name} deleted"))?,
            Err(error) if args.ignore_missing && error.code == "not_found" => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) async fn keep_awake(context: &Context, args: KeepAwakeArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    let agent = context.client.keep_awake(name, args.time, Ask::new()).await?;
    context.console.show(&agent, name.as_str(), || match agent.status.keep_awake_until {
        Some(until) => format!("{name} stays awake for {}", ahead(until, now())),
        None => format!("{name} sleeps after its idle time again"),
    })
}

fn told(context: &Context, agent: &Agent) -> anyhow::Result<()> {
    let (name, state) = (&agent.name, agent.status.state());
    context.console.show(agent, name.as_str(), || match (state, agent.desired) {
        (State::Slept, Desired::Asleep) => format!("{name} sleeps"),
        (state, Desired::Asleep) => format!("{name} is {state} and will sleep"),
        (State::Slept | State::Init, Desired::Awake) => format!("{name} is waking"),
        (state, Desired::Awake) => format!("{name} is awake: {state}"),
        (_, Desired::Deleted) => format!("{name} is being deleted"),
    })
}
