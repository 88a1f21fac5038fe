//! Ends a run that was given up, apart from the look, and whatever else a computer runs.

use std::sync::Arc;

use tracing::Instrument;

use super::calls::{Cut, go_on, limited, pause, record, say_failed, unless_stopped};
use super::jobs::Subject;
use super::{Engine, Shared, death, span_of, spawn_job};
use crate::agent::{Agent, ConditionKind, State};
use crate::ids::ComputerId;
use crate::runtime::{RuntimeError, StartId};
use crate::store::AgentOp;

/// Asks the engine to end the present run, apart from the look.
pub(super) fn begin(shared: &Arc<Shared>, agent: Agent) {
    let subject = Subject::Agent(agent.id);
    let Some(job) = shared.jobs.begin(subject) else { return };
    let (task, span) = (Arc::clone(shared), span_of(&agent));
    let work = async move {
        let shared = task;
        let incarnation = agent.status.incarnation;
        shared.jobs.take_key(agent.id, incarnation);
        let stopped = match (agent.status.computer, &agent.spec.runtime) {
            (Some(id), Some(runtime)) => {
                let engine = &shared.engines[runtime];
                death::keep(&shared, engine, &agent).await;
                match unless_stopped(&shared, engine.gate.enter(&agent.tenant)).await {
                    Ok(_pass) => stop_run(&shared, engine, &agent, id).await,
                    Err(cut) => Err(cut),
                }
            }
            _ => Ok(()),
        };
        match stopped {
            Ok(()) => {
                shared.jobs.succeeded(subject);
                record(&shared, &agent, vec![AgentOp::RunEnded { incarnation }]).await;
                tracing::info!("a computer is stopped");
            }
            Err(Cut::Stopped) => return,
            Err(Cut::Failed(error)) => {
                say_failed!(error, "a computer could not be stopped");
                tell_waits(&shared, &agent, &error).await;
                pause(&shared, subject).await;
            }
        }
        drop(job);
        shared.queue.look(agent.id);
    };
    spawn_job(shared, work.instrument(span));
}

/// Says, once, why the next start does not begin: this one has to end first.
async fn tell_waits(shared: &Shared, agent: &Agent, error: &RuntimeError) {
    let told = agent.status.conditions.get(ConditionKind::Ready).is_some_and(|ready| ready.reason == error.reason());
    if agent.status.state() == State::Init && !told {
        let (kind, reason) = (ConditionKind::Ready, error.reason().into());
        let message = format!("its last start has to end before the next one begins: {error}");
        record(shared, agent, vec![AgentOp::SetCondition { kind, status: false, reason, message }]).await;
    }
}

/// Ends the run that was given up: the start that is known to be its, or the one that the engine says runs.
async fn stop_run(shared: &Shared, engine: &Engine, agent: &Agent, id: ComputerId) -> Result<(), Cut> {
    if let Some(start) = agent.status.run.as_ref().and_then(|run| run.start_id.clone()) {
        return stop_start(shared, engine, id, &start).await;
    }
    let Some(start) = running(shared, engine, id).await? else { return Ok(()) };
    // Read after the engine was asked: while no later run has begun, what was seen is none of a later run's.
    let now = shared.store.agent_by_id(agent.id).await;
    let now = now.map_err(|error| RuntimeError::Unavailable(error.to_string()))?.value;
    if now.is_some_and(|now| now.status.incarnation == agent.status.incarnation) {
        stop_start(shared, engine, id, &start).await
    } else {
        Ok(())
    }
}

/// Ends whichever start of a computer the engine says runs.
pub(super) async fn stop_computer(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<(), Cut> {
    match running(shared, engine, id).await? {
        Some(start) => stop_start(shared, engine, id, &start).await,
        None => Ok(()),
    }
}

async fn running(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<Option<StartId>, RuntimeError> {
    let seen = limited(shared, "look at the computer", engine.entry.runtime.observe(id)).await?;
    Ok(seen.and_then(|seen| seen.phase.start().cloned()))
}

async fn stop_start(shared: &Shared, engine: &Engine, id: ComputerId, start: &StartId) -> Result<(), Cut> {
    go_on(shared)?;
    let grace = shared.settings.stop_grace;
    limited(shared, "stop the computer", engine.entry.runtime.stop(id, start, grace)).await?;
    Ok(())
}
