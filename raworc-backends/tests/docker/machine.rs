//! What the tests make computers with.

use std::future::Future;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, WaitContainerOptions,
};
use futures::StreamExt;
use libtest_mimic::Trial;
use raworc_backends::docker::{DockerOptions, DockerRuntime};
use raworc_core::agent::{Network, Resources};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{ComputerId, Incarnation, RuntimeName};
use raworc_core::runtime::{Boot, ComputerSpec, LogsOptions, Phase, Runtime, RuntimeExt, StartId};

pub(crate) use crate::dockerd::{IMAGE, host};

/// How long a test may take before it is taken to hang.
const LIMIT: Duration = Duration::from_secs(300);

/// A test, with its own time limit.
pub(crate) fn trial<F: Future<Output = ()> + 'static>(name: &'static str, body: fn() -> F) -> Trial {
    Trial::test(format!("docker::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::time::timeout(LIMIT, body()).await.map_err(|_| format!("{name} took too long"))
        })?;
        Ok(())
    })
}

/// The same where the test moves its time on by itself.
pub(crate) fn trial_with_time<F: Future<Output = ()> + 'static>(name: &'static str, body: fn() -> F) -> Trial {
    Trial::test(format!("docker::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::time::timeout(LIMIT, body()).await.map_err(|_| format!("{name} took too long"))
        })?;
        Ok(())
    })
}

/// Whether an engine answers and has the image.
pub(crate) fn answers() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Ok(docker) = Docker::connect_with_host(&host()) else { return false };
    runtime.block_on(async { docker.inspect_image(IMAGE).await.is_ok() })
}

/// The engine itself, for what a person does by hand.
pub(crate) fn docker() -> Docker {
    Docker::connect_with_host(&host()).expect("an address")
}

/// A name that no other installation has.
pub(crate) fn name() -> String {
    format!("test-{}", SystemEntropy.uuid(SystemClock.now()).simple())
}

/// An installation of its own, whose program is a shell script that has read its boot line.
pub(crate) struct Machine {
    pub(crate) runtime: DockerRuntime,
    pub(crate) installation: String,
}

impl Machine {
    pub(crate) fn new(script: &str) -> Self {
        Self::with(script, |options| options)
    }

    pub(crate) fn with(script: &str, more: impl FnOnce(DockerOptions) -> DockerOptions) -> Self {
        let installation = name();
        let options = DockerOptions::new(RuntimeName::new("docker").expect("a name"), &installation, host(), IMAGE)
            .with_program(["/bin/sh", "-c", &format!("cat > /dev/null; {script}")]);
        let runtime = DockerRuntime::open(more(options)).expect("opened");
        Self { runtime, installation }
    }

    /// A computer with nothing special, made.
    pub(crate) async fn made(&self) -> ComputerSpec {
        let spec = spec();
        self.runtime.ensure(&spec).await.expect("made");
        spec
    }

    pub(crate) async fn start(&self, spec: &ComputerSpec) -> StartId {
        self.runtime.start(spec.id, &boot(spec.id)).await.expect("started")
    }

    /// Makes and starts it, waits until the program has ended, and gives what it wrote.
    pub(crate) async fn run(&self, spec: &ComputerSpec) -> String {
        self.runtime.ensure(spec).await.expect("made");
        self.start(spec).await;
        // The engine answers when it is over, with its exit code as an error where that is not 0.
        let ends: Vec<_> = docker().wait_container(&container(spec.id), None::<WaitContainerOptions>).collect().await;
        assert_eq!(ends.len(), 1, "the engine tells the end: {ends:?}");
        self.log(spec.id).await
    }

    pub(crate) async fn phase(&self, id: ComputerId) -> Option<Phase> {
        self.runtime.observe(id).await.expect("observed").map(|observed| observed.phase)
    }

    pub(crate) async fn log(&self, id: ComputerId) -> String {
        self.runtime.log_tail(id, 1 << 20).await
    }

    /// What the program of the present start has written, once `text` is in it.
    pub(crate) async fn said(&self, id: ComputerId, text: &str) -> String {
        let follow = LogsOptions::default().with_follow(true);
        let mut chunks = self.runtime.logs(id, follow).await.expect("a log");
        let mut log = String::new();
        while let Some(chunk) = chunks.next().await {
            log.push_str(&String::from_utf8_lossy(&chunk.expect("read")));
            if log.contains(text) {
                return log;
            }
        }
        panic!("it ended without {text:?}: {log}");
    }

    /// Takes these away, and shows that nothing of the installation is left on the engine.
    pub(crate) async fn close(self, made: &[ComputerSpec]) {
        for spec in made {
            self.runtime.remove(spec.id).await.expect("removed");
            self.runtime.remove_volume(spec.volume).await.expect("removed");
        }
        self.runtime.remove_programs().await.expect("removed");
        let docker = docker();
        let own = [("label", vec![format!("raworc.installation={}", self.installation)])].into();
        let query = ListContainersOptionsBuilder::new().all(true).filters(&own).build();
        let containers = docker.list_containers(Some(query)).await.expect("listed");
        assert_eq!(containers, vec![], "containers are left behind");
        let query = ListVolumesOptionsBuilder::new().filters(&own).build();
        let volumes = docker.list_volumes(Some(query)).await.expect("listed").volumes.unwrap_or_default();
        assert_eq!(volumes, vec![], "volumes are left behind");
        let query = ListNetworksOptionsBuilder::new().filters(&own).build();
        let networks = docker.list_networks(Some(query)).await.expect("listed");
        assert_eq!(networks, vec![], "networks are left behind");
    }
}

/// Where a test fails, what it made goes too.
impl Drop for Machine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let label = format!("label=raworc.installation={}", self.installation);
        let engine = |args: &[&str]| {
            let output = std::process::Command::new("docker").args(["--host", &host()]).args(args).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        engine(&["ps", "-aq", "--filter", &label]).lines().for_each(|id| drop(engine(&["rm", "-f", "-v", id])));
        for kind in ["volume", "network"] {
            engine(&[kind, "ls", "-q", "--filter", &label]).lines().for_each(|id| drop(engine(&[kind, "rm", id])));
        }
    }
}

/// An image of a test's own, from the files of a directory. It goes with the test.
#[derive(Debug)]
pub(crate) struct Image(pub(crate) String);

impl Image {
    pub(crate) fn of(files: &std::path::Path) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        archive.follow_symlinks(false);
        archive.append_dir_all(".", files).expect("packed");
        let name = format!("localhost/{}:1", name());
        let mut import = std::process::Command::new("docker");
        import.args(["--host", &host(), "import", "-", &name]);
        import.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = import.spawn().expect("the docker command");
        let mut input = child.stdin.take().expect("an input");
        std::io::Write::write_all(&mut input, &archive.into_inner().expect("packed")).expect("written");
        drop(input);
        assert!(child.wait().expect("ended").success(), "the image was made");
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let removed =
            std::process::Command::new("docker").args(["--host", &host(), "image", "rm", "-f", &self.0]).output();
        assert!(std::thread::panicking() || removed.is_ok_and(|output| output.status.success()), "{} is left", self.0);
    }
}

/// The container of a computer.
pub(crate) fn container(id: ComputerId) -> String {
    format!("raworc-{id}")
}

/// Writes a file into the home of a computer that does not run.
pub(crate) async fn write(spec: &ComputerSpec, name: &str, content: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content.as_bytes()).expect("packed");
    let archive = bollard::body_full(archive.into_inner().expect("packed").into());
    let options = bollard::query_parameters::UploadToContainerOptionsBuilder::new().path("/agent").build();
    docker().upload_to_container(&container(spec.id), Some(options), archive).await.expect("written");
}

/// A computer that nobody has made.
pub(crate) fn spec() -> ComputerSpec {
    let now = SystemClock.now();
    ComputerSpec {
        id: SystemEntropy.computer_id(now),
        volume: SystemEntropy.volume_id(now),
        image: None,
        resources: Resources::default(),
        network: Network::default(),
        root: false,
    }
}

pub(crate) fn boot(computer: ComputerId) -> Boot {
    Boot {
        agent_url: "unix:/run/raworc/link/agents.sock".into(),
        ca: None,
        computer,
        incarnation: Incarnation(1),
        key: "one-time-key".into(),
    }
}
