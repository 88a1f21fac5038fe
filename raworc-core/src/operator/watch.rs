//! Follows engines: looks at the agents of computers of which an engine tells something, and at all from time to time.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;

use super::calls::{limited, say_failed};
use super::{Shared, reclaim};
use crate::computer::Computer;
use crate::entropy::EntropyExt;
use crate::ids::{ComputerId, RuntimeName};
use crate::runtime::{Observed, Phase, RuntimeEvent};
use crate::store::{ComputerQuery, DueQuery, MAX_PAGE, StoreError};

/// Looks at the agents of computers that an engine tells of. No call of the engine is waited for between its events.
pub(super) async fn events(shared: Arc<Shared>, name: RuntimeName) {
    let Some(engine) = shared.engines.get(&name) else { return };
    let mut told_why = String::new();
    loop {
        match limited(&shared, "tell its events", engine.entry.runtime.watch()).await {
            Ok(mut events) => {
                told_why.clear();
                // What happened before is seen by looking at all.
                engine.relist.notify_one();
                let told = async {
                    while let Some(event) = events.next().await {
                        match event {
                            RuntimeEvent::Changed(id) => trigger_computer(&shared, &name, id).await,
                            RuntimeEvent::Relist => engine.relist.notify_one(),
                        }
                    }
                };
                if AssertUnwindSafe(told).catch_unwind().await.is_err() {
                    tracing::error!(runtime = %name, "the engine's events ended in a panic");
                }
            }
            // An engine that is away for long is told of once.
            Err(error) => {
                let why = error.to_string();
                if why != told_why {
                    tracing::warn!(%error, runtime = %name, "the engine's events cannot be followed");
                }
                told_why = why;
            }
        }
        tokio::time::sleep(shared.entropy.jitter(Duration::from_secs(2))).await;
    }
}

/// Looks at all agents and computers of an engine, whenever that is asked for and from time to time.
pub(super) async fn relists(shared: Arc<Shared>, name: RuntimeName) {
    let Some(engine) = shared.engines.get(&name) else { return };
    loop {
        // Whether it is asked for or its time has come is the same.
        let _ = tokio::time::timeout(shared.settings.resync_every, engine.relist.notified()).await;
        resync(&shared, &name).await;
    }
}

/// Looks at the agent of a computer, or takes away a computer that nobody knows.
async fn trigger_computer(shared: &Arc<Shared>, runtime: &RuntimeName, id: ComputerId) {
    match shared.store.computer(id).await {
        Ok(Some(computer)) if computer.reclaim_since.is_some() => reclaim::begin(shared, computer),
        Ok(Some(computer)) => shared.queue.look(computer.agent),
        Ok(None) => reclaim::orphan(shared, runtime, id),
        Err(error) => tracing::warn!(%error, computer = %id, "a computer cannot be looked up"),
    }
}

/// Looks at every agent that has a run, and at every computer that the engine has. The store's rows are read page by page,
/// whatever the number of computers that do not run.
async fn resync(shared: &Arc<Shared>, name: &RuntimeName) {
    let Some(engine) = shared.engines.get(name) else { return };
    let query = DueQuery { runtimes: vec![name.clone()], before: Some(Timestamp::MAX), limit: usize::MAX };
    match shared.store.due(&query).await {
        Ok(due) => due.value.iter().for_each(|due| shared.queue.look(due.agent)),
        Err(error) => tracing::warn!(%error, "agents cannot be listed"),
    }
    match limited(shared, "list its computers", engine.entry.runtime.list()).await {
        Ok(computers) => match compare(shared, name, computers).await {
            // What is left was made before the rows were read, and has none; or the engine has another name too, and it is an
            // agent's under that one.
            Ok(unknown) => {
                for id in unknown {
                    trigger_computer(shared, name, id).await;
                }
            }
            Err(error) => tracing::warn!(%error, runtime = %name, "computers cannot be looked up"),
        },
        Err(error) => say_failed!(error, runtime = %name, "the engine's computers cannot be listed"),
    }
}

/// Looks at the agents of those computers that run, and has those reclaimed that no agent owns. Returns those that the store
/// does not know under this runtime's name.
async fn compare(
    shared: &Arc<Shared>,
    runtime: &RuntimeName,
    observed: Vec<Observed>,
) -> Result<Vec<ComputerId>, StoreError> {
    let mut phases: BTreeMap<_, _> = observed.into_iter().map(|seen| (seen.computer, seen.phase)).collect();
    let mut query = ComputerQuery { runtime: runtime.clone(), reclaim: false, after: None, limit: MAX_PAGE };
    while !phases.is_empty() {
        let page = shared.store.computers(&query).await?;
        query.after = page.items.last().map(Computer::id);
        for computer in page.items {
            match phases.remove(&computer.id()) {
                Some(_) if computer.reclaim_since.is_some() => reclaim::begin(shared, computer),
                Some(Phase::Running(_) | Phase::Stopping(_)) => shared.queue.look(computer.agent),
                Some(Phase::Stopped { .. } | Phase::Unfit { .. }) | None => {}
            }
        }
        if page.next.is_none() {
            break;
        }
    }
    Ok(phases.into_keys().collect())
}
