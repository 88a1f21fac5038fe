//! What every job at an engine keeps to: it ends with the operator, each call has its time, and a panic is a failure.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use super::Shared;
use super::execute::commit_id;
use super::jobs::Subject;
use crate::agent::Agent;
use crate::entropy::EntropyExt;
use crate::runtime::RuntimeError;
use crate::store::{AgentChange, AgentOp, Check, Commit, Committed, StoreError};

/// Why a job did not come to its end.
pub(super) enum Cut {
    /// The operator is told to stop: what is left to do is another one's.
    Stopped,
    /// The engine did not do it.
    Failed(RuntimeError),
}

impl From<RuntimeError> for Cut {
    fn from(error: RuntimeError) -> Self {
        Self::Failed(error)
    }
}

/// Says what an engine did not do. That it does not answer at all is said once, by whoever follows its events: of a thousand
/// agents that wait for it each would say so again and again.
macro_rules! say_failed {
    ($error:ident, $($what:tt)*) => {
        if matches!($error, $crate::runtime::RuntimeError::Unavailable(_)) {
            tracing::debug!(error = %$error, $($what)*);
        } else {
            tracing::warn!(error = %$error, $($what)*);
        }
    };
}
pub(super) use say_failed;

/// Stands before each call of an engine but a job's first: the operator may have been told to stop meanwhile.
pub(super) fn go_on(shared: &Shared) -> Result<(), Cut> {
    if shared.stop.is_cancelled() { Err(Cut::Stopped) } else { Ok(()) }
}

/// Waits for something that need not be waited for any more once the operator is told to stop.
pub(super) async fn unless_stopped<T>(shared: &Shared, wait: impl Future<Output = T>) -> Result<T, Cut> {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(Cut::Stopped),
        done = wait => Ok(done),
    }
}

pub(super) async fn limited<T>(
    shared: &Shared,
    what: &'static str,
    call: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let limit = shared.settings.call_limit;
    tokio::time::timeout(limit, caught(what, call)).await.unwrap_or(Err(RuntimeError::TimedOut { what, limit }))
}

/// A runtime that panics fails its call, and nothing else.
pub(super) async fn caught<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let panicked = |_| Err(RuntimeError::Refused { what, reason: "the runtime panicked".into() });
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(panicked)
}

/// Waits before the engine is asked again.
pub(super) async fn pause(shared: &Shared, subject: Subject) {
    let failures = shared.jobs.failed(subject);
    let wait = Duration::from_millis(500) * (1 << failures.min(7));
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = tokio::time::sleep(shared.entropy.jitter(wait)) => {}
    }
}

/// Records what an engine did for a run, if that run is still the present one. Returns the agent as it is then.
pub(super) async fn record(shared: &Shared, agent: &Agent, ops: Vec<AgentOp>) -> Option<Agent> {
    let when = vec![Check::Incarnation(agent.status.incarnation)];
    let change = AgentChange { agent: agent.id, when, ops };
    match persist(shared, Commit::of(commit_id(shared), change)).await {
        Ok(committed) => committed.agents.into_iter().next(),
        Err(error) => {
            tracing::info!(%error, "what an engine did came too late");
            None
        }
    }
}

/// Commits, again where the store does not answer, until the operator is told to stop.
pub(super) async fn persist(shared: &Shared, commit: Commit) -> Result<Committed, StoreError> {
    let mut wait = Duration::from_millis(50);
    loop {
        match shared.store.commit(commit.clone()).await {
            Err(error) if error.is_retryable() && !shared.stop.is_cancelled() => {
                tokio::time::sleep(shared.entropy.jitter(wait)).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            committed => return committed,
        }
    }
}
