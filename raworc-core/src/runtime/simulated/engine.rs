//! The engine behind a simulated runtime: computers, volumes and processes, in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::faults::{Faults, Method};
use super::log::Log;
use super::options::{Profile, SimulatedOptions};
use super::program::{Exit, Inside};
use crate::ids::{ComputerId, VolumeId};
use crate::runtime::{ComputerSpec, LimitsReached, Observed, Phase, RuntimeError, RuntimeEvent, StartId, VOLUME_PATH};

/// So many events may wait for a reader before it is told to look at all.
const EVENTS: usize = 1024;

pub(super) type Files = BTreeMap<String, Bytes>;

/// Locks. What a panic left behind is consistent, because no lock is held over one.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processes beside the program itself.
#[derive(Debug)]
pub(super) struct Processes(Mutex<Option<Vec<JoinHandle<()>>>>);

impl Processes {
    fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    /// Starts one more, unless the end of all has begun.
    pub(super) fn spawn(&self, process: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &mut *locked(&self.0) {
            tasks.retain(|task| !task.is_finished());
            tasks.push(tokio::spawn(process));
        }
    }

    fn count(&self) -> usize {
        locked(&self.0).as_ref().map_or(0, |tasks| tasks.iter().filter(|task| !task.is_finished()).count())
    }

    /// Ends all and waits until they are gone.
    async fn end(&self) {
        let tasks = locked(&self.0).take().unwrap_or_default();
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // An aborted task answers with an error; that it is gone is what matters.
            let _gone = task.await;
        }
    }
}

/// One start.
#[derive(Debug, Clone)]
struct Run {
    start: StartId,
    stop: CancellationToken,
    ended: CancellationToken,
    program: AbortHandle,
    processes: Arc<Processes>,
}

#[derive(Debug)]
enum Life {
    Stopped(Option<String>),
    Running(Run),
    Stopping(Run),
}

#[derive(Debug)]
struct Computer {
    installation: Arc<str>,
    spec: ComputerSpec,
    root: Files,
    log: Arc<Log>,
    address: u64,
    life: Life,
    /// Said at its end in place of the exit code.
    reason: Option<String>,
    /// Limits that its last start has run into.
    reached: LimitsReached,
    /// Why its last start could not begin the program.
    unfit: Option<String>,
}

impl Computer {
    fn observed(&self) -> Observed {
        let phase = match (&self.life, &self.unfit) {
            (Life::Stopped(_), Some(reason)) => Phase::Unfit { reason: reason.clone() },
            (Life::Stopped(reason), None) => Phase::Stopped { reason: reason.clone() },
            (Life::Running(run), _) => Phase::Running(run.start.clone()),
            (Life::Stopping(run), _) => Phase::Stopping(run.start.clone()),
        };
        Observed { computer: self.spec.id, phase, reached: self.reached }
    }

    const fn run(&self) -> Option<&Run> {
        match &self.life {
            Life::Stopped(_) => None,
            Life::Running(run) | Life::Stopping(run) => Some(run),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Image {
    /// It is there.
    Present,
    /// It cannot be had, for this reason.
    Missing(String),
    /// It is there, and no program begins in it, for this reason.
    Unfit(String),
}

#[derive(Debug, Default)]
struct World {
    computers: BTreeMap<ComputerId, Computer>,
    volumes: BTreeMap<VolumeId, Files>,
    images: BTreeMap<String, Image>,
    events: BTreeMap<Arc<str>, broadcast::Sender<RuntimeEvent>>,
    calls: BTreeMap<Method, u64>,
    /// Why limits are not enforced, where they are not.
    limits_missing: Option<String>,
    /// Numbers for starts and addresses.
    last: u64,
}

/// An engine, which may serve several installations.
pub(super) struct Engine {
    pub(super) options: SimulatedOptions,
    pub(super) faults: Mutex<Faults>,
    world: Mutex<World>,
    /// Changes with everything that happens.
    pub(super) changes: watch::Sender<u64>,
}

/// What became of an attempt to take a computer away.
pub(super) enum Removal {
    Done,
    /// It runs: this tells when that has ended.
    Runs(CancellationToken),
}

impl Engine {
    pub(super) fn new(options: SimulatedOptions) -> Arc<Self> {
        Arc::new(Self { options, faults: Mutex::default(), world: Mutex::default(), changes: watch::Sender::new(0) })
    }

    fn touch(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn tell(&self, world: &World, installation: &str, computer: ComputerId) {
        if let Some(events) = world.events.get(installation) {
            // Nobody may be watching.
            let _watchers = events.send(RuntimeEvent::Changed(computer));
        }
        self.touch();
    }

    pub(super) fn count(&self, method: Method) {
        *locked(&self.world).calls.entry(method).or_default() += 1;
        self.touch();
    }

    pub(super) fn calls(&self, method: Method) -> u64 {
        locked(&self.world).calls.get(&method).copied().unwrap_or(0)
    }

    pub(super) fn image(&self, name: &str) -> Option<Image> {
        locked(&self.world).images.get(name).cloned()
    }

    pub(super) fn set_image(&self, name: &str, image: Option<Image>) {
        let images = &mut locked(&self.world).images;
        match image {
            Some(image) => images.insert(name.into(), image),
            None => images.remove(name),
        };
    }

    /// An image that cannot be had is missed by a container's `ensure` and by a pod's `start`.
    fn check_image(world: &World, spec: &ComputerSpec) -> Result<(), RuntimeError> {
        let Some(image) = &spec.image else { return Ok(()) };
        match world.images.get(image) {
            Some(Image::Missing(reason)) => {
                Err(RuntimeError::ImageMissing { image: image.clone(), reason: reason.clone() })
            }
            Some(Image::Present | Image::Unfit(_)) | None => Ok(()),
        }
    }

    pub(super) fn make(&self, installation: &Arc<str>, spec: &ComputerSpec) -> Result<(), RuntimeError> {
        let world = &mut *locked(&self.world);
        if world.computers.contains_key(&spec.id) {
            return Ok(());
        }
        if self.options.profile == Profile::Container {
            Self::check_image(world, spec)?;
        }
        world.volumes.entry(spec.volume).or_default();
        world.last += 1;
        let computer = Computer {
            installation: Arc::clone(installation),
            spec: spec.clone(),
            root: Files::new(),
            log: Log::over(),
            address: world.last,
            life: Life::Stopped(None),
            reason: None,
            reached: LimitsReached::default(),
            unfit: None,
        };
        world.computers.insert(spec.id, computer);
        self.touch();
        Ok(())
    }

    /// Whether a computer was never started.
    pub(super) fn is_new(&self, id: ComputerId) -> bool {
        locked(&self.world).computers.get(&id).is_some_and(|computer| matches!(computer.life, Life::Stopped(None)))
    }

    /// A start that is none: no other is called so.
    pub(super) fn pretended(&self) -> StartId {
        let world = &mut *locked(&self.world);
        world.last += 1;
        start_id(world.last)
    }

    /// Starts the program, which waits for what comes on `line`.
    pub(super) fn run(
        self: &Arc<Self>,
        id: ComputerId,
        line: oneshot::Receiver<String>,
    ) -> Result<StartId, RuntimeError> {
        let world = &mut *locked(&self.world);
        let last = world.last + 1;
        let computer = world.computers.get(&id).ok_or(RuntimeError::NotFound(id))?;
        if let Some(run) = computer.run() {
            let reason = format!("computer {id} runs as {}", run.start);
            return Err(RuntimeError::Refused { what: "start a computer", reason });
        }
        if self.options.profile == Profile::Pod {
            Self::check_image(world, &computer.spec)?;
        }
        let unfit = match computer.spec.image.as_ref().and_then(|image| world.images.get(image)) {
            Some(Image::Unfit(reason)) => Some(reason.clone()),
            Some(Image::Present | Image::Missing(_)) | None => None,
        };
        world.last = last;
        let installation = Arc::clone(&computer.installation);
        let Some(computer) = world.computers.get_mut(&id) else { return Err(RuntimeError::NotFound(id)) };
        computer.log = Arc::default();
        computer.reason = None;
        computer.reached = LimitsReached::default();
        computer.unfit = unfit;
        if self.options.profile == Profile::Pod {
            computer.root.clear();
            computer.address = last;
        }
        let inside = Inside {
            engine: Arc::clone(self),
            spec: computer.spec.clone(),
            start: start_id(last),
            address: computer.address,
            line: Arc::new(Mutex::new(Some(line))),
            stop: CancellationToken::new(),
            log: Arc::clone(&computer.log),
            processes: Arc::new(Processes::new()),
        };
        let (start, stop, processes) = (inside.start.clone(), inside.stop.clone(), Arc::clone(&inside.processes));
        let program = Arc::clone(&self.options.program);
        let begins = computer.unfit.is_none();
        let task = tokio::spawn(async move { if begins { program.run(inside).await } else { Exit(127) } });
        let ended = CancellationToken::new();
        let run = Run { start: start.clone(), stop, ended, program: task.abort_handle(), processes };
        tokio::spawn(Arc::clone(self).supervise(id, run.clone(), task));
        computer.life = Life::Running(run);
        self.tell(world, &installation, id);
        Ok(start)
    }

    /// Waits for the program's end, ends what it left behind and says that it is over.
    async fn supervise(self: Arc<Self>, id: ComputerId, run: Run, task: JoinHandle<Exit>) {
        let exit = match task.await {
            Ok(Exit(code)) => format!("exit code {code}"),
            Err(error) if error.is_panic() => "exit code 134".into(),
            Err(_) => "exit code 137".into(),
        };
        run.processes.end().await;
        let terminate = self.options.latency.terminate;
        if run.stop.is_cancelled() && !terminate.is_zero() {
            tokio::time::sleep(terminate).await;
        }
        {
            let world = &mut *locked(&self.world);
            if let Some(computer) = world.computers.get_mut(&id) {
                let is_pod_stopped = self.options.profile == Profile::Pod && run.stop.is_cancelled();
                computer.log.end();
                if is_pod_stopped {
                    computer.root.clear();
                    computer.log = Log::over();
                }
                computer.life = Life::Stopped(Some(computer.reason.take().unwrap_or(exit)));
                let installation = Arc::clone(&computer.installation);
                self.tell(world, &installation, id);
            }
        }
        run.ended.cancel();
    }

    /// Begins to end this start, and tells by a token when it is over; `None` where it does not run.
    pub(super) fn begin_stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Option<CancellationToken> {
        let world = &mut *locked(&self.world);
        let computer = world.computers.get_mut(&id)?;
        let run = computer.run().filter(|run| run.start == *start)?.clone();
        let installation = Arc::clone(&computer.installation);
        run.stop.cancel();
        computer.life = Life::Stopping(run.clone());
        let (program, ended) = (run.program, run.ended);
        // The engine goes on where the caller is cut short.
        tokio::spawn({
            let ended = ended.clone();
            async move {
                if tokio::time::timeout(grace, ended.cancelled()).await.is_err() {
                    program.abort();
                }
            }
        });
        self.tell(world, &installation, id);
        Some(ended)
    }

    pub(super) fn try_remove(&self, id: ComputerId) -> Removal {
        let world = &mut *locked(&self.world);
        let Some(computer) = world.computers.get(&id) else { return Removal::Done };
        if let Some(run) = computer.run() {
            run.stop.cancel();
            run.program.abort();
            return Removal::Runs(run.ended.clone());
        }
        let installation = Arc::clone(&computer.installation);
        world.computers.remove(&id);
        self.tell(world, &installation, id);
        Removal::Done
    }

    /// The program ends at once, as by a crash. Says whether there was one.
    pub(super) fn crash(&self, id: ComputerId, reason: &str) -> bool {
        let world = &mut *locked(&self.world);
        let Some(computer) = world.computers.get_mut(&id) else { return false };
        computer.reason = Some(reason.into());
        computer.run().is_some_and(|run| {
            run.program.abort();
            true
        })
    }

    pub(super) fn lose_limits(&self, reason: Option<&str>) {
        locked(&self.world).limits_missing = reason.map(str::to_owned);
    }

    pub(super) fn limits_missing(&self) -> Option<String> {
        locked(&self.world).limits_missing.clone()
    }

    /// A process meets a limit, where the engine enforces limits and tells of them.
    pub(super) fn reach(&self, id: ComputerId, reach: impl FnOnce(&mut LimitsReached)) {
        if !self.options.capabilities.tells_limits {
            return;
        }
        let world = &mut *locked(&self.world);
        if let Some(computer) = world.computers.get_mut(&id) {
            reach(&mut computer.reached);
            let installation = Arc::clone(&computer.installation);
            self.tell(world, &installation, id);
        }
    }

    pub(super) fn observe(&self, id: ComputerId) -> Option<Observed> {
        locked(&self.world).computers.get(&id).map(Computer::observed)
    }

    pub(super) fn list(&self, installation: Option<&str>) -> Vec<Observed> {
        let world = locked(&self.world);
        let ours = |computer: &&Computer| installation.is_none_or(|ours| *computer.installation == *ours);
        world.computers.values().filter(ours).map(Computer::observed).collect()
    }

    pub(super) fn log(&self, id: ComputerId) -> Option<Arc<Log>> {
        locked(&self.world).computers.get(&id).map(|computer| Arc::clone(&computer.log))
    }

    pub(super) fn address(&self, id: ComputerId) -> Option<u64> {
        locked(&self.world).computers.get(&id).map(|computer| computer.address)
    }

    /// The program and what it left behind, as far as they live.
    pub(super) fn processes(&self, id: ComputerId) -> usize {
        let world = locked(&self.world);
        let run = world.computers.get(&id).and_then(Computer::run);
        run.map_or(0, |run| usize::from(!run.program.is_finished()) + run.processes.count())
    }

    pub(super) fn subscribe(&self, installation: &Arc<str>) -> broadcast::Receiver<RuntimeEvent> {
        let events = &mut locked(&self.world).events;
        events.entry(Arc::clone(installation)).or_insert_with(|| broadcast::Sender::new(EVENTS)).subscribe()
    }

    /// Ends every stream of events.
    pub(super) fn cut_events(&self) {
        locked(&self.world).events.clear();
    }

    pub(super) fn read_file(&self, id: ComputerId, volume: VolumeId, path: &str) -> Option<Bytes> {
        let world = locked(&self.world);
        match on_volume(path) {
            Some(path) => world.volumes.get(&volume)?.get(path).cloned(),
            None => world.computers.get(&id)?.root.get(path).cloned(),
        }
    }

    pub(super) fn write_file(&self, id: ComputerId, volume: VolumeId, path: &str, content: Bytes) {
        let world = &mut *locked(&self.world);
        let file = match on_volume(path) {
            Some(path) => world.volumes.get_mut(&volume).map(|files| (files, path)),
            None => world.computers.get_mut(&id).map(|computer| (&mut computer.root, path)),
        };
        if let Some((files, path)) = file {
            files.insert(path.into(), content);
        }
        self.touch();
    }

    pub(super) fn write_volume_file(&self, id: VolumeId, path: &str, content: Bytes) {
        if let Some(files) = locked(&self.world).volumes.get_mut(&id) {
            files.insert(path.into(), content);
        }
        self.touch();
    }

    pub(super) fn volumes(&self) -> BTreeMap<VolumeId, Files> {
        locked(&self.world).volumes.clone()
    }

    pub(super) fn volume(&self, id: VolumeId) -> Option<Files> {
        locked(&self.world).volumes.get(&id).cloned()
    }

    pub(super) fn set_volume(&self, id: VolumeId, files: Option<Files>) {
        let volumes = &mut locked(&self.world).volumes;
        match files {
            Some(files) => volumes.insert(id, files),
            None => volumes.remove(&id),
        };
        self.touch();
    }
}

fn on_volume(path: &str) -> Option<&str> {
    path.strip_prefix(VOLUME_PATH)?.strip_prefix('/')
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

fn start_id(number: u64) -> StartId {
    StartId(format!("simulated-{number}"))
}
