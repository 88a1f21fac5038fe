//! Docker, on the engine that this machine has: as one of this machine, and as one of another.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use raworc_backends::docker::{DockerOptions, DockerRuntime};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::conformance::{RuntimeUnderTest, SHELL_PROGRAM};
use raworc_core::runtime::{Capabilities, Runtime};
use tempfile::TempDir;

use super::Subject;

/// What computers are made from: any image with a shell.
const IMAGE: &str = "debian:bookworm-slim";

/// The engine is on this machine.
pub(super) const HERE: bool = true;

/// The engine is treated as one on another machine: the program comes by upload, and networks are open.
pub(super) const ELSEWHERE: bool = false;

/// An installation of its own on the engine, and another one beside it.
pub(super) struct Docker<const IS_HERE: bool> {
    /// What is uploaded.
    _program: TempDir,
    options: DockerOptions,
    runtime: DockerRuntime,
    neighbour: DockerRuntime,
}

fn open(options: DockerOptions) -> DockerRuntime {
    DockerRuntime::open(options).unwrap_or_else(|error| panic!("{error}"))
}

#[async_trait]
impl<const IS_HERE: bool> Subject for Docker<IS_HERE> {
    const NAME: &'static str = "docker";
    const KIND: &'static str = if IS_HERE { "" } else { "elsewhere_" };

    async fn new() -> Result<Self, String> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        let name = RuntimeName::new("docker").expect("a name");
        let own = SystemEntropy.uuid(SystemClock.now()).simple();
        let program = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = program.path().join("program");
        std::fs::write(&file, format!("#!/bin/sh\n{SHELL_PROGRAM}")).map_err(|error| error.to_string())?;
        let options = |side: &str| {
            let options = DockerOptions::new(name.clone(), format!("test-{own}-{side}"), host.clone(), IMAGE);
            if IS_HERE {
                options.with_program(["/bin/sh", "-c", SHELL_PROGRAM])
            } else {
                options.on_another_machine().with_program_file(&file)
            }
        };
        let (options, neighbour) = (options("own"), options("neighbour"));
        Ok(Self { _program: program, runtime: open(options.clone()), neighbour: open(neighbour), options })
    }

    async fn capabilities(&self) -> Result<Capabilities, String> {
        self.runtime.ping().await.map_err(|error| error.to_string())?;
        self.runtime.prepare(None, &|_| ()).await.map_err(|error| error.to_string())?;
        Ok(self.runtime.capabilities())
    }

    async fn close(&self) {
        for runtime in [&self.runtime, &self.neighbour] {
            runtime.remove_programs().await.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[async_trait]
impl<const IS_HERE: bool> RuntimeUnderTest for Docker<IS_HERE> {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        Arc::new(open(self.options.clone()))
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.neighbour.clone())
    }

    /// An engine makes one container after the other, and cases run side by side.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}
