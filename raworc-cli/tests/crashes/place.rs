//! Where computers are made: by this machine's namespaces, or by a Docker engine of the test's own.

use std::path::Path;
use std::sync::Arc;

use raworc_core::agent::NetworkMode;
use raworc_core::control::CreateAgent;
use raworc_core::ids::AgentName;

use crate::dockerd::{Dockerd, IMAGE};
use crate::machine;

/// Where computers are made.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Local,
    Docker(Arc<Dockerd>),
}

impl Place {
    /// What a server is told of it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Local => vec![("RAWORC_RUNTIME", "local".to_owned())],
            Self::Docker(engine) => vec![
                ("RAWORC_RUNTIME", "docker".to_owned()),
                ("DOCKER_HOST", engine.host()),
                ("RAWORC_DOCKER__IMAGE", IMAGE.to_owned()),
            ],
        }
    }

    /// An agent to be made there: on Docker every second one with an open network, which the local runtime does not have.
    pub(crate) fn agent(&self, name: AgentName, number: usize) -> CreateAgent {
        let mut new = CreateAgent::named(name);
        if matches!(self, Self::Docker(_)) && number % 2 == 1 {
            new.spec.network.mode = NetworkMode::Open;
        }
        new
    }

    /// Whether what makes computers is killed too.
    pub(crate) fn is_killed(&self) -> bool {
        matches!(self, Self::Docker(_))
    }

    /// Volumes that are kept.
    pub(crate) fn volumes(&self, data: &Path) -> Vec<String> {
        match self {
            Self::Local => machine::kept(data, "volumes"),
            Self::Docker(engine) => {
                on_engine(engine, data).into_iter().filter(|what| what.starts_with("volume ")).collect()
            }
        }
    }

    /// What is there of agents: computers, volumes, and what is being thrown away.
    pub(crate) fn left_of_agents(&self, data: &Path) -> Vec<String> {
        match self {
            Self::Local => {
                ["computers", "volumes", "trash"].iter().flat_map(|kind| machine::kept(data, kind)).collect()
            }
            Self::Docker(engine) => on_engine(engine, data),
        }
    }

    /// Everything that lives of the installation, and what an engine has of it.
    pub(crate) fn alive(&self, data: &Path) -> Vec<String> {
        let mut alive = machine::alive(data);
        if let Self::Docker(engine) = self {
            alive.extend(on_engine(engine, data));
        }
        alive
    }

    /// What the engine says of itself, for whoever looks at a failure.
    pub(crate) fn log_tail(&self) -> String {
        match self {
            Self::Local => String::new(),
            Self::Docker(engine) => format!("the engine's log ends with\n{}", engine.log_tail()),
        }
    }
}

/// The containers, volumes and networks that the engine has with the label of the installation. One that does not answer has
/// something, for all that is known.
fn on_engine(engine: &Dockerd, data: &Path) -> Vec<String> {
    let Ok(name) = std::fs::read_to_string(data.join("installation")) else { return Vec::new() };
    let label = format!("raworc.installation={}", name.trim());
    engine.labelled(&label).unwrap_or_else(|error| vec![error])
}
