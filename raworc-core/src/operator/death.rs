//! What is kept of a start that is over: the end of the program's log, in a record beside the agent, and after a death
//! shortened in its condition.
//!
//! The death itself is committed without it. The log is fetched in the job that ends the run, before the next start and
//! before what is left of the run is stopped: a pod's log goes with it. The log of one that was put to sleep is fetched when
//! the next one starts: until then the engine has it, and then forgets it. Where that has another computer, it is fetched before
//! the old one is taken away.

use std::time::Duration;

use super::calls::{caught, persist};
use super::execute::commit_id;
use super::{Engine, Shared};
use crate::agent::{Agent, AgentEvent};
use crate::computer::Computer;
use crate::control::{DEATH_LOG_LIMIT, DeathLog, end_of};
use crate::ids::{ComputerId, Incarnation};
use crate::runtime::RuntimeExt;
use crate::store::{AgentChange, AgentOp, Change, Check, Commit, RecordChange, RecordCheck, StoreError};

/// Bytes of the log that are told in the condition.
const TOLD: usize = 2 << 10;

/// How long an engine may take to give the log of what died, its turn included.
const LIMIT: Duration = Duration::from_secs(2);

/// What `ops` mean for the log that is kept: it goes with its agent.
pub(super) async fn forget(shared: &Shared, agent: &Agent, ops: &[AgentOp]) -> Result<Option<Change>, StoreError> {
    let deleted = matches!(ops.first(), Some(AgentOp::Transition { event: AgentEvent::DeleteAsked, .. }));
    if !deleted || agent.status.kept_log.is_none() {
        return Ok(None);
    }
    let key = DeathLog::key(&agent.tenant, agent.id);
    let there = shared.store.record(&key).await?;
    Ok(there.map(|record| {
        Change::Record(RecordChange { key, when: RecordCheck::Version(record.version), body: None, ttl: None })
    }))
}

/// Keeps the end of the log of the present run, if that died and its log is not kept already.
pub(super) async fn keep(shared: &Shared, engine: &Engine, agent: &Agent) {
    let status = &agent.status;
    let ran = |run: &crate::agent::Run| run.log_wanted && (run.start_id.is_some() || run.booted_at.is_some());
    let kept = status.kept_log.is_some_and(|kept| kept.incarnation == status.incarnation);
    // Where its program never ran, what the engine has is of the run before it.
    if kept || !status.run.as_ref().is_some_and(ran) {
        return;
    }
    let Some(id) = status.computer else { return };
    let log = log_of(engine, agent, id).await;
    if log.trim().is_empty() {
        return;
    }
    if let Err(error) = record(shared, agent, status.incarnation, log).await {
        tracing::info!(%error, "the log of what died was not kept");
    }
}

/// Whether the start before the present one was put to sleep, and is not kept by its death.
fn is_before_wanted(agent: &Agent) -> bool {
    let status = &agent.status;
    // Where starts have failed since, what the engine has is of one before them.
    let slept = status.restarts == 0 && status.incarnation > Incarnation::default().next();
    slept && status.kept_log.is_none_or(|kept| kept.incarnation.next() != status.incarnation)
}

/// The engine's log of the start before the present one, where it is wanted.
pub(super) async fn log_before(engine: &Engine, agent: &Agent) -> Option<String> {
    if !is_before_wanted(agent) {
        return None;
    }
    Some(log_of(engine, agent, agent.status.computer?).await).filter(|log| !log.trim().is_empty())
}

/// Keeps the log of the start before the present one.
pub(super) async fn keep_before(shared: &Shared, agent: &Agent, log: String) {
    if let Err(error) = record(shared, agent, agent.status.incarnation.before(), log).await {
        tracing::info!(%error, "the log of the start before was not kept");
    }
}

/// Keeps the log of the start before the present one, where it is wanted and was this computer's, which the present one has
/// replaced.
pub(super) async fn keep_replaced(shared: &Shared, engine: &Engine, old: &Computer) {
    let now = async || shared.store.agent_by_id(old.agent).await.ok().and_then(|read| read.value);
    // One commit has done both. A later start has another one before it.
    let has_replaced = |agent: &Agent| {
        let began = agent.status.run.as_ref().map(|run| run.began_at);
        began.is_some() && began == old.reclaim_since
    };
    let Some(agent) = now().await.filter(|agent| has_replaced(agent) && is_before_wanted(agent)) else { return };
    let log = log_of(engine, &agent, old.id()).await;
    // Meanwhile the present start may have died, and its log is the newer one.
    let is_newest = now().await.is_some_and(|now| now.status.kept_log == agent.status.kept_log);
    if is_newest && !log.trim().is_empty() {
        keep_before(shared, &agent, log).await;
    }
}

async fn record(shared: &Shared, agent: &Agent, of: Incarnation, log: String) -> Result<(), StoreError> {
    let key = DeathLog::key(&agent.tenant, agent.id);
    let there = shared.store.record(&key).await?;
    let told = end_of(log.trim_end(), TOLD).to_owned();
    let keep = AgentOp::KeepLog { incarnation: of, bytes: log.len() as u64, told };
    let when = vec![Check::Alive, Check::Incarnation(agent.status.incarnation)];
    let mut commit = Commit::of(commit_id(shared), AgentChange { agent: agent.id, when, ops: vec![keep] });
    let when = there.map_or(RecordCheck::Absent, |record| RecordCheck::Version(record.version));
    let body = Some(DeathLog { incarnation: of, log }.into_body());
    commit.changes.push(Change::Record(RecordChange { key, when, body, ttl: None }));
    persist(shared, commit).await.map(drop)
}

async fn log_of(engine: &Engine, agent: &Agent, id: ComputerId) -> String {
    let log = async {
        let _pass = engine.logs.enter(&agent.tenant).await;
        caught("give the log", async { Ok(engine.entry.runtime.log_tail(id, DEATH_LOG_LIMIT as u64).await) }).await
    };
    let log = tokio::time::timeout(LIMIT, log).await.ok().and_then(Result::ok).unwrap_or_default();
    // What is no text has become longer by being made one.
    end_of(&log, DEATH_LOG_LIMIT).to_owned()
}
