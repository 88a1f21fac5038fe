//! The engine as one process reaches it: a decorator over the simulated one, which looks at what is asked for.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::fault::{Events, Moment};
use super::port::{Port, To};
use super::world::short;
use crate::ids::{ComputerId, RuntimeName, VolumeId};
use crate::runtime::simulated::SimulatedRuntime;
use crate::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Progress, Runtime, RuntimeError, RuntimeEvent,
    StartId,
};

#[derive(Debug)]
pub(super) struct SimulatedEngine {
    port: Port,
    inner: SimulatedRuntime,
}

impl SimulatedEngine {
    pub(super) fn new(port: Port) -> Self {
        let inner = port.world.runtime.clone();
        Self { port, inner }
    }

    /// A call that only looks.
    async fn look<T>(&self, call: impl Future<Output = Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
        let whole = async {
            self.port.way(To::Engine).await.map_err(RuntimeError::Unavailable)?;
            let answer = call.await;
            self.port.back(To::Engine).await.map_err(RuntimeError::Unavailable)?;
            answer
        };
        self.port.alive(whole).await
    }

    /// A call that does something: `look_on` sees the world right before it.
    async fn act<T>(
        &self,
        what: String,
        look_on: impl Fn(&Port),
        call: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let port = &self.port;
        let whole = async {
            let strike = port.strike(To::Engine);
            port.way(To::Engine).await.map_err(RuntimeError::Unavailable)?;
            port.suffer(strike, Moment::Before).await;
            look_on(port);
            let answer = call.await;
            let name = &port.process().name;
            match &answer {
                Ok(_) => port.world.say(format_args!("{name} engine {what}")),
                Err(error) => port.world.say(format_args!("{name} engine {what}: {error}")),
            }
            port.world.check_engine();
            port.suffer(strike, Moment::After).await;
            port.back(To::Engine).await.map_err(RuntimeError::Unavailable)?;
            answer
        };
        port.alive(whole).await
    }
}

/// The engine's events on their way to a process.
async fn next(
    mut watching: (BoxStream<'static, RuntimeEvent>, Port, Option<RuntimeEvent>),
) -> Option<(RuntimeEvent, (BoxStream<'static, RuntimeEvent>, Port, Option<RuntimeEvent>))> {
    if let Some(again) = watching.2.take() {
        return Some((again, watching));
    }
    loop {
        let port = watching.1.clone();
        let event = port.alive(watching.0.next()).await?;
        if port.alive(port.way(To::Engine)).await.is_err() {
            return None;
        }
        let disturbed =
            port.world.disturbance().engine_events.filter(|(_, until)| *until > tokio::time::Instant::now());
        match disturbed.map(|(how, _)| how) {
            None => return Some((event, watching)),
            Some(Events::Lost) => port.world.counts().fault("engine's events lost", 1),
            Some(Events::Doubled) => {
                port.world.counts().fault("engine's events doubled", 1);
                watching.2 = Some(event.clone());
                return Some((event, watching));
            }
        }
    }
}

#[async_trait]
impl Runtime for SimulatedEngine {
    fn name(&self) -> &RuntimeName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        self.look(self.inner.prepare(image, progress)).await
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        let what = format!("ensure {}", short(spec.id));
        self.act(what, |_| (), self.inner.ensure(spec)).await
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let what = format!("start {} as {}", short(id), boot.incarnation);
        let incarnation = boot.incarnation;
        let look_on = |port: &Port| port.world.checker().starts(&port.world.store, id, incarnation);
        let start = async {
            let answer = self.inner.start(id, boot).await;
            // It takes its time, and may be over by now.
            look_on(&self.port);
            answer
        };
        self.act(what, look_on, start).await
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        let what = format!("stop {} {start}", short(id));
        let look_on = |port: &Port| port.world.check_stop(id, start);
        self.act(what, look_on, self.inner.stop(id, start, grace)).await
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        let what = format!("remove {}", short(id));
        self.act(what, |port| port.world.check_removal(id), self.inner.remove(id)).await
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        self.look(self.inner.observe(id)).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.look(self.inner.list()).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let events = self.look(self.inner.watch()).await?;
        Ok(stream::unfold((events, self.port.clone(), None), next).boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        self.look(self.inner.logs(id, options)).await
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        self.look(self.inner.has_volume(id)).await
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        self.act("copy a volume".into(), |_| (), self.inner.copy_volume(from, to)).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let what = format!("remove volume {}", short(id));
        let look_on = |port: &Port| port.world.check_volume_removal(id);
        self.act(what, look_on, self.inner.remove_volume(id)).await
    }
}
