//! Agents as the latest commits left them, so that those in use are read without asking the database.
//!
//! Only the writer fills it, so that nothing old can come in. What a transaction changes is taken out before the database
//! makes it visible and put back after that: nobody sees an agent as it was once something else that the same commit
//! wrote could be seen.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use raworc_core::agent::{Agent, State};
use raworc_core::ids::{AgentId, AgentName, TenantName};

#[derive(Debug, Default)]
pub(crate) struct Recent(RwLock<Agents>);

#[derive(Debug, Default)]
struct Agents {
    by_id: HashMap<AgentId, Agent>,
    /// Those that are not deleted.
    by_name: HashMap<(TenantName, AgentName), AgentId>,
}

impl Recent {
    pub(crate) fn by_id(&self, id: AgentId) -> Option<Agent> {
        self.read().by_id.get(&id).cloned()
    }

    pub(crate) fn by_name(&self, tenant: &TenantName, name: &AgentName) -> Option<Agent> {
        let agents = self.read();
        let id = agents.by_name.get(&(tenant.clone(), name.clone()))?;
        agents.by_id.get(id).cloned()
    }

    pub(crate) fn forget(&self, ids: impl Iterator<Item = AgentId>) {
        let mut agents = self.write();
        for id in ids {
            if let Some(agent) = agents.by_id.remove(&id) {
                agents.by_name.remove(&(agent.tenant, agent.name));
            }
        }
    }

    pub(crate) fn keep<'a>(&self, kept: impl Iterator<Item = &'a Agent>) {
        let mut agents = self.write();
        for agent in kept {
            if agent.status.state() != State::Deleted {
                agents.by_name.insert((agent.tenant.clone(), agent.name.clone()), agent.id);
            }
            agents.by_id.insert(agent.id, agent.clone());
        }
    }

    pub(crate) fn clear(&self) {
        *self.write() = Agents::default();
    }

    fn read(&self) -> RwLockReadGuard<'_, Agents> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Agents> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
