//! Where agents' programs dial: a socket on this machine, and TLS for those on others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raworc_core::control::ControlPlane;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_http::server::agents::{AgentsListener, AgentsState, AgentsTls, ListenerLimits, agents_router};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOCKET;
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// The listeners, before anybody is served.
pub(super) struct Listeners {
    socket: AgentsListener,
    limits: ListenerLimits,
    tls: Option<AgentsListener>,
}

impl Listeners {
    /// Listens on the socket alone: computers are given its directory as they are made.
    pub(super) async fn open(settings: &Settings, is_alone: bool, limits: ListenerLimits) -> anyhow::Result<Self> {
        // Each has its share of what both may have.
        let limits = if settings.agents.listen.is_some() {
            limits.clone().with_connections(limits.connections / 2)
        } else {
            limits
        };
        let directory = settings.sockets();
        let name = if is_alone {
            SOCKET.to_owned()
        } else {
            remove_dead_sockets(&directory).await;
            format!("server-{:08x}.sock", u32::from_le_bytes(SystemEntropy.bytes()))
        };
        let socket = AgentsListener::unix(directory.join(name), limits.clone()).await?;
        Ok(Self { socket, limits, tls: None })
    }

    /// Listens with TLS where the configuration says so, and tells how programs on other machines reach it.
    pub(super) async fn open_tls(
        &mut self,
        settings: &Settings,
        control: &ControlPlane,
    ) -> anyhow::Result<Option<OverTls>> {
        let Some(address) = settings.agents.listen_address()? else { return Ok(None) };
        let reached = settings.agents.reached_at(address)?;
        let names: Vec<_> = reached.iter().map(|reached| reached.ip().to_string()).collect();
        let tls = AgentsTls::new(control, &names)?;
        let ca = tls.ca_pem.clone();
        let listener = AgentsListener::tcp(address, tls, self.limits.clone()).await?;
        // A port that was left to the system is known only now.
        let port = listener.local_addr().map_or(0, |address| address.port());
        self.tls = Some(listener);
        Ok(Some(OverTls::new(&reached, port, ca)))
    }

    /// What `/readyz` looks at.
    pub(super) fn checked(&self, options: raworc_http::server::Options) -> raworc_http::server::Options {
        let options = options.with_agents_check(self.socket.listening());
        match self.tls.as_ref().map(AgentsListener::listening) {
            Some(tls) => options.with_check("agents_tls_listener", move || std::future::ready(tls.check())),
            None => options,
        }
    }

    /// Serves programs until `closing`.
    pub(super) fn serve(self, state: AgentsState, closing: &CancellationToken) -> JoinHandle<()> {
        let router = agents_router(state);
        let socket = self.socket.serve(router.clone(), closing.clone().cancelled_owned());
        let tls = self.tls.map(|tls| tls.serve(router, closing.clone().cancelled_owned()));
        tokio::spawn(async move {
            match tls {
                // Each in its own task: one that is busy holds up nobody at the other.
                Some(tls) => {
                    let tls = tokio::spawn(tls);
                    socket.await;
                    if let Err(error) = tls.await {
                        tracing::warn!(%error, "the agents' listener with TLS did not end well");
                    }
                }
                None => socket.await,
            }
        })
    }
}

/// How programs on other machines reach the servers.
#[cfg_attr(not(feature = "docker"), allow(dead_code, reason = "no other runtime is on other machines"))]
pub(super) struct OverTls {
    pub(super) url: String,
    pub(super) ca: String,
}

impl OverTls {
    /// At these addresses, with `port` where one names none.
    fn new(reached: &[SocketAddr], port: u16, ca: String) -> Self {
        let url = |reached: &SocketAddr| match reached.port() {
            0 => format!("https://{}", SocketAddr::new(reached.ip(), port)),
            _ => format!("https://{reached}"),
        };
        Self { url: reached.iter().map(url).collect::<Vec<_>>().join(","), ca }
    }

    /// As servers elsewhere are reached, for an operator that tells programs of it.
    pub(super) fn elsewhere(settings: &Settings, control: &ControlPlane) -> anyhow::Result<Option<Self>> {
        let Some(listen) = settings.agents.listen_address()? else { return Ok(None) };
        let reached = settings.agents.reached_at(listen)?;
        if reached.iter().any(|reached| reached.port() == 0) {
            return Err(Failure::new(Exit::Usage, "agents.listen: an operator does not know which port servers took")
                .hint("name a port in agents.listen or in agents.address")
                .into());
        }
        Ok(Some(Self::new(&reached, listen.port(), AgentsTls::authority(control)?)))
    }
}

/// Sees to it that the directory of the servers' sockets is there, which computers are given also before a server is.
pub(super) fn make_directory(settings: &Settings) -> Result<(), Failure> {
    let directory = settings.sockets();
    AgentsListener::make_directory(&directory).map_err(|error| {
        Failure::new(Exit::Failed, format!("the directory of sockets {} cannot be used", directory.display()))
            .because(error)
            .hint("choose another one by agents.sockets, the same for servers and operators")
    })
}

/// Takes away the sockets of servers that were killed: programs would try them again and again.
async fn remove_dead_sockets(directory: &Path) {
    let dead = dead_sockets(directory).await;
    if dead.is_empty() {
        return;
    }
    // A server that begins has its socket a moment before it listens: one that is dead at both looks is.
    tokio::time::sleep(SECOND_LOOK).await;
    for path in dead_sockets(directory).await.intersection(&dead) {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "a dead server's socket could not be removed");
        }
    }
}

async fn dead_sockets(directory: &Path) -> BTreeSet<PathBuf> {
    let mut dead = BTreeSet::new();
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_some_and(|ending| ending == "sock") && is_dead(&path).await {
            dead.insert(path);
        }
    }
    dead
}

/// How long a server that begins may take from having its socket to listening there.
const SECOND_LOOK: Duration = Duration::from_millis(100);

async fn is_dead(path: &Path) -> bool {
    let connected = UnixStream::connect(path).await;
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// What is to be set where computers on another machine have no way to this one.
#[cfg(feature = "docker")]
pub(super) fn no_way_here() -> Failure {
    Failure::new(Exit::Usage, "docker.remote: computers on another machine have no way to this one")
        .hint("set agents.listen, such as 0.0.0.0:9001, and agents.address, the address at which they reach it")
}
