//! What people do with agents.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ControlPlane;
use super::call::{Call, resource_of};
use crate::agent::{Agent, AgentSpec, Desired, InvalidSpec, SpecChange, State};
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::ids::{AgentName, RuntimeName, TenantName, UserName};
use crate::labels::Selector;
use crate::principal::{Action, Principal, Resource};
use crate::runtime::Capabilities;
use crate::store::{
    AgentChange, AgentOp, AgentQuery, Check, Commit, Committed, Conflict, MAX_PAGE, NewAgent, Page, QuotaDelta,
    QuotaKind, StoreError,
};

/// Asks for an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateAgent {
    /// Its name, unique among the living agents of the tenant.
    pub name: AgentName,
    /// What it should be like.
    #[serde(default)]
    pub spec: AgentSpec,
}

impl CreateAgent {
    /// An agent of this name, with a default spec.
    #[must_use]
    pub fn named(name: AgentName) -> Self {
        Self { name, spec: AgentSpec::default() }
    }
}

/// Asks for a change of an agent's spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EditAgent {
    /// A JSON merge patch of the spec: what is absent stays, and null takes a field back to its default.
    pub spec: SpecChange,
}

/// Which agents to list.
#[derive(Debug, Clone, Default)]
pub struct ListAgents {
    /// In this state.
    pub state: Option<State>,
    /// With such labels.
    pub selector: Selector,
    /// After this cursor.
    pub after: Option<String>,
    /// At most so many; [`MAX_PAGE`] where absent.
    pub limit: Option<usize>,
}

/// How an agent is put to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SleepMode {
    /// Once the message in hand has ended.
    #[default]
    AfterMessage,
    /// Now: the message in hand is cancelled.
    Now,
}

/// What somebody wants of an agent from now on.
#[derive(Clone, Copy)]
struct Wish {
    verb: &'static str,
    desired: Desired,
    /// Try again what waits to be tried, or do not wait for the message in hand.
    insist: bool,
}

impl ControlPlane {
    /// Makes an agent. It is `init` then, and becomes `idle` as soon as its computer is up.
    ///
    /// # Errors
    /// Where the spec cannot be had, the name is taken, or the quota is used up.
    pub async fn create_agent(&self, call: &Call, tenant: &TenantName, request: CreateAgent) -> Result<Agent, Error> {
        self.allow(call, Action::Create, Resource::Agents { tenant }).await?;
        let Principal::User { name: owner, .. } = &call.principal else {
            return Err(Error::Forbidden {
                principal: call.principal.to_string(),
                action: "create",
                resource: "agents".into(),
            });
        };
        let CreateAgent { name, mut spec } = request.clone();
        let runtime = self.runtime_of(&spec)?;
        spec.runtime = Some(runtime.0.clone());
        self.check_spec(&spec, &runtime.1)?;
        let new = NewAgent { tenant: tenant.clone(), name: name.clone(), owner: owner.clone(), spec };
        let change = AgentChange {
            agent: self.inner.entropy.agent_id(self.inner.clock.now()),
            when: vec![Check::Absent],
            ops: vec![AgentOp::Create(Box::new(new))],
        };
        let mut commit = Commit::of(self.commit_id(), change);
        commit.quota = vec![QuotaDelta {
            tenant: tenant.clone(),
            kind: QuotaKind::Agents,
            delta: 1,
            limit: self.settings().agents_per_tenant,
        }];
        let commit = self.sign(call, commit, tenant, "agents.create", name.as_str(), &request)?;
        first_agent(call.note(self.inner.store.commit(commit).await?))
    }

    fn runtime_of(&self, spec: &AgentSpec) -> Result<(RuntimeName, Capabilities), Error> {
        let known = self.runtimes();
        let found = match &spec.runtime {
            Some(name) => known.iter().find(|(known, _)| known == name),
            None => known.first(),
        };
        found.cloned().ok_or_else(|| {
            let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
            let reason = match names.as_slice() {
                [] => {
                    "this installation has no runtime yet: start `raworc operator`, which tells of its own".to_owned()
                }
                names => format!("there is no such runtime; this installation has {names:?}"),
            };
            Error::invalid("spec.runtime", reason)
        })
    }

    fn check_spec(&self, spec: &AgentSpec, runtime: &Capabilities) -> Result<(), Error> {
        spec.check(runtime)?;
        if let Some(model) = spec.model.as_deref()
            && self.settings().models.get(Some(model)).is_none()
        {
            let known: Vec<_> = self.settings().models.names().collect();
            let reason = format!("{model:?} is not among the models of this installation: {known:?}");
            return Err(InvalidSpec { field: "model", reason }.into());
        }
        Ok(())
    }

    /// An agent.
    ///
    /// # Errors
    /// Where it is not there or the caller may not see it.
    pub async fn get_agent(&self, call: &Call, tenant: &TenantName, name: &AgentName) -> Result<Agent, Error> {
        self.find(call, tenant, name, Action::Get).await
    }

    /// The agents of a tenant that the caller may see, by name.
    ///
    /// # Errors
    /// Where the caller may not see the tenant.
    pub async fn list_agents(
        &self,
        call: &Call,
        tenant: &TenantName,
        request: ListAgents,
    ) -> Result<Page<Agent>, Error> {
        self.allow(call, Action::List, Resource::Agents { tenant }).await?;
        let query = AgentQuery {
            tenant: tenant.clone(),
            owner: visible_owner(&call.principal),
            state: request.state,
            selector: request.selector,
            after: request.after,
            limit: request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE),
        };
        Ok(self.inner.store.agents(&query).await?)
    }

    /// Changes an agent's spec. What an engine cannot change in place takes effect at the next start.
    ///
    /// # Errors
    /// Where the result cannot be had, or `generation` is given and is not the present one.
    pub async fn edit_agent(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        request: &EditAgent,
        generation: Option<u64>,
    ) -> Result<Agent, Error> {
        let verb = "agents.update";
        let edit = async {
            loop {
                let agent = self.seek(call, tenant, name, Action::Update).await?;
                if let Some(wanted) = generation
                    && wanted != agent.generation
                {
                    return Err(Error::GenerationMismatch { wanted, found: agent.generation }.into());
                }
                let spec = request.spec.apply(&agent.spec).map_err(Error::from)?;
                self.check_spec(&spec, &self.runtime_of(&spec)?.1)?;
                let ops = vec![AgentOp::SetSpec(Box::new(spec))];
                let when = vec![Check::Alive, Check::Generation(agent.generation)];
                let commit = Commit::of(self.commit_id(), AgentChange { agent: agent.id, when, ops });
                let commit = self.sign(call, commit, tenant, verb, name.as_str(), request)?;
                match self.inner.store.commit(commit).await {
                    // Who names no generation wants the change made to whatever is there.
                    Err(StoreError::Conflict(Conflict::Generation { .. })) if generation.is_none() => {}
                    committed => return Ok(call.note(committed?)),
                }
            }
        };
        first_agent(self.once(call, tenant, verb, name, request, edit).await?)
    }

    /// Wakes an agent. `retry` tries at once what waits to be tried again: a failed setup, an image that was missing.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn wake(&self, call: &Call, tenant: &TenantName, name: &AgentName, retry: bool) -> Result<Agent, Error> {
        self.desire(call, tenant, name, Wish { verb: "agents.wake", desired: Desired::Awake, insist: retry }).await
    }

    /// Puts an agent to sleep. Messages that are queued stay queued.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn sleep(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        mode: SleepMode,
    ) -> Result<Agent, Error> {
        let insist = mode == SleepMode::Now;
        self.desire(call, tenant, name, Wish { verb: "agents.sleep", desired: Desired::Asleep, insist }).await
    }

    /// Deletes an agent: nothing of it is served from then on, and its computer goes as soon as the engine can.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn delete(&self, call: &Call, tenant: &TenantName, name: &AgentName) -> Result<Agent, Error> {
        self.desire(call, tenant, name, Wish { verb: "agents.delete", desired: Desired::Deleted, insist: false }).await
    }

    async fn desire(&self, call: &Call, tenant: &TenantName, name: &AgentName, wish: Wish) -> Result<Agent, Error> {
        let Wish { verb, desired, insist } = wish;
        let mut ops = Vec::new();
        if desired == Desired::Asleep && insist {
            ops.push(AgentOp::CancelHeld { obey: self.settings().cancel_grace });
        }
        ops.push(AgentOp::SetDesired { desired, retry: desired == Desired::Awake && insist });
        let action = if desired == Desired::Deleted { Action::Delete } else { Action::Operate };
        self.change(call, tenant, name, (action, verb), &insist, ops).await.and_then(first_agent)
    }

    /// Keeps an agent awake for so long from now, or no longer than its idle time where `time` is absent.
    ///
    /// # Errors
    /// Where it is not there, is asleep, or the time is longer than this installation allows.
    pub async fn keep_awake(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        time: Option<Duration>,
    ) -> Result<Agent, Error> {
        let limit = self.settings().keep_awake_limit;
        if time.is_some_and(|time| time > limit || time.is_zero()) {
            return Err(Error::invalid("for", format!("use 1 s to {} s", limit.as_secs())));
        }
        let ops = vec![AgentOp::KeepAwake(time)];
        match self.change(call, tenant, name, (Action::Operate, "agents.keep_awake"), &time, ops).await {
            Err(Error::AgentState { state: State::Slept, .. }) => Err(Error::AgentAsleep(name.clone())),
            committed => first_agent(committed?),
        }
    }

    /// Cancels the message that the agent holds, or does nothing where it holds none.
    ///
    /// # Errors
    /// Where the agent is not there.
    pub async fn cancel(&self, call: &Call, tenant: &TenantName, name: &AgentName) -> Result<Agent, Error> {
        // Where there is nothing to cancel, that is kept too: the same request sent again must not cancel what came since.
        let ops = vec![AgentOp::CancelHeld { obey: self.settings().cancel_grace }];
        self.change(call, tenant, name, (Action::Operate, "agents.cancel"), &(), ops).await.and_then(first_agent)
    }

    /// Does something to an agent, where the caller may do `action` to it. The audit knows it by `verb`, and a key of
    /// idempotency stands for `body`.
    pub(super) async fn change(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        (action, verb): (Action, &str),
        body: &(impl Serialize + Sync),
        ops: Vec<AgentOp>,
    ) -> Result<Committed, Error> {
        let change = async {
            let agent = self.seek(call, tenant, name, action).await?;
            let change = AgentChange { agent: agent.id, when: vec![Check::Alive], ops };
            let commit = self.sign(call, Commit::of(self.commit_id(), change), tenant, verb, name.as_str(), body)?;
            Ok(call.note(self.inner.store.commit(commit).await?))
        };
        self.once(call, tenant, verb, name, body, change).await
    }

    /// Waits until the agent is as `done` says, or the time is over. Returns the agent as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it is gone, or the caller may not see it.
    pub async fn wait_for_agent(
        &self,
        call: &Call,
        agent: &Agent,
        limit: Duration,
        done: impl Fn(&Agent) -> bool + Send + Sync,
    ) -> Result<Agent, Error> {
        // By what it is, not by its name: it may be deleted by now, which is one of the things to wait for.
        self.allow(call, Action::Get, resource_of(agent)).await?;
        let done = &done;
        let probe = move || async move {
            let found = self.inner.store.agent_by_id(agent.id).await?.value;
            let found = found.ok_or_else(|| Error::no_agent(&agent.name))?;
            Ok(done(&found).then_some(found))
        };
        match self.inner.feed.until(agent.id, limit, probe).await? {
            Some(agent) => Ok(agent),
            None => {
                let found = self.inner.store.agent_by_id(agent.id).await?.value;
                found.ok_or_else(|| Error::no_agent(&agent.name))
            }
        }
    }
}

/// Whose agents a principal sees: all, or only their own.
pub(super) fn visible_owner(principal: &Principal) -> Option<UserName> {
    match principal {
        Principal::User { admin: true, .. } | Principal::Agent { .. } => None,
        Principal::User { name, admin: false, .. } => Some(name.clone()),
    }
}

pub(super) fn first_agent(committed: Committed) -> Result<Agent, Error> {
    committed.agents.into_iter().next().ok_or_else(|| Error::Internal("a commit changed no agent".into()))
}
