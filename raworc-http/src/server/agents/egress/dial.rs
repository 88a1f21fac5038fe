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
                (false, _) => self.connect(host, &reachable, deadline).await,
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

    async fn connect(&self, host: &str, addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Refusal> {
        let (address, stream) = first_that_answers(addresses, deadline).await.map_err(Refusal::Unreachable)?;
        // A public address may be this machine's own, where what trusts its neighbours listens.
        let own = stream.local_addr().is_ok_and(|own| own.ip() == address);
        if own && !self.is_listed(host, address) {
            return Err(Refusal::NotPublic(address));
        }
        let _ = stream.set_nodelay(true).and_then(|()| alive::ask(&stream));
        Ok(stream)
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

/// Connects to one after the other. Each has an equal part of the time that is left: one that does not answer, as IPv6 often
/// does not, leaves enough to the next.
async fn first_that_answers(addresses: &[SocketAddr], deadline: Instant) -> io::Result<(IpAddr, TcpStream)> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (left, address) in (1..=addresses.len()).rev().zip(addresses) {
        let now = Instant::now();
        let part = (deadline - now) / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout_at(now + part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((address.ip(), stream)),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_to_the_next() {
        let silent = TcpSocket::new_v4().expect("a socket");
        silent.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let silent = silent.listen(1).expect("listening");
        let silent = silent.local_addr().map(|address| (address, silent)).expect("an address");
        let mut waiting = Vec::new();
        // Once its queue is full, nobody is answered any more.
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(silent.0)).await {
            waiting.push(stream);
        }
        let other = TcpListener::bind("127.0.0.1:0").await.expect("listening");
        let addresses = [silent.0, other.local_addr().expect("an address")];
        let deadline = Instant::now() + Duration::from_secs(2);
        let (_, stream) = first_that_answers(&addresses, deadline).await.expect("the second one answers");
        assert_eq!(stream.peer_addr().expect("an address"), addresses[1]);
        assert!(Instant::now() < deadline);
    }
}
