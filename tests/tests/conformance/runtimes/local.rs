//! The local runtime. It runs isolated.

use std::sync::Arc;

use async_trait::async_trait;
use raworc_backends::local::{LocalOptions, LocalRuntime};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::conformance::{RuntimeUnderTest, SHELL_PROGRAM};
use raworc_core::runtime::{Capabilities, Runtime};
use tempfile::TempDir;

use super::Subject;

/// The local runtime on a directory of its own.
pub(super) struct Local {
    runtime: LocalRuntime,
    neighbour: LocalRuntime,
    _directory: TempDir,
}

#[async_trait]
impl Subject for Local {
    const NAME: &'static str = "local";

    async fn new() -> Result<Self, String> {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let open =
            async |installation: &str| {
                let name = RuntimeName::new("local").expect("a name");
                // Control groups stand side by side for the whole machine, so the name has to be this case's own.
                let own = directory.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
                let options = LocalOptions::new(name, format!("{installation}-{own}"), directory.path())
                    .with_program(["/bin/sh", "-c", SHELL_PROGRAM]);
                LocalRuntime::open(options).await.map_err(|error| format!("the runtime does not open: {error}"))
            };
        let (runtime, neighbour) = (open("own").await?, open("neighbour").await?);
        Ok(Self { runtime, neighbour, _directory: directory })
    }

    async fn capabilities(&self) -> Result<Capabilities, String> {
        self.runtime.probe().await.map_err(|error| error.to_string())?;
        Ok(self.runtime.capabilities())
    }

    async fn close(&self) {
        self.runtime.clone().close().await;
        self.neighbour.clone().close().await;
    }
}

#[async_trait]
impl RuntimeUnderTest for Local {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.neighbour.clone())
    }
}
