//! The runtimes of an installation, from the configuration.

use std::sync::Arc;

#[cfg(feature = "docker")]
use raworc_backends::docker::DockerRuntime;
use raworc_backends::local::{Isolation, LocalOptions, LocalRuntime};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{Runtime, RuntimeError, Runtimes};
use raworc_http::server::metrics::MeteredRuntime;

#[cfg(feature = "docker")]
use super::docker::{self, Chosen};
use super::{SOCKET, program};
use crate::exit::{Exit, Failure};
#[cfg(not(feature = "docker"))]
use crate::settings::RuntimeKind;
use crate::settings::Settings;

/// The name under which agents ask for the local runtime.
const LOCAL: &str = "local";

/// The runtimes, opened.
pub(super) struct Opened {
    /// All of them, the default first.
    pub(super) runtimes: Runtimes,
    /// What the default one makes computers of.
    pub(super) described: String,
    /// Whether those go on without this process.
    pub(super) go_on: bool,
    local: Option<Arc<LocalRuntime>>,
}

impl Opened {
    /// Opens the runtime of the configuration, and beside it those that agents may have been made on before.
    #[cfg(feature = "docker")]
    pub(super) async fn open(settings: &Settings, said: &(dyn Fn(String) + Send + Sync)) -> anyhow::Result<Self> {
        let Chosen { runtime, is_default, why, host } = docker::choose(settings, said).await?;
        let docker = match runtime {
            Some(docker) if is_default => docker,
            docker => {
                let mut opened = Self::local(settings).await?;
                opened.described.extend(why.map(|why| format!("; not docker: {why}")));
                if let Some(docker) = docker {
                    opened.runtimes = with_docker(opened.runtimes, docker);
                }
                return Ok(opened);
            }
        };
        let described = docker::described(settings, &host, why);
        let mut runtimes = with_docker(Runtimes::new(), docker);
        let local = match Self::local(settings).await {
            Ok(Self { local, .. }) => local,
            Err(error) => {
                tracing::info!(reason = format!("{error:#}"), "the local runtime is left out");
                None
            }
        };
        if let Some(local) = &local {
            runtimes = with_local(runtimes, local);
        }
        Ok(Self { runtimes, described, go_on: true, local })
    }

    /// Opens the runtime of the configuration.
    #[cfg(not(feature = "docker"))]
    pub(super) async fn open(settings: &Settings, _said: &(dyn Fn(String) + Send + Sync)) -> anyhow::Result<Self> {
        match settings.runtime {
            RuntimeKind::Auto | RuntimeKind::Local => Self::local(settings).await,
            RuntimeKind::Docker => Err(Failure::new(Exit::Usage, "this raworc was built without Docker").into()),
        }
    }

    async fn local(settings: &Settings) -> anyhow::Result<Self> {
        let runtime = Arc::new(open_local(settings).await?);
        let described = if settings.local.isolation {
            let report = runtime.probe().await.map_err(not_isolated)?;
            let walls = "local, isolated by Linux namespaces";
            report.limits_missing.map_or_else(
                || walls.to_owned(),
                |why| format!("{walls}; limits on cpu and memory are not enforced: {why}"),
            )
        } else {
            tracing::warn!("computers have no walls: agents can do to this machine what this user can");
            "local, WITHOUT isolation: agents can do to this machine what you can".to_owned()
        };
        Ok(Self { runtimes: with_local(Runtimes::new(), &runtime), described, go_on: false, local: Some(runtime) })
    }

    /// Ends what ends with this process. Containers go on, and find the next one.
    pub(super) async fn close(&self) {
        if let Some(local) = &self.local {
            local.close().await;
        }
    }
}

fn metered(runtime: Arc<impl Runtime + 'static>) -> Arc<dyn Runtime> {
    Arc::new(MeteredRuntime::new(runtime))
}

fn with_local(runtimes: Runtimes, runtime: &Arc<LocalRuntime>) -> Runtimes {
    runtimes.with(metered(Arc::clone(runtime)), runtime.agent_url(SOCKET), None)
}

#[cfg(feature = "docker")]
fn with_docker(runtimes: Runtimes, runtime: DockerRuntime) -> Runtimes {
    runtimes.with(metered(Arc::new(runtime)), DockerRuntime::agent_url(SOCKET), None)
}

/// Programs of an engine on another machine dial `url`; the others have the socket.
#[cfg(feature = "docker")]
pub(super) fn reached_over_tls(
    settings: &Settings,
    runtimes: Runtimes,
    url: &str,
    ca: &str,
) -> anyhow::Result<Runtimes> {
    if !settings.docker.remote {
        return Ok(runtimes);
    }
    Ok(runtimes.reached_at(&docker::name()?, url, Some(ca)))
}

/// No other runtime has computers on other machines.
#[cfg(not(feature = "docker"))]
pub(super) fn reached_over_tls(_: &Settings, runtimes: Runtimes, _: &str, _: &str) -> anyhow::Result<Runtimes> {
    Ok(runtimes)
}

fn not_isolated(error: RuntimeError) -> Failure {
    // The runtime names the way out for this machine, and --no-isolation as the last one.
    Failure::new(Exit::Failed, "this machine does not let agents' computers be isolated").because(error)
}

async fn open_local(settings: &Settings) -> anyhow::Result<LocalRuntime> {
    let (file, arguments) = program::find()?;
    let isolation = if settings.local.isolation { Isolation::Required } else { Isolation::None };
    let mut command = vec![raworc_backends::local::PROGRAM_PATH.to_owned()];
    command.extend(arguments);
    let mut options =
        LocalOptions::new(RuntimeName::new(LOCAL)?, program::installation(settings)?, settings.data.join("local"))
            .with_link_dir(settings.data.join("link"))
            .with_program_file(file)
            .with_program(command)
            .with_private(program::private(settings))
            .with_isolation(isolation);
    options.default_cpu = settings.local.cpu.0;
    options.default_memory = settings.local.memory.map_or(options.default_memory, |limit| limit.0);
    options.default_pids = (settings.local.pids > 0).then_some(settings.local.pids);
    let opened = LocalRuntime::open(options).await;
    Ok(opened.map_err(|error| Failure::new(Exit::Failed, "the local runtime cannot be started").because(error))?)
}
