//! An agent that is up, for whoever needs its computer.

use std::time::Duration;

use jiff::Timestamp;

use super::ControlPlane;
use super::call::Call;
use crate::agent::{Agent, ConditionKind, Desired, State};
use crate::error::Error;
use crate::ids::{AgentName, TenantName};
use crate::principal::Action;
use crate::runtime::{IMAGE_MISSING, PROGRAM_UNFIT, VOLUME_MISSING};
use crate::store::{AgentChange, AgentOp, Check, Commit};

/// What somebody needs an agent's computer for. One call has one errand, however often it asks for the computer.
#[derive(Debug, Clone)]
pub struct Errand {
    /// What the audit calls it, where it changes something.
    verb: Option<&'static str>,
    wake: bool,
    limit: Duration,
    /// Whether the call has its audit row.
    recorded: bool,
}

impl Errand {
    /// To look at something. An agent that sleeps is woken where `wake` says so, and waited for up to `limit`.
    #[must_use]
    pub const fn look(wake: bool, limit: Duration) -> Self {
        Self { verb: None, wake, limit, recorded: false }
    }

    /// To change something, which the audit knows by `verb`, such as `files.write`.
    #[must_use]
    pub const fn change(verb: &'static str, wake: bool, limit: Duration) -> Self {
        Self { verb: Some(verb), wake, limit, recorded: false }
    }
}

impl ControlPlane {
    /// The agent, awake and with its program up, for something that needs its computer. What is going to be changed
    /// there stands in the audit before this returns: the computer itself knows no callers.
    ///
    /// # Errors
    /// [`Error::AgentAsleep`] where it sleeps and `wake` is false, or is put to sleep meanwhile; [`Error::StartFailed`]
    /// as soon as its start has failed in a way that waiting does not mend; [`Error::NotFound`] where it is deleted
    /// meanwhile; [`Error::TimedOut`] where it does not come up.
    pub async fn rouse(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        errand: &mut Errand,
    ) -> Result<Agent, Error> {
        let Errand { verb, wake, limit, .. } = *errand;
        let agent = self.find_for(call, tenant, name, Action::Exec, verb.unwrap_or("agents.exec")).await?;
        // What must not wake the agent is done in what is up, though it is about to sleep.
        if agent.status.state().is_up() && (agent.desired == Desired::Awake || !wake) {
            self.record(call, &agent, errand).await?;
            return Ok(agent);
        }
        if !wake {
            return Err(Error::AgentAsleep(agent.name));
        }
        if agent.desired != Desired::Awake {
            let change = AgentChange {
                agent: agent.id,
                when: vec![Check::Alive],
                ops: vec![AgentOp::SetDesired { desired: Desired::Awake, retry: false }],
            };
            let mut commit = Commit::of(self.commit_id(), change);
            if !errand.recorded {
                commit.audit = Some(call.audit(Some(tenant), verb.unwrap_or("agents.wake"), name.as_str(), true));
            }
            self.inner.store.commit(commit).await?;
            errand.recorded = true;
        } else {
            self.record(call, &agent, errand).await?;
        }
        let settled = |agent: &Agent| Outlook::of(agent) != Outlook::Coming;
        let agent = self.wait_for_agent(call, &agent, limit, settled).await?;
        match Outlook::of(&agent) {
            Outlook::Up => Ok(agent),
            Outlook::Gone => Err(Error::no_agent(name)),
            Outlook::Asleep => Err(Error::AgentAsleep(agent.name)),
            Outlook::Failed => Err(start_failed(&agent)),
            Outlook::Coming if agent.status.restarts > 0 => Err(start_failed(&agent)),
            Outlook::Coming => Err(Error::TimedOut { what: "the start of the agent's computer", limit }),
        }
    }

    /// Records what is going to be done where nothing is committed on the way to it.
    async fn record(&self, call: &Call, agent: &Agent, errand: &mut Errand) -> Result<(), Error> {
        if let Some(verb) = errand.verb
            && !errand.recorded
        {
            let mut commit = Commit::new(self.commit_id(), Vec::new());
            commit.audit = Some(call.audit(Some(&agent.tenant), verb, agent.name.as_str(), true));
            self.inner.store.commit(commit).await?;
            errand.recorded = true;
        }
        Ok(())
    }
}

/// After so many failures one after another, nobody is kept waiting for the next try.
const TRIES: u32 = 3;

/// What becomes of an agent that somebody wants up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// It is up.
    Up,
    /// It is being started, or will be soon.
    Coming,
    /// Its start has failed, and waiting does not mend it.
    Failed,
    /// Somebody has put it to sleep.
    Asleep,
    /// It is deleted, or about to be.
    Gone,
}

/// Of which another try alone makes nothing better.
const HOPELESS: [&str; 3] = [IMAGE_MISSING, PROGRAM_UNFIT, VOLUME_MISSING];

impl Outlook {
    fn of(agent: &Agent) -> Self {
        let status = &agent.status;
        match (status.state(), agent.desired) {
            (State::Deleted, _) | (_, Desired::Deleted) => Self::Gone,
            (State::Idle | State::Busy, _) => Self::Up,
            (State::Slept, Desired::Asleep) => Self::Asleep,
            (State::Slept, Desired::Awake) => Self::Coming,
            (State::Init, _) => match status.retry_at {
                // It is under way, or is tried at once.
                None => Self::Coming,
                Some(at) if at == Timestamp::MAX => Self::Failed,
                Some(_) if status.restarts >= TRIES => Self::Failed,
                Some(_) => match status.conditions.get(ConditionKind::Ready) {
                    Some(ready) if HOPELESS.contains(&ready.reason.as_str()) => Self::Failed,
                    Some(_) | None => Self::Coming,
                },
            },
        }
    }
}

fn start_failed(agent: &Agent) -> Error {
    let ready = agent.status.conditions.get(ConditionKind::Ready);
    let (reason, message) = ready.map_or_else(Default::default, |ready| (ready.reason.clone(), ready.message.clone()));
    Error::StartFailed { name: agent.name.clone(), reason, message }
}
