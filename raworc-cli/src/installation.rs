//! The processes of an installation: server and operator in one, or either of them alone.
//!
//! `raworc up`, `raworc server`, `raworc operator`, `raworc quickstart` and the tests all start it here, by its [`Role`].

mod admin;
mod agents;
mod api;
#[cfg(feature = "docker")]
mod docker;
mod health;
mod identity;
mod internal;
mod key;
mod operating;
mod program;
mod runtimes;
mod serving;
mod store;

pub use admin::{FirstAdmin, Password};
#[cfg(feature = "docker")]
pub use docker::{DOCKERFILE, open_engine};
#[cfg(all(feature = "bench", any(feature = "postgres", feature = "mysql")))]
pub(crate) use store::Opened as OpenedStore;
pub use store::open_whole;

use std::fmt;

use raworc_core::control::{ControlPlane, Presence, Retainer};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{Runtime, Runtimes};
use raworc_http::server::metrics;

use self::agents::{Listeners, OverTls};
use self::api::Door;
use self::health::Health;
use self::internal::Internal;
use self::operating::Operating;
use self::runtimes::Opened;
use self::serving::Serving;
use crate::exit::{Exit, Failure};
use crate::session;
use crate::settings::Settings;

/// The socket of a server that is alone with its data directory, in the directory that computers are given.
const SOCKET: &str = "agents.sock";

/// What a process does for its installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Both,
    /// It serves callers and programs.
    Server,
    /// It sees to computers.
    Operator,
}

impl Role {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "up",
            Self::Server => "server",
            Self::Operator => "operator",
        }
    }

    const fn serves(self) -> bool {
        matches!(self, Self::Both | Self::Server)
    }

    const fn operates(self) -> bool {
        matches!(self, Self::Both | Self::Operator)
    }
}

/// A running process of an installation. It ends when it is dropped, or in order by [`shutdown`](Self::shutdown).
pub struct Installation {
    settings: Settings,
    role: Role,
    control: ControlPlane,
    store: store::Opened,
    serving: Option<Serving>,
    operating: Option<Operating>,
    health: Option<Health>,
    internal: Option<Internal>,
    counting: Option<metrics::Followed>,
    retainer: Retainer,
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Installation {
    /// Starts everything of this role, and says what takes long. Nothing is left behind where a part does not start.
    ///
    /// # Errors
    /// Names what is in the way and the way out: the port is in use, the data directory is read-only, in use,
    /// damaged or from a newer release, or this machine does not let computers be isolated.
    pub async fn start(settings: Settings, role: Role, said: &(dyn Fn(String) + Send + Sync)) -> anyhow::Result<Self> {
        Self::assemble(settings, role, None, said).await
    }

    /// Starts everything on these runtimes, in place of those of the configuration.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(feature = "bench")]
    pub async fn start_on(settings: Settings, runtimes: Runtimes) -> anyhow::Result<Self> {
        Self::assemble(settings, Role::Both, Some(Opened::of(runtimes)), &|_| {}).await
    }

    async fn assemble(
        settings: Settings,
        role: Role,
        given: Option<Opened>,
        said: &(dyn Fn(String) + Send + Sync),
    ) -> anyhow::Result<Self> {
        let door = match role {
            Role::Both | Role::Server => Some(Door::open(settings.listen_address()?).await?),
            Role::Operator => match settings.operator.listen_address()? {
                Some(address) => Some(Door::open(address).await?),
                None => None,
            },
        };
        session::make_private_dir(&settings.data).map_err(|error| {
            Failure::new(Exit::Failed, format!("the data directory {} cannot be used", settings.data.display()))
                .because(error)
                .hint("choose another one with --data DIR or RAWORC_DATA")
        })?;
        let store = store::Opened::open(&settings, role).await?;
        let master_key = key::load(&settings, role, store.is_fresh().await?)?;
        let name = identity::of(&settings, &store).await?;
        // Before the runtimes: computers are given the socket's directory.
        let (agents_limits, limits) = serving::connection_limits();
        let mut listeners = if role.serves() {
            Some(Listeners::open(&settings, !store.is_shared(), agents_limits).await?)
        } else {
            None
        };
        agents::make_directory(&settings)?;
        let internal = if store.is_shared() { Some(internal::Door::open(&settings).await?) } else { None };
        let opened = match given {
            None if role.operates() => Some(Opened::open(&settings, &name, said).await?),
            given => given,
        };
        let mut presence = if role.serves() { Presence::default() } else { Presence::apart() };
        if let Some(internal) = &internal {
            presence = presence.at(internal.address());
        }
        let runtimes = opened.as_ref().map_or_else(Runtimes::new, |opened| opened.runtimes.clone());
        let parts = store.parts(runtimes.clone(), master_key).with_settings(settings.control());
        let control = ControlPlane::start(parts.with_presence(presence)).await?;
        let over_tls = match &mut listeners {
            Some(listeners) => listeners.open_tls(&settings, &control).await?,
            None => OverTls::elsewhere(&settings, &control)?,
        };
        let runtimes = runtimes::reached_over_tls(&settings, runtimes, over_tls);
        let (tls, peers) = match &internal {
            Some(_) => internal::peers(&control).map(|(tls, peers)| (Some(tls), Some(peers)))?,
            None => (None, None),
        };
        let figures = metrics::install();
        // Before anybody is served: it may be refused.
        let operating = match opened {
            Some(opened) => Some(Operating::start(&control, opened, runtimes, store.is_shared()).await?),
            None => None,
        };
        let (serving, health) = match (door, listeners) {
            (Some(door), Some(listeners)) => {
                let door = (door, limits);
                let started = Serving::start(&settings, &control, door, listeners, peers, figures.clone())?;
                (Some(started), None)
            }
            (Some(door), None) => (None, Some(Health::start(&control, (door, limits), figures.clone()))),
            (None, _) => (None, None),
        };
        let internal = internal.zip(tls).map(|(door, tls)| {
            let links = serving.as_ref().map(|serving| serving.links.clone());
            door.serve(&control, tls, links)
        });
        let counting = figures.map(|handle| {
            let waiting = operating.as_ref().map(Operating::waiting);
            metrics::follow(&control, handle, move || waiting.as_ref().map(|waiting| waiting()).unwrap_or_default())
        });
        let retainer = Retainer::start(&control);
        Ok(Self { settings, role, control, store, serving, operating, health, internal, counting, retainer })
    }

    /// The address of the API, as a program on this machine reaches it; none where it serves no API.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.serving.as_ref().map(Serving::url)
    }

    /// Where an operator that serves no API says how it is.
    #[must_use]
    pub fn health_url(&self) -> Option<String> {
        self.health.as_ref().map(Health::url)
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it does for the installation.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Where rows are kept, as people are told.
    #[must_use]
    pub fn kept_in(&self) -> String {
        self.store.place(&self.settings)
    }

    /// Where other processes of the installation reach this one, where there can be any.
    #[must_use]
    pub fn internal(&self) -> Option<&str> {
        self.internal.as_ref().map(Internal::address)
    }

    /// Its use cases.
    #[must_use]
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The runtime of this name, where this process reaches its engine.
    #[must_use]
    pub fn runtime(&self, name: &RuntimeName) -> Option<&dyn Runtime> {
        self.operating.as_ref()?.runtime(name)
    }

    /// What agents' computers are made of unless their spec says otherwise, and what is not as it should be.
    #[must_use]
    pub fn computers(&self) -> String {
        match &self.operating {
            Some(operating) => operating.described().to_owned(),
            None => {
                match self.control.runtimes().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().as_slice() {
                    [] => "none yet: start `raworc operator`".to_owned(),
                    names => format!("{}, of operators elsewhere", names.join(", ")),
                }
            }
        }
    }

    /// Whether computers go on when this process ends, and find the next one.
    #[must_use]
    pub fn computers_go_on(&self) -> bool {
        self.operating.as_ref().is_none_or(Operating::computers_go_on)
    }

    /// Whether the model that agents think with answers.
    ///
    /// # Errors
    /// Says why it does not.
    pub async fn model_answers(&self) -> Result<(), String> {
        match &self.serving {
            Some(serving) => serving.model_answers().await,
            None => Err("no model is called from here".to_owned()),
        }
    }

    /// Waits until something has ended by itself, which it does only where it is broken.
    ///
    /// # Errors
    /// Says what broke.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match &mut self.serving {
            Some(serving) => serving.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Stops in order: no new calls, what is under way ends, computers are stopped, the store is closed.
    pub async fn shutdown(self) {
        let programs = match self.serving {
            Some(serving) => Some(serving.close_api().await),
            None => None,
        };
        drop(self.counting);
        self.retainer.shutdown().await;
        if let Some(operating) = self.operating {
            operating.shutdown().await;
        }
        // No program is left to be waited for, or none that does not find another server.
        if let Some(programs) = programs {
            programs.close().await;
        }
        if let Some(internal) = self.internal {
            internal.close().await;
        }
        if let Some(health) = self.health {
            health.close().await;
        }
        self.store.close().await;
    }
}
