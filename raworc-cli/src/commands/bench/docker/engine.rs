//! The floor: what the engine itself takes for a container with the same flags, by its own API.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StopContainerOptionsBuilder,
};
use futures::StreamExt;
use tokio::time::Instant;

/// The label that Raworc puts on what is an installation's.
const OURS: &str = "raworc.installation";

/// The label of what is made here. With Raworc's own an operator would take it away.
const FLOOR: &str = "raworc.bench";

/// Says that it runs, and obeys SIGTERM, as an agent's program does.
const PROGRAM: [&str; 3] = ["/bin/sh", "-c", "echo up; exec cat"];

/// How long computers may take to be gone.
const PATIENCE: Duration = Duration::from_secs(120);

/// A container as Raworc makes them, but for its volume and its program.
#[derive(Debug, Clone)]
pub(super) struct Like(ContainerCreateBody);

/// An engine, with the installation that is measured on it.
#[derive(Debug)]
pub(super) struct Engine {
    docker: Docker,
    installation: String,
}

impl Engine {
    pub(super) async fn at(host: &str, installation: &str) -> anyhow::Result<Self> {
        let docker = Docker::connect_with_host(host)?.negotiate_version().await?;
        Ok(Self { docker, installation: installation.to_owned() })
    }

    /// Reads off a container of the installation what it was made with: so both have the same flags, whatever they are.
    pub(super) async fn like_ours(&self) -> anyhow::Result<Like> {
        let containers = self.containers(OURS).await?;
        let one = containers.first().context("the agent has no container")?;
        let found = self.docker.inspect_container(one, None).await?;
        // Both have the same fields, and the one that is sent a few more.
        let mut body: ContainerCreateBody = serde_json::from_value(serde_json::to_value(found.config)?)?;
        body.labels = Some(HashMap::from([(FLOOR.to_owned(), self.installation.clone())]));
        body.entrypoint = Some(PROGRAM.map(Into::into).to_vec());
        body.cmd = None;
        body.hostname = None;
        body.host_config = found.host_config;
        Ok(Like(body))
    }

    /// Makes a volume and a container on it, starts that, and waits for the first that it says: `docker run`.
    pub(super) async fn run(&self, like: &Like, label: &str) -> anyhow::Result<String> {
        let name = format!("raworc-bench-{}-{label}", self.installation);
        let labels = HashMap::from([(FLOOR.to_owned(), self.installation.clone())]);
        let volume = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() };
        self.docker.create_volume(volume).await?;
        let mut body = like.0.clone();
        let mounts = body.host_config.as_mut().and_then(|config| config.mounts.as_mut()).into_iter().flatten();
        for mount in mounts.filter(|mount| mount.typ == Some(MountType::VOLUME)) {
            mount.source = Some(name.clone());
        }
        let query = CreateContainerOptionsBuilder::new().name(&name).build();
        self.docker.create_container(Some(query), body).await?;
        self.start(&name).await?;
        Ok(name)
    }

    /// Starts a container, and waits for the first that it says: `docker start --attach`.
    pub(super) async fn start(&self, container: &str) -> anyhow::Result<()> {
        let attach = AttachContainerOptionsBuilder::new().stdout(true).stderr(true).stream(true).build();
        let mut attached = self.docker.attach_container(container, Some(attach)).await?;
        self.docker.start_container(container, None).await?;
        let said = attached.output.next().await.context("it ended without a word")??;
        anyhow::ensure!(said.as_ref() == b"up\n", "the floor's container says {said}");
        Ok(())
    }

    /// Ends its program: `docker stop`.
    pub(super) async fn stop(&self, container: &str) -> anyhow::Result<()> {
        let query = StopContainerOptionsBuilder::new().t(5).build();
        Ok(self.docker.stop_container(container, Some(query)).await?)
    }

    pub(super) async fn remove(&self, container: &str) -> anyhow::Result<()> {
        let query = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.docker.remove_container(container, Some(query)).await?;
        // Both bear one name, where it was made here.
        self.docker.remove_volume(container, None::<RemoveVolumeOptions>).await?;
        Ok(())
    }

    /// Waits until the installation has no container and no volume any more.
    pub(super) async fn until_ours_are_gone(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.containers(OURS).await?.is_empty() || !self.volumes(OURS).await?.is_empty() {
            anyhow::ensure!(Instant::now() < deadline, "computers of deleted agents are still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Takes away whatever is left of both.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        for label in [OURS, FLOOR] {
            for container in self.containers(label).await? {
                let query = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                self.docker.remove_container(&container, Some(query)).await?;
            }
            for volume in self.volumes(label).await? {
                self.docker.remove_volume(&volume, None::<RemoveVolumeOptions>).await?;
            }
        }
        Ok(())
    }

    async fn containers(&self, label: &str) -> anyhow::Result<Vec<String>> {
        let query = ListContainersOptionsBuilder::new().all(true).filters(&self.bearing(label)).build();
        let found = self.docker.list_containers(Some(query)).await?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    async fn volumes(&self, label: &str) -> anyhow::Result<Vec<String>> {
        let query = ListVolumesOptionsBuilder::new().filters(&self.bearing(label)).build();
        let found = self.docker.list_volumes(Some(query)).await?.volumes.unwrap_or_default();
        Ok(found.into_iter().map(|volume| volume.name).collect())
    }

    fn bearing(&self, label: &str) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{label}={}", self.installation)])])
    }
}
