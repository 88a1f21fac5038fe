//! Starts a run that was begun, apart from the look: the image, the computer, its program.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::calls::{Cut, caught, go_on, limited, record, unless_stopped};
use super::gate::Pass;
use super::jobs::Subject;
use super::plan::backoff;
use super::{Engine, Shared, spawn_job};
use crate::agent::{Agent, AgentEvent, ConditionKind};
use crate::computer::Computer;
use crate::runtime::{Boot, Ensured, Progress, RuntimeError, StartId};
use crate::store::AgentOp;

/// How long an image may take before people are told that it is being pulled.
const PREPARE_QUIET: Duration = Duration::from_secs(1);

/// Asks the engine to start the run that was begun, apart from the look.
pub(super) fn begin(shared: &Arc<Shared>, agent: Agent, computer: Option<Computer>) {
    let Some(job) = shared.jobs.begin(Subject::Agent(agent.id)) else { return };
    let task = Arc::clone(shared);
    spawn_job(shared, async move {
        let shared = task;
        let result = match &computer {
            Some(computer) => started(&shared, &agent, computer).await,
            None => Err(refused("the computer's row is missing")),
        };
        let ops = match result {
            Ok((start_id, ensured)) => started_ops(&agent, start_id, &ensured),
            // The next operator finds it begun and nobody at it.
            Err(Cut::Stopped) => return,
            Err(Cut::Failed(error)) => {
                tracing::warn!(agent = %agent.id, name = %agent.name, %error, "a computer could not be started");
                let failed = AgentOp::Transition {
                    event: AgentEvent::StartFailed,
                    reason: error.reason().into(),
                    message: error.to_string(),
                    backoff: Some(backoff(agent.status.restarts.max(1), &shared.settings)),
                };
                // What did not answer may go on for a while.
                if error.is_retryable() { vec![failed] } else { vec![AgentOp::Settled, failed] }
            }
        };
        // A start that was refused tells nothing of one before it that was given up.
        let answered = match ops.first() {
            Some(AgentOp::Started { .. }) => true,
            Some(AgentOp::Settled) => !agent.status.unsettled,
            _ => false,
        };
        let after = record(&shared, &agent, ops).await;
        if let (Some(computer), Some(after), true) = (computer, after, answered)
            && after.status.computer != Some(computer.id())
        {
            shared.jobs.note_answered(computer.id());
        }
        drop(job);
        shared.queue.look(agent.id);
    });
}

fn started_ops(agent: &Agent, start_id: StartId, ensured: &Ensured) -> Vec<AgentOp> {
    let mut ops = vec![AgentOp::Started { start_id }];
    let facts = [
        (ConditionKind::LimitsEnforced, &ensured.limits_missing),
        (ConditionKind::NetworkIsolated, &ensured.network_unproved),
    ];
    for (kind, missing) in facts {
        match missing {
            Some(why) => ops.push(AgentOp::SetCondition {
                kind,
                status: false,
                reason: "NotEnforced".into(),
                message: why.clone(),
            }),
            None if agent.status.conditions.get(kind).is_some() => ops.push(AgentOp::ClearCondition(kind)),
            None => {}
        }
    }
    ops
}

async fn started(shared: &Shared, agent: &Agent, computer: &Computer) -> Result<(StartId, Ensured), Cut> {
    let engine = &shared.engines[&computer.runtime];
    let runtime = &engine.entry.runtime;
    prepare(shared, engine, agent, computer).await?;
    let incarnation = agent.status.incarnation;
    let key = shared.jobs.take_key(agent.id, incarnation);
    let key = key.ok_or_else(|| refused("its key is gone"))?;
    let boot = Boot {
        agent_url: engine.entry.agent_url.clone(),
        ca: engine.entry.ca.clone(),
        computer: computer.id(),
        incarnation,
        key,
    };
    let _pass = turn(shared, engine, agent).await?;
    // The way here may have been long: what is over is not started.
    still_wanted(shared, agent).await?;
    let ensured = limited(shared, "make the computer", runtime.ensure(&computer.spec)).await?;
    go_on(shared)?;
    let start_id = limited(shared, "start the computer", runtime.start(computer.id(), &boot)).await?;
    Ok((start_id, ensured))
}

/// Waits for the agent's turn at the engine. The time for that is not the program's.
async fn turn(shared: &Shared, engine: &Engine, agent: &Agent) -> Result<Pass, Cut> {
    let pass = engine.gate.enter(&agent.tenant);
    tokio::pin!(pass);
    loop {
        let wait = tokio::time::timeout(shared.settings.start_limit / 4, &mut pass);
        if let Ok(pass) = unless_stopped(shared, wait).await? {
            return Ok(pass);
        }
        record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
    }
}

/// Fails where the run that was begun is over, or is being ended.
async fn still_wanted(shared: &Shared, agent: &Agent) -> Result<(), Cut> {
    go_on(shared)?;
    let now = shared.store.agent_by_id(agent.id).await;
    let now = now.map_err(|error| RuntimeError::Unavailable(error.to_string()))?.value;
    let run = now.as_ref().and_then(|now| now.status.run.as_ref());
    if run.is_some_and(|run| run.incarnation == agent.status.incarnation && !run.ending) {
        Ok(())
    } else {
        Err(refused("this start is over"))
    }
}

/// Sees to it that the image is there.
async fn prepare(shared: &Shared, engine: &Engine, agent: &Agent, computer: &Computer) -> Result<(), Cut> {
    let image = computer.spec.image.as_deref();
    match pull_turn(shared, engine, agent, image).await? {
        Turn::Needless => {}
        Turn::Come { _pass, waited } => pull(shared, engine, agent, image, waited).await?,
    }
    if let Some(image) = image {
        engine.note_image(image);
    }
    Ok(())
}

/// Has the image pulled. Where that takes long, people are told, and the start has longer.
async fn pull(shared: &Shared, engine: &Engine, agent: &Agent, image: Option<&str>, waited: bool) -> Result<(), Cut> {
    let (progress, mut told) = tokio::sync::watch::channel(None::<Progress>);
    let limit = shared.settings.prepare_limit;
    let tell = move |now: Progress| {
        progress.send_replace(Some(now));
    };
    let pull = tokio::time::timeout(limit, caught("have the image", engine.entry.runtime.prepare(image, &tell)));
    tokio::pin!(pull);
    let timed_out = |_| Err(RuntimeError::TimedOut { what: "have the image", limit });
    if let Ok(done) = unless_stopped(shared, tokio::time::timeout(PREPARE_QUIET, &mut pull)).await? {
        if waited {
            record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
        }
        return Ok(done.unwrap_or_else(timed_out)?);
    }
    record(shared, agent, vec![AgentOp::Extend { deadline: limit }]).await;
    let done = loop {
        // Nobody waits for an image that nobody wants any more.
        still_wanted(shared, agent).await?;
        let message = told.borrow_and_update().as_ref().map_or_else(|| "is being pulled".into(), describe);
        record(shared, agent, vec![pulling(image, &message)]).await;
        let pause = tokio::time::timeout(Duration::from_secs(2), &mut pull);
        if let Ok(done) = unless_stopped(shared, pause).await? {
            break done.unwrap_or_else(timed_out);
        }
    };
    record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
    Ok(done?)
}

/// The turn to have an image pulled.
enum Turn {
    /// The image is there.
    Needless,
    /// It is this agent's, after a wait that people were told of or without one.
    Come { _pass: Option<Pass>, waited: bool },
}

/// Waits for the turn to have an image pulled, as long as that may take; for none where the runtime's own is wanted, or one
/// that it has had. Meanwhile the engine is asked once whether it has the image: then nobody's pull is waited for.
async fn pull_turn(shared: &Shared, engine: &Engine, agent: &Agent, image: Option<&str>) -> Result<Turn, Cut> {
    if image.is_none_or(|image| engine.has_had(image)) {
        return Ok(Turn::Come { _pass: None, waited: false });
    }
    let (pass, there) = (engine.pulls.enter(&agent.tenant), is_there(engine, agent, image));
    tokio::pin!(pass, there);
    let (mut asking, mut told) = (true, None::<Instant>);
    loop {
        let quiet = if told.is_some() { Duration::from_secs(2) } else { PREPARE_QUIET };
        let news = async {
            tokio::select! {
                biased;
                pass = &mut pass => Some(Ok(Turn::Come { _pass: Some(pass), waited: told.is_some() })),
                there = &mut there, if asking => {
                    asking = false;
                    there.map(|there| there.map(|()| Turn::Needless))
                }
                () = tokio::time::sleep(quiet) => None,
            }
        };
        match unless_stopped(shared, news).await? {
            Some(Ok(Turn::Needless)) if told.is_some() => {
                record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
                return Ok(Turn::Needless);
            }
            Some(turn) => return Ok(turn?),
            None => {}
        }
        still_wanted(shared, agent).await?;
        let deadline = shared.settings.prepare_limit;
        // The time for that is not the program's.
        if told.is_none_or(|told| told.elapsed() > deadline / 4) {
            told = Some(Instant::now());
            let waits = [AgentOp::Extend { deadline }, pulling(image, "waits for other images")];
            record(shared, agent, waits.into()).await;
        }
    }
}

/// Asks the engine for an image in passing. What it does not answer at once is given up: the image has to be pulled.
async fn is_there(engine: &Engine, agent: &Agent, image: Option<&str>) -> Option<Result<(), RuntimeError>> {
    let _pass = engine.asks.enter(&agent.tenant).await;
    let asked = caught("have the image", engine.entry.runtime.prepare(image, &|_| ()));
    tokio::time::timeout(PREPARE_QUIET, asked).await.ok()
}

fn pulling(image: Option<&str>, what: &str) -> AgentOp {
    AgentOp::SetCondition {
        kind: ConditionKind::Ready,
        status: false,
        reason: "ImagePulling".into(),
        message: format!("image {}: {what}", image.unwrap_or("(default)")),
    }
}

fn describe(progress: &Progress) -> String {
    match progress.total {
        Some(total) if total > 0 => format!("{} ({} %)", progress.what, progress.done * 100 / total),
        _ => progress.what.clone(),
    }
}

fn refused(reason: &str) -> Cut {
    Cut::Failed(RuntimeError::Refused { what: "start", reason: reason.into() })
}
