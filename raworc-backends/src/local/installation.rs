//! What a [`LocalRuntime`](super::LocalRuntime) does to the computers and volumes of its installation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use raworc_core::ids::{ComputerId, VolumeId};
use raworc_core::runtime::{
    Capabilities, ComputerSpec, Ensured, LimitsReached, Observed, Phase, RuntimeError, RuntimeEvent, StartId,
};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::cgroup::{Cgroups, Controller, Group, Limits};
use super::computers::Computers;
use super::config::{Isolation, LocalOptions};
use super::error::{At, refused};
use super::home::{Home, StartRecord, private_directory};
use super::logs::Log;
use super::plan::{Plan, Status};
use super::probe::{self, ProbeReport};
use super::process::{MARK, end_with_descendants};
use super::sandbox::{END_LIMIT, Keeper, Launch, end_marked, marked_end};
use super::shown;
use super::volume::{self, Users};

/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long what an earlier server left behind may take to end by itself.
const END_BY_ITSELF: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) options: LocalOptions,
    pub(crate) home: Home,
    pub(crate) cgroups: Cgroups,
    pub(crate) computers: Computers,
    pub(crate) events: broadcast::Sender<RuntimeEvent>,
    /// The users of volumes, where the caller is root and computers are isolated.
    users: Option<Mutex<Users>>,
    thrown_away: AtomicU64,
}

impl Installation {
    pub(crate) async fn open(options: LocalOptions) -> Result<Self, RuntimeError> {
        if options.isolation == Isolation::Required {
            // Before anything is made there.
            options.private.iter().chain([&options.state_dir]).try_for_each(|path| shown::keeps_out(path))?;
        }
        let home = Home::open(&options.state_dir, &options.installation).await?;
        let cgroups = Cgroups::prepare(&options.installation);
        let as_root = rustix::process::geteuid().is_root();
        let users = if as_root && options.isolation == Isolation::Required {
            Some(Mutex::new(Users::read(options.uids, &home.volumes())?))
        } else {
            None
        };
        let events = broadcast::Sender::new(1024);
        let installation = Self {
            options,
            home,
            cgroups,
            computers: Computers::default(),
            events,
            users,
            thrown_away: AtomicU64::new(0),
        };
        installation.end_leftovers().await?;
        Ok(installation)
    }

    /// Ends what an earlier process of this installation left behind.
    async fn end_leftovers(&self) -> Result<(), RuntimeError> {
        let mut left = Vec::new();
        for id in self.home.computers()? {
            left.extend(self.home.start(id)?.map(|start| (id, start)));
        }
        // Each helper ends by itself, with all that it began, because its server's end of the pipe is closed. One that
        // is killed cannot end what it began where nothing else holds it together.
        if left.iter().any(|(_, start)| start.cgroups.is_empty()) {
            marked_end(self.home.place(), END_BY_ITSELF).await;
        }
        for (id, start) in left {
            end_with_descendants(&start.process);
            let group = Group::at(start.cgroups);
            let reached = group.hits().reached();
            group.end(END_LIMIT).await.at("end what was left behind", &self.home.computer(id))?;
            end_marked(&self.home.mark(id), END_LIMIT).await?;
            self.home.write_end(id, "the server ended", reached)?;
        }
        for directory in self.cgroups.leftovers() {
            Group::at([directory.clone()]).end(END_LIMIT).await.at("end what was left behind", &directory)?;
        }
        let trash = self.home.trash();
        for entry in fs::read_dir(&trash).at("empty the trash", &trash)?.flatten() {
            self.throw_away(entry.file_name().to_string_lossy().into_owned()).await?;
        }
        Ok(())
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.limits = self.cgroups.missing().is_none();
        capabilities.tells_limits = capabilities.limits;
        capabilities.copy_volume = true;
        capabilities
    }

    pub(crate) async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.capabilities().check(spec)?;
        let _turn = self.computers.turn(spec.id.as_uuid()).await;
        self.ensure_volume(spec.volume).await?;
        let directory = self.home.computer(spec.id);
        private_directory(&directory.join("root")).at("make the computer", &directory)?;
        if self.home.spec(spec.id)?.is_none() {
            self.home.write_spec(spec)?;
        }
        let mut ensured = Ensured::default();
        ensured.limits_missing = self.cgroups.missing();
        if self.options.isolation == Isolation::None {
            ensured.network_unproved = Some("isolation is switched off".into());
        }
        Ok(ensured)
    }

    async fn ensure_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let path = self.home.volume(id);
        match volume::owner(&path)? {
            None => {
                let uid = self.take_user()?;
                volume::create(&path, uid).inspect_err(|_| self.give_user_back(uid))
            }
            // What it holds was written by root, without isolation.
            Some(0) if self.users.is_some() => self.hand_over(&path).await,
            Some(uid) if uid != 0 && self.users.is_none() && rustix::process::geteuid().is_root() => {
                volume::give_to_root(&path)
            }
            Some(_) => Ok(()),
        }
    }

    /// Gives a volume that is root's to a user of its own.
    async fn hand_over(&self, path: &Path) -> Result<(), RuntimeError> {
        let Some(uid) = self.take_user()? else { return Ok(()) };
        let volume = path.to_path_buf();
        let done = blocking(move || volume::hand_over(&volume, uid)).await.at("hand the volume over", path);
        done.inspect_err(|_| self.give_user_back(Some(uid)))
    }

    fn take_user(&self) -> Result<Option<u32>, RuntimeError> {
        self.users.as_ref().map(|users| users.lock().unwrap_or_else(PoisonError::into_inner).take()).transpose()
    }

    fn give_user_back(&self, uid: Option<u32>) {
        if let (Some(users), Some(uid)) = (&self.users, uid) {
            users.lock().unwrap_or_else(PoisonError::into_inner).give_back(uid);
        }
    }

    pub(crate) async fn start(self: Arc<Self>, id: ComputerId, boot: &str) -> Result<StartId, RuntimeError> {
        let _turn = self.computers.turn(id.as_uuid()).await;
        let spec = self.home.spec(id)?.ok_or(RuntimeError::NotFound(id))?;
        if let Some(running) = self.computers.get(id) {
            return Err(refused("start the computer", format!("computer {id} runs already, as {}", running.start)));
        }
        self.ensure_volume(spec.volume).await?;
        let directory = self.home.computer(id);
        let limits = Limits {
            cpu_millis: spec.resources.cpu.or(self.options.default_cpu).map(|cpu| cpu.millis()),
            memory: spec.resources.memory.or(self.options.default_memory).map(|memory| memory.get()),
            pids: spec.resources.pids.or(self.options.default_pids),
        };
        let group = self.cgroups.create(id, limits).at("limit the computer", &directory)?;
        let started = self.launch(&spec, &directory, limits, &group, boot).await;
        let (launch, log) = match started {
            Ok(started) => started,
            Err(error) => {
                self.home.write_end(id, &error.to_string(), LimitsReached::default())?;
                self.changed(id);
                return Err(error);
            }
        };
        let (sandbox, keeper) = launch.keep(group, log);
        let start = sandbox.start.clone();
        self.computers.insert(id, Arc::new(sandbox));
        tokio::spawn(Arc::clone(&self).look_after(id, keeper));
        self.changed(id);
        Ok(start)
    }

    async fn launch(
        &self,
        spec: &ComputerSpec,
        directory: &Path,
        limits: Limits,
        group: &Group,
        boot: &str,
    ) -> Result<(Launch, Arc<Log>), RuntimeError> {
        let log = Arc::new(Log::create(directory).at("begin the log", directory)?);
        let volume = self.home.volume(spec.volume);
        let short = spec.id.as_uuid().simple().to_string();
        let mut plan = self.plan(&directory.join("root"), &volume, &format!("agent-{}", &short[20..]))?;
        plan.cgroups = group.entries();
        plan.program.clone_from(&self.options.program);
        if !self.cgroups.has(Controller::Pids) && plan.isolated {
            plan.nproc = limits.pids.map(|pids| u64::from(pids) + 1);
        }
        let mark = self.home.mark(spec.id);
        if !plan.isolated {
            plan.env.insert(MARK.into(), mark.clone());
        }
        let mut launch = Launch::spawn(&self.options.init, mark)?;
        let record = StartRecord { process: launch.process.clone(), cgroups: group.directories() };
        let outcome = async {
            self.home.write_start(spec.id, &record)?;
            launch.brief(&plan, boot).await?;
            launch.outcome().await
        };
        match outcome.await {
            Ok(Status::Started) => Ok((launch, log)),
            Ok(other) => {
                launch.abandon(group).await?;
                Err(refused("start the computer", format!("the helper said {other:?}; is it of another version?")))
            }
            Err(error) => {
                launch.abandon(group).await?;
                Err(error)
            }
        }
    }

    /// What every computer of this installation has.
    fn plan(&self, root: &Path, volume: &Path, hostname: &str) -> Result<Plan, RuntimeError> {
        let isolated = self.options.isolation == Isolation::Required;
        let home = if isolated { PathBuf::from("/agent") } else { volume.to_path_buf() };
        let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
        let mut env = BTreeMap::from(
            [
                ("PATH", PATH.to_owned()),
                ("HOME", home.display().to_string()),
                ("USER", "agent".into()),
                ("LOGNAME", "agent".into()),
                ("SHELL", shell.into()),
                ("LANG", "C.UTF-8".into()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        if !isolated {
            // The machine may have an `/agent` of its own, and it is nobody's here.
            env.insert("RAWORC_HOME".into(), home.display().to_string());
        }
        let drop_to = if self.users.is_some() { volume::owner(volume)? } else { None };
        if drop_to == Some(0) {
            return Err(refused("give the computer a user of its own", "its volume is root's"));
        }
        Ok(Plan {
            isolated,
            root: root.to_path_buf(),
            drop_to,
            cgroups: Vec::new(),
            hostname: hostname.to_owned(),
            volume: volume.to_path_buf(),
            link_dir: self.options.link_dir.clone(),
            program_file: self.options.program_file.clone(),
            program: Vec::new(),
            env,
            cwd: home,
            tmp_size: self.options.tmp_size.get(),
            nproc: None,
        })
    }

    /// Waits for the end of a start, and tells of it.
    async fn look_after(self: Arc<Self>, id: ComputerId, mut keeper: Keeper) {
        let (reason, reached) = keeper.wait(|| self.changed(id)).await;
        if let Err(error) = self.home.write_end(id, &reason, reached) {
            tracing::error!(%id, %error, "the end of a computer is not written down");
        }
        self.computers.take(id);
        keeper.tell();
        self.changed(id);
    }

    pub(crate) async fn stop(
        &self,
        id: ComputerId,
        start: Option<&StartId>,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Some(running) = self.computers.get(id) else { return Ok(()) };
        if start.is_some_and(|start| *start != running.start) {
            return Ok(());
        }
        if !grace.is_zero() {
            running.ask_end().await;
            self.changed(id);
            if running.ended_within(grace).await {
                return Ok(());
            }
        }
        running.release().await;
        if running.ended_within(END_LIMIT).await {
            return Ok(());
        }
        running.kill();
        if running.ended_within(END_LIMIT).await {
            Ok(())
        } else {
            Err(RuntimeError::TimedOut { what: "end every process", limit: END_LIMIT * 2 })
        }
    }

    pub(crate) async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        let _turn = self.computers.turn(id.as_uuid()).await;
        self.stop(id, None, Duration::ZERO).await?;
        if self.discard(&self.home.computer(id)).await? {
            self.changed(id);
        }
        Ok(())
    }

    pub(crate) fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        if let Some(running) = self.computers.get(id) {
            let start = running.start.clone();
            let phase = if running.is_stopping() { Phase::Stopping(start) } else { Phase::Running(start) };
            return Ok(Some(Observed { computer: id, phase, reached: running.reached() }));
        }
        if self.home.spec(id)?.is_none() {
            return Ok(None);
        }
        let (reason, reached) = self.home.end(id)?.map(|end| (Some(end.reason), end.reached)).unwrap_or_default();
        Ok(Some(Observed { computer: id, phase: Phase::Stopped { reason }, reached }))
    }

    pub(crate) fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        Ok(volume::owner(&self.home.volume(id))?.is_some())
    }

    pub(crate) async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        let what = "copy the volume";
        let _turn = self.computers.turn(to.as_uuid()).await;
        let (source, target) = (self.home.volume(from), self.home.volume(to));
        if volume::owner(&source)?.is_none() {
            return Err(refused(what, format!("volume {from} is not there")));
        }
        let uid = self.take_user()?;
        let name = self.trash_name();
        let new = self.home.trash().join(&name);
        let copied = blocking({
            let (source, new) = (source.clone(), new.clone());
            move || volume::copy(&source, &new, uid)
        })
        .await
        .at(what, &source);
        let in_place = match copied {
            Ok(()) => self.discard_volume(&target).await.and_then(|()| volume::rename(&new, &target).at(what, &target)),
            Err(error) => Err(error),
        };
        if in_place.is_err() {
            self.give_user_back(uid);
            self.throw_away(name).await?;
        }
        in_place
    }

    pub(crate) async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        let _turn = self.computers.turn(id.as_uuid()).await;
        self.discard_volume(&self.home.volume(id)).await
    }

    async fn discard_volume(&self, path: &Path) -> Result<(), RuntimeError> {
        let uid = volume::owner(path)?;
        if self.discard(path).await? {
            self.give_user_back(uid);
        }
        Ok(())
    }

    /// A name in the trash that nothing has.
    fn trash_name(&self) -> String {
        self.thrown_away.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Takes a directory out of its place at once and throws it away; whether it was there.
    async fn discard(&self, path: &Path) -> Result<bool, RuntimeError> {
        let name = self.trash_name();
        match volume::rename(path, &self.home.trash().join(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).at("remove", path),
        }
        self.throw_away(name).await?;
        Ok(true)
    }

    async fn throw_away(&self, name: String) -> Result<(), RuntimeError> {
        let trash = self.home.trash();
        blocking({
            let trash = trash.clone();
            move || volume::remove(&trash, &name)
        })
        .await
        .at("empty the trash", &trash)
    }

    pub(crate) async fn probe(&self) -> Result<ProbeReport, RuntimeError> {
        if self.options.isolation == Isolation::None {
            return Err(refused("isolate a computer", "isolation is switched off"));
        }
        let directory = self.home.scratch("probe");
        let _turn = self.computers.turn(Uuid::nil()).await;
        self.discard(&directory).await?;
        let (root, volume) = (directory.join("root"), directory.join("volume"));
        for path in [&directory, &root] {
            private_directory(path).at("probe", path)?;
        }
        let uid = self.take_user()?;
        let seen = async {
            volume::create(&volume, uid)?;
            let plan = self.plan(&root, &volume, "probe")?;
            let mut launch = Launch::spawn(&self.options.init, self.home.mark("probe"))?;
            launch.brief(&plan, "").await?;
            let seen = launch.outcome().await;
            launch.abandon(&Group::default()).await?;
            match seen? {
                Status::Seen(sight) => probe::judge(sight, self.cgroups.missing()),
                other => Err(refused("isolate a computer", format!("the helper said {other:?}"))),
            }
        }
        .await;
        self.give_user_back(uid);
        self.discard(&directory).await?;
        seen
    }

    fn changed(&self, id: ComputerId) {
        // Nobody has to be watching.
        self.events.send(RuntimeEvent::Changed(id)).ok();
    }
}

/// Runs what waits for the disk where it holds nobody up.
async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
