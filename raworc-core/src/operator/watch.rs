//! Follows engines: looks at the agents of computers of which an engine tells something, and at all from time to time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;

use super::calls::limited;
use super::{Shared, reclaim};
use crate::entropy::EntropyExt;
use crate::ids::{ComputerId, RuntimeName};
use crate::runtime::{Phase, RuntimeEvent};
use crate::store::DueQuery;

/// Looks at the agents of computers that an engine tells of. No call of the engine is waited for between its events.
pub(super) async fn events(shared: Arc<Shared>, name: RuntimeName) {
    let Some(engine) = shared.engines.get(&name) else { return };
    loop {
        match limited(&shared, "tell its events", engine.entry.runtime.watch()).await {
            Ok(mut events) => {
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
            Err(error) => tracing::warn!(%error, runtime = %name, "the engine's events cannot be followed"),
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

/// Looks at every agent that has a run, and at every computer that the engine has.
async fn resync(shared: &Arc<Shared>, name: &RuntimeName) {
    let Some(engine) = shared.engines.get(name) else { return };
    let query = DueQuery { runtimes: vec![name.clone()], before: Some(Timestamp::MAX), limit: usize::MAX };
    match shared.store.due(&query).await {
        Ok(due) => due.value.iter().for_each(|due| shared.queue.look(due.agent)),
        Err(error) => tracing::warn!(%error, "agents cannot be listed"),
    }
    match limited(shared, "list its computers", engine.entry.runtime.list()).await {
        Ok(computers) => {
            for observed in computers {
                match observed.phase {
                    Phase::Running(_) | Phase::Stopping(_) => trigger_computer(shared, name, observed.computer).await,
                    Phase::Stopped { .. } => reclaim::stopped(shared, name, observed.computer).await,
                }
            }
        }
        Err(error) => tracing::warn!(%error, runtime = %name, "the engine's computers cannot be listed"),
    }
}
