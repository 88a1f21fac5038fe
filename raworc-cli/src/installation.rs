//! An installation in one process: store, runtime, control plane, operator, agents' listener and API.
//!
//! `raworc up`, `raworc quickstart` and the tests all start the same one.

mod admin;
mod agents;
#[cfg(feature = "docker")]
mod docker;
mod key;
mod program;
mod runtimes;
mod store;

pub use admin::{FirstAdmin, Password};
#[cfg(feature = "docker")]
pub use docker::{DOCKERFILE, open_engine};
pub use store::open_whole;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use raworc_core::control::ControlPlane;
use raworc_core::ids::RuntimeName;
use raworc_core::operator::{Operator, OperatorSettings};
use raworc_core::runtime::Runtime;
use raworc_http::server::agents::egress::{Egress, EgressOptions};
use raworc_http::server::agents::gateway::Upstreams;
use raworc_http::server::agents::{AgentsState, Links, ListenerLimits};
use raworc_http::server::metrics;
use raworc_http::server::{ConnectionLimits, Options, Tokens, serve_within};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::agents::Listeners;
use self::runtimes::Opened;
use crate::exit::{Exit, Failure};
use crate::session;
use crate::settings::Settings;

/// The agents' socket, in the directory that computers are given.
const SOCKET: &str = "agents.sock";

/// A running installation. It ends when it is dropped, or in order by [`shutdown`](Self::shutdown).
pub struct Installation {
    settings: Settings,
    address: SocketAddr,
    control: ControlPlane,
    tokens: Tokens,
    store: store::Opened,
    opened: Opened,
    operator: Operator,
    links: Links,
    upstreams: Upstreams,
    closing: CancellationToken,
    agents_closing: CancellationToken,
    api: JoinHandle<std::io::Result<()>>,
    agents: JoinHandle<()>,
    counting: Option<metrics::Followed>,
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Installation {
    /// Starts everything, and says what takes long. Nothing is left behind where a part does not start.
    ///
    /// # Errors
    /// Names what is in the way and the way out: the port is in use, the data directory is read-only, in use,
    /// damaged or from a newer release, or this machine does not let computers be isolated.
    pub async fn start(settings: Settings, said: &(dyn Fn(String) + Send + Sync)) -> anyhow::Result<Self> {
        let listener = listen(&settings).await?;
        let address = listener.local_addr().map_err(|error| cannot_listen(&settings.listen, error))?;
        session::make_private_dir(&settings.data).map_err(|error| {
            Failure::new(Exit::Failed, format!("the data directory {} cannot be used", settings.data.display()))
                .because(error)
                .hint("choose another one with --data DIR or RAWORC_DATA")
        })?;
        let store = store::Opened::open(&settings).await?;
        let master_key = key::load(&settings, store.is_fresh().await?)?;
        // Before the runtime: computers are given the socket's directory.
        let (agents_limits, limits) = connection_limits();
        let mut listeners = Listeners::open(&settings, agents_limits).await?;
        let opened = Opened::open(&settings, said).await?;
        let runtimes = opened.runtimes.clone();
        let parts = store.parts(runtimes.clone(), master_key).with_settings(settings.control());
        let control = ControlPlane::start(parts).await?;
        let runtimes = listeners.open_tls(&settings, &control, runtimes).await?;
        let tokens = Tokens::new(&control);
        let links = Links::start(&control);
        let closing = CancellationToken::new();
        let agents_closing = CancellationToken::new();
        let upstreams = program::upstreams(&settings)?;
        let egress = Egress::new(EgressOptions::default().with_private(settings.egress.private.clone()));
        let state = AgentsState {
            control: control.clone(),
            tokens: tokens.clone(),
            links: links.clone(),
            upstreams: upstreams.clone(),
            egress: egress.clone(),
            closing: agents_closing.clone(),
        };
        let options = listeners.checked(Options::default());
        let agents = listeners.serve(state, &agents_closing);
        let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await?;
        let figures = metrics::install();
        let counting = figures.clone().map(|handle| metrics::follow(&control, handle, operator.queue_length()));
        let mut options = options
            .with_closing(closing.clone())
            .with_links(links.clone())
            .with_egress(egress)
            .with_streams_per_principal(settings.limits.streams_per_principal)
            .with_calls_per_computer(settings.limits.calls_per_computer)
            .with_operator_check(&control);
        if let Some(handle) = figures {
            options = options.with_metrics(handle, false);
        }
        let api = raworc_http::server::router(control.clone(), options);
        let api = tokio::spawn(serve_within(listener, api, limits, closing.clone().cancelled_owned()));
        Ok(Self {
            settings,
            address,
            control,
            tokens,
            store,
            opened,
            operator,
            links,
            upstreams,
            closing,
            agents_closing,
            api,
            agents,
            counting,
        })
    }

    /// The address of the API, as a program on this machine reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where rows are kept, as people are told.
    #[must_use]
    pub fn kept_in(&self) -> String {
        self.store.place(&self.settings)
    }

    /// Its use cases.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The runtime of this name.
    #[must_use]
    pub fn runtime(&self, name: &RuntimeName) -> Option<&dyn Runtime> {
        self.opened.runtimes.get(name).map(|entry| &*entry.runtime)
    }

    /// What agents' computers are made of unless their spec says otherwise, and what is not as it should be.
    #[must_use]
    pub fn computers(&self) -> &str {
        &self.opened.described
    }

    /// Whether computers go on when this process ends, and find the next one.
    #[must_use]
    pub fn computers_go_on(&self) -> bool {
        self.opened.go_on
    }

    /// Whether the model that agents think with answers.
    ///
    /// # Errors
    /// Says why it does not.
    pub async fn model_answers(&self) -> Result<(), String> {
        program::model_answers(&self.upstreams).await
    }

    /// Waits until the API has ended by itself, which it does only where it is broken.
    ///
    /// # Errors
    /// Says what broke.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.api).await??;
        Ok(())
    }

    /// Stops in order: no new calls, what is under way ends, computers are stopped, the store is closed.
    pub async fn shutdown(self) {
        self.closing.cancel();
        if !self.api.is_finished()
            && let Err(error) = self.api.await
        {
            tracing::warn!(%error, "the API did not end well");
        }
        drop(self.counting);
        self.operator.shutdown().await;
        self.opened.close().await;
        // No program is left to be waited for.
        self.links.close();
        self.agents_closing.cancel();
        if let Err(error) = self.agents.await {
            tracing::warn!(%error, "the agents' listener did not end well");
        }
        self.store.close().await;
    }
}

async fn listen(settings: &Settings) -> Result<TcpListener, Failure> {
    let address = settings.listen_address()?;
    TcpListener::bind(address).await.map_err(|error| cannot_listen(&settings.listen, error))
}

fn cannot_listen(address: &str, error: std::io::Error) -> Failure {
    let failure = match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(Exit::Failed, format!("{address} is in use by another process"))
            .hint("stop that process, or choose another port with --listen 127.0.0.1:PORT; port 0 takes a free one"),
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::Failed, format!("this user may not listen at {address}"))
                .hint("choose a port from 1024 on with --listen 127.0.0.1:PORT")
        }
        _ => Failure::new(Exit::Failed, format!("cannot listen at {address}"))
            .hint("choose an address of this machine with --listen 127.0.0.1:PORT"),
    };
    failure.because(error)
}

/// Agents' connections get half of what this process may open, raised as far as it can be, and no more: a third, half of
/// which may be ways out that take as many again. Those of the API get a quarter: whatever either do, the database and the computers' own pipes can still be opened.
fn connection_limits() -> (ListenerLimits, ConnectionLimits) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        files.current = files.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, files) {
            tracing::warn!(%error, "the limit on open files cannot be raised");
        }
    }
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    let files = files.unwrap_or(usize::MAX);
    let (agents, api) = (ListenerLimits::default(), ConnectionLimits::default());
    let connections = (agents.connections.min(files / 3), api.connections.min(files / 4));
    (agents.with_connections(connections.0), api.with_connections(connections.1))
}
