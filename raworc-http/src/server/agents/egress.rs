//! The egress proxy: how closed computers reach the hosts that their agent's list names, and nothing else.
//!
//! A program opens `POST /agent/v0/egress` for each connection that something in its computer makes to its proxy, and
//! passes on what is written. The proxy itself is here, where what is allowed is known and addresses are looked up: it
//! speaks HTTP/1.1, `CONNECT` for whatever is encrypted, and asks the list at each request.

mod address;
mod count;
mod dial;
mod proxy;
mod refusal;
mod remarks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use ipnet::IpNet;
use raworc_core::ids::{AgentId, ComputerId};
use raworc_core::principal::Principal;
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::count::Counts;
use self::proxy::Proxy;
use self::remarks::Remarks;
use super::auth::Program;
use super::listener::Place;
use super::{AgentsState, upgrade};
use crate::api::EgressCount;
use crate::server::error::ApiError;

/// What stands in `Upgrade`.
pub(crate) const EGRESS_PROTOCOL: &str = "raworc-egress";

/// Connections that one computer may be about to make at one time. More wait for their turn.
const DIALS_PER_COMPUTER: usize = 16;

/// Names that are looked up at one time. Each takes a thread.
const LOOKUPS: usize = 64;

/// Names of them that may be one computer's.
const LOOKUPS_PER_COMPUTER: usize = 4;

/// What can be chosen about the egress proxy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EgressOptions {
    /// Addresses that are reached though they are not public, by the names that agents' lists may have for them.
    pub private: Vec<PrivateHost>,
    /// Connections that one computer may have open.
    pub connections_per_computer: usize,
    /// How long looking up a name and connecting to it may take.
    pub dial: Duration,
    /// How long a host may be silent once the computer says no more, or is gone.
    pub linger: Duration,
}

impl Default for EgressOptions {
    fn default() -> Self {
        Self {
            private: Vec::new(),
            connections_per_computer: 128,
            dial: Duration::from_secs(15),
            linger: Duration::from_secs(60),
        }
    }
}

impl EgressOptions {
    /// With names that may lead to addresses which are not public.
    #[must_use]
    pub fn with_private(mut self, private: impl IntoIterator<Item = PrivateHost>) -> Self {
        self.private.extend(private);
        self
    }

    /// With so many connections for each computer.
    #[must_use]
    pub const fn with_connections_per_computer(mut self, connections: usize) -> Self {
        self.connections_per_computer = connections;
        self
    }
}

/// A name that may lead to addresses which are not public. That an agent reaches it takes a place in its own list too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateHost {
    /// A host name, or `*.example.org` for all below it.
    pub host: String,
    /// Where it may be, such as `10.1.0.0/16`.
    pub ranges: Vec<IpNet>,
}

/// The egress proxy of one server.
#[derive(Debug, Clone, Default)]
pub struct Egress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: EgressOptions,
    computers: Mutex<HashMap<ComputerId, Computer>>,
    lookups: Arc<Semaphore>,
    counts: Counts,
    remarks: Remarks,
}

impl Default for Inner {
    fn default() -> Self {
        Self::new(EgressOptions::default())
    }
}

impl Inner {
    fn new(options: EgressOptions) -> Self {
        Self {
            options,
            computers: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            counts: Counts::default(),
            remarks: Remarks::default(),
        }
    }
}

/// What one computer has open.
#[derive(Debug)]
struct Computer {
    open: usize,
    dials: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Computer {
    /// Whether it has something open, or a lookup of its own still goes on.
    fn is_held(&self) -> bool {
        self.open > 0 || self.lookups.available_permits() < LOOKUPS_PER_COMPUTER
    }
}

impl Egress {
    /// A proxy with these options.
    #[must_use]
    pub fn new(options: EgressOptions) -> Self {
        Self(Arc::new(Inner::new(options)))
    }

    /// What an agent's computers reached and were refused by this server since it began, in the order of their targets.
    #[must_use]
    pub fn counts(&self, agent: AgentId) -> Vec<EgressCount> {
        self.0.counts.of(agent)
    }

    /// One more connection of this computer.
    fn enter(&self, computer: ComputerId) -> Result<Slot, ApiError> {
        let limit = self.0.options.connections_per_computer;
        let mut computers = self.0.computers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = computers.entry(computer).or_insert_with(|| Computer {
            open: 0,
            dials: Arc::new(Semaphore::new(DIALS_PER_COMPUTER)),
            lookups: Arc::new(Semaphore::new(LOOKUPS_PER_COMPUTER)),
        });
        if own.open >= limit {
            let message = format!("this computer has {limit} connections to the outside, and may have no more");
            return Err(ApiError::new("too_many_requests", message).with_detail("limit", limit).with_retry_after(1));
        }
        own.open += 1;
        let (dials, lookups) = (Arc::clone(&own.dials), Arc::clone(&own.lookups));
        Ok(Slot { egress: self.clone(), computer, dials, lookups })
    }
}

/// A connection of a computer, until it is dropped.
#[derive(Debug)]
struct Slot {
    egress: Egress,
    computer: ComputerId,
    dials: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut computers = self.egress.0.computers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = computers.get_mut(&self.computer) {
            own.open -= 1;
        }
        computers.retain(|_, own| own.is_held());
    }
}

pub(super) async fn egress(
    State(state): State<AgentsState>,
    program: Program,
    mut request: Request,
) -> Result<Response, ApiError> {
    let agent = state.control.check_program(&program.call).await?;
    let Principal::Agent { computer, .. } = program.call.principal else {
        return Err(ApiError::new("forbidden", "this address is for agents' programs"));
    };
    let on_upgrade = upgrade::asked(&mut request, EGRESS_PROTOCOL)?;
    let slot = state.egress.enter(computer)?;
    let place = request.extensions_mut().remove::<Place>();
    if let Some(place) = &place {
        place.set_apart()?;
    }
    let proxy = Proxy::new(state.control, program.call, agent.id, slot, place);
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => proxy.serve(upgraded, &state.closing).await,
            Err(error) => tracing::debug!(agent = %agent.id, %error, "a way out was lost in its upgrade"),
        }
    });
    Ok(upgrade::switching(EGRESS_PROTOCOL))
}
