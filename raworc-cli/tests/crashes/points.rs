//! One life of an agent for each point at which the server ends or halts itself.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use raworc_core::agent::{Agent, State};
use raworc_core::control::CreateAgent;
use raworc_core::ids::AgentName;
use raworc_http::client::Client;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::clients::Caller;
use crate::history::Outcome;
use crate::place::Place;
use crate::world::World;

/// What commits and calls of engines do in one life of an agent.
const ACTS: [&str; 17] = [
    "create",
    "begin",
    "engine.ensure",
    "engine.start",
    "started",
    "boot",
    SETUP,
    "accept",
    "lease",
    "reply",
    "sleep",
    "engine.stop",
    "run-ended",
    "wake",
    "delete",
    "engine.remove",
    "reclaimed",
];

/// Agents have a setup script in the lives of this act alone.
const SETUP: &str = "setup";

/// How long a server stays halted: longer than an operator's sign of life counts, so that what it had begun is not its own
/// any more when it goes on.
const HALT: Duration = Duration::from_secs(6);

/// How long a point may take to be reached, or a life to go on after it.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Goes through all points. Each must be reached.
pub(crate) async fn run(place: Place, seed: u64, what: &'static [&'static str]) -> Result<String, String> {
    let mut world = World::start(place).await?;
    let points = ACTS.iter().flat_map(|act| ["before", "after"].map(|moment| format!("{act}.{moment}")));
    let points: Vec<_> = points.flat_map(|point| what.iter().map(move |what| format!("{point}={what}"))).collect();
    for (number, point) in points.iter().enumerate() {
        if let Err(error) = one(&world, number, point).await {
            world.trouble(format!("{point}: {error}"));
            break;
        }
    }
    let report = world.finish(seed).await?;
    Ok(format!("{} points were reached; {report}", points.len()))
}

/// A life, with a server that reaches this point in it.
async fn one(world: &World, number: usize, point: &str) -> Result<(), String> {
    let server = &world.server;
    server.kill().await;
    let early = tokio::select! {
        started = server.start(Some(point)) => match started {
            Ok(()) => false,
            // Its end may be seen a moment after that it says no more.
            Err(error) => reached(world, point).await.map(|()| true).map_err(|ended| format!("{error}: {ended}"))?,
        },
        reached = reached(world, point) => reached.map(|()| true)?,
    };
    let name = format!("p{number}");
    let entered = if early { None } else { enter(world, &name).await.ok() };
    let early = entered.is_none();
    if early {
        // What was left to do of the life before came to this point.
        reached(world, point).await?;
        server.kill().await;
        server.start(None).await?;
    }
    let (mut caller, client) = match entered {
        Some(entered) => entered,
        None => enter(world, &name).await?,
    };
    let mut new = world.server.place().agent(format!("life-{number}").parse().expect("a name"), number);
    new.spec.setup = point.starts_with(SETUP).then(|| "true".to_owned());
    let life = async { tokio::time::timeout(LIMIT, life(world, &mut caller, &client, new)).await };
    let reach = async {
        if early {
            return Ok(());
        }
        let reached = reached(world, point).await;
        if reached.is_ok() && point.ends_with("=kill") {
            server.kill().await;
            server.start(None).await?;
        }
        if reached.is_ok() && point.ends_with("=freeze") {
            tokio::time::sleep(HALT).await;
        }
        server.signal(Signal::CONT).await;
        reached
    };
    let (life, reached) = tokio::join!(life, reach);
    reached?;
    life.map_err(|_| format!("its life is not over after {LIMIT:?}"))?
}

async fn enter(world: &World, name: &str) -> Result<(Caller, Client), String> {
    Ok((world.caller(name, 0).await?, world.server.client().await?.0))
}

/// Waits until the server has ended or halted itself.
async fn reached(world: &World, point: &str) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match world.server.ended().await {
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => return Ok(()),
            Some(status) => return Err(format!("the server ended with {status} before it came to the point")),
            None if world.server.is_halted().await => return Ok(()),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{point} was never reached"))
}

/// Is made, works, sleeps, is woken and is deleted. Says what did not come of it.
async fn life(world: &World, caller: &mut Caller, client: &Client, new: CreateAgent) -> Result<(), String> {
    let name = new.name.clone();
    let idle = |agent: &Agent| agent.status.state() == State::Idle && agent.inbox.queued == 0;
    while !is_done(&caller.create(new.clone(), true).await) {}
    becomes(client, &name, idle).await;
    let message = loop {
        if let Outcome::Message { id, .. } = caller.send(&name, true, 0).await {
            break id;
        }
    };
    becomes(client, &name, idle).await;
    while !is_done(&caller.sleep(&name, false).await) {}
    becomes(client, &name, |agent| agent.status.state() == State::Slept && agent.status.run.is_none()).await;
    while !is_done(&caller.wake(&name).await) {}
    becomes(client, &name, idle).await;
    let agent = world.remember(client, &name).await?;
    while !is_gone(&caller.delete(&name).await) {}
    while !world.server.place().left_of_agents(&world.server.data()).is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    if agent.messages.iter().any(|kept| kept.id == message && kept.state == "done") {
        Ok(())
    } else {
        Err(format!("message {message} was never done: {:?}", agent.messages))
    }
}

/// Whether a call was acknowledged; else it is made again. What is refused for good is not done, and its life does not end.
fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Agent { .. })
}

/// The same of a delete, which another one may have come before whose answer was lost.
fn is_gone(outcome: &Outcome) -> bool {
    is_done(outcome) || matches!(outcome, Outcome::Refused { code } if code == "not_found")
}

async fn becomes(client: &Client, name: &AgentName, is_so: impl Fn(&Agent) -> bool) {
    loop {
        if client.agent(name).await.is_ok_and(|agent| is_so(&agent)) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
