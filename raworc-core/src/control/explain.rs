//! Why an agent is as it is, and what comes next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ControlPlane;
use super::activity::{ActivityKind, ActivityReason};
use super::call::Call;
use crate::agent::{Agent, Condition, ConditionKind, Desired, Run, SetupRun, State};
use crate::error::Error;
use crate::ids::{AgentName, TenantName};
use crate::principal::Action;

/// Why an agent is as it is, and what comes next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// How it is.
    pub state: State,
    /// What its owner wants it to be.
    pub desired: Desired,
    /// A sentence for each thing worth knowing.
    pub because: Vec<String>,
    /// What keeps it awake.
    pub activity: Vec<ActivityReason>,
    /// When it would be put to sleep, if nothing happens until then.
    pub sleeps_at: Option<Timestamp>,
    /// When its next start is tried.
    pub retry_at: Option<Timestamp>,
    /// Messages that wait.
    pub queued: u64,
    /// Conditions that are not as they should be.
    pub conditions: Vec<Condition>,
}

impl ControlPlane {
    /// Explains an agent.
    ///
    /// # Errors
    /// Where it is not there or the caller may not see it.
    pub async fn explain(&self, call: &Call, tenant: &TenantName, name: &AgentName) -> Result<Explanation, Error> {
        let agent = self.find(call, tenant, name, Action::Get).await?;
        // Read again, for the store's time by which what expires has expired.
        let read = self.inner.store.agent_by_id(agent.id).await?;
        let agent = read.value.unwrap_or(agent);
        let held = self.inner.activity.reasons(agent.id);
        let mut told = explain(&agent, held, read.now);
        told.because.extend(self.unattended(&agent).await?);
        Ok(told)
    }

    /// Why nobody can start, stop or delete the agent's computer now, if so.
    async fn unattended(&self, agent: &Agent) -> Result<Option<String>, Error> {
        let engines = &self.inner.engines;
        let Some(runtime) = agent.spec.runtime.as_ref().filter(|name| engines.get(name).is_none()) else {
            return Ok(None);
        };
        let looked_after = !self.inner.store.leases(&crate::operator::shards::prefix(runtime)).await?.value.is_empty();
        Ok(match (looked_after, engines.is_empty()) {
            (true, _) => None,
            (false, true) => Some(format!(
                "no operator looks after the runtime {runtime} now, so nothing can start, stop or delete it: start \
                 `raworc operator` where its engine is reached"
            )),
            (false, false) => Some(format!(
                "this server does not have the runtime {runtime}, and can neither start, stop nor delete it; the server's \
                 log says at its start why it is left out"
            )),
        })
    }
}

fn explain(agent: &Agent, mut activity: Vec<ActivityReason>, now: Timestamp) -> Explanation {
    let status = &agent.status;
    if status.message.is_some() {
        activity.push(ActivityReason {
            kind: ActivityKind::Message,
            since: Some(status.since),
            until: status.busy_until,
        });
    }
    if let Some((setup, run)) = setup_in_hand(agent) {
        activity.push(ActivityReason {
            kind: ActivityKind::Setup,
            since: Some(setup.began_at),
            until: Some(run.deadline),
        });
    }
    if let Some(until) = status.keep_awake_until.filter(|until| *until > now) {
        activity.push(ActivityReason { kind: ActivityKind::KeepAwake, since: None, until: Some(until) });
    }
    let asleep_by_time = status.state() == State::Idle && agent.spec.idle_timeout > 0;
    let sleeps_at = if asleep_by_time && !agent.has_work() { status.awake_until } else { None };
    let retry_at = status.retry_at.filter(|&at| at < Timestamp::MAX);
    Explanation {
        state: status.state(),
        desired: agent.desired,
        because: sentences(agent),
        activity,
        sleeps_at,
        retry_at,
        queued: agent.inbox.queued,
        conditions: status.conditions.iter().filter(|condition| condition.is_remarkable()).cloned().collect(),
    }
}

/// The setup script that its program runs, and in which run.
fn setup_in_hand(agent: &Agent) -> Option<(&SetupRun, &Run)> {
    let run = agent.status.run.as_ref().filter(|run| !run.ending && run.ready_at.is_none())?;
    Some((run.setup.as_ref()?, run))
}

fn sentences(agent: &Agent) -> Vec<String> {
    let status = &agent.status;
    let ready = status.conditions.get(ConditionKind::Ready);
    let mut because = Vec::new();
    match status.state() {
        State::Init => match (&status.run, ready.filter(|ready| !ready.status && status.restarts > 0)) {
            (_, Some(ready)) if status.retry_at == Some(Timestamp::MAX) => because.push(format!(
                "its last start failed ({}), and it waits for a change or for `wake --retry`: {}",
                ready.reason, ready.message
            )),
            (None, Some(ready)) => because.push(format!(
                "its last start failed ({}), {} in a row; it is tried again: {}",
                ready.reason, status.restarts, ready.message
            )),
            (Some(run), _) if run.ending => because.push("its computer is being stopped before the next start".into()),
            (Some(run), _) if run.setup.is_some() => because.push("its program runs the setup script".into()),
            (Some(_), _) => because.push("its computer is being started".into()),
            (None, None) => because.push("it waits for an operator to start its computer".into()),
        },
        State::Idle if agent.spec.idle_timeout == 0 => {
            because.push("it waits for a message, and is never put to sleep by time (idle_timeout is 0)".into());
        }
        State::Idle => because.push("it waits for a message".into()),
        State::Busy => because.push("it works on a message".into()),
        State::Slept => because.push(match &status.run {
            Some(_) => "it sleeps, and its computer is being stopped".into(),
            None => "it sleeps; a message, a wake or a call wakes it".into(),
        }),
        State::Deleted => because.push("it is deleted".into()),
    }
    if agent.desired == Desired::Asleep && status.state() == State::Busy {
        because.push("it goes to sleep as soon as its message has ended".into());
    }
    if agent.desired == Desired::Deleted && status.state() != State::Deleted {
        because.push("it is about to be deleted".into());
    }
    let full = status.conditions.get(ConditionKind::DiskFull).filter(|full| full.status && agent.inbox.queued > 0);
    let asleep = status.state() == State::Slept && agent.desired == Desired::Asleep;
    if let Some(full) = full {
        because.push(format!("messages wait for room on its volume: {}", full.message));
        if asleep {
            because.push("the next message, wake or command starts it, and so does more resources.disk".into());
        }
    } else if agent.inbox.queued > 0 && asleep {
        because.push("messages were queued when sleep was asked for; the next message or wake runs them".into());
    }
    because
}
