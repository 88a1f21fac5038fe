//! [`SimulatedRuntime`]: an engine that exists in memory only, whose time, latency and faults a test controls.
//!
//! A computer is a task on tokio, its files are maps, and its time is tokio's, so that a paused clock passes at once.
//! What runs inside is a [`SimulatedProgram`] of the test's choice. The test's own hand on the engine is the
//! [`SimulatedControl`].
//!
//! ```
//! use raworc_core::runtime::simulated::{Fault, Method, Profile, Rule, SimulatedOptions, SimulatedRuntime};
//! use raworc_core::runtime::{Runtime, RuntimeError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let runtime = SimulatedRuntime::new(SimulatedOptions::new(Profile::Pod));
//! let down = Fault::Fail(RuntimeError::Unavailable("switched off".into()));
//! let outage = runtime.control().inject(Rule::new(Method::List, down));
//! assert!(runtime.list().await.is_err());
//! outage.release();
//! assert!(runtime.list().await.expect("the engine is back").is_empty());
//! # }
//! ```

mod agent;
mod control;
mod engine;
mod faults;
mod log;
mod options;
mod program;
#[cfg(test)]
mod tests;
mod uplink;

pub use agent::{Act, SetupAct, SimulatedAgent};
pub use control::SimulatedControl;
pub use faults::{Fault, Injected, Method, Rule, StartStep};
pub use options::{Latency, Profile, SimulatedOptions};
pub use program::{Exit, Inside, ProgramFn, SimulatedProgram, WaitForStop, program_fn};
#[cfg(feature = "simulator")]
pub(crate) use uplink::PROGRAM;
pub use uplink::{Fate, Line, Uplink};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::oneshot;
use tokio_stream::wrappers::BroadcastStream;

use self::engine::{Engine, Image, Removal, locked};
use self::faults::Hit;
use super::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Progress, Runtime, RuntimeError, RuntimeEvent,
    StartId,
};
use crate::ids::{ComputerId, RuntimeName, VolumeId};

/// Bytes that a simulated image has.
const IMAGE_SIZE: u64 = 1 << 20;

/// A runtime whose engine is simulated. Clones are handles on the same engine.
#[derive(Debug, Clone)]
pub struct SimulatedRuntime {
    engine: Arc<Engine>,
    name: RuntimeName,
    installation: Arc<str>,
}

/// One call that the engine has begun with.
struct Call {
    hit: Option<Hit>,
}

impl SimulatedRuntime {
    /// A new engine without computers.
    #[must_use]
    pub fn new(options: SimulatedOptions) -> Self {
        let name = options.name.clone();
        Self { engine: Engine::new(options), name, installation: "default".into() }
    }

    /// A handle on the same engine for another installation, whose computers are not this one's.
    #[must_use]
    pub fn for_installation(&self, name: &str) -> Self {
        Self { installation: name.into(), ..self.clone() }
    }

    /// A handle on the same engine under another name, as where it was renamed in a configuration.
    #[must_use]
    pub fn called(&self, name: RuntimeName) -> Self {
        Self { name, ..self.clone() }
    }

    /// The test's hand on the engine.
    #[must_use]
    pub fn control(&self) -> SimulatedControl {
        SimulatedControl { engine: Arc::clone(&self.engine) }
    }

    /// Takes the call's time, and what goes wrong before anything happens.
    async fn enter(&self, method: Method, computer: Option<ComputerId>) -> Result<Call, RuntimeError> {
        self.engine.count(method);
        let latency = self.engine.options.latency.of(method);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let hit = locked(&self.engine.faults).hit(method, computer);
        match hit.as_ref().map(|hit| (&hit.fault, &hit.released)) {
            Some((Fault::Fail(error), _)) => return Err(error.clone()),
            Some((Fault::Hang, released)) => released.cancelled().await,
            Some((Fault::Slow(more), _)) => tokio::time::sleep(*more).await,
            Some((Fault::Panic, _)) => panic!("{method:?} panics, as injected"),
            _ => (),
        }
        Ok(Call { hit })
    }
}

impl Call {
    const fn fault(&self) -> Option<&Fault> {
        match &self.hit {
            Some(hit) => Some(&hit.fault),
            None => None,
        }
    }

    /// Whether nothing is to happen though the answer will say so.
    const fn is_pretence(&self) -> bool {
        matches!(self.fault(), Some(Fault::Pretend | Fault::NotFound))
    }

    const fn is_denied(&self) -> bool {
        matches!(self.fault(), Some(Fault::NotFound))
    }

    /// Fails where the start is to come no farther than this.
    fn reached(&self, step: StartStep) -> Result<(), RuntimeError> {
        match self.fault() {
            Some(Fault::FailAt(last, error)) if *last == step => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Answers, after what goes wrong when all has happened.
    async fn leave<T>(self, answer: T) -> Result<T, RuntimeError> {
        match self.hit.map(|hit| (hit.fault, hit.released)) {
            Some((Fault::LoseAnswer(error), _)) => return Err(error),
            Some((Fault::HangAfter, released)) => released.cancelled().await,
            _ => (),
        }
        Ok(answer)
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    fn name(&self) -> &RuntimeName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.options.capabilities
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        if image.is_some() && !self.capabilities().images {
            return Err(RuntimeError::Unsupported("use images"));
        }
        let name = image.unwrap_or("default");
        let call = self.enter(Method::Prepare, None).await?;
        match self.engine.image(name) {
            Some(Image::Missing(reason)) => return Err(RuntimeError::ImageMissing { image: name.into(), reason }),
            None if !call.is_pretence() => {
                let tell = |done| progress(Progress { what: format!("pulling {name}"), done, total: Some(IMAGE_SIZE) });
                tell(0);
                tokio::time::sleep(self.engine.options.latency.prepare).await;
                self.engine.set_image(name, Some(Image::Present));
                tell(IMAGE_SIZE);
            }
            Some(Image::Present | Image::Unfit(_)) | None => (),
        }
        call.leave(()).await
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        let capabilities = self.capabilities();
        capabilities.check(spec)?;
        let call = self.enter(Method::Ensure, Some(spec.id)).await?;
        if !call.is_pretence() {
            self.engine.make(&self.installation, spec)?;
        }
        let is_new = capabilities.keeps_root && self.engine.is_new(spec.id);
        let limits = spec.resources;
        let limited = limits.cpu.is_some() || limits.memory.is_some() || limits.pids.is_some();
        let none = (limited && !capabilities.limits).then(|| "this engine enforces no limits".into());
        let limits_missing = self.engine.limits_missing().or(none);
        call.leave(Ensured { is_new, limits_missing, ..Ensured::default() }).await
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let call = self.enter(Method::Start, Some(id)).await?;
        if call.is_denied() {
            return Err(RuntimeError::NotFound(id));
        }
        if call.is_pretence() {
            return Ok(self.engine.pretended());
        }
        call.reached(StartStep::Attached)?;
        // Where this future is dropped, so is the sender, and the program reads the end of its input.
        let (input, line) = oneshot::channel();
        let start = self.engine.run(id, line)?;
        tokio::task::yield_now().await;
        call.reached(StartStep::Running)?;
        // A program that ended already reads no line.
        let _unread = input.send(boot.to_line());
        tokio::task::yield_now().await;
        call.reached(StartStep::Booted)?;
        call.leave(start).await
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        let call = self.enter(Method::Stop, Some(id)).await?;
        if !call.is_pretence()
            && let Some(ended) = self.engine.begin_stop(id, start, grace)
        {
            ended.cancelled().await;
        }
        call.leave(()).await
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        let call = self.enter(Method::Remove, Some(id)).await?;
        if !call.is_pretence() {
            while let Removal::Runs(ended) = self.engine.try_remove(id) {
                ended.cancelled().await;
            }
        }
        call.leave(()).await
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        let call = self.enter(Method::Observe, Some(id)).await?;
        let observed = match call.fault() {
            Some(Fault::NotFound | Fault::Pretend) => None,
            Some(Fault::Stale) => {
                let then = call.hit.iter().flat_map(|hit| &hit.stale);
                then.into_iter().find(|observed| observed.computer == id).cloned()
            }
            _ => self.engine.observe(id),
        };
        call.leave(observed).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let call = self.enter(Method::List, None).await?;
        let mut all = self.engine.list(Some(&self.installation));
        if let Some(Hit { fault, only, stale, .. }) = &call.hit {
            let touched = |id| only.is_none_or(|only| only == id);
            match fault {
                Fault::NotFound | Fault::Pretend => all.retain(|observed| !touched(observed.computer)),
                Fault::Stale => {
                    all.retain(|observed| !touched(observed.computer));
                    all.extend(stale.iter().filter(|observed| touched(observed.computer)).cloned());
                    all.sort_by_key(|observed| observed.computer);
                }
                _ => (),
            }
        }
        call.leave(all).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let call = self.enter(Method::Watch, None).await?;
        let events = BroadcastStream::new(self.engine.subscribe(&self.installation));
        call.leave(events.map(|event| event.unwrap_or(RuntimeEvent::Relist)).boxed()).await
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        let call = self.enter(Method::Logs, Some(id)).await?;
        let log = self.engine.log(id).filter(|_| !call.is_denied()).ok_or(RuntimeError::NotFound(id))?;
        call.leave(log.read(options)).await
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        let call = self.enter(Method::HasVolume, None).await?;
        call.leave(self.engine.volume(id).is_some()).await
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        if !self.capabilities().copy_volume {
            return Err(RuntimeError::Unsupported("copy volumes"));
        }
        let call = self.enter(Method::CopyVolume, None).await?;
        if !call.is_pretence() {
            let files = self.engine.volume(from).ok_or_else(|| RuntimeError::Refused {
                what: "copy a volume",
                reason: format!("volume {from} is not there"),
            })?;
            self.engine.set_volume(to, Some(files));
        }
        call.leave(()).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let call = self.enter(Method::RemoveVolume, None).await?;
        if !call.is_pretence() {
            self.engine.set_volume(id, None);
        }
        call.leave(()).await
    }
}
