//! [`LocalRuntime`]: computers on plain Linux, by namespaces, control groups and a directory each. No engine is needed.
//!
//! A binary that opens one calls [`init_main`] first thing in `main`: it runs itself again as the helper that builds a
//! computer from inside.

mod cgroup;
mod computers;
mod config;
mod error;
mod home;
mod init;
mod installation;
mod logs;
mod plan;
mod probe;
mod process;
mod sandbox;
mod shown;
mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use raworc_core::ids::{ComputerId, RuntimeName, VolumeId};
use raworc_core::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Progress, Runtime, RuntimeError, RuntimeEvent,
    StartId,
};
use tokio_stream::wrappers::BroadcastStream;

use self::error::At;
use self::installation::Installation;
use self::logs::Log;
use self::sandbox::END_LIMIT;

pub use self::config::{
    DEFAULT_CPU, DEFAULT_PIDS, INIT_COMMAND, Isolation, LINK_PATH, LocalOptions, PROGRAM_PATH, UidRange, default_memory,
};
pub use self::init::init_main;
pub use self::probe::ProbeReport;

/// Computers on this machine.
///
/// A clone is another handle on the same computers. They end with the last handle: when it is dropped, or its process
/// is killed, the kernel closes the pipe that each of them watches. Another process cannot open the same installation
/// meanwhile.
#[derive(Debug, Clone)]
pub struct LocalRuntime {
    installation: Arc<Installation>,
    _owner: Arc<Owner>,
}

/// Ends the computers when the last handle is gone; those who look after them hold the installation itself.
#[derive(Debug)]
struct Owner(Arc<Installation>);

impl LocalRuntime {
    /// Opens the computers of an installation, and ends what an earlier process left behind.
    ///
    /// # Errors
    /// Where the directory is in use by another process or cannot be written, or something left behind does not end.
    pub async fn open(options: LocalOptions) -> Result<Self, RuntimeError> {
        let installation = Arc::new(Installation::open(options).await?);
        Ok(Self { _owner: Arc::new(Owner(Arc::clone(&installation))), installation })
    }

    /// The link directory, in which each server has its socket, as a program reaches it.
    #[must_use]
    pub fn agent_url(&self) -> String {
        let directory = match (self.installation.options.isolation, &self.installation.options.link_dir) {
            (Isolation::None, Some(directory)) => directory.clone(),
            (Isolation::None, None) | (Isolation::Required, _) => PathBuf::from(LINK_PATH),
        };
        format!("unix:{}", directory.display())
    }

    /// Starts a computer that looks around and ends, and shows by what it saw that computers are cut off.
    ///
    /// # Errors
    /// Says what failed and what can be done about it.
    pub async fn probe(&self) -> Result<ProbeReport, RuntimeError> {
        self.installation.probe().await
    }

    /// Ends every computer that runs now, whoever has other handles, and waits until nothing of them is left.
    pub async fn close(&self) {
        let running = self.installation.computers.all();
        for sandbox in &running {
            sandbox.release().await;
        }
        let mut ends: FuturesUnordered<_> = running.iter().map(|sandbox| sandbox.ended_within(END_LIMIT * 2)).collect();
        while ends.next().await.is_some() {}
        self.installation.cgroups.remove();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        for sandbox in self.0.computers.all() {
            sandbox.release_now();
        }
    }
}

#[async_trait]
impl Runtime for LocalRuntime {
    fn name(&self) -> &RuntimeName {
        &self.installation.options.name
    }

    fn capabilities(&self) -> Capabilities {
        self.installation.capabilities()
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        _progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        match image {
            None => Ok(()),
            Some(_) => Err(RuntimeError::Unsupported("use images")),
        }
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.installation.ensure(spec).await
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let (installation, line) = (Arc::clone(&self.installation), boot.to_line());
        // A start that is cut short would leave a helper that nobody looks after.
        to_its_end(async move { installation.start(id, &line).await }).await
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        self.installation.stop(id, Some(start), grace).await
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        let installation = Arc::clone(&self.installation);
        to_its_end(async move { installation.remove(id).await }).await
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        self.installation.observe(id)
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let ids = self.installation.home.computers()?;
        ids.into_iter().filter_map(|id| self.installation.observe(id).transpose()).collect()
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let events = BroadcastStream::new(self.installation.events.subscribe());
        Ok(events.map(|event| event.unwrap_or(RuntimeEvent::Relist)).boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        if let Some(sandbox) = self.installation.computers.get(id) {
            return Ok(Arc::clone(&sandbox.log).read(options));
        }
        if self.installation.home.spec(id)?.is_none() {
            return Err(RuntimeError::NotFound(id));
        }
        let directory = self.installation.home.computer(id);
        Ok(Arc::new(Log::finished(&directory).at("read the log", &directory)?).read(options))
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        self.installation.has_volume(id)
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        let installation = Arc::clone(&self.installation);
        to_its_end(async move { installation.copy_volume(from, to).await }).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let installation = Arc::clone(&self.installation);
        to_its_end(async move { installation.remove_volume(id).await }).await
    }
}

/// Goes on with the work when the caller is gone.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::spawn(work).await.map_err(|error| RuntimeError::Unavailable(format!("the call was cut short: {error}")))?
}
