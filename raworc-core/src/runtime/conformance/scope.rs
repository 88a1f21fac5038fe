//! What every case works with: its own computers and volumes, which are gone when it ends, and its time limits.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};

use super::RuntimeUnderTest;
use super::script::{Op, Script};
use crate::agent::{Network, NetworkMode, Resources};
use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use crate::ids::{ComputerId, Incarnation, VolumeId};
use crate::runtime::{Boot, ComputerSpec, LogsOptions, Observed, Phase, Runtime, RuntimeError, StartId};

/// Time for a program to end by itself.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Time between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(25);

#[derive(Default)]
struct Made {
    computers: Vec<ComputerId>,
    volumes: Vec<VolumeId>,
}

pub(super) struct Scope {
    pub(super) subject: Arc<dyn RuntimeUnderTest>,
    pub(super) runtime: Arc<dyn Runtime>,
    made: Mutex<Made>,
    incarnation: AtomicU64,
}

impl Scope {
    /// Runs a case, takes away what it made, and only then lets its failure out.
    pub(super) async fn run<F, Fut>(subject: Arc<dyn RuntimeUnderTest>, case: F)
    where
        F: FnOnce(Arc<Self>) -> Fut + Send,
        Fut: Future<Output = ()> + Send,
    {
        let limit = subject.patience() * 4;
        let scope = Arc::new(Self {
            runtime: subject.runtime(),
            subject,
            made: Mutex::default(),
            incarnation: AtomicU64::new(0),
        });
        let body = AssertUnwindSafe(case(Arc::clone(&scope))).catch_unwind();
        let outcome = tokio::time::timeout(limit, body).await;
        scope.clear().await;
        match outcome {
            Ok(Ok(())) => (),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("the case took longer than {limit:?}"),
        }
    }

    async fn clear(&self) {
        let Made { computers, volumes } = std::mem::take(&mut *self.made());
        let patience = self.subject.patience();
        let neighbour = self.subject.another_installation().await;
        for runtime in [&self.runtime, &neighbour] {
            // Best effort: the case has said already what is wrong with the runtime.
            for &id in &computers {
                let _removed = tokio::time::timeout(patience, runtime.remove(id)).await;
            }
            for &id in &volumes {
                let _removed = tokio::time::timeout(patience, runtime.remove_volume(id)).await;
            }
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A computer that nobody has made.
    pub(super) fn new_computer(&self) -> ComputerId {
        let id = SystemEntropy.computer_id(SystemClock.now());
        self.made().computers.push(id);
        id
    }

    /// A volume that nobody has made.
    pub(super) fn new_volume(&self) -> VolumeId {
        let id = SystemEntropy.volume_id(SystemClock.now());
        self.made().volumes.push(id);
        id
    }

    /// A computer with nothing special on this volume.
    pub(super) fn spec_on(&self, volume: VolumeId) -> ComputerSpec {
        let mut network = Network::default();
        // What nobody asked for is what the runtime has.
        if !self.runtime.capabilities().closed_network {
            network.mode = NetworkMode::Open;
        }
        ComputerSpec {
            id: self.new_computer(),
            volume,
            image: self.subject.image(),
            resources: Resources::default(),
            network,
            root: false,
        }
    }

    /// A computer with nothing special and a volume of its own.
    pub(super) fn spec(&self) -> ComputerSpec {
        self.spec_on(self.new_volume())
    }

    /// A path on the computer's volume.
    pub(super) fn on_volume(&self, spec: &ComputerSpec, name: &str) -> String {
        format!("{}/{name}", self.subject.volume_path(spec.volume))
    }

    /// A path outside the computer's volume.
    pub(super) fn on_root(&self, spec: &ComputerSpec, name: &str) -> String {
        format!("{}/{name}", self.subject.root_path(spec.id))
    }

    /// Awaits a call, for as long as the subject has patience.
    pub(super) async fn tried<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let patience = self.subject.patience();
        match tokio::time::timeout(patience, call).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("{what}: no answer within {patience:?}"),
        }
    }

    /// Awaits a call that has to succeed.
    pub(super) async fn done<T>(&self, what: &str, call: impl Future<Output = Result<T, RuntimeError>>) -> T {
        self.tried(what, call).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Waits until `look` finds something.
    pub(super) async fn found<T, Fut: Future<Output = Option<T>>>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Fut,
    ) -> T {
        let patience = self.subject.patience();
        let search = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(patience, search).await {
            Ok(found) => found,
            Err(_) => panic!("{what}: not within {patience:?}"),
        }
    }

    /// Has the computer's image brought.
    pub(super) async fn prepare(&self, spec: &ComputerSpec) {
        self.done("prepare", self.runtime.prepare(spec.image.as_deref(), &|_| ())).await;
    }

    /// Has the computer made.
    pub(super) async fn make(&self, spec: &ComputerSpec) {
        self.prepare(spec).await;
        self.done("ensure", self.runtime.ensure(spec)).await;
    }

    /// A computer with nothing special, made.
    pub(super) async fn made_computer(&self) -> ComputerSpec {
        let spec = self.spec();
        self.make(&spec).await;
        spec
    }

    /// The boot message of the next start, with this script.
    pub(super) fn boot(&self, spec: &ComputerSpec, ops: Vec<Op>) -> Boot {
        Boot {
            agent_url: Script(ops).to_agent_url(),
            ca: None,
            computer: spec.id,
            incarnation: Incarnation(self.incarnation.fetch_add(1, Ordering::Relaxed) + 1),
            key: "one-time-key".into(),
        }
    }

    /// Starts a computer with this script.
    pub(super) async fn start(&self, spec: &ComputerSpec, ops: Vec<Op>) -> StartId {
        let boot = self.boot(spec, ops);
        self.done("start", self.runtime.start(spec.id, &boot)).await
    }

    /// Stops this start.
    pub(super) async fn stop(&self, spec: &ComputerSpec, start: &StartId) {
        self.done("stop", self.runtime.stop(spec.id, start, GRACE)).await;
    }

    /// Starts a computer with this script, gives back what it logged, and stops it.
    pub(super) async fn told(&self, spec: &ComputerSpec, mut ops: Vec<Op>) -> String {
        ops.extend([Op::Log("told".into()), Op::Wait]);
        let start = self.start(spec, ops).await;
        let log = self.log_with(spec, "told\n").await;
        self.stop(spec, &start).await;
        log
    }

    /// The whole log of a computer.
    pub(super) async fn log(&self, id: ComputerId, options: LogsOptions) -> String {
        let mut chunks = self.done("logs", self.runtime.logs(id, options)).await;
        let collected = async {
            let mut log = Vec::new();
            while let Some(chunk) = chunks.next().await {
                log.extend_from_slice(&chunk?);
            }
            Ok(log)
        };
        String::from_utf8_lossy(&self.done("the log's stream", collected).await).into_owned()
    }

    /// The log, once it has this text.
    pub(super) async fn log_with(&self, spec: &ComputerSpec, text: &str) -> String {
        let what = format!("R16: the program's {text:?} in its log");
        let look = || async {
            let log = self.log(spec.id, LogsOptions::default()).await;
            log.contains(text).then_some(log)
        };
        self.found(&what, look).await
    }

    pub(super) async fn observe(&self, id: ComputerId) -> Option<Observed> {
        self.done("observe", self.runtime.observe(id)).await
    }

    pub(super) async fn phase(&self, id: ComputerId) -> Option<Phase> {
        self.observe(id).await.map(|observed| observed.phase)
    }

    /// Waits until the computer is stopped, and tells what the engine remembers of the end.
    pub(super) async fn stopped(&self, id: ComputerId) -> Option<String> {
        let look = || async {
            match self.phase(id).await {
                Some(Phase::Stopped { reason }) => Some(reason),
                Some(Phase::Unfit { reason }) => Some(Some(reason)),
                Some(Phase::Running(_) | Phase::Stopping(_)) | None => None,
            }
        };
        self.found("R13: a program that ended is `Stopped`", look).await
    }

    pub(super) async fn assert_running(&self, rule: &str, id: ComputerId, start: &StartId) {
        assert_eq!(self.phase(id).await, Some(Phase::Running(start.clone())), "{rule}");
    }

    pub(super) async fn assert_stopped(&self, rule: &str, id: ComputerId) {
        let phase = self.phase(id).await;
        assert!(matches!(phase, Some(Phase::Stopped { .. })), "{rule}: {phase:?}");
    }

    /// Panics where a process that an earlier computer on this volume left behind still writes there.
    pub(super) async fn assert_quiet(&self, rule: &str, spec: &ComputerSpec, path: &str) {
        let count = || Op::Count(path.to_owned());
        let log = self.told(spec, vec![count(), Op::Pause(2), count()]).await;
        let counts = counts(&log);
        assert!(matches!(counts[..], [before, after] if before == after && before > 0), "{rule}: {log}");
    }
}

/// The numbers that `Op::Count` logged.
pub(super) fn counts(log: &str) -> Vec<u64> {
    let counted = log.lines().filter(|line| line.starts_with("count "));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}
