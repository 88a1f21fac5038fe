//! Computers as containers of a Docker engine.
//!
//! Each computer is a container with a volume of its own. Everything that is called by a name is looked at first, and
//! left alone where its labels are not this installation's; a volume without labels and files is what an engine leaves that is
//! killed while it makes one.

mod address;
mod config;
mod container;
mod engine;
mod error;
mod image;
mod log;
mod look;
mod network;
mod program;
mod starting;
mod tls;
mod unfit;
mod volume;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use raworc_core::agent::NetworkMode;
use raworc_core::ids::{ComputerId, RuntimeName, VolumeId};
use raworc_core::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Phase, Progress, Runtime, RuntimeError,
    RuntimeEvent, StartId,
};
use tokio::io::AsyncWriteExt;

pub use self::address::{EngineAddress, InvalidAddress, Named};
pub use self::config::{
    DEFAULT_CPU, DEFAULT_MEMORY, DEFAULT_PIDS, DockerOptions, ENGINE_LIMIT, LINK_PATH, PROGRAM_PATH,
};

use self::engine::Engine;
use self::error::{CONFLICT, if_there, status};
use self::program::Uploaded;
use self::starting::Starts;

/// Containers that are looked at side by side for a list.
const LOOKS: usize = 8;

/// How long an engine may say nothing before it is taken to hang.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);

/// Time between two looks at what the engine is still at.
const AGAIN: Duration = Duration::from_millis(50);

/// Computers as containers of one engine.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    options: Arc<DockerOptions>,
    engine: Engine,
    /// The program, where it is on another machine.
    uploaded: Arc<Uploaded>,
    starts: Starts,
    /// Whether it was said that the engine keeps a network that nothing is on.
    keeps_network: Arc<AtomicBool>,
}

/// The container of a computer's name.
enum Container {
    /// Made just now, with this id: it is this installation's, and was never started. Its volume may have begun with a home.
    Made { id: String, has_home: bool },
    /// There already, whoever's it is.
    Found(Box<ContainerInspectResponse>),
}

impl DockerRuntime {
    /// A runtime on the engine at the options' address. The engine need not answer yet: each call asks it anew.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn open(options: DockerOptions) -> Result<Self, RuntimeError> {
        let engine = Engine::at(&options)?;
        Ok(Self {
            options: Arc::new(options),
            engine,
            uploaded: Arc::default(),
            starts: Starts::default(),
            keeps_network: Arc::default(),
        })
    }

    /// Asks whether the engine answers.
    ///
    /// # Errors
    /// Says why it does not.
    pub async fn ping(&self) -> Result<(), RuntimeError> {
        self.engine.docker().await.map(drop)
    }

    /// The engine's own identity, by which engines are told apart.
    ///
    /// # Errors
    /// Where it does not answer, or says none.
    pub async fn engine_id(&self) -> Result<String, RuntimeError> {
        let id = self.engine.abilities().await?.id.clone();
        id.ok_or_else(|| RuntimeError::Unavailable("the engine does not say which one it is".into()))
    }

    /// The link directory, in which each server has its socket, as a program reaches it.
    #[must_use]
    pub fn agent_url() -> String {
        format!("unix:{LINK_PATH}")
    }

    /// Whether the engine has this image.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        image::is_there(self.engine.docker().await?, image).await
    }

    /// The engine's identity of an image, which is another one where its name was given to another image.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub async fn image_id(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        image::id(self.engine.docker().await?, image).await
    }

    /// Makes an image from a Dockerfile that needs no other file, and passes on what the engine says, line by line.
    ///
    /// # Errors
    /// Where a step of it fails, with what the engine says of that.
    pub async fn build_image(
        &self,
        image: &str,
        dockerfile: &str,
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        image::build(self.engine.docker().await?, image, dockerfile, said).await
    }

    /// Takes away what the installation has on the engine beside computers, their volumes and their network: programs that
    /// were uploaded. The next computer has its own uploaded again.
    ///
    /// # Errors
    /// Where a computer still has it, or the engine does not answer.
    pub async fn remove_programs(&self) -> Result<(), RuntimeError> {
        program::remove_all(self.engine.docker().await?, &self.options.installation).await
    }

    /// The volume with the program, where the engine is on another machine. It is filled by way of `image`.
    async fn program(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        let (true, Some(_)) = (self.options.remote, &self.options.program_file) else { return Ok(None) };
        let (runtime, image) = (self.clone(), image.to_owned());
        // An upload that is cut short would have to begin again.
        let work = async move {
            let Some(file) = &runtime.options.program_file else { return Ok(None) };
            let docker = runtime.engine.docker().await?;
            let by = |image| runtime.uploaded.ensure(docker, &runtime.options, image, file);
            let missing = match by(&image).await {
                Err(missing @ RuntimeError::ImageMissing { .. }) if image != runtime.options.default_image => missing,
                filled => return filled.map(Some),
            };
            // A computer that was made before needs its image no more.
            match by(&runtime.options.default_image).await {
                Err(RuntimeError::ImageMissing { .. }) => Err(missing),
                filled => filled.map(Some),
            }
        };
        tokio::spawn(work).await.map_err(|error| RuntimeError::Unavailable(format!("cut short: {error}")))?
    }

    /// Whether the image of a computer has a home for the agent, which its new volume begins with.
    async fn has_home(&self, spec: &ComputerSpec) -> Result<bool, RuntimeError> {
        image::has_home(self.engine.docker().await?, self.image_of(spec)).await
    }

    fn image_of<'a>(&'a self, spec: &'a ComputerSpec) -> &'a str {
        spec.image.as_deref().unwrap_or(&self.options.default_image)
    }

    /// The container of a computer of this installation.
    async fn container(&self, id: ComputerId) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        Ok(self.container_named(id).await?.filter(|found| self.computer_of(found) == Some(id)))
    }

    /// Whatever has the name of this computer's container.
    async fn container_named(&self, id: ComputerId) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let found = self.engine.docker().await?.inspect_container(&container::container_name(id), None).await;
        if_there(found).map_err(error::of("look at a computer"))
    }

    /// Makes the container of a computer, or finds what somebody else made of that name meanwhile.
    async fn make(&self, spec: &ComputerSpec, program: Option<&str>) -> Result<Container, RuntimeError> {
        let docker = self.engine.docker().await?;
        let has_home =
            volume::ensure(docker, &self.options.installation, spec.volume).await? && self.has_home(spec).await?;
        if spec.network.mode == NetworkMode::Open {
            network::ensure(docker, &self.options.installation).await?;
        }
        let name = container::container_name(spec.id);
        loop {
            let query = CreateContainerOptionsBuilder::new().name(&name).build();
            match docker.create_container(Some(query), container::asked(&self.options, spec, program, has_home)).await {
                Ok(made) => return Ok(Container::Made { id: made.id, has_home }),
                Err(error) if error::is_missing(&error) => {
                    let image = self.image_of(spec).to_owned();
                    return Err(RuntimeError::ImageMissing { image, reason: error.to_string() });
                }
                Err(error) if status(&error) == Some(CONFLICT) => (),
                Err(error) => return Err(error::of("make a computer")(error)),
            }
            if let Some(found) = self.container_named(spec.id).await? {
                return Ok(Container::Found(Box::new(found)));
            }
            // The name is taken before there is a container, and still when there is none any more.
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whether the engine has the image. A pull may take long; an engine that says nothing at all is not at one.
    async fn has_image_soon(&self, image: &str) -> Result<bool, RuntimeError> {
        let asked = tokio::time::timeout(SILENCE_LIMIT, self.has_image(image)).await;
        asked.unwrap_or_else(|_| {
            let host = &self.options.host;
            let reason =
                format!("{host} takes calls, and says nothing for {SILENCE_LIMIT:?}; start it anew where it hangs");
            Err(RuntimeError::Unavailable(reason))
        })
    }

    /// Takes away the container of a computer, which another one may be about to follow.
    async fn remove_container(&self, id: ComputerId) -> Result<(), RuntimeError> {
        while let Some(container) = self.container(id).await? {
            let Some(name) = container.id.as_deref() else { return Ok(()) };
            // With what its image asked for in volumes without a name; the agent's own has one, and stays.
            let query = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            match if_there(self.engine.docker().await?.remove_container(name, Some(query)).await) {
                Ok(_) => break,
                // Somebody else removes it: gone soon.
                Err(error) if status(&error) == Some(CONFLICT) => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error::of("remove a computer")(error)),
            }
        }
        if self.options.remote {
            self.uploaded.sweep(self.engine.docker().await?, &self.options.installation).await;
        }
        Ok(())
    }

    fn computer_of(&self, container: &ContainerInspectResponse) -> Option<ComputerId> {
        container::computer_of(container::labels(container), &self.options.installation)
    }

    /// The part of a start that must not be left in the middle.
    async fn start_and_tell(self, id: ComputerId, container: String, line: String) -> Result<StartId, RuntimeError> {
        let (what, docker) = ("start a computer", self.engine.docker().await?);
        let mut answer = docker.start_container(&container, None).await;
        // Its network may have gone in this moment, with the last computer that was on it.
        if answer.as_ref().is_err_and(error::is_missing)
            && let Some(found) = self.container(id).await?
        {
            network::join(docker, &self.options.installation, &found).await?;
            answer = docker.start_container(&container, None).await;
        }
        match answer {
            Err(error) if status(&error) == Some(CONFLICT) => {
                return Err(RuntimeError::Refused { what, reason: format!("computer {id} runs already") });
            }
            Err(error) if error::is_missing(&error) && self.container(id).await?.is_none() => {
                return Err(RuntimeError::NotFound(id));
            }
            // Whatever ran in it has ended, and it can never be started again. Its volume goes on in another container.
            Err(error) if error::is_stuck(&error) => {
                tracing::warn!(computer = %id, %error, "its engine lost track of a container, which is made anew");
                self.remove_container(id).await?;
                let reason = format!("the engine lost track of its container, which is made anew: {error}");
                return Err(RuntimeError::Unavailable(reason));
            }
            answer => answer.map_err(error::of(what))?,
        }
        let told = self.tell(&container, &line).await;
        let started = docker.inspect_container(&container, None).await.map_err(error::of(what))?;
        match told {
            // It has begun; that it is over already is told by its phase, with the reason.
            Err(_) if !look::is_running(&started) => {}
            told => told?,
        }
        look::start_id(&started).ok_or(RuntimeError::NotFound(id))
    }

    /// Writes the boot line. Only whoever started it attaches: the engine ends the program's input with the first one that
    /// leaves.
    async fn tell(&self, container: &str, line: &str) -> Result<(), RuntimeError> {
        let attach = AttachContainerOptionsBuilder::new().stdin(true).stream(true).build();
        let attached = self.engine.docker().await?.attach_container(container, Some(attach)).await;
        let mut input = attached.map_err(error::of("take the boot line"))?.input;
        let written = async {
            input.write_all(line.as_bytes()).await?;
            input.shutdown().await
        };
        written.await.map_err(|error| RuntimeError::Unavailable(format!("the boot line was not taken: {error}")))
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn name(&self) -> &RuntimeName {
        &self.options.name
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.images = true;
        capabilities.root = true;
        capabilities.open_network = true;
        // The way to the agents' listener is all the way that there is.
        capabilities.closed_network = !self.options.remote;
        capabilities.limits = true;
        capabilities.keeps_root = true;
        capabilities.copy_volume = true;
        capabilities
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        let image = image.unwrap_or(&self.options.default_image);
        let made_by = self.options.default_image_is_made.as_deref().filter(|_| image == self.options.default_image);
        if self.has_image_soon(image).await? {
            return Ok(());
        }
        image::pull(self.engine.docker().await?, image, made_by, progress).await
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.capabilities().check(spec)?;
        let mut ensured = Ensured::default();
        let abilities = self.engine.abilities().await?;
        if !abilities.unlimited.is_empty() {
            ensured.limits_missing = Some(format!("the engine does not limit {}", abilities.unlimited.join(", ")));
        }
        if let Some(who) = abilities.root_outside.filter(|_| spec.root) {
            ensured.root_unmapped =
                Some(format!("root inside is {who} outside: the engine runs without `userns-remap`"));
        }
        if spec.network.mode == NetworkMode::Open {
            ensured.network_unproved =
                Some("nothing shows that the engine's machine keeps computers from private addresses".into());
        }
        // The one image that is known to be there.
        let program = self.program(self.image_of(spec)).await?;
        let program = program.as_deref();
        let mut found = self.container_named(spec.id).await?;
        // What is shown inside is fixed when a container is made, and has moved since, or a removal was not finished: it could
        // not be started any more.
        let is_ours = |found: &ContainerInspectResponse| self.computer_of(found) == Some(spec.id);
        let is_stale = |found: &ContainerInspectResponse| {
            is_ours(found)
                && !look::is_running(found)
                && (look::is_dead(found) || !container::shows(found, &self.options, program))
        };
        if found.as_ref().is_some_and(is_stale) {
            self.remove_container(spec.id).await?;
            found = None;
        }
        if let Some(found) = found.as_ref().filter(|found| is_ours(found) && !look::is_running(found)) {
            network::join(self.engine.docker().await?, &self.options.installation, found).await?;
        }
        let container = match found {
            Some(found) => Container::Found(Box::new(found)),
            None => self.make(spec, program).await?,
        };
        let (id, is_new, has_home) = match container {
            Container::Made { id, has_home } => (Some(id), true, has_home),
            Container::Found(found) if !is_ours(&found) => {
                let name = container::container_name(spec.id);
                let reason = format!("the name {name} has a container that is not this installation's; remove it");
                return Err(RuntimeError::Refused { what: "make a computer", reason });
            }
            Container::Found(found) => {
                let is_new = look::started_at(&found).is_none();
                (found.id, is_new, false)
            }
        };
        ensured.is_new = is_new;
        // One that was started has its volume; of another nobody knows how far whoever made it came.
        if let Some(id) = id.filter(|_| is_new && !has_home && !spec.root) {
            volume::give_to_agent(self.engine.docker().await?, &id).await?;
        }
        Ok(ensured)
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let starting = self.starts.begin(id).await;
        let container = self.container(id).await?.and_then(|container| container.id);
        let container = container.ok_or(RuntimeError::NotFound(id))?;
        let work = self.clone().start_and_tell(id, container, boot.to_line());
        // A start that is cut short would leave a program that waits for its boot line.
        let work = async move {
            let _starting = starting;
            work.await
        };
        tokio::spawn(work).await.map_err(|error| RuntimeError::Unavailable(format!("cut short: {error}")))?
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(container) = self.container(id).await? else { return Ok(()) };
        let Some(name) = container.id.as_deref() else { return Ok(()) };
        if look::start_id(&container).as_ref() != Some(start) || !look::is_running(&container) {
            return Ok(());
        }
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let query = StopContainerOptionsBuilder::new().t(seconds).build();
        match self.engine.docker().await?.stop_container(name, Some(query)).await {
            // Stopped already, or gone.
            Err(error) if status(&error) == Some(CONFLICT) || error::is_missing(&error) => Ok(()),
            answer => answer.map_err(error::of("stop a computer")),
        }
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        self.remove_container(id).await?;
        // Also where it is gone already: whoever took it away may have come no further.
        match network::remove_unused(self.engine.docker().await?, &self.options.installation).await {
            // The computer is gone all the same, and the network goes with a later one. An engine that did not answer is asked
            // again: nobody else may be left to.
            Err(error) if !error.is_retryable() => {
                tracing::warn!(computer = %id, %error, "the network of open computers stays for now");
                Ok(())
            }
            Err(error) => Err(error),
            Ok(kept) => {
                // Once: each removal finds the same until the engine is started anew.
                let is_known = self.keeps_network.swap(kept.is_some(), Ordering::Relaxed);
                if let Some(reason) = kept.filter(|_| !is_known) {
                    tracing::warn!(
                        reason,
                        "the engine keeps the network of open computers though none is left; the next one uses it, and once \
                         the engine was started anew it goes with the next computer that is removed"
                    );
                }
                Ok(())
            }
        }
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        let Some(container) = self.container(id).await? else { return Ok(None) };
        let mut observed = look::observed(id, &container);
        if matches!(observed.phase, Phase::Stopped { .. })
            && let Some(reason) = self.unfit(id, &container).await
        {
            observed.phase = Phase::Unfit { reason };
        }
        Ok(Some(observed))
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let query = ListContainersOptionsBuilder::new().all(true).filters(&self.own()).build();
        let listed =
            self.engine.docker().await?.list_containers(Some(query)).await.map_err(error::of("list computers"))?;
        let installation = &self.options.installation;
        let ids = listed.iter().filter_map(|found| container::computer_of(found.labels.as_ref(), installation));
        let looks: Vec<_> = ids.map(|id| self.looked_at(id)).collect();
        let looks = stream::iter(looks).buffer_unordered(LOOKS);
        looks.try_filter_map(async |observed| Ok(observed)).try_collect().await
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        // From the engine's own present on: the request goes out only when the stream is first asked.
        let info = self.engine.docker().await?.info().await.map_err(error::of("tell its time"))?;
        let mut filters = self.own();
        filters.insert("type".into(), vec!["container".into()]);
        filters.insert("event".into(), ["start", "die", "destroy", "oom"].map(Into::into).to_vec());
        let query = EventsOptionsBuilder::new().since(&since(info.system_time.as_deref())).filters(&filters).build();
        let installation = self.options.installation.clone();
        let events = self.engine.docker().await?.events(Some(query));
        // With the first error the engine was lost.
        let events = events.take_while(|event| std::future::ready(event.is_ok())).filter_map(move |event| {
            let attributes = event.ok().and_then(|event| event.actor?.attributes);
            let changed = container::computer_of(attributes.as_ref(), &installation).map(RuntimeEvent::Changed);
            async move { changed }
        });
        let engine = self.engine.clone();
        let lost = stream::once(async move { engine.forget() }).filter_map(async |()| None);
        Ok(events.chain(lost).boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        let container = self.container(id).await?.ok_or(RuntimeError::NotFound(id))?;
        let started = look::started_at(&container).and_then(|at| at.parse().ok());
        let (Some(started), Some(name)) = (started, container.id.clone()) else {
            return Ok(stream::empty().boxed());
        };
        let docker = self.engine.docker().await?;
        let since = if look::is_running(&container) { started } else { log::begin(docker, &name, started).await? };
        log::read(docker.clone(), name, since, options).await
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        volume::is_there(self.engine.docker().await?, &self.options.installation, id).await
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        volume::copy(self.engine.docker().await?, &self.options, from, to).await
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        volume::remove(self.engine.docker().await?, &self.options.installation, id).await
    }
}

impl DockerRuntime {
    /// One of a list. What the engine cannot tell of a single computer says nothing of the others.
    async fn looked_at(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        let Ok(observed) = tokio::time::timeout(SILENCE_LIMIT, self.observe(id)).await else {
            tracing::warn!(computer = %id, "its engine says nothing of a computer, which is left out of the list");
            return Ok(None);
        };
        match observed {
            Err(error) if !error.is_retryable() => {
                tracing::warn!(computer = %id, %error, "a computer is left out of the list");
                Ok(None)
            }
            observed => observed,
        }
    }

    /// Why a program that has ended could not begin, if it could not. A log that cannot be read tells nothing.
    async fn unfit(&self, id: ComputerId, container: &ContainerInspectResponse) -> Option<String> {
        if !unfit::may_be(container.state.as_ref()) {
            return None;
        }
        let first = self.logs(id, LogsOptions::default()).await.ok()?.next().await?.ok()?;
        unfit::why(&String::from_utf8_lossy(&first), &self.options)
    }

    /// The filter for what is this installation's.
    fn own(&self) -> HashMap<String, Vec<String>> {
        let label = format!("{}={}", container::INSTALLATION, self.options.installation);
        HashMap::from([("label".into(), vec![label])])
    }
}

/// The engine's time as its events count it: seconds and nanoseconds.
fn since(system_time: Option<&str>) -> String {
    let now: jiff::Timestamp = system_time.and_then(|time| time.parse().ok()).unwrap_or_else(jiff::Timestamp::now);
    format!("{}.{:09}", now.as_second(), now.subsec_nanosecond())
}
