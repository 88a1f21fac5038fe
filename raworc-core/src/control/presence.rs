//! Signs of life: which processes of an installation there are, and where they reach each other.

use std::fmt::Display;
use std::time::Duration;

use crate::error::Error;
use crate::ids::{ProcessId, RuntimeName};
use crate::store::{Lease, LeaseClaim, Store, StoreError};

use super::System;

/// For how long a server counts as live after its last sign.
const LIVE: Duration = Duration::from_secs(15);

/// What the keys of all servers' signs of life begin with.
pub(crate) const SERVERS: &str = "server/";

/// What a process is to the others of its installation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Whether callers and programs reach it: while a server lives, a program that is silent counts as lost.
    pub serves: bool,
    /// `host:port` of its [internal listener](Peer), where it has one.
    pub address: Option<String>,
}

impl Default for Presence {
    fn default() -> Self {
        Self { serves: true, address: None }
    }
}

impl Presence {
    /// A process that serves neither callers nor programs.
    #[must_use]
    pub fn apart() -> Self {
        Self { serves: false, address: None }
    }

    /// With the address at which others reach its internal listener.
    #[must_use]
    pub fn at(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The key of the sign of life of `process`, whose keys begin with `prefix`. What else is told stands behind the process,
    /// where nobody looks who looks for the address.
    pub(crate) fn key(&self, prefix: &str, process: impl Display) -> String {
        match &self.address {
            None => format!("{prefix}{process}"),
            Some(address) => format!("{prefix}{process}/{address}"),
        }
    }

    /// Gives a sign of life, where this is a server.
    pub(super) async fn announce(&self, store: &dyn Store, process: ProcessId) -> Result<(), StoreError> {
        if !self.serves {
            return Ok(());
        }
        let claim = LeaseClaim { key: self.key(SERVERS, process), holder: process, ttl: LIVE };
        store.claim(&claim).await.map(drop)
    }
}

/// Another process of this installation that lives, and where its internal listener is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which one.
    pub process: ProcessId,
    /// `host:port`.
    pub address: String,
}

impl Peer {
    fn of(lease: &Lease, prefix: &str) -> Option<Self> {
        let (_, address) = lease.key.strip_prefix(prefix)?.split_once('/')?;
        Some(Self { process: lease.holder, address: address.to_owned() })
    }
}

impl System<'_> {
    /// The other servers that live and can be reached.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn other_servers(self) -> Result<Vec<Peer>, Error> {
        self.peers(SERVERS).await
    }

    /// The operators of a runtime, in other processes, that live and can be reached.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn other_operators(self, runtime: &RuntimeName) -> Result<Vec<Peer>, Error> {
        self.peers(&crate::operator::shards::prefix(runtime)).await
    }

    async fn peers(self, prefix: &str) -> Result<Vec<Peer>, Error> {
        let live = self.store().leases(prefix).await?.value;
        let own = self.control.inner.presence.address.as_deref();
        let peers = live.iter().filter_map(|lease| Peer::of(lease, prefix));
        let mut peers: Vec<_> = peers.filter(|peer| own != Some(peer.address.as_str())).collect();
        // One that was started anew at its address may have two signs for a while; ids grow with time.
        peers.sort_unstable_by(|a, b| (&a.address, b.process).cmp(&(&b.address, a.process)));
        peers.dedup_by(|a, b| a.address == b.address);
        Ok(peers)
    }
}
