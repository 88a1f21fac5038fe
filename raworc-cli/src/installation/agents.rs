//! Where agents' programs dial: a socket on this machine, and TLS for those on others.

use std::net::SocketAddr;

use raworc_core::control::ControlPlane;
use raworc_core::runtime::Runtimes;
use raworc_http::server::agents::{AgentsListener, AgentsState, AgentsTls, ListenerLimits, agents_router};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOCKET;
#[cfg(feature = "docker")]
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
    pub(super) async fn open(settings: &Settings, limits: ListenerLimits) -> anyhow::Result<Self> {
        // Each has its share of what both may have.
        let limits = if settings.agents.listen.is_some() {
            limits.clone().with_connections(limits.connections / 2)
        } else {
            limits
        };
        let socket = AgentsListener::unix(settings.data.join("link").join(SOCKET), limits.clone()).await?;
        Ok(Self { socket, limits, tls: None })
    }

    /// Listens with TLS where the configuration says so, and tells programs on other machines of it.
    pub(super) async fn open_tls(
        &mut self,
        settings: &Settings,
        control: &ControlPlane,
        runtimes: Runtimes,
    ) -> anyhow::Result<Runtimes> {
        let Some(address) = settings.agents.listen_address()? else { return Ok(runtimes) };
        let reached = settings.agents.reached_at(address)?;
        let tls = AgentsTls::new(control, &[reached.ip().to_string()])?;
        let ca = tls.ca_pem.clone();
        let listener = AgentsListener::tcp(address, tls, self.limits.clone()).await?;
        // A port that was left to the system is known only now.
        let port = match reached.port() {
            0 => listener.local_addr().map_or(0, |address| address.port()),
            port => port,
        };
        self.tls = Some(listener);
        let url = format!("https://{}", SocketAddr::new(reached.ip(), port));
        super::runtimes::reached_over_tls(settings, runtimes, &url, &ca)
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

/// What is to be set where computers on another machine have no way to this one.
#[cfg(feature = "docker")]
pub(super) fn no_way_here() -> Failure {
    Failure::new(Exit::Usage, "docker.remote: computers on another machine have no way to this one")
        .hint("set agents.listen, such as 0.0.0.0:9001, and agents.address, the address at which they reach it")
}
