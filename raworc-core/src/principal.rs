//! Who calls, and the one pure function that says whether they may.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, ComputerId, Incarnation, TenantName, UserName};

/// Somebody who calls. Nothing is done without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Principal {
    /// A person.
    User {
        /// Their name.
        name: UserName,
        /// Their home tenant.
        tenant: TenantName,
        /// Whether they administer the whole installation.
        admin: bool,
    },
    /// The program in an agent's computer.
    Agent {
        /// Its tenant.
        tenant: TenantName,
        /// The agent.
        agent: AgentId,
        /// The computer that the token was given to.
        computer: ComputerId,
        /// The start that the token was given to.
        incarnation: Incarnation,
    },
}

impl Principal {
    /// A person who administers nothing but what is theirs.
    #[must_use]
    pub const fn user(name: UserName, tenant: TenantName) -> Self {
        Self::User { name, tenant, admin: false }
    }

    /// Their home tenant.
    #[must_use]
    pub const fn tenant(&self) -> &TenantName {
        match self {
            Self::User { tenant, .. } | Self::Agent { tenant, .. } => tenant,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, .. } => write!(f, "user:{name}"),
            Self::Agent { agent, .. } => write!(f, "agent:{agent}"),
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Make something.
    Create,
    /// Read one thing.
    Get,
    /// Read many.
    List,
    /// Change what its owner wrote, or speak as the system.
    Update,
    /// Wake it, put it to sleep, cancel its work, keep it awake.
    Operate,
    /// Send it a message.
    Message,
    /// Run commands in its computer and move files.
    Exec,
    /// Take it away.
    Delete,
    /// Act as its program: its inbox, steps, replies, heartbeat and model calls.
    Serve,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Get,
        Self::List,
        Self::Update,
        Self::Operate,
        Self::Message,
        Self::Exec,
        Self::Delete,
        Self::Serve,
    ];

    /// The verb, as it stands in rules and audit rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
            Self::Update => "update",
            Self::Operate => "operate",
            Self::Message => "message",
            Self::Exec => "exec",
            Self::Delete => "delete",
            Self::Serve => "serve",
        }
    }
}

/// What they want to do it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The agents of a tenant.
    Agents {
        /// Which tenant.
        tenant: &'a TenantName,
    },
    /// One agent.
    Agent {
        /// Its tenant.
        tenant: &'a TenantName,
        /// Which one.
        id: AgentId,
        /// Who owns it.
        owner: &'a UserName,
        /// Its present incarnation.
        incarnation: Incarnation,
    },
    /// The log of a tenant.
    Events {
        /// Which tenant.
        tenant: &'a TenantName,
    },
    /// The users of the installation, or one of them.
    Users {
        /// Which one, where it is one.
        name: Option<&'a UserName>,
    },
    /// Metrics and the state of the installation.
    Installation,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// They may not know of it: the answer is as if it were not there.
    #[error("there is no such thing")]
    Hidden,
    /// They may see it, and not do that.
    #[error("not allowed")]
    Forbidden,
    /// They are the program of an older start.
    #[error("this start of the computer is over: the present one is {present}")]
    StaleIncarnation {
        /// The present incarnation.
        present: Incarnation,
    },
}

/// Whether `principal` may do `action` to `resource`.
///
/// An installation's admin may do everything but act as a program. Users do as they like with their own agents in
/// their own tenant and see nothing else. A program serves its own agent, in its own incarnation, and nothing else.
///
/// # Errors
/// [`Denied`] says what the caller may be told.
pub fn authorize(principal: &Principal, action: Action, resource: Resource<'_>) -> Result<(), Denied> {
    match principal {
        Principal::User { admin: true, .. } => match action {
            Action::Serve => Err(Denied::Forbidden),
            _ => Ok(()),
        },
        Principal::User { name, tenant: home, admin: false } => match resource {
            Resource::Agents { tenant } | Resource::Events { tenant } if tenant != home => Err(Denied::Hidden),
            Resource::Agents { .. } => allow(matches!(action, Action::Create | Action::List)),
            Resource::Events { .. } => allow(action == Action::List),
            Resource::Agent { tenant, owner, .. } if tenant != home || owner != name => Err(Denied::Hidden),
            Resource::Agent { .. } => allow(action != Action::Serve),
            Resource::Users { name: Some(other) } if other == name => {
                allow(matches!(action, Action::Get | Action::Update))
            }
            Resource::Users { name: Some(_) } => Err(Denied::Hidden),
            Resource::Users { name: None } | Resource::Installation => Err(Denied::Forbidden),
        },
        Principal::Agent { tenant: home, agent, incarnation, .. } => match resource {
            Resource::Agent { tenant, id, incarnation: present, .. } if tenant == home && id == *agent => {
                if present != *incarnation {
                    return Err(Denied::StaleIncarnation { present });
                }
                allow(action == Action::Serve)
            }
            _ => Err(Denied::Hidden),
        },
    }
}

const fn allow(allowed: bool) -> Result<(), Denied> {
    if allowed { Ok(()) } else { Err(Denied::Forbidden) }
}

#[cfg(test)]
mod tests;
