//! Connecting to a host: its name is looked up here, and only an address that was checked is connected to.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use raworc_core::agent::names;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Slot;
use super::address::{canonical, is_public};
use super::refusal::Refusal;
use crate::server::alive;

impl Slot {
    /// Connects to a port of a host, unless that is where nobody may come.
    pub(super) async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Refusal> {
        let deadline = Instant::now() + self.egress.0.options.dial;
        let dial = async {
            // The semaphores are never closed.
            let _turn = self.dials.acquire().await;
            let addresses = self.look_up(host, port).await?;
            let (reachable, kept): (Vec<_>, Vec<_>) =
                addresses.into_iter().partition(|address| self.is_allowed(host, address.ip()));
            match (reachable.is_empty(), kept.first()) {
                (false, _) => self.connect(host, &reachable).await,
                (true, Some(address)) => Err(Refusal::NotPublic(address.ip())),
                (true, None) => Err(Refusal::Unknown("it has no address".into())),
            }
        };
        timeout_at(deadline, dial).await.unwrap_or_else(|_| Err(Refusal::Unreachable(io::ErrorKind::TimedOut.into())))
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // The semaphores are never closed. A lookup goes on whoever waits for it, and so does its turn.
        let own = Arc::clone(&self.lookups).acquire_owned().await;
        let turn = Arc::clone(&self.egress.0.lookups).acquire_owned().await;
        let named = host.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || {
            let _turns = (own, turn);
            (named.as_str(), port).to_socket_addrs().map(Vec::from_iter)
        });
        match looked_up.await.map_err(io::Error::other) {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) | Err(error) => Err(Refusal::Unknown(error.to_string())),
        }
    }

    async fn connect(&self, host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            // A public address may be this machine's own, where what trusts its neighbours listens.
            let own = stream.local_addr().is_ok_and(|own| own.ip() == address.ip());
            if own && !self.is_listed(host, address.ip()) {
                return Err(Refusal::NotPublic(address.ip()));
            }
            let _ = stream.set_nodelay(true).and_then(|()| alive::ask(&stream));
            return Ok(stream);
        }
        Err(Refusal::Unreachable(last))
    }

    fn is_allowed(&self, host: &str, address: IpAddr) -> bool {
        is_public(address) || self.is_listed(host, address)
    }

    /// Whether the installation's configuration has this address for this name.
    fn is_listed(&self, host: &str, address: IpAddr) -> bool {
        let address = canonical(address);
        let private = self.egress.0.options.private.iter();
        private
            .filter(|listed| names(&listed.host, host))
            .flat_map(|listed| &listed.ranges)
            .any(|net| net.contains(&address))
    }
}
