//! What is kept of a death: the end of the program's log, in a record beside the agent and shortened in its condition.

use std::time::Duration;

use super::{Engine, Shared};
use crate::agent::{Agent, AgentEvent};
use crate::control::{DEATH_LOG_LIMIT, DeathLog, end_of};
use crate::runtime::RuntimeExt;
use crate::store::{AgentOp, Change, RecordChange, RecordCheck, StoreError};

/// Bytes of the log that are told in the condition.
const TOLD: usize = 2 << 10;

/// How long an engine may take to give the log of what died.
const LIMIT: Duration = Duration::from_secs(2);

/// What `ops` mean for the log that is kept: a death adds its own, and tells the end of it; a delete takes it away.
pub(super) async fn change(
    shared: &Shared,
    engine: &Engine,
    agent: &Agent,
    ops: &mut Vec<AgentOp>,
) -> Result<Option<Change>, StoreError> {
    let body = match ops.first_mut() {
        Some(AgentOp::Transition { event: AgentEvent::Lost | AgentEvent::StartFailed, message, .. }) => {
            let log = log_of(engine, agent).await;
            if log.trim().is_empty() {
                return Ok(None);
            }
            message.push_str(". The end of its log:\n");
            message.push_str(end_of(log.trim_end(), TOLD));
            ops.push(AgentOp::KeepLog { bytes: log.len() as u64 });
            Some(DeathLog { incarnation: agent.status.incarnation, log }.into_body())
        }
        Some(AgentOp::Transition { event: AgentEvent::DeleteAsked, .. }) if agent.status.kept_log.is_some() => None,
        _ => return Ok(None),
    };
    let key = DeathLog::key(&agent.tenant, agent.id);
    let there = shared.store.record(&key).await?;
    if there.is_none() && body.is_none() {
        return Ok(None);
    }
    let when = there.map_or(RecordCheck::Absent, |record| RecordCheck::Version(record.version));
    Ok(Some(Change::Record(RecordChange { key, when, body, ttl: None })))
}

/// The end of the log of the present run; nothing where its program never ran, because what the engine has then is of
/// the run before it.
async fn log_of(engine: &Engine, agent: &Agent) -> String {
    let ran = agent.status.run.as_ref().is_some_and(|run| run.start_id.is_some() || run.booted_at.is_some());
    let (Some(id), true) = (agent.status.computer, ran) else { return String::new() };
    let log = engine.entry.runtime.log_tail(id, DEATH_LOG_LIMIT as u64);
    let log = tokio::time::timeout(LIMIT, log).await.unwrap_or_default();
    // What is no text has become longer by being made one.
    end_of(&log, DEATH_LOG_LIMIT).to_owned()
}
