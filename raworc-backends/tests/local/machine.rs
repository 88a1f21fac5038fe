//! What the tests start computers with.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use raworc_backends::local::{Isolation, LocalOptions, LocalRuntime, PROGRAM_PATH};
use raworc_core::agent::{Network, Resources};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{ComputerId, Incarnation, RuntimeName, VolumeId};
use raworc_core::runtime::{Boot, ComputerSpec, Phase, Runtime, RuntimeExt, StartId};
use tempfile::TempDir;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A test, with its own time limit.
pub(crate) fn trial<F: Future<Output = ()>>(name: &'static str, body: impl Fn() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::time::timeout(LIMIT * 3, body()).await.map_err(|_| format!("{name} took too long"))
        })?;
        Ok(())
    })
}

/// A runtime in a directory of its own, whose program is a shell script.
pub(crate) struct Machine {
    pub(crate) runtime: Arc<LocalRuntime>,
    pub(crate) directory: TempDir,
    pub(crate) installation: String,
}

/// A computer of it.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) id: ComputerId,
    pub(crate) volume: VolumeId,
}

impl Made {
    /// Ids that nothing has.
    pub(crate) fn new() -> Self {
        let now = SystemClock.now();
        Self { id: SystemEntropy.computer_id(now), volume: SystemEntropy.volume_id(now) }
    }
}

impl Machine {
    /// A name that no other installation has.
    pub(crate) fn name() -> String {
        format!("test-{}", SystemEntropy.uuid(SystemClock.now()).simple())
    }

    /// One around a runtime that was opened elsewhere.
    pub(crate) fn around(runtime: LocalRuntime, installation: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { runtime: Arc::new(runtime), directory, installation: installation.into() }
    }

    pub(crate) async fn new(script: &str) -> Self {
        Self::with(script, |options| options).await
    }

    pub(crate) async fn with(script: &str, more: impl FnOnce(LocalOptions) -> LocalOptions) -> Self {
        let directory = tempfile::Builder::new().prefix("raworc-local-").tempdir().expect("a directory");
        let installation = Self::name();
        let runtime = open(&directory, &installation, script, more).await;
        Self { runtime: Arc::new(runtime), directory, installation }
    }

    /// One whose program is the hostile one, with these arguments.
    pub(crate) async fn hostile(arguments: &[String], more: impl FnOnce(LocalOptions) -> LocalOptions) -> Self {
        let program: Vec<String> = [PROGRAM_PATH.to_owned(), crate::hostile::COMMAND.to_owned()]
            .into_iter()
            .chain(arguments.iter().cloned())
            .collect();
        let own = std::env::current_exe().expect("this binary");
        Self::with("", |options| more(options.with_program(program).with_program_file(own))).await
    }

    /// Where a volume lies.
    pub(crate) fn volume(&self, made: &Made) -> PathBuf {
        self.directory.path().join("state").join(&self.installation).join("volumes").join(made.volume.to_string())
    }

    pub(crate) async fn make(&self) -> Made {
        self.make_with(Resources::default()).await
    }

    pub(crate) async fn make_with(&self, resources: Resources) -> Made {
        let made = Made {
            id: SystemEntropy.computer_id(SystemClock.now()),
            volume: SystemEntropy.volume_id(SystemClock.now()),
        };
        self.runtime.ensure(&spec(&made, resources)).await.expect("made");
        made
    }

    pub(crate) async fn start(&self, made: &Made) -> StartId {
        self.runtime.start(made.id, &boot(made.id, 1)).await.expect("started")
    }

    /// Waits until the program has ended, and says how and what it wrote.
    pub(crate) async fn run(&self, made: &Made) -> (String, String) {
        self.start(made).await;
        let ended = tokio::time::timeout(LIMIT, self.ended(made)).await;
        let Ok(reason) = ended else { panic!("the program does not end: {}", self.log(made).await) };
        (reason, self.log(made).await)
    }

    pub(crate) async fn ended(&self, made: &Made) -> String {
        wait_for("the program ends", async || match self.phase(made).await {
            Some(Phase::Stopped { reason }) => reason,
            Some(Phase::Unfit { reason }) => panic!("the program could not begin: {reason}"),
            Some(Phase::Running(_) | Phase::Stopping(_)) | None => None,
        })
        .await
    }

    pub(crate) async fn phase(&self, made: &Made) -> Option<Phase> {
        self.runtime.observe(made.id).await.expect("observed").map(|observed| observed.phase)
    }

    pub(crate) async fn log(&self, made: &Made) -> String {
        self.runtime.log_tail(made.id, 1 << 20).await
    }

    /// Waits until the program has written `text`.
    pub(crate) async fn wrote(&self, made: &Made, text: &str) -> String {
        wait_for(text, async || {
            let log = self.log(made).await;
            log.contains(text).then_some(log)
        })
        .await
    }

    /// Ends all, and shows that nothing is left.
    pub(crate) async fn close(self) {
        let Self { runtime, installation, directory } = self;
        let runtime = Arc::into_inner(runtime).expect("nobody else has it");
        runtime.close().await;
        directory.close().expect("removed");
        assert_eq!(left_behind(&installation), Vec::<String>::new(), "something is left behind");
    }
}

pub(crate) async fn open(
    directory: &TempDir,
    installation: &str,
    script: &str,
    more: impl FnOnce(LocalOptions) -> LocalOptions,
) -> LocalRuntime {
    let name = RuntimeName::new("local").expect("a name");
    let options = LocalOptions::new(name, installation, directory.path().join("state"))
        .with_program(["/bin/sh", "-c", script])
        .with_isolation(Isolation::Required);
    LocalRuntime::open(more(options)).await.expect("opened")
}

pub(crate) fn spec(made: &Made, resources: Resources) -> ComputerSpec {
    ComputerSpec { id: made.id, volume: made.volume, image: None, resources, network: Network::default(), root: false }
}

pub(crate) fn boot(computer: ComputerId, incarnation: u64) -> Boot {
    Boot {
        agent_url: "unix:/run/raworc/link/agents.sock".into(),
        ca: None,
        computer,
        incarnation: Incarnation(incarnation),
        key: "one-time-key".into(),
    }
}

/// Waits for a condition.
pub(crate) async fn wait_for<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT * 2;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Control groups, mounts and processes that name this installation.
pub(crate) fn left_behind(installation: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mut next = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = next.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(installation) {
                    left.push(format!("cgroup {}", entry.path().display()));
                }
                next.push(entry.path());
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
    left.extend(mounts.lines().filter(|line| line.contains(installation)).map(|line| format!("mount {line}")));
    left.extend(processes_of(installation));
    left
}

/// Processes to which a directory of this installation is shown, or that name it.
pub(crate) fn processes_of(installation: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("read").flatten() {
        let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if is_process && (mounts.contains(installation) || String::from_utf8_lossy(&environment).contains(installation))
        {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!("process {}: {}", entry.file_name().display(), String::from_utf8_lossy(&command)));
        }
    }
    found
}
