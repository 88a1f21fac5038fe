//! [`ControlPlane`]: every use case, each for a principal who may do it.

mod access;
mod activity;
mod agents;
mod call;
mod deltas;
mod events;
mod explain;
mod feed;
mod heartbeat;
mod installation;
mod logs;
mod messages;
mod presence;
mod program;
mod retention;
mod rouse;
mod runtimes;
mod settings;
mod system;
#[cfg(all(test, feature = "simulated"))]
pub(crate) mod tests;

pub use access::{LoginRequest, NewUser, TokenRecord, User};
pub(crate) use activity::HOLD;
pub use activity::{Activity, ActivityGuard, ActivityKind, ActivityReason};
pub use agents::{CreateAgent, EditAgent, ListAgents, SleepMode};
pub use call::Call;
pub use deltas::{Delta, DeltaStream, Deltas, WantedDeltas};
pub use events::{Followed, Following};
pub use explain::Explanation;
pub use feed::{Feed, Subscription};
pub use installation::installation_name;
pub(crate) use logs::{DEATH_LOG_LIMIT, DeathLog, end_of};
pub use logs::{EngineLogs, LogStream};
pub use messages::{Accepted, Answered, History, SendMessage};
pub(crate) use presence::SERVERS;
pub use presence::{Peer, Presence};
pub use program::Booted;
pub(crate) use program::key_hash;
pub use retention::Retainer;
pub use rouse::Errand;
pub(crate) use runtimes::{is_of_runtime, tell_again};
pub use settings::{Models, Settings};
pub use system::System;

use std::sync::{Arc, OnceLock};

use crate::blob::BlobStore;
use crate::entropy::{Clock, Entropy, EntropyExt, SystemClock, SystemEntropy};
use crate::error::Error;
use crate::ids::{CommitId, ProcessId, RuntimeName};
#[cfg(feature = "simulated")]
use crate::runtime::simulated::{SimulatedAgent, SimulatedOptions, SimulatedRuntime};
use crate::runtime::{Capabilities, Runtimes};
use crate::seal::MasterKey;
#[cfg(feature = "simulated")]
use crate::store::MemoryStore;
use crate::store::Store;

/// The use cases of an installation, over its store. Each is for a caller who may do it; the two that find out who
/// calls, [`login`](Self::login) and [`boot`](Self::boot), begin with a secret in the place of that. What only the
/// machinery of a server needs is apart, behind [`system`](Self::system).
///
/// It is cheap to clone; all clones are one. A process makes one with [`start`](Self::start), hands it to whatever
/// serves callers, and runs an [`Operator`](crate::operator::Operator) beside it or somewhere else.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    runtimes: runtimes::Known,
    engines: Runtimes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) settings: Settings,
    pub(crate) process: ProcessId,
    pub(crate) presence: Presence,
    pub(crate) feed: Feed,
    pub(crate) activity: Activity,
    access: access::Access,
    elsewhere: OnceLock<Arc<dyn EngineLogs>>,
}

/// What a control plane is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Where content is kept.
    pub blobs: Arc<dyn BlobStore>,
    /// The runtimes that this process reaches; the first is the default. Agents may ask for those of other processes too,
    /// where these have [told](System::publish_runtimes) of them.
    pub runtimes: Runtimes,
    /// The key that seals what is secret in the store.
    pub master_key: MasterKey,
    /// Limits and defaults.
    pub settings: Settings,
    /// Where ids and keys come from.
    pub entropy: Arc<dyn Entropy>,
    /// Stamps ids and tokens; rows are stamped by the store.
    pub clock: Arc<dyn Clock>,
    /// What the process is to others of its installation.
    pub presence: Presence,
}

impl Parts {
    /// Everything in memory, with a simulated engine in whose computers `program` runs: for trying things out, and for
    /// tests. The program has to be [connected](SimulatedAgent::connect) to the control plane that is made of this.
    #[cfg(feature = "simulated")]
    #[must_use]
    pub fn in_memory(program: &SimulatedAgent) -> Self {
        let options = SimulatedOptions::default().with_program(program.clone());
        let runtimes = Runtimes::new().with(Arc::new(SimulatedRuntime::new(options)), "unix:/nowhere", None);
        Self::new(Arc::new(MemoryStore::default()), runtimes, MasterKey::generate(&SystemEntropy))
    }

    /// A store and its runtimes, with the system's clock and chance and default settings.
    pub fn new<S: Store + BlobStore + 'static>(store: Arc<S>, runtimes: Runtimes, master_key: MasterKey) -> Self {
        Self {
            store: store.clone(),
            blobs: store,
            runtimes,
            master_key,
            settings: Settings::default(),
            entropy: Arc::new(SystemEntropy),
            clock: Arc::new(SystemClock),
            presence: Presence::default(),
        }
    }

    /// With other limits and defaults.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// As another process than a server that stands alone.
    #[must_use]
    pub fn with_presence(mut self, presence: Presence) -> Self {
        self.presence = presence;
        self
    }
}

impl ControlPlane {
    /// Begins to serve: reads the log from its head on, renews activity, and is seen by operators as a live server where it
    /// is [one](Presence::serves).
    ///
    /// # Errors
    /// Where the store does not answer, or its sealed keys cannot be opened with this master key.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { store, blobs, runtimes: engines, master_key, settings, entropy, clock, presence } = parts;
        let process = entropy.process_id(clock.now());
        let feed = Feed::start(store.clone()).await?;
        let access = access::Access::open(&store, &master_key, &*entropy, &*clock).await?;
        access.follow(&feed, &store, &clock).await?;
        let activity = Activity::start(store.clone(), process, presence.clone()).await?;
        let runtimes = runtimes::Known::start(&engines, &settings, &feed, &store).await?;
        let inner = Inner {
            store,
            blobs,
            runtimes,
            engines,
            clock,
            entropy,
            settings,
            process,
            presence,
            feed,
            activity,
            access,
            elsewhere: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What has no principal, for the process that assembles: never on behalf of a caller.
    #[must_use]
    pub const fn system(&self) -> System<'_> {
        System { control: self }
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// Limits and defaults.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// This process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.inner.process
    }

    /// Names and abilities of the runtimes, in whatever process; the first is the default.
    #[must_use]
    pub fn runtimes(&self) -> Arc<[(RuntimeName, Capabilities)]> {
        self.inner.runtimes.all()
    }

    pub(crate) fn commit_id(&self) -> CommitId {
        self.inner.entropy.commit_id(self.inner.clock.now())
    }
}
