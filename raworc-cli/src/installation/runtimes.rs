//! The runtimes of an installation, from the configuration.

use std::sync::Arc;

#[cfg(feature = "docker")]
use raworc_backends::docker::{DockerRuntime, ENGINE_LIMIT};
use raworc_backends::local::{Isolation, LocalOptions, LocalRuntime};
#[cfg(feature = "failpoints")]
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{Runtime, RuntimeError, Runtimes};
use raworc_http::server::metrics::MeteredRuntime;
#[cfg(feature = "failpoints")]
use raworc_http::server::remote::RemoteRuntime;

use super::agents::OverTls;
#[cfg(feature = "docker")]
use super::docker::{self, Chosen};
use super::{identity, program};
use crate::exit::{Exit, Failure};
#[cfg(not(feature = "docker"))]
use crate::settings::RuntimeKind;
use crate::settings::Settings;

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
    /// Those that somebody has opened before.
    #[cfg(feature = "bench")]
    pub(super) fn of(runtimes: Runtimes) -> Self {
        Self { runtimes, described: "given".to_owned(), go_on: false, local: None }
    }

    /// Opens the runtime of the configuration, and beside it those that agents may have been made on before.
    #[cfg(feature = "docker")]
    pub(super) async fn open(
        settings: &Settings,
        installation: &str,
        said: &(dyn Fn(String) + Send + Sync),
    ) -> anyhow::Result<Self> {
        #[cfg(feature = "failpoints")]
        if let Some(opened) = Self::of_a_crash_test() {
            return Ok(opened);
        }
        let Chosen { runtime, is_default, why, host } = docker::choose(settings, installation, said).await?;
        let docker = match runtime {
            Some(docker) if is_default => docker,
            docker => {
                let mut opened = Self::local(settings, installation).await?;
                opened.described.extend(why.map(|why| format!("; not docker: {why}")));
                if let Some(docker) = docker {
                    opened.runtimes = with_docker(opened.runtimes, docker).await;
                }
                return Ok(opened);
            }
        };
        let described = docker::described(settings, &host, why);
        let mut runtimes = with_docker(Runtimes::new(), docker).await;
        let local = match Self::local(settings, installation).await {
            Ok(Self { local, .. }) => local,
            Err(error) => {
                tracing::info!(reason = format!("{error:#}"), "the local runtime is left out");
                None
            }
        };
        if let Some(local) = &local {
            runtimes = with_local(runtimes, local, settings)?;
        }
        Ok(Self { runtimes, described, go_on: true, local })
    }

    /// Opens the runtime of the configuration.
    #[cfg(not(feature = "docker"))]
    pub(super) async fn open(
        settings: &Settings,
        installation: &str,
        _said: &(dyn Fn(String) + Send + Sync),
    ) -> anyhow::Result<Self> {
        #[cfg(feature = "failpoints")]
        if let Some(opened) = Self::of_a_crash_test() {
            return Ok(opened);
        }
        match settings.runtime {
            RuntimeKind::Auto | RuntimeKind::Local => Self::local(settings, installation).await,
            RuntimeKind::Docker => Err(Failure::new(Exit::Usage, "this raworc was built without Docker").into()),
        }
    }

    /// The engine of a crash test, where this process is told of one.
    #[cfg(feature = "failpoints")]
    fn of_a_crash_test() -> Option<Self> {
        let runtime = Arc::new(RemoteRuntime::from_env()?);
        let (name, engine) = (runtime.name().clone(), runtime.engine());
        let runtimes = Runtimes::new().with(metered(runtime), String::new(), None).of_engine(&name, engine);
        Some(Self { runtimes, described: "an engine in another process".to_owned(), go_on: true, local: None })
    }

    async fn local(settings: &Settings, installation: &str) -> anyhow::Result<Self> {
        let runtime = Arc::new(open_local(settings, installation).await?);
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
        let runtimes = with_local(Runtimes::new(), &runtime, settings)?;
        Ok(Self { runtimes, described, go_on: false, local: Some(runtime) })
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

fn with_local(runtimes: Runtimes, runtime: &Arc<LocalRuntime>, settings: &Settings) -> Result<Runtimes, Failure> {
    let engine = identity::of_directory(&settings.data.join("local"))?;
    Ok(runtimes.with(metered(Arc::clone(runtime)), runtime.agent_url(), None).of_engine(runtime.name(), engine))
}

#[cfg(feature = "docker")]
async fn with_docker(runtimes: Runtimes, runtime: DockerRuntime) -> Runtimes {
    // One that takes calls and answers none is not waited for.
    let engine = tokio::time::timeout(ENGINE_LIMIT, runtime.engine_id()).await;
    let name = runtime.name().clone();
    let runtimes = runtimes.with(metered(Arc::new(runtime)), DockerRuntime::agent_url(), None);
    match engine {
        Ok(Ok(engine)) => runtimes.of_engine(&name, engine),
        Ok(Err(_)) | Err(_) => runtimes,
    }
}

/// Programs of an engine on another machine dial the servers over TLS; the others have their sockets.
#[cfg(feature = "docker")]
pub(super) fn reached_over_tls(settings: &Settings, runtimes: Runtimes, tls: Option<OverTls>) -> Runtimes {
    #[cfg(feature = "failpoints")]
    let runtimes = reached_in_a_crash_test(runtimes, tls.as_ref());
    match tls.filter(|_| settings.docker.remote) {
        Some(tls) => runtimes.reached_at(&settings.docker.name, &tls.url, Some(&tls.ca)),
        None => runtimes,
    }
}

/// No other runtime has computers on other machines.
#[cfg(not(feature = "docker"))]
pub(super) fn reached_over_tls(_: &Settings, runtimes: Runtimes, tls: Option<OverTls>) -> Runtimes {
    #[cfg(feature = "failpoints")]
    let runtimes = reached_in_a_crash_test(runtimes, tls.as_ref());
    drop(tls);
    runtimes
}

/// Programs of the engine of a crash test are on another machine, as far as the network knows.
#[cfg(feature = "failpoints")]
fn reached_in_a_crash_test(runtimes: Runtimes, tls: Option<&OverTls>) -> Runtimes {
    match tls {
        Some(tls) => runtimes.reached_at(&RuntimeName::simulated(), &tls.url, Some(&tls.ca)),
        None => runtimes,
    }
}

fn not_isolated(error: RuntimeError) -> Failure {
    // The runtime names the way out for this machine, and --no-isolation as the last one.
    Failure::new(Exit::Failed, "this machine does not let agents' computers be isolated").because(error)
}

async fn open_local(settings: &Settings, installation: &str) -> anyhow::Result<LocalRuntime> {
    let (file, arguments) = program::find()?;
    let isolation = if settings.local.isolation { Isolation::Required } else { Isolation::None };
    let mut command = vec![raworc_backends::local::PROGRAM_PATH.to_owned()];
    command.extend(arguments);
    let mut options = LocalOptions::new(settings.local.name.clone(), installation, settings.data.join("local"))
        .with_link_dir(settings.sockets())
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
