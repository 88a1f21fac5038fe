//! A call: who asks, and what they say about the asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ControlPlane;
use super::access::TokenRecord;
use crate::agent::Agent;
use crate::entropy::EntropyExt;
use crate::error::{Error, refusal};
use crate::ids::{AgentName, TenantName};
use crate::principal::{Action, Denied, Principal, Resource, authorize};
use crate::store::{
    AgentChange, AuditEntry, Check, Commit, Committed, Conflict, IdempotencyKey, IdempotencyRecord, Stamped, StoreError,
};
use crate::trace::TraceParent;

/// Who asks, and what they say about the asking. No use case can be called without one.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub principal: Principal,
    /// Their key, under which the same request has one effect.
    pub idempotency_key: Option<String>,
    /// The id of the request, for logs and audit rows.
    pub request_id: Option<String>,
    /// Where in which trace it goes on.
    pub traceparent: Option<TraceParent>,
    /// The token that it came with, as far as it came with one.
    pub token: Option<TokenRecord>,
    /// Whether the answer was the one to an earlier request with the same key; the same for all clones.
    replayed: Arc<AtomicBool>,
}

impl Call {
    /// A call by `principal`.
    #[must_use]
    pub fn by(principal: Principal) -> Self {
        Self {
            principal,
            idempotency_key: None,
            request_id: None,
            traceparent: None,
            token: None,
            replayed: Arc::default(),
        }
    }

    /// With a key of idempotency.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// With the id of the request.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// With where in which trace it goes on.
    #[must_use]
    pub const fn with_traceparent(mut self, parent: TraceParent) -> Self {
        self.traceparent = Some(parent);
        self
    }

    /// With the token by which it is known who asks.
    #[must_use]
    pub const fn with_token(mut self, token: TokenRecord) -> Self {
        self.token = Some(token);
        self
    }

    /// Whether this call was answered as an earlier one with the same key was, and changed nothing.
    #[must_use]
    pub fn was_replayed(&self) -> bool {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Remembers whether a commit was a replay.
    pub(super) fn note(&self, committed: Committed) -> Committed {
        if committed.replayed {
            self.replayed.store(true, Ordering::Relaxed);
        }
        committed
    }

    pub(super) fn audit(&self, tenant: Option<&TenantName>, verb: &str, resource: &str, allowed: bool) -> AuditEntry {
        AuditEntry {
            tenant: tenant.cloned(),
            principal: self.principal.to_string(),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            allowed,
            request: self.request_id.clone(),
        }
    }
}

/// Why something is not done, before it is told.
pub(super) enum Refusal {
    /// The caller may not do this.
    Denied(Action, Denied),
    /// Something else.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

/// What the audit calls an action on an agent.
fn verb_of(action: Action) -> String {
    format!("agents.{}", action.as_str())
}

impl ControlPlane {
    /// Adds to a commit what the call says of itself: its audit row and its key of idempotency.
    pub(super) fn sign(
        &self,
        call: &Call,
        commit: Commit,
        tenant: &TenantName,
        verb: &str,
        resource: &str,
        body: &impl Serialize,
    ) -> Result<Commit, Error> {
        let idempotency = match &call.idempotency_key {
            None => None,
            Some(key) if key.is_empty() || key.len() > 255 => {
                return Err(Error::invalid("Idempotency-Key", "use 1 to 255 characters"));
            }
            Some(key) => {
                let body = serde_json::to_vec(body).map_err(|error| Error::Internal(error.to_string()))?;
                let mut hash = Sha256::new();
                for part in [tenant.as_str().as_bytes(), verb.as_bytes(), resource.as_bytes(), &body] {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
                Some(IdempotencyRecord {
                    key: IdempotencyKey { principal: call.principal.to_string(), key: key.clone() },
                    request: hex::encode(hash.finalize()),
                    ttl: self.settings().idempotency_ttl,
                })
            }
        };
        Ok(Commit { idempotency, audit: Some(call.audit(Some(tenant), verb, resource, true)), ..commit })
    }

    /// Does `act`, whose commit is signed with the same. What is refused may be refused because of an earlier request with
    /// this key, which changed the agent or took it away: where there was one, its answer is the answer.
    pub(super) async fn once(
        &self,
        call: &Call,
        tenant: &TenantName,
        verb: &str,
        name: &AgentName,
        body: &(impl Serialize + Sync),
        act: impl Future<Output = Result<Committed, Refusal>> + Send,
    ) -> Result<Committed, Error> {
        let refused = match act.await {
            Ok(done) => return Ok(done),
            Err(refused) => refused,
        };
        if call.idempotency_key.is_some()
            && let Some(done) = self.replay(call, tenant, verb, name, body).await?
        {
            return Ok(done);
        }
        match refused {
            Refusal::Denied(action, denied) => {
                Err(self.deny(call, tenant, name, action, &verb_of(action), denied).await)
            }
            Refusal::Error(error) => Err(error),
        }
    }

    async fn replay(
        &self,
        call: &Call,
        tenant: &TenantName,
        verb: &str,
        name: &AgentName,
        body: &impl Serialize,
    ) -> Result<Option<Committed>, Error> {
        // Where the key is new, this commit fails: there is no agent with an id that was made just now.
        let nobody = self.inner.entropy.agent_id(self.inner.clock.now());
        let change = AgentChange { agent: nobody, when: vec![Check::Alive], ops: Vec::new() };
        let commit = self.sign(call, Commit::of(self.commit_id(), change), tenant, verb, name.as_str(), body)?;
        match self.inner.store.commit(commit).await {
            Ok(committed) => Ok(Some(call.note(committed))),
            Err(StoreError::Conflict(Conflict::NoAgent(_))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the caller may see what belongs to the installation as a whole, such as its metrics.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where they may not.
    pub async fn check_installation(&self, call: &Call) -> Result<(), Error> {
        self.allow(call, Action::Get, Resource::Installation).await
    }

    /// The agent of this name, if the caller may do `action` to it.
    pub(super) async fn find(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        action: Action,
    ) -> Result<Agent, Error> {
        self.find_for(call, tenant, name, action, &verb_of(action)).await
    }

    /// The same, for something that the audit knows by `verb`.
    pub(super) async fn find_for(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        action: Action,
        verb: &str,
    ) -> Result<Agent, Error> {
        match self.seek(call, tenant, name, action).await {
            Err(Refusal::Denied(action, denied)) => Err(self.deny(call, tenant, name, action, verb, denied).await),
            Err(Refusal::Error(error)) => Err(error),
            Ok(agent) => Ok(agent),
        }
    }

    /// The same, for who has something to try before it is refused.
    pub(super) async fn seek(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        action: Action,
    ) -> Result<Agent, Refusal> {
        // A user who may not see the tenant learns nothing of what is in it: it is not even looked at.
        let user = matches!(call.principal, Principal::User { .. });
        let hidden = user && authorize(&call.principal, Action::List, Resource::Agents { tenant }).is_err();
        let found = if hidden { None } else { self.inner.store.agent(tenant, name).await?.value };
        let agent = found.ok_or(Refusal::Denied(action, Denied::Hidden))?;
        match authorize(&call.principal, action, resource_of(&agent)) {
            Ok(()) => Ok(agent),
            Err(denied) => Err(Refusal::Denied(action, denied)),
        }
    }

    async fn deny(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        action: Action,
        verb: &str,
        denied: Denied,
    ) -> Error {
        // What is not there is refused with the same work as what may not be known of, or the time would tell one from
        // the other. An admin may know of everything: to them it is not there, and nothing was refused.
        if matches!(call.principal, Principal::User { admin: true, .. }) && denied == Denied::Hidden {
            return refusal(denied, &call.principal, action.as_str(), "agent", name.as_str());
        }
        let row = call.audit(Some(tenant), verb, name.as_str(), false);
        self.refuse(call, action, row, ("agent", name.as_str()), denied).await
    }

    /// Says no where the caller may not do `action` in this tenant, or this installation, at all.
    pub(super) async fn allow(&self, call: &Call, action: Action, resource: Resource<'_>) -> Result<(), Error> {
        let Err(denied) = authorize(&call.principal, action, resource) else { return Ok(()) };
        let (tenant, noun, (what, name)) = match resource {
            Resource::Agents { tenant } | Resource::Agent { tenant, .. } => {
                (Some(tenant), "agents", ("tenant", tenant.as_str()))
            }
            Resource::Events { tenant } => (Some(tenant), "events", ("tenant", tenant.as_str())),
            Resource::Users { name } => (None, "users", ("user", name.map_or("", |name| name.as_str()))),
            Resource::Installation => (None, "installation", ("installation", "")),
        };
        let row = call.audit(tenant, &format!("{noun}.{}", action.as_str()), name, false);
        Err(self.refuse(call, action, row, (what, name), denied).await)
    }

    /// The one way to say no: `row` is in the audit before the caller hears of it, unless they only wanted to look.
    async fn refuse(
        &self,
        call: &Call,
        action: Action,
        row: AuditEntry,
        (what, name): (&'static str, &str),
        denied: Denied,
    ) -> Error {
        if !matches!(action, Action::Get | Action::List) {
            let verb = row.verb.clone();
            let commit = Commit { audit: Some(row), ..Commit::new(self.commit_id(), Vec::new()) };
            // The answer is no all the same.
            if let Err(error) = self.inner.store.commit(commit).await {
                tracing::warn!(%error, principal = %call.principal, verb, "a refusal could not be recorded");
            }
        }
        refusal(denied, &call.principal, action.as_str(), what, name)
    }

    /// The agent whose program calls, if this is its present incarnation.
    pub(super) async fn own(&self, call: &Call) -> Result<Agent, Error> {
        self.own_read(call).await.map(|read| read.value)
    }

    /// The same, with the store's time.
    pub(super) async fn own_read(&self, call: &Call) -> Result<Stamped<Agent>, Error> {
        let Principal::Agent { agent, .. } = &call.principal else {
            return Err(Error::Forbidden {
                principal: call.principal.to_string(),
                action: Action::Serve.as_str(),
                resource: "an agent".into(),
            });
        };
        let Stamped { value: found, now } = self.inner.store.agent_by_id(*agent).await?;
        let found = found.ok_or_else(|| Error::no_agent(agent))?;
        let denied = |denied: Denied| refusal(denied, &call.principal, "serve", "agent", found.name.as_str());
        authorize(&call.principal, Action::Serve, resource_of(&found)).map_err(denied)?;
        // What is being ended, or has ended, is as old as what came before it.
        if found.status.run.as_ref().is_none_or(|run| run.ending) {
            return Err(Error::StaleIncarnation { present: found.status.incarnation });
        }
        Ok(Stamped { value: found, now })
    }
}

pub(super) fn resource_of(agent: &Agent) -> Resource<'_> {
    Resource::Agent { tenant: &agent.tenant, id: agent.id, owner: &agent.owner, incarnation: agent.status.incarnation }
}
