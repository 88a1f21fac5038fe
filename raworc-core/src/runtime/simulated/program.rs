//! What runs inside a simulated computer.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Processes, locked};
use super::log::Log;
use crate::ids::{ComputerId, VolumeId};
use crate::runtime::{Boot, ComputerSpec, StartId};

/// A program. It runs as a task that is aborted where it does not end when asked.
#[async_trait]
pub trait SimulatedProgram: Send + Sync {
    /// Runs from a start to its end.
    async fn run(&self, inside: Inside) -> Exit;
}

/// How a program ended: its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit(pub i32);

/// Reads its boot line and waits until it is asked to end.
#[derive(Debug, Clone, Copy, Default)]
pub struct WaitForStop;

#[async_trait]
impl SimulatedProgram for WaitForStop {
    async fn run(&self, inside: Inside) -> Exit {
        if inside.boot_line().await.is_none() {
            return Exit(1);
        }
        inside.stop_asked().await;
        Exit(0)
    }
}

/// A program made of an async function.
pub struct ProgramFn<F>(F);

impl<F> fmt::Debug for ProgramFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgramFn")
    }
}

/// Makes a program of an async function.
pub const fn program_fn<F, Fut>(run: F) -> ProgramFn<F>
where
    F: Fn(Inside) -> Fut + Send + Sync,
    Fut: Future<Output = Exit> + Send,
{
    ProgramFn(run)
}

#[async_trait]
impl<F, Fut> SimulatedProgram for ProgramFn<F>
where
    F: Fn(Inside) -> Fut + Send + Sync,
    Fut: Future<Output = Exit> + Send,
{
    async fn run(&self, inside: Inside) -> Exit {
        (self.0)(inside).await
    }
}

/// The computer as its program has it, for one start.
#[derive(Clone)]
pub struct Inside {
    pub(super) engine: Arc<Engine>,
    pub(super) spec: ComputerSpec,
    pub(super) start: StartId,
    pub(super) address: u64,
    pub(super) line: Arc<Mutex<Option<oneshot::Receiver<String>>>>,
    pub(super) stop: CancellationToken,
    pub(super) log: Arc<Log>,
    pub(super) processes: Arc<Processes>,
}

impl Inside {
    /// Reads the line on its standard input. `None` where the input ends without one, and after the first.
    pub async fn boot_line(&self) -> Option<String> {
        let line = locked(&self.line).take()?;
        line.await.ok()
    }

    /// Reads its boot message. `None` where there is none.
    pub async fn boot(&self) -> Option<Boot> {
        Boot::from_line(&self.boot_line().await?).ok()
    }

    /// Waits until it is asked to end.
    pub async fn stop_asked(&self) {
        self.stop.cancelled().await;
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stop_asked(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Its computer.
    #[must_use]
    pub const fn computer(&self) -> ComputerId {
        self.spec.id
    }

    /// What its computer was made from.
    #[must_use]
    pub const fn spec(&self) -> &ComputerSpec {
        &self.spec
    }

    /// The identity of this start.
    #[must_use]
    pub const fn start(&self) -> &StartId {
        &self.start
    }

    /// Its address. A pod has another after each start.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Who it is: 0 where its spec asks for root.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        if self.spec.root { 0 } else { 1000 }
    }

    /// Writes to its standard output.
    pub fn log(&self, bytes: impl AsRef<[u8]>) {
        self.log.write(bytes.as_ref());
    }

    /// Reads a file: below `/agent` from the volume, else from the root file system.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Bytes> {
        self.engine.read_file(self.spec.id, self.volume(), path)
    }

    /// Writes a file, as [`read`](Self::read) finds it.
    pub fn write(&self, path: &str, content: impl Into<Bytes>) {
        self.engine.write_file(self.spec.id, self.volume(), path, content.into());
    }

    /// Writes at the end of a file, as [`read`](Self::read) finds it.
    pub fn append(&self, path: &str, content: &[u8]) {
        let mut whole = self.read(path).map_or_else(Vec::new, Vec::from);
        whole.extend_from_slice(content);
        self.write(path, whole);
    }

    /// Bytes of the files on its volume.
    #[must_use]
    pub fn disk_used(&self) -> u64 {
        let files = self.engine.volume(self.volume()).unwrap_or_default();
        files.values().map(|content| content.len() as u64).sum()
    }

    /// A process of it takes memory without end, and is ended where the computer has a limit.
    pub fn hog_memory(&self) {
        if self.spec.resources.memory.is_some() {
            self.engine.reach(self.spec.id, |reached| reached.memory = true);
        }
    }

    /// It makes processes without end, and is refused more where the computer has a limit.
    pub fn fork_without_end(&self) {
        if self.spec.resources.pids.is_some() {
            self.engine.reach(self.spec.id, |reached| reached.pids = true);
        }
    }

    /// Leaves a process behind, as a double fork does: it outlives the program's own work and ends with the computer.
    pub fn spawn(&self, process: impl Future<Output = ()> + Send + 'static) {
        self.processes.spawn(process);
    }

    const fn volume(&self) -> VolumeId {
        self.spec.volume
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("computer", &self.spec.id).field("start", &self.start).finish_non_exhaustive()
    }
}
