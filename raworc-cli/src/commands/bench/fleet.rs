//! What `raworc up` costs with agents that all sleep, and with none; and what a command costs that asks nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use raworc_backends::sqlite::{SqliteOptions, SqliteStore};
use raworc_core::agent::{AgentEvent, AgentSpec, Desired};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentName, Incarnation, RuntimeName, TenantName, UserName};
use raworc_core::runtime::ComputerSpec;
use raworc_core::store::{AgentChange, AgentOp, Check, Commit, NewAgent, NewComputer, Store};
use tokio::time::Instant;

use super::figures::{Bound, Figure, Times};
use super::process::{Process, this_program};
use crate::args::BenchArgs;
use crate::output::Console;

/// Agents that sleep, unless another number is asked for.
const AGENTS: u32 = 10_000;

/// Commits that are waited for at a time.
const AT_ONCE: usize = 512;

/// Commands that are started one after another for one figure.
const COMMANDS: usize = 21;

pub(super) async fn measure(console: &Console, args: &BenchArgs, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let agents = args.agents.unwrap_or(AGENTS);
    let progress = console.progress(format!("making {agents} agents"));
    let (empty, full) = (dir.join("empty"), dir.join("full"));
    // The first start makes the master key and the first admin.
    Process::up(&full, None).await?.end().await?;
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(&full)).await?);
    fill(&*store, agents).await?;
    store.close().await;
    progress.say(format!("looking at {agents} agents that sleep"));
    let (first, fleet_memory, fleet_cpu) = look(&full, args).await?;
    progress.say("looking at an installation without agents");
    let (_, idle_memory, idle_cpu) = look(&empty, args).await?;
    progress.say("starting commands");
    let version = commands().await?;
    drop(progress);
    Ok(vec![
        Figure::alone("up, all agents asleep: until it serves", "ms", vec![first], Bound::None),
        Figure::alone("up, all agents asleep: memory", "MiB", vec![fleet_memory], Bound::NotAbove(100.0)),
        Figure::alone("up, all agents asleep: processor", "% of a core", vec![fleet_cpu], Bound::NotAbove(1.0)),
        Figure::alone("up, no agents: memory", "MiB", vec![idle_memory], Bound::NotAbove(40.0)),
        Figure::alone("up, no agents: processor", "% of a core", vec![idle_cpu], Bound::None),
        Figure::alone("raworc version: p50", "ms", vec![version.ms(0.5)], Bound::NotAbove(20.0)),
        Figure::alone("raworc version: slowest", "ms", vec![version.ms(1.0)], Bound::None),
    ])
}

/// Agents as they are when each has run and sleeps, with its computer's row.
pub(super) async fn fill(store: &dyn Store, agents: u32) -> anyhow::Result<()> {
    let made = stream::iter(0..agents).map(|n| async move {
        store.commit(sleeper(n)?).await?;
        anyhow::Ok(())
    });
    made.buffer_unordered(AT_ONCE).try_collect().await
}

/// What the agent of this number is called.
pub(super) fn name(n: u32) -> anyhow::Result<AgentName> {
    Ok(AgentName::new(format!("sleeper-{n}"))?)
}

fn sleeper(n: u32) -> anyhow::Result<Commit> {
    let now = SystemClock.now();
    let runtime = RuntimeName::new("local")?;
    let spec = AgentSpec { runtime: Some(runtime.clone()), ..AgentSpec::default() };
    let computer = ComputerSpec {
        id: SystemEntropy.computer_id(now),
        volume: SystemEntropy.volume_id(now),
        image: spec.image.clone(),
        resources: spec.resources,
        network: spec.network.clone(),
        root: spec.root,
    };
    let new = NewAgent { tenant: TenantName::default_tenant(), name: name(n)?, owner: UserName::new("admin")?, spec };
    let ops = vec![
        AgentOp::Create(Box::new(new)),
        AgentOp::Begin {
            operator: SystemEntropy.process_id(now),
            computer: Some(NewComputer { runtime, spec: computer, disk_limit: false }),
            key_hash: String::new(),
            deadline: Duration::from_secs(120),
            generation: 1,
        },
        AgentOp::SetDesired { desired: Desired::Asleep, retry: false },
        AgentOp::Transition {
            event: AgentEvent::SleepAsked,
            reason: "SleepAsked".into(),
            message: "put to sleep by request".into(),
            backoff: None,
        },
        AgentOp::RunEnded { incarnation: Incarnation::default().next() },
    ];
    let change = AgentChange { agent: SystemEntropy.agent_id(now), when: vec![Check::Absent], ops };
    Ok(Commit::of(SystemEntropy.commit_id(now), change))
}

/// How long `raworc up` takes until it serves, the memory that it holds, and its share of a core.
async fn look(data: &Path, args: &BenchArgs) -> anyhow::Result<(f64, f64, f64)> {
    let began = Instant::now();
    let up = Process::up(data, None).await?;
    let first = began.elapsed().as_secs_f64() * 1e3;
    // What an installation does at its start is over by then.
    tokio::time::sleep(Duration::from_secs(2 * args.seconds)).await;
    let (before, began) = (up.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(6 * args.seconds)).await;
    let cpu = up.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let memory = up.memory()?;
    up.end().await?;
    Ok((first, memory, cpu))
}

async fn commands() -> anyhow::Result<Times> {
    let mut times = Vec::with_capacity(COMMANDS);
    for _ in 0..COMMANDS {
        let began = Instant::now();
        let done = this_program()?.arg("version").output().await?;
        times.push(began.elapsed());
        anyhow::ensure!(done.status.success(), "`raworc version` failed");
    }
    Ok(Times::new(times))
}
