//! What `raworc server` and `raworc operator` cost, as people start them, with agents that all sleep.

use std::path::Path;
use std::time::Duration;

use raworc_core::control::SendMessage;
use raworc_http::client::Ask;
use tokio::time::Instant;

use super::place::Place;
use crate::args::{AssemblyArgs, BenchArgs};
use crate::commands::bench::figures::{Bound, Figure};
use crate::commands::bench::fleet::{fill, name};
use crate::commands::bench::process::{Process, Site};
use crate::commands::bench::reply::until;
use crate::installation::{OpenedStore, Role};
use crate::output::Progress;
use crate::settings::Settings;

/// Agents that sleep, unless another number is asked for.
const AGENTS: u32 = 100_000;

/// What one start of both came to.
struct Start {
    /// Until the server serves, and until the first message is taken up from when the operator was started, in milliseconds.
    serves: f64,
    works: f64,
    server: Cost,
    operator: Cost,
}

/// Memory in MiB, and the share of a core.
struct Cost {
    memory: f64,
    processor: f64,
}

pub(super) async fn measure(
    progress: &Progress,
    args: &BenchArgs,
    dir: &Path,
    place: &mut Place,
) -> anyhow::Result<Vec<Figure>> {
    let agents = args.agents.unwrap_or(AGENTS).max(args.rounds);
    progress.say(format!("making {agents} agents"));
    let site = Site::new(&dir.join("asleep"), &place.database("asleep").await?, "local")?;
    // The first start makes the first admin.
    site.start("server", "server").await?.end().await?;
    let from = AssemblyArgs { data: Some(dir.to_owned()), ..AssemblyArgs::default() };
    let settings = Settings::read(&from, Some(site.config()), std::collections::HashMap::new())?;
    let store = OpenedStore::open(&settings, Role::Server).await?;
    fill(&*store.store(), agents).await?;
    store.close().await;
    let mut starts = Vec::new();
    for round in 0..args.rounds {
        progress.say(format!("start {} of {} beside {agents} agents that sleep", round + 1, args.rounds));
        starts.push(start(&site, args, round).await?);
    }
    let figure = |what, unit, pick: fn(&Start) -> f64, bound| {
        Figure::alone(what, unit, starts.iter().map(pick).collect(), bound)
    };
    Ok(vec![
        figure("all agents asleep: until a server serves", "ms", |start| start.serves, Bound::None),
        figure("all agents asleep: operator at its first work", "ms", |start| start.works, Bound::NotAbove(5000.0)),
        figure("all agents asleep: memory of a server", "MiB", |start| start.server.memory, Bound::NotAbove(150.0)),
        figure("all agents asleep: memory of an operator", "MiB", |start| start.operator.memory, Bound::None),
        figure("all agents asleep: processor, server", "% of a core", |start| start.server.processor, Bound::None),
        figure("all agents asleep: processor, operator", "% of a core", |start| start.operator.processor, Bound::None),
    ])
}

async fn start(site: &Site, args: &BenchArgs, round: u32) -> anyhow::Result<Start> {
    let began = Instant::now();
    let server = site.start("server", "server").await?;
    let serves = began.elapsed().as_secs_f64() * 1e3;
    let client = server.client()?;
    let token = client.login("admin", &site.password).await?.token;
    let client = client.with_token(token);
    let agent = name(round)?;
    let mut events = client.follow(Some(&agent), None).await?;
    let message = client.send(&agent, &SendMessage::text("!true"), Ask::new()).await?.id;
    let began = Instant::now();
    let operator = site.start("operator", "operator").await?;
    until(&mut events, message, "leased").await?;
    let works = began.elapsed().as_secs_f64() * 1e3;
    until(&mut events, message, "done").await?;
    drop(events);
    client.sleep(&agent, false, Ask::new().wait_secs(60)).await?;
    // What both do at their start is over by then.
    tokio::time::sleep(Duration::from_secs(2 * args.seconds)).await;
    let before = (server.cpu()?, operator.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(2 * args.seconds)).await;
    let cost = |process: &Process, cpu: Duration| {
        let spent = process.cpu()?.saturating_sub(cpu).as_secs_f64();
        let processor = spent / before.2.elapsed().as_secs_f64() * 100.0;
        anyhow::Ok(Cost { memory: process.memory()?, processor })
    };
    let found = Start { serves, works, server: cost(&server, before.0)?, operator: cost(&operator, before.1)? };
    operator.end().await?;
    server.end().await?;
    Ok(found)
}
