//! One life of an agent for each point at which the server ends or halts itself.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use raworc_core::agent::{Agent, State};
use raworc_core::ids::AgentName;
use raworc_http::client::Client;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::clients::Caller;
use crate::history::Outcome;
use crate::machine;
use crate::world::World;

/// What commits and calls of engines do in one life of an agent.
const ACTS: [&str; 15] = [
    "create",
    "begin",
    "engine.ensure",
    "engine.start",
    "started",
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

/// How long a point may take to be reached, or a life to go on after it.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Goes through all points. Each must be reached.
pub(crate) async fn run(seed: u64, what: &'static [&'static str]) -> Result<String, String> {
    let mut world = World::start().await?;
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
    let life = async { tokio::time::timeout(LIMIT, life(world, &mut caller, &client, number)).await };
    let reach = async {
        if early {
            return Ok(());
        }
        let reached = reached(world, point).await;
        if reached.is_ok() && point.ends_with("=kill") {
            server.kill().await;
            server.start(None).await?;
        }
        server.signal(Signal::CONT).await;
        reached
    };
    let (life, reached) = tokio::join!(life, reach);
    reached?;
    life.map_err(|_| format!("its life is not over after {LIMIT:?}"))
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

/// Is made, works, sleeps, is woken, works and is deleted.
async fn life(world: &World, caller: &mut Caller, client: &Client, number: usize) {
    let name: AgentName = format!("life-{number}").parse().expect("a name");
    let idle = |agent: &Agent| agent.status.state() == State::Idle && agent.inbox.queued == 0;
    while !is_done(&caller.create(&name, true).await) {}
    becomes(client, &name, idle).await;
    while !is_done(&caller.send(&name, true, 0).await) {}
    becomes(client, &name, idle).await;
    while !is_done(&caller.sleep(&name, false).await) {}
    becomes(client, &name, |agent| agent.status.state() == State::Slept && agent.status.run.is_none()).await;
    while !is_done(&caller.wake(&name).await) {}
    becomes(client, &name, idle).await;
    world.remember(client, &name).await;
    while !is_done(&caller.delete(&name).await) {}
    while !machine::left_of_agents(&world.server.data()).is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a call was answered; else it is made again.
fn is_done(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Unknown { .. })
}

async fn becomes(client: &Client, name: &AgentName, is_so: impl Fn(&Agent) -> bool) {
    loop {
        if client.agent(name).await.is_ok_and(|agent| is_so(&agent)) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
