//! [`Runtime`]: what makes, starts, stops and removes computers.
//!
//! A runtime knows engines, not agents. Everything inside a running computer goes over its program's own connection.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "simulated")]
pub mod simulated;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::agent::{Network, NetworkMode, Resources};
use crate::ids::{ComputerId, Incarnation, RuntimeName, VolumeId};

/// Where a computer has its volume.
pub const VOLUME_PATH: &str = "/agent";

/// What a runtime can do. Checked against a spec before anything is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Computers are made from images that the spec names.
    pub images: bool,
    /// A program may be root inside its computer.
    pub root: bool,
    /// Computers may have a network.
    pub open_network: bool,
    /// Computers may have no network but their link to the server.
    pub closed_network: bool,
    /// A volume's size can be limited. Where it cannot, the computer's program measures it, and `ensure` is asked for none.
    pub disk_limit: bool,
    /// Limits on cpu, memory and processes are enforced.
    pub limits: bool,
    /// It is told when a computer runs into its limit on memory or on processes.
    pub tells_limits: bool,
    /// Files outside the volume survive a stop.
    pub keeps_root: bool,
    /// Volumes can be copied.
    pub copy_volume: bool,
}

/// The least that a runtime can do: computers that have nothing but their link.
impl Default for Capabilities {
    fn default() -> Self {
        Self {
            images: false,
            root: false,
            open_network: false,
            closed_network: true,
            disk_limit: false,
            limits: false,
            tells_limits: false,
            keeps_root: false,
            copy_volume: false,
        }
    }
}

impl Capabilities {
    /// Checks that nothing is asked for which is not declared here. Every runtime begins its `ensure` with this.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] names the first thing that cannot be had.
    pub fn check(&self, spec: &ComputerSpec) -> Result<(), RuntimeError> {
        let wants = [
            (spec.image.is_some(), self.images, "use images"),
            (spec.root, self.root, "give root inside a computer"),
            (spec.network.mode == NetworkMode::Open, self.open_network, "open a computer's network"),
            (spec.network.mode == NetworkMode::Closed, self.closed_network, "close a computer's network"),
            (spec.resources.disk.is_some(), self.disk_limit, "limit the disk of a volume"),
        ];
        match wants.into_iter().find(|&(wanted, offered, _)| wanted && !offered) {
            None => Ok(()),
            Some((.., what)) => Err(RuntimeError::Unsupported(what)),
        }
    }
}

/// A computer, as its engine is asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputerSpec {
    /// Its id, one of its two labels.
    pub id: ComputerId,
    /// Its volume, mounted at `/agent`. Made where it is not there.
    pub volume: VolumeId,
    /// Its image; the runtime's default where absent.
    pub image: Option<String>,
    /// Limits.
    pub resources: Resources,
    /// What it can reach.
    pub network: Network,
    /// Whether its program may be root inside.
    pub root: bool,
}

/// The engine's own identity of one start: container id and start time, pod UID, pid and start time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct StartId(pub String);

impl fmt::Display for StartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a program is told on its standard input, in one line of JSON. Nothing secret goes another way.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The agents' listeners, as the program reaches them: `https://ip:port`, several with commas between; or
    /// `unix:/path/in/the/computer`, a socket or a directory with a socket of each server in it.
    pub agent_url: String,
    /// The authority that signed the listeners' certificates, in PEM, for `https`.
    pub ca: Option<String>,
    /// The computer.
    pub computer: ComputerId,
    /// The number of this start.
    pub incarnation: Incarnation,
    /// Traded for a token, once.
    pub key: SecretString,
}

/// [`Boot`] as it stands on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootLine {
    agent_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    computer: ComputerId,
    incarnation: Incarnation,
    key: String,
}

impl Boot {
    /// The line for the program's standard input, with its line break.
    #[must_use]
    pub fn to_line(&self) -> String {
        let line = BootLine {
            agent_url: self.agent_url.clone(),
            ca: self.ca.clone(),
            computer: self.computer,
            incarnation: self.incarnation,
            key: self.key.expose_secret().into(),
        };
        // A struct of texts and numbers always serialises.
        serde_json::to_string(&line).map(|json| json + "\n").unwrap_or_default()
    }

    /// Reads what [`to_line`](Self::to_line) wrote.
    ///
    /// # Errors
    /// Where the line is no boot message.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        let BootLine { agent_url, ca, computer, incarnation, key } = serde_json::from_str(line)?;
        Ok(Self { agent_url, ca, computer, incarnation, key: key.into() })
    }
}

/// What is known of a computer that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Which one.
    pub computer: ComputerId,
    /// How it is.
    pub phase: Phase,
    /// Which limits its present start, or else its last one, has run into, as far as the engine tells.
    pub reached: LimitsReached,
}

/// Limits that a start of a computer has run into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LimitsReached {
    /// A process was ended because memory ran out.
    pub memory: bool,
    /// A process could not be made because there were too many.
    pub pids: bool,
}

/// How a computer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started or stopped for good; its files are there.
    Stopped {
        /// How its last start ended, if the engine remembers: `exit code 137`, `out of memory`.
        reason: Option<String>,
    },
    /// Stopped, and its last start came to nothing: the program could not even be begun in there, and cannot until it or the
    /// image is another. An engine that does not tell that apart says `Stopped`.
    Unfit {
        /// What stood in the way, with the way out.
        reason: String,
    },
    /// Its program runs, or is on its way to: whatever a `stop` of this start would have to end.
    Running(StartId),
    /// It was told to stop, and something of this start is still there.
    Stopping(StartId),
}

impl Phase {
    /// The start of which something is there.
    #[must_use]
    pub const fn start(&self) -> Option<&StartId> {
        match self {
            Self::Running(start) | Self::Stopping(start) => Some(start),
            Self::Stopped { .. } | Self::Unfit { .. } => None,
        }
    }
}

/// What a computer turned out to be when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ensured {
    /// Whether nothing was ever started in what is there now: outside of its volume, the computer is as its image. Only told where
    /// `keeps_root` is declared.
    pub is_new: bool,
    /// Why limits are not enforced, where they are not.
    pub limits_missing: Option<String>,
    /// Why the network cannot be shown to be cut off, where it cannot.
    pub network_unproved: Option<String>,
    /// Why root inside is root of the machine too, where the spec asks for root and it is.
    pub root_unmapped: Option<String>,
}

/// Progress of [`Runtime::prepare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is done now, such as `pulling layer 3 of 8`.
    pub what: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

impl Progress {
    /// How much of it is done, in hundredths, where that is known.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some(self.done.saturating_mul(100) / total)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.percent() {
            Some(percent) => write!(f, "{} ({percent} %)", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Something happened to a computer, or the engine's stream was cut and everything may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// This computer changed: look at it.
    Changed(ComputerId),
    /// Events may have been missed: look at all.
    Relist,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LogsOptions {
    /// Only the last so many bytes.
    pub tail: Option<u64>,
    /// Go on with what is written from now on.
    pub follow: bool,
}

impl LogsOptions {
    /// Only the last `bytes` bytes.
    #[must_use]
    pub const fn with_tail(mut self, bytes: u64) -> Self {
        self.tail = Some(bytes);
        self
    }

    /// Go on with what is written from now on.
    #[must_use]
    pub const fn with_follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }
}

/// Why a runtime did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The image is not there and cannot be had.
    #[error("image {image:?} is not there: {reason}")]
    ImageMissing {
        /// Which one.
        image: String,
        /// Where it was looked for.
        reason: String,
    },
    /// The volume with an agent's files is not there any more.
    #[error(
        "volume {0}, which has its files, is not on the engine: see that this is the engine that had it and bring the volume \
         back there, or make an empty one of its name, on Docker with its label `raworc.installation`"
    )]
    VolumeMissing(VolumeId),
    /// The computer is not there.
    #[error("computer {0} is not there")]
    NotFound(ComputerId),
    /// This runtime never does that.
    #[error("this runtime cannot {0}")]
    Unsupported(&'static str),
    /// The engine does not answer now.
    #[error("the engine does not answer: {0}")]
    Unavailable(String),
    /// The engine took longer than it may.
    #[error("the engine did not finish to {what} within {limit:?}")]
    TimedOut {
        /// What it was asked.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The engine will not do it, now or later, unless something is changed.
    #[error("the engine refused to {what}: {reason}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// What it answered, with the way out where there is one.
        reason: String,
    },
    /// The engine has no room for it. It is done once there is some.
    #[error("the engine's disk is full, and it could not {what}: {reason}")]
    Full {
        /// What it was asked.
        what: &'static str,
        /// What it answered, with the way out.
        reason: String,
    },
}

/// The reason of the condition of an agent whose image cannot be had.
pub(crate) const IMAGE_MISSING: &str = "ImageMissing";

/// The reason of the condition of an agent whose volume is gone.
pub(crate) const VOLUME_MISSING: &str = "VolumeMissing";

/// The reason of the condition of an agent whose image cannot run the program.
pub(crate) const PROGRAM_UNFIT: &str = "ProgramUnfit";

impl RuntimeError {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut { .. } => true,
            Self::ImageMissing { .. }
            | Self::VolumeMissing(_)
            | Self::NotFound(_)
            | Self::Unsupported(_)
            | Self::Refused { .. }
            | Self::Full { .. } => false,
        }
    }

    /// One word for it, for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ImageMissing { .. } => IMAGE_MISSING,
            Self::VolumeMissing(_) => VOLUME_MISSING,
            Self::NotFound(_) => "ComputerMissing",
            Self::Unsupported(_) => "Unsupported",
            Self::Unavailable(_) => "EngineUnavailable",
            Self::TimedOut { .. } => "EngineTimeout",
            Self::Refused { .. } => "EngineRefused",
            Self::Full { .. } => "EngineFull",
        }
    }
}

/// Makes, starts, stops and removes computers on one engine.
///
/// Calls for one computer may come at the same time from several processes and may be cut short at any await; the
/// same call again finishes what was begun.
///
/// # Contract
/// - `R1` `prepare` of an image that is there does nothing; of one that cannot be had, it is `ImageMissing`.
/// - `R2` `ensure` makes the computer and its volume; a second one with the same spec changes nothing.
/// - `R3` `ensure` does not disturb a computer that runs.
/// - `R4` `start` hands the boot line to the program on its standard input and returns the identity of this start.
/// - `R5` `start` of a computer that is not there is `NotFound`; of one that runs or is stopping, it is `Refused` and
///   nothing changes. Of several at the same time one starts, and the others are `Refused`.
/// - `R6` After `start`, `observe` says `Running` with the same identity, until the program ends.
/// - `R7` `stop` asks the program to end, ends it after its grace, and returns once no process of that start is left,
///   double-forked ones included.
/// - `R8` `stop` with the identity of another start than the present one leaves the present one alone and succeeds.
/// - `R9` `stop` of what does not run, or is not there, succeeds.
/// - `R10` Files on the volume survive `stop`, `start` and `remove`.
/// - `R11` Files outside the volume survive `stop` and `start` where `keeps_root` is declared.
/// - `R12` `remove` takes away the computer, running or not, and leaves the volume; of what is not there it succeeds.
/// - `R13` `observe` of what is not there is `None`; a program that ended is `Stopped`, or `Unfit` where it could not begin.
/// - `R14` `list` tells all computers of this installation and no others. One of which the engine cannot tell anything may be
///   left out.
/// - `R15` `watch` tells `Changed` after a start, after an end and after a removal.
/// - `R16` `logs` gives what the program wrote from the last start's first byte on, and with `follow` until its end; of
///   what is not there, `NotFound`. An engine may forget it all when the start was stopped.
/// - `R17` `copy_volume` makes a copy that lives apart from its source, where declared; else it is `Unsupported`.
/// - `R18` `remove_volume` takes the files away; of what is not there it succeeds.
/// - `R19` Two starts never have the same identity.
/// - `R20` What one computer does to its volume never shows in another's.
/// - `R21` What asks for an image, for root, for an open or a closed network or for a disk limit that is not declared is
///   `Unsupported`, and nothing is made. Where `limits` is not declared, `ensure` of a spec that has some says why.
/// - `R22` Every handle on the same engine and installation sees, stops and removes what another one made.
/// - `R23` A call that was cut short leaves nothing which the same call, or a `stop` of what `observe` then tells, does
///   not bring to its end. A program whose boot line never came is not left waiting for it unseen.
/// - `R24` Where `tells_limits` is declared, `observe` tells which limits on memory and processes a start has run into,
///   also when it is over, until the next one; and `watch` tells `Changed` when one is reached.
/// - `R25` `has_volume` tells whether a volume is there, and makes none.
/// - `R26` Where `keeps_root` is declared, `ensure` says `is_new` until the first start, and again after `remove`.
#[async_trait]
pub trait Runtime: Send + Sync + fmt::Debug {
    /// The name under which agents ask for it.
    fn name(&self) -> &RuntimeName;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Sees to it that the image is there, the default one for `None`, telling `progress` on the way. Cut short, the
    /// engine may go on by itself. An engine that cannot fetch ahead of a start makes sure as far as it can.
    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError>;

    /// Sees to it that the computer is there. One that is keeps the spec that it was made with. Cut short, it may be
    /// there or not; a second call adopts what is there.
    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError>;

    /// Starts the computer's program. Cut short, it may run or not: `observe` tells, and `stop` ends it.
    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError>;

    /// Ends that start: asks its program to end, and after `grace` ends everything. A repeated call waits for the same
    /// end. Cut short, the engine may go on by itself.
    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError>;

    /// Takes the computer away, with every process in it and without grace, and leaves its volume.
    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError>;

    /// Looks at one computer.
    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError>;

    /// Looks at all computers of this installation.
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// Tells from now on what happens. Where the stream ends, the engine was lost: watch again, then look at all.
    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError>;

    /// What the program of the present or last start wrote; empty before the first.
    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError>;

    /// Whether a volume is there. `ensure` would make it anew, empty.
    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError>;

    /// Copies a volume to a new one. A repeated call copies again, so it is for a target that no computer has yet. Of a
    /// source that is not there it is `Refused`.
    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError>;

    /// Takes a volume away with all its files.
    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError>;
}

/// Conveniences over any [`Runtime`].
#[async_trait]
pub trait RuntimeExt: Runtime {
    /// The last `bytes` bytes that the program wrote, as text; empty where there are none.
    async fn log_tail(&self, id: ComputerId, bytes: u64) -> String {
        use futures::StreamExt;
        let Ok(mut chunks) = self.logs(id, LogsOptions::default().with_tail(bytes)).await else {
            return String::new();
        };
        let mut tail = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            tail.extend_from_slice(&chunk);
        }
        String::from_utf8_lossy(&tail).into_owned()
    }
}

impl<T: Runtime + ?Sized> RuntimeExt for T {}

/// A runtime and how programs in its computers reach the agents' listener.
#[derive(Debug, Clone)]
pub struct RuntimeEntry {
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The listeners' addresses as seen from inside, as in [`Boot::agent_url`].
    pub agent_url: String,
    /// The authority that signed the listener's certificate, in PEM, for `https`.
    pub ca: Option<String>,
    /// Which engine it is, where that is known: operators of one runtime have the same.
    pub engine: Option<String>,
}

/// The runtimes of an installation, by name. The first is the default.
#[derive(Debug, Clone, Default)]
pub struct Runtimes(Vec<RuntimeEntry>);

impl Runtimes {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a runtime whose programs reach the agents' listener at `agent_url`.
    #[must_use]
    pub fn with(mut self, runtime: Arc<dyn Runtime>, agent_url: impl Into<String>, ca: Option<String>) -> Self {
        self.0.push(RuntimeEntry { runtime, agent_url: agent_url.into(), ca, engine: None });
        self
    }

    /// The same, with programs of the runtime `name` reaching the agents' listener elsewhere: a listener with TLS is there
    /// only once its authority is known.
    #[must_use]
    pub fn reached_at(mut self, name: &RuntimeName, agent_url: &str, ca: Option<&str>) -> Self {
        for entry in self.0.iter_mut().filter(|entry| entry.runtime.name() == name) {
            agent_url.clone_into(&mut entry.agent_url);
            entry.ca = ca.map(str::to_owned);
        }
        self
    }

    /// The same, with the engine behind the runtime `name` known by its identity.
    #[must_use]
    pub fn of_engine(mut self, name: &RuntimeName, engine: impl Into<String>) -> Self {
        let engine = engine.into();
        for entry in self.0.iter_mut().filter(|entry| entry.runtime.name() == name) {
            entry.engine = Some(engine.clone());
        }
        self
    }

    /// The runtime of this name.
    #[must_use]
    pub fn get(&self, name: &RuntimeName) -> Option<&RuntimeEntry> {
        self.0.iter().find(|entry| entry.runtime.name() == name)
    }

    /// The one that serves where a spec names none.
    #[must_use]
    pub fn default_entry(&self) -> Option<&RuntimeEntry> {
        self.0.first()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &RuntimeEntry> {
        self.0.iter()
    }
}
