//! What kind of engine is simulated.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::faults::Method;
use super::program::{SimulatedProgram, WaitForStop};
use crate::ids::RuntimeName;
use crate::runtime::Capabilities;

/// The manners of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Like Docker and Podman: a stop keeps the root file system, the log and the address.
    Container,
    /// Like Kubernetes: each start is a new pod with a new address, and its root file system and log go with it; it
    /// stays a while in `Stopping`; an image is first missed by `start`.
    Pod,
}

impl Profile {
    /// What an engine of these manners can do.
    #[must_use]
    pub const fn capabilities(self) -> Capabilities {
        let container = matches!(self, Self::Container);
        Capabilities {
            images: true,
            root: true,
            open_network: true,
            closed_network: true,
            disk_limit: !container,
            limits: true,
            tells_limits: true,
            keeps_root: container,
            copy_volume: container,
        }
    }
}

/// How long the engine takes for each call before anything happens. Tokio's time, so a paused clock works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Latency {
    /// Of pulling an image that is not there yet.
    pub prepare: Duration,
    /// Of `ensure`.
    pub ensure: Duration,
    /// Of `start`.
    pub start: Duration,
    /// Of `stop`, beside what the program takes to end.
    pub stop: Duration,
    /// How long a computer stays in `Stopping` after its program has ended, where it was asked to stop.
    pub terminate: Duration,
    /// Of `remove`.
    pub remove: Duration,
    /// Of `observe`, `list`, `watch` and `logs`.
    pub look: Duration,
    /// Of `copy_volume` and `remove_volume`.
    pub volume: Duration,
}

impl Latency {
    /// The same for every call.
    #[must_use]
    pub const fn uniform(all: Duration) -> Self {
        Self { prepare: all, ensure: all, start: all, stop: all, terminate: all, remove: all, look: all, volume: all }
    }

    /// A start that takes so long.
    #[must_use]
    pub const fn with_start(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    /// A stop that takes so long.
    #[must_use]
    pub const fn with_stop(mut self, stop: Duration) -> Self {
        self.stop = stop;
        self
    }

    /// Computers that stay in `Stopping` so long.
    #[must_use]
    pub const fn with_terminate(mut self, terminate: Duration) -> Self {
        self.terminate = terminate;
        self
    }

    pub(super) const fn of(&self, method: Method) -> Duration {
        match method {
            // Asking whether it is there takes no time; pulling does.
            Method::Prepare => Duration::ZERO,
            Method::Ensure => self.ensure,
            Method::Start => self.start,
            Method::Stop => self.stop,
            Method::Remove => self.remove,
            Method::Observe | Method::List | Method::Watch | Method::Logs | Method::HasVolume => self.look,
            Method::CopyVolume | Method::RemoveVolume => self.volume,
        }
    }
}

/// How a [`SimulatedRuntime`](super::SimulatedRuntime) is made.
#[derive(Clone)]
#[non_exhaustive]
pub struct SimulatedOptions {
    /// Its name; `simulated` unless given.
    pub name: RuntimeName,
    /// Its manners.
    pub profile: Profile,
    /// How long its engine takes; no time at all unless given. A pod stays 100 ms in `Stopping`.
    pub latency: Latency,
    /// What it says it can do; what its profile can, unless given.
    pub capabilities: Capabilities,
    /// What runs inside its computers; [`WaitForStop`] unless given.
    pub program: Arc<dyn SimulatedProgram>,
}

impl SimulatedOptions {
    /// An engine of these manners.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let terminate = match profile {
            Profile::Container => Duration::ZERO,
            Profile::Pod => Duration::from_millis(100),
        };
        Self {
            name: RuntimeName::simulated(),
            profile,
            latency: Latency::default().with_terminate(terminate),
            capabilities: profile.capabilities(),
            program: Arc::new(WaitForStop),
        }
    }

    /// With this name.
    #[must_use]
    pub fn with_name(mut self, name: RuntimeName) -> Self {
        self.name = name;
        self
    }

    /// With this latency.
    #[must_use]
    pub const fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// With these capabilities.
    #[must_use]
    pub const fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// With this program in its computers.
    #[must_use]
    pub fn with_program(mut self, program: impl SimulatedProgram + 'static) -> Self {
        self.program = Arc::new(program);
        self
    }
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self::new(Profile::Container)
    }
}

impl fmt::Debug for SimulatedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedOptions")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .field("latency", &self.latency)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}
