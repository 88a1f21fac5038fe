//! Reclaims what no agent owns: computers of deleted agents, computers that were replaced, and orphans.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::calls::{Cut, go_on, limited, pause, say_failed, unless_stopped};
use super::jobs::Subject;
use super::stop::stop_computer;
use super::{Engine, Shared, death, spawn_job};
use crate::agent::State;
use crate::computer::Computer;
use crate::entropy::EntropyExt;
use crate::ids::{ComputerId, RuntimeName, TenantName};
use crate::runtime::RuntimeError;
use crate::store::{Change, Commit, ComputerQuery, Conflict, MAX_PAGE, QuotaDelta, QuotaKind, StoreError};

/// Goes through the reclaim list.
pub(super) async fn scan(shared: &Arc<Shared>) {
    for runtime in shared.engines.keys() {
        let mut query = ComputerQuery { runtime: runtime.clone(), reclaim: true, after: None, limit: MAX_PAGE };
        loop {
            let page = match shared.store.computers(&query).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, %runtime, "the reclaim list cannot be read");
                    break;
                }
            };
            query.after = page.items.last().map(Computer::id);
            page.items.into_iter().for_each(|computer| begin(shared, computer));
            if page.next.is_none() {
                break;
            }
        }
    }
}

/// Takes a computer of the reclaim list away, apart from whatever calls this.
pub(super) fn begin(shared: &Arc<Shared>, computer: Computer) {
    if shared.owns(&computer.runtime, computer.agent) {
        take_away(shared, computer);
    }
}

/// How often it is looked whether something else is done with a computer.
const WAIT: Duration = Duration::from_millis(100);

/// Takes away again what a start has made that came when its agent was gone, and its computer forgotten: nobody else knows
/// whose that is.
pub(super) async fn late(shared: &Arc<Shared>, computer: Computer) {
    let agent = shared.store.agent_by_id(computer.agent).await.map(|read| read.value);
    let is_gone = agent.map(|agent| agent.is_none_or(|agent| agent.status.state() == State::Deleted));
    match (is_gone, shared.store.computer(computer.id()).await) {
        (Ok(true), Ok(None)) => {
            // The engine may have told of it already, and whoever takes it for an orphan leaves the volume.
            while shared.jobs.is_running(Subject::Reclaim(computer.id())) && !shared.stop.is_cancelled() {
                tokio::time::sleep(WAIT).await;
            }
            take_away(shared, Computer { keep_volume: false, unsettled: false, ..computer });
        }
        // What stands on the list is taken away from there; what an agent has is its own.
        (Ok(_), Ok(_)) => {}
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, computer = %computer.id(), "a computer of a late start cannot be looked up");
        }
    }
}

fn take_away(shared: &Arc<Shared>, computer: Computer) {
    let subject = Subject::Reclaim(computer.id());
    let Some(job) = shared.jobs.begin(subject) else { return };
    let task = Arc::clone(shared);
    let Computer { tenant, agent, .. } = &computer;
    let span = tracing::error_span!("reclaim", %agent, %tenant, computer = %computer.id());
    let work = async move {
        let shared = task;
        let Some(engine) = shared.engines.get(&computer.runtime) else { return };
        let settled = settled_at(&shared, &computer).await;
        death::keep_replaced(&shared, engine, &computer).await;
        loop {
            // What was asked for its agent before may still be under way, and would make it anew.
            if shared.jobs.is_running(Subject::Agent(computer.agent)) {
                pause(&shared, subject).await;
                if shared.stop.is_cancelled() {
                    return;
                }
                continue;
            }
            match reclaim(&shared, engine, &computer).await {
                Ok(()) => match settled.filter(|settled| is_yet_to_come(&shared, &computer, *settled)) {
                    Some(settled) => {
                        tokio::select! {
                            biased;
                            () = shared.stop.cancelled() => {}
                            () = tokio::time::sleep_until(settled) => {}
                        }
                    }
                    None => break,
                },
                Err(Cut::Stopped) => return,
                Err(Cut::Failed(error)) => {
                    say_failed!(error, "a computer cannot be taken away yet");
                    pause(&shared, subject).await;
                }
            }
            if shared.stop.is_cancelled() {
                return;
            }
        }
        shared.jobs.succeeded(subject);
        shared.jobs.forget(computer.id());
        match forget(&shared, &computer).await {
            Ok(()) => tracing::info!("a computer is taken away"),
            Err(error) => tracing::warn!(%error, "a computer is gone and stays on the reclaim list"),
        }
        drop(job);
    };
    spawn_job(shared, work.instrument(span));
}

/// Until when a start of the computer that was begun before may still be under way, and make its volume once more. Until
/// then it stays on the list, or nobody would know whose volume that is. Reckoned once: the clock may be set, and what was
/// begun before this is over in the time of one call.
async fn settled_at(shared: &Shared, computer: &Computer) -> Option<Instant> {
    if !computer.unsettled || computer.keep_volume {
        return None;
    }
    let (since, begun, limit) = (computer.reclaim_since?, Instant::now(), shared.settings.call_limit);
    let passed = match shared.store.head().await {
        Ok(head) => Duration::try_from(head.now.duration_since(since)).unwrap_or_default(),
        Err(_) => Duration::ZERO,
    };
    Some(begun + limit.saturating_sub(passed))
}

fn is_yet_to_come(shared: &Shared, computer: &Computer, settled: Instant) -> bool {
    !shared.jobs.is_answered(computer.id()) && Instant::now() < settled
}

async fn reclaim(shared: &Shared, engine: &Engine, computer: &Computer) -> Result<(), Cut> {
    let _pass = unless_stopped(shared, engine.gate.enter(&computer.tenant)).await?;
    let runtime = &engine.entry.runtime;
    remove(shared, engine, computer.id()).await?;
    if !computer.keep_volume {
        go_on(shared)?;
        limited(shared, "remove the volume", runtime.remove_volume(computer.spec.volume)).await?;
    }
    Ok(())
}

async fn remove(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<(), Cut> {
    stop_computer(shared, engine, id).await?;
    go_on(shared)?;
    limited(shared, "remove the computer", engine.entry.runtime.remove(id)).await?;
    Ok(())
}

async fn forget(shared: &Shared, computer: &Computer) -> Result<(), StoreError> {
    let id = shared.entropy.commit_id(shared.clock.now());
    let mut commit = Commit::new(id, vec![Change::Reclaimed(computer.id())]);
    // A volume goes only with its agent, and the agent's quota with its volume.
    if !computer.keep_volume {
        let tenant = computer.tenant.clone();
        commit.quota = vec![QuotaDelta { tenant, kind: QuotaKind::Agents, delta: -1, limit: None }];
    }
    match shared.store.commit(commit).await {
        // Another operator was quicker.
        Ok(_) | Err(StoreError::Conflict(Conflict::NotReclaimable(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes away a computer that bears this installation's label and that the store has never heard of.
///
/// Computers are committed before the engine is called, so no start can be under way for it. Its volume is left: what
/// nobody knows may still hold somebody's files. The store is asked once more for it: who said that it knows of none may
/// have been a primary whose place another one took, which a sign of life cannot be given to.
pub(super) fn orphan(shared: &Arc<Shared>, runtime: &RuntimeName, id: ComputerId) {
    let Some(job) = shared.jobs.begin(Subject::Reclaim(id)) else { return };
    let (task, runtime) = (Arc::clone(shared), runtime.clone());
    spawn_job(shared, async move {
        let shared = task;
        let Some(engine) = shared.engines.get(&runtime) else { return };
        match take_orphan(&shared, engine, id).await {
            Ok(true) => tracing::warn!(computer = %id, %runtime, "a computer that no agent ever had was taken away"),
            Ok(false) | Err(Cut::Stopped) => {}
            Err(Cut::Failed(error)) => say_failed!(error, computer = %id, "an orphan cannot be taken away yet"),
        }
        drop(job);
    });
}

/// Whether there was something to take away: the last word of a computer that was reclaimed is its removal.
async fn take_orphan(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<bool, Cut> {
    let asked = Instant::now();
    let _pass = unless_stopped(shared, engine.orphans.enter(&TenantName::default())).await?;
    if limited(shared, "look at the computer", engine.entry.runtime.observe(id)).await?.is_none() {
        return Ok(false);
    }
    // Of many that wait for each other, the first alone waits for this.
    unless_stopped(shared, shared.shards.signed_after(asked)).await?;
    go_on(shared)?;
    let known = shared.store.computer(id).await.map_err(|error| RuntimeError::Unavailable(error.to_string()))?;
    if let Some(computer) = known {
        tracing::info!(computer = %id, "the store knows of a computer that it did not know of before");
        shared.queue.look(computer.agent);
        return Ok(false);
    }
    remove(shared, engine, id).await?;
    Ok(true)
}

/// Takes a computer away that was just put on the reclaim list.
pub(super) async fn soon(shared: &Arc<Shared>, id: ComputerId) {
    match shared.store.computer(id).await {
        Ok(Some(computer)) if computer.reclaim_since.is_some() => begin(shared, computer),
        Ok(_) => {}
        // The scan of the reclaim list finds it.
        Err(error) => tracing::debug!(%error, computer = %id, "a computer cannot be looked up"),
    }
}
