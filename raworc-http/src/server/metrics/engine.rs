//! [`MeteredRuntime`]: a runtime whose engine's calls are timed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use raworc_core::ids::{ComputerId, RuntimeName, VolumeId};
use raworc_core::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Progress, Runtime, RuntimeError, RuntimeEvent,
    StartId,
};
use raworc_core::trace;
use tokio::time::Instant;
use tracing::{Instrument, Span};

/// A runtime whose engine's calls are timed, and which is otherwise the one within.
#[derive(Debug, Clone)]
pub struct MeteredRuntime(Arc<dyn Runtime>);

impl MeteredRuntime {
    /// Times the calls of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Runtime>) -> Self {
        Self(inner)
    }

    async fn timed<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, RuntimeError>> + Send,
    ) -> Result<T, RuntimeError> {
        let span = trace::within(&format!("engine {call}"));
        span.record("otel.kind", "client");
        span.record("raworc.runtime", self.0.name().as_str());
        let (runtime, began) = (self.0.name(), Instant::now());
        let mut timer = Timer { runtime, call, began, span: span.clone(), outcome: "cut_short" };
        #[cfg(feature = "failpoints")]
        crate::server::failpoints::before(&[&format!("engine.{call}")]);
        let result = work.instrument(span).await;
        #[cfg(feature = "failpoints")]
        crate::server::failpoints::after(&[&format!("engine.{call}")]);
        timer.outcome = result.as_ref().map_or_else(|error| error.reason(), |_| DONE);
        result
    }
}

/// How a call ends that did what it was for.
const DONE: &str = "done";

/// Tells how a call went when it is over, or cut short: so a call that hangs is seen.
struct Timer<'a> {
    runtime: &'a RuntimeName,
    call: &'static str,
    began: Instant,
    span: Span,
    outcome: &'static str,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if self.outcome == DONE {
            self.span.record("raworc.outcome", DONE);
        } else {
            trace::failed(&self.span, self.outcome);
        }
        let runtime = self.runtime.to_string();
        metrics::histogram!(
            "raworc_engine_call_seconds", "runtime" => runtime, "call" => self.call, "outcome" => self.outcome
        )
        .record(self.began.elapsed().as_secs_f64());
    }
}

#[async_trait]
impl Runtime for MeteredRuntime {
    fn name(&self) -> &RuntimeName {
        self.0.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        self.timed("prepare", self.0.prepare(image, progress)).await
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.timed("ensure", self.0.ensure(spec)).await
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        self.timed("start", self.0.start(id, boot)).await
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        self.timed("stop", self.0.stop(id, start, grace)).await
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        self.timed("remove", self.0.remove(id)).await
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        self.timed("observe", self.0.observe(id)).await
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        self.timed("list", self.0.list()).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        self.timed("watch", self.0.watch()).await
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        self.timed("logs", self.0.logs(id, options)).await
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        self.timed("has_volume", self.0.has_volume(id)).await
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        self.timed("copy_volume", self.0.copy_volume(from, to)).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        self.timed("remove_volume", self.0.remove_volume(id)).await
    }
}
