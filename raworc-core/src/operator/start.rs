//! Starts a run that was begun, apart from the look: the image, the computer, its program.

use std::sync::Arc;

use tracing::{Instrument, Span};

use super::calls::{Cut, go_on, limited, record, say_failed, unless_stopped};
use super::gate::Pass;
use super::jobs::{Job, Subject};
use super::plan::backoff;
use super::pull::prepare;
use super::{Engine, Shared, death, reclaim, span_of, spawn_job};
use crate::agent::{Agent, AgentEvent, ConditionKind};
use crate::computer::Computer;
use crate::runtime::{Boot, Ensured, RuntimeError, StartId};
use crate::store::AgentOp;
use crate::trace;

/// Asks the engine to start the run that was begun, apart from the look.
pub(super) fn begin(shared: &Arc<Shared>, agent: Agent, computer: Option<Computer>) {
    let Some(job) = shared.jobs.begin(Subject::Agent(agent.id)) else { return };
    let (task, span) = (Arc::clone(shared), span_of(&agent));
    let work = async move {
        let traced = trace::for_agent("start a computer", &*task.store, &agent).await;
        if let Some(computer) = &computer {
            traced.record("raworc.runtime", computer.runtime.as_str());
        }
        start(task, agent, computer, job).instrument(traced).await;
    };
    spawn_job(shared, work.instrument(span));
}

async fn start(shared: Arc<Shared>, agent: Agent, computer: Option<Computer>, job: Job) {
    let (result, before) = match &computer {
        Some(computer) => {
            let engine = &shared.engines[&computer.runtime];
            // The engine forgets it with this start, whatever comes of that.
            let before = death::log_before(engine, &agent).await;
            (started(&shared, engine, &agent, computer).await, before)
        }
        None => (Err(refused("the computer's row is missing")), None),
    };
    let ops = match result {
        Ok((start_id, ensured)) => {
            tracing::info!(start = %start_id, "a computer is started");
            started_ops(&agent, start_id, &ensured)
        }
        // The next operator finds it begun and nobody at it.
        Err(Cut::Stopped) => return,
        Err(Cut::Failed(error)) => {
            say_failed!(error, "a computer could not be started");
            trace::failed(&Span::current(), error.reason());
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
    // It tells nothing of one before it that was given up.
    let answered = matches!(ops.first(), Some(AgentOp::Started { .. } | AgentOp::Settled)) && !agent.status.unsettled;
    let after = record(&shared, &agent, ops).await;
    if let Some(log) = before {
        death::keep_before(&shared, &agent, log).await;
    }
    drop(job);
    if let Some(computer) = computer
        && after.as_ref().is_none_or(|after| after.status.computer != Some(computer.id()))
    {
        if answered && after.is_some() {
            shared.jobs.note_answered(computer.id());
        }
        reclaim::late(&shared, computer).await;
    }
    shared.queue.look(agent.id);
}

fn started_ops(agent: &Agent, start_id: StartId, ensured: &Ensured) -> Vec<AgentOp> {
    let mut ops = vec![AgentOp::Started { start_id }];
    let facts = [
        (ConditionKind::LimitsEnforced, "NotEnforced", &ensured.limits_missing),
        (ConditionKind::NetworkIsolated, "NotEnforced", &ensured.network_unproved),
        (ConditionKind::RootMapped, "NotMapped", &ensured.root_unmapped),
    ];
    for (kind, reason, missing) in facts {
        match missing {
            Some(why) => {
                ops.push(AgentOp::SetCondition { kind, status: false, reason: reason.into(), message: why.clone() })
            }
            None if agent.status.conditions.get(kind).is_some() => ops.push(AgentOp::ClearCondition(kind)),
            None => {}
        }
    }
    ops
}

async fn started(
    shared: &Shared,
    engine: &Engine,
    agent: &Agent,
    computer: &Computer,
) -> Result<(StartId, Ensured), Cut> {
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
    let (volume, setup) = (computer.spec.volume, &agent.status.setup);
    if agent.status.has_booted && !limited(shared, "look at the volume", runtime.has_volume(volume)).await? {
        // Whatever it goes on with is not what was set up.
        if setup.is_some() {
            record(shared, agent, vec![AgentOp::ForgetSetup]).await;
        }
        return Err(Cut::Failed(RuntimeError::VolumeMissing(volume)));
    }
    let ensured = limited(shared, "make the computer", runtime.ensure(&computer.spec)).await?;
    go_on(shared)?;
    let ran_here = setup.as_ref().is_some_and(|setup| setup.computer == computer.id());
    if ensured.is_new && ran_here && record(shared, agent, vec![AgentOp::ForgetSetup]).await.is_none() {
        return Err(refused("this start is over"));
    }
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
pub(super) async fn still_wanted(shared: &Shared, agent: &Agent) -> Result<(), Cut> {
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

fn refused(reason: &str) -> Cut {
    Cut::Failed(RuntimeError::Refused { what: "start", reason: reason.into() })
}
