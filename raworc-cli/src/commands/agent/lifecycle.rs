//! `raworc agent wake`, `sleep`, `cancel`, `delete` and `keep-awake`.

use std::time::Duration;

use raworc_core::agent::{Agent, Desired, State};
use raworc_core::ids::AgentName;
use raworc_http::client::Ask;

use super::create::check_up;
use crate::args::{CancelArgs, DeleteArgs, KeepAwakeArgs, SleepArgs, WakeArgs};
use crate::commands::context::{Context, now};
use crate::duration::{ahead, short};
use crate::exit::{Exit, Failure};
use crate::output::Format;
use crate::terminal;

pub(super) async fn wake(context: &Context, args: WakeArgs) -> anyhow::Result<()> {
    each(context, &args.names, told, async |name| {
        let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
        let call = context.client.wake(name, args.retry, Ask::new().wait(limit));
        let agent = context.waiting_for(name, &format!("waking {name}"), call).await?;
        if !args.no_wait {
            check_up(&agent, limit)?;
        }
        Ok(Some(agent))
    })
    .await
}

pub(super) async fn sleep(context: &Context, args: SleepArgs) -> anyhow::Result<()> {
    each(context, &args.names, told, async |name| {
        let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
        let call = context.client.sleep(name, args.now, Ask::new().wait(limit));
        let agent = context.waiting(format!("putting {name} to sleep"), call).await?;
        let asleep = agent.status.state() == State::Slept && agent.status.run.is_none();
        if !args.no_wait && !asleep {
            return Err(not_asleep(&agent, limit).into());
        }
        Ok(Some(agent))
    })
    .await
}

/// Does something with each of these agents and prints what became of it. Several are one document of JSON or YAML, a
/// list, which has those that came before a failure too.
async fn each(
    context: &Context,
    names: &[AgentName],
    tell: impl Fn(&Agent) -> String,
    work: impl AsyncFn(&AgentName) -> anyhow::Result<Option<Agent>>,
) -> anyhow::Result<()> {
    let console = &context.console;
    let at_once = names.len() == 1 || matches!(console.format, Format::Table | Format::Name);
    let (mut done, mut outcome) = (Vec::new(), Ok(()));
    for name in names {
        match work(name).await {
            Ok(Some(agent)) if at_once => console.show(&agent, name.as_str(), || tell(&agent))?,
            Ok(agent) => done.extend(agent),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    if !at_once {
        console.show_all(&done, |agent| agent.name.to_string(), String::new)?;
    }
    outcome
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
        let call = context.client.cancel_message(name, id, Ask::new());
        let message = context.waiting(format!("cancelling message {id}"), call).await?;
        return context.console.show(&message, &id.to_string(), || match message.state.is_ended() {
            true => format!("message {id} is {}", message.state.as_str()),
            false => format!("message {id} is being cancelled"),
        });
    }
    let call = context.client.cancel(name, Ask::new());
    let agent = context.waiting(format!("cancelling what {name} works on"), call).await?;
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
    let tell = |agent: &Agent| match agent.status.state() {
        State::Deleted => format!("agent {} deleted", agent.name),
        _ => format!("{} is being deleted", agent.name),
    };
    each(context, &args.names, tell, async |name| {
        let limit = if args.no_wait { Duration::ZERO } else { args.timeout };
        let call = context.client.delete_agent(name, Ask::new().wait(limit));
        let agent = match context.waiting(format!("deleting {name}"), call).await {
            Ok(agent) => agent,
            Err(error) if args.ignore_missing && error.code == "not_found" => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !args.no_wait && agent.status.state() != State::Deleted {
            let text = format!("{name} is not gone after {}; it is being deleted", short(limit));
            let hint = format!("its name is free once `raworc agent get {name}` no longer finds it");
            return Err(Failure::new(Exit::TimedOut, text).hint(hint).into());
        }
        Ok(Some(agent))
    })
    .await
}

pub(super) async fn keep_awake(context: &Context, args: KeepAwakeArgs) -> anyhow::Result<()> {
    let name = &args.agent.name;
    let what = if args.time.is_some() { format!("keeping {name} awake") } else { format!("releasing {name}") };
    let agent = context.waiting(what, context.client.keep_awake(name, args.time, Ask::new())).await?;
    context.console.show(&agent, name.as_str(), || match agent.status.keep_awake_until {
        Some(until) => format!("{name} stays awake for {}", ahead(until, now())),
        None => format!("{name} sleeps after its idle time again"),
    })
}

fn told(agent: &Agent) -> String {
    let (name, state) = (&agent.name, agent.status.state());
    match (state, agent.desired) {
        (State::Slept, Desired::Asleep) => format!("{name} sleeps"),
        (state, Desired::Asleep) => format!("{name} is {state} and will sleep"),
        (State::Slept | State::Init, Desired::Awake) => format!("{name} is waking"),
        (state, Desired::Awake) => format!("{name} is awake: {state}"),
        (_, Desired::Deleted) => format!("{name} is being deleted"),
    }
}
