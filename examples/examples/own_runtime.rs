//! A runtime of one's own in one file: each computer is a directory, and what runs in it are plain child processes.
//!
//! It isolates nothing, so it is for trusting people only; but it is a whole runtime, which `main` proves with the
//! suite that every runtime has to pass:
//!
//! ```sh
//! cargo run -p raworc-examples --example own_runtime
//! ```
//!
//! Its processes are found by what they inherit from one another, an environment variable, so a double fork does not
//! hide one. Nothing is kept in memory: another handle on the same directory knows as much as the first.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use libtest_mimic::{Arguments, Trial};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{ComputerId, RuntimeName, VolumeId};
use raworc_core::runtime::conformance::{RuntimeUnderTest, SHELL_PROGRAM, cases, why_ignored};
use raworc_core::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LimitsReached, LogsOptions, Observed, Phase, Progress, Runtime,
    RuntimeError, RuntimeEvent, StartId,
};
use tokio::io::AsyncWriteExt;

/// Each process of a start inherits this variable: `COMPUTER_DIRECTORY=START`.
const MARK: &str = "OWN_RUNTIME_START";

/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(20);

/// Computers as directories below one directory.
#[derive(Debug, Clone)]
struct Directories {
    name: RuntimeName,
    root: PathBuf,
    installation: String,
    program: Vec<String>,
}

/// The engine of this runtime is the file system, so its errors are the engine's.
fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |error| RuntimeError::Refused { what, reason: error.to_string() }
}

/// What is not there need not be taken away.
fn gone(outcome: std::io::Result<()>) -> std::io::Result<()> {
    outcome.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl Directories {
    fn computers(&self) -> PathBuf {
        self.root.join(&self.installation)
    }

    fn computer(&self, id: ComputerId) -> PathBuf {
        self.computers().join(id.to_string())
    }

    fn volume(&self, id: VolumeId) -> PathBuf {
        self.root.join("volumes").join(id.to_string())
    }

    /// What the computer was made from. It is there from the moment that this file is.
    fn spec(&self, id: ComputerId) -> Option<ComputerSpec> {
        serde_json::from_slice(&std::fs::read(self.computer(id).join("spec.json")).ok()?).ok()
    }

    /// The start that was begun last.
    fn last(&self, id: ComputerId) -> Option<String> {
        std::fs::read_to_string(self.computer(id).join("last")).ok()
    }

    /// Processes of this computer: their ids, and the start to which each belongs.
    fn processes(&self, id: ComputerId) -> Vec<(String, String)> {
        let mark = format!("{MARK}={}=", self.computer(id).display());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| {
            let pid = entry.file_name().into_string().ok().filter(|name| name.starts_with(|c: char| c.is_numeric()))?;
            let variables = environment(&entry.path())?;
            let mut variables = variables.split(|&byte| byte == 0).filter_map(|one| std::str::from_utf8(one).ok());
            let start = variables.find_map(|variable| variable.strip_prefix(&mark))?.to_owned();
            Some((pid, start))
        });
        found.collect()
    }

    fn runs(&self, id: ComputerId, start: &str) -> bool {
        self.processes(id).iter().any(|(_, of)| of == start)
    }

    /// Sends a signal to processes, some of which may be gone already.
    fn signal(signal: &str, pids: &[&str]) {
        if !pids.is_empty() {
            let _missed = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
        }
    }

    /// Ends processes of this computer until none is left: those of one start, or all.
    async fn kill(&self, id: ComputerId, start: Option<&str>) {
        loop {
            let processes = self.processes(id);
            let ours = processes.iter().filter(|(_, of)| start.is_none_or(|start| start == of));
            let pids: Vec<&str> = ours.map(|(pid, _)| pid.as_str()).collect();
            if pids.is_empty() {
                return;
            }
            Self::signal("-KILL", &pids);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Keeps every other start and removal of this computer out, also those of other processes, until it is dropped.
    async fn lock(&self, id: ComputerId) -> Result<File, RuntimeError> {
        let locks = self.root.join("locks");
        std::fs::create_dir_all(&locks).map_err(failed("make a directory"))?;
        let file = File::create(locks.join(id.to_string())).map_err(failed("open a lock"))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(error)) => return Err(failed("take a lock")(error)),
            }
        }
    }

    fn phase(&self, id: ComputerId) -> Option<Phase> {
        self.spec(id)?;
        let directory = self.computer(id);
        Some(match self.processes(id).pop() {
            Some((_, start)) if directory.join(&start).join("stopping").exists() => Phase::Stopping(StartId(start)),
            Some((_, start)) => Phase::Running(StartId(start)),
            None => {
                let exit = self.last(id).map(|start| directory.join(start).join("exit"));
                Phase::Stopped { reason: exit.and_then(|exit| std::fs::read_to_string(exit).ok()) }
            }
        })
    }

    /// Plain processes have no limits that they could run into.
    fn observed(computer: ComputerId, phase: Phase) -> Observed {
        Observed { computer, phase, reached: LimitsReached::default() }
    }

    fn all(&self) -> Vec<Observed> {
        let entries = std::fs::read_dir(self.computers()).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|computer| Some(Self::observed(computer, self.phase(computer)?))).collect()
    }

    /// All computers with the start that each had last, which changes even where nobody looked in between.
    fn snapshot(&self) -> BTreeMap<ComputerId, (Phase, Option<String>)> {
        self.all().into_iter().map(|seen| (seen.computer, (seen.phase, self.last(seen.computer)))).collect()
    }
}

/// The environment of a process. One that is gone, or is another user's, cannot be read and is none of ours.
fn environment(process: &Path) -> Option<Vec<u8>> {
    // While a process becomes another program, it has none for a moment. A kernel's own has no program.
    for _ in 0..10 {
        let variables = std::fs::read(process.join("environ")).ok()?;
        if !variables.is_empty() || std::fs::read_link(process.join("exe")).is_err() {
            return Some(variables);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// What a file has from this place on.
fn read_from(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[async_trait]
impl Runtime for Directories {
    fn name(&self) -> &RuntimeName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        // The struct may grow, so it is filled in field by field.
        let mut capabilities = Capabilities::default();
        capabilities.keeps_root = true;
        capabilities.copy_volume = true;
        capabilities
    }

    async fn prepare(
        &self,
        image: Option<&str>,
        _progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), RuntimeError> {
        if image.is_some() { Err(RuntimeError::Unsupported("use images")) } else { Ok(()) }
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.capabilities().check(spec)?;
        let make = || {
            let directory = self.computer(spec.id);
            std::fs::create_dir_all(self.volume(spec.volume))?;
            std::fs::create_dir_all(directory.join("root"))?;
            let (whole, part) =
                (directory.join("spec.json"), directory.join(SystemEntropy.bytes::<1>()[0].to_string()));
            if !whole.exists() {
                std::fs::write(&part, serde_json::to_vec(spec)?)?;
                std::fs::rename(&part, whole)?;
            }
            std::io::Result::Ok(())
        };
        make().map_err(failed("make a computer"))?;
        let limits = spec.resources;
        let limited = limits.cpu.is_some() || limits.memory.is_some() || limits.pids.is_some();
        let mut ensured = Ensured::default();
        ensured.is_new = self.last(spec.id).is_none();
        ensured.limits_missing = limited.then(|| "plain processes have no limits".into());
        ensured.network_unproved = Some("plain processes have the network of this machine".into());
        Ok(ensured)
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        let _lock = self.lock(id).await?;
        let spec = self.spec(id).ok_or(RuntimeError::NotFound(id))?;
        if let Some((_, start)) = self.processes(id).pop() {
            let reason = format!("computer {id} runs as {start}");
            return Err(RuntimeError::Refused { what: "start a computer", reason });
        }
        let start = SystemEntropy.uuid(SystemClock.now()).to_string();
        let directory = self.computer(id);
        let spawn = || {
            std::fs::create_dir(directory.join(&start))?;
            let log = File::create(directory.join(&start).join("log"))?;
            std::fs::write(directory.join("last"), &start)?;
            let child = tokio::process::Command::new(&self.program[0])
                .args(&self.program[1..])
                .env(MARK, format!("{}={start}", directory.display()))
                .env("VOLUME", self.volume(spec.volume))
                .current_dir(directory.join("root"))
                .stdin(Stdio::piped())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            std::fs::write(directory.join(&start).join("pid"), child.id().unwrap_or_default().to_string())?;
            Ok(child)
        };
        let mut child = spawn().map_err(failed("start a computer"))?;
        // Where this future is dropped before the line is written, the program reads the end of its input and ends.
        let mut input = child.stdin.take();
        tokio::spawn({
            let (runtime, start) = (self.clone(), start.clone());
            async move {
                if let Ok(status) = child.wait().await {
                    // The computer may have been removed meanwhile.
                    let _unsaid = std::fs::write(directory.join(&start).join("exit"), status.to_string());
                }
                runtime.kill(id, Some(&start)).await;
            }
        });
        if let Some(input) = &mut input {
            input.write_all(boot.to_line().as_bytes()).await.map_err(failed("hand over the boot line"))?;
        }
        Ok(StartId(start))
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        if self.runs(id, &start.0) {
            let directory = self.computer(id).join(&start.0);
            let pid = std::fs::read_to_string(directory.join("pid")).map_err(failed("stop a computer"))?;
            std::fs::write(directory.join("stopping"), "").map_err(failed("stop a computer"))?;
            // A number may be another's by now, so only one that still bears the mark is sent a signal.
            let is_alive = || self.processes(id).iter().any(|(process, of)| *process == pid && *of == start.0);
            if is_alive() {
                Self::signal("-TERM", &[&pid]);
            }
            let program_ends = async {
                while is_alive() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            // Whether it ended by itself or not, nothing of it is left afterwards.
            let _in_time = tokio::time::timeout(grace, program_ends).await;
            self.kill(id, Some(&start.0)).await;
        }
        Ok(())
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        let _lock = self.lock(id).await?;
        self.kill(id, None).await;
        let directory = self.computer(id);
        gone(std::fs::remove_file(directory.join("spec.json"))).map_err(failed("remove a computer"))?;
        gone(std::fs::remove_dir_all(&directory)).map_err(failed("remove a computer"))
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        Ok(self.phase(id).map(|phase| Self::observed(id, phase)))
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(self.all())
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        // A file system tells nothing of processes, so this one looks again and again.
        let begin = (self.clone(), self.snapshot());
        let batches = stream::unfold(begin, |(runtime, before)| async move {
            tokio::time::sleep(LOOK).await;
            let now = runtime.snapshot();
            let ids = before.keys().chain(now.keys().filter(|id| !before.contains_key(id)));
            let changed = ids.filter(|id| before.get(id) != now.get(id)).map(|id| RuntimeEvent::Changed(*id));
            let changed: Vec<RuntimeEvent> = changed.collect();
            Some((stream::iter(changed), (runtime, now)))
        });
        Ok(batches.flatten().boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        self.spec(id).ok_or(RuntimeError::NotFound(id))?;
        let Some(start) = self.last(id) else { return Ok(stream::empty().boxed()) };
        let path = self.computer(id).join(&start).join("log");
        let length = std::fs::metadata(&path).map_err(failed("read a log"))?.len();
        let begin = length.saturating_sub(options.tail.unwrap_or(u64::MAX));
        let reader = (self.clone(), begin, false);
        let chunks = stream::unfold(reader, move |(runtime, offset, is_done)| {
            let (path, start) = (path.clone(), start.clone());
            async move {
                if is_done {
                    return None;
                }
                loop {
                    // What it writes last is there once it has ended, so the end is looked at first.
                    let is_over = !options.follow || !runtime.runs(id, &start);
                    match read_from(&path, offset) {
                        Err(error) => return Some((Err(failed("read a log")(error)), (runtime, offset, true))),
                        Ok(bytes) if bytes.is_empty() && is_over => return None,
                        Ok(bytes) if bytes.is_empty() => tokio::time::sleep(LOOK).await,
                        Ok(bytes) => {
                            let next = offset + bytes.len() as u64;
                            return Some((Ok(bytes.into()), (runtime, next, !options.follow)));
                        }
                    }
                }
            }
        });
        Ok(chunks.boxed())
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        Ok(self.volume(id).is_dir())
    }

    async fn copy_volume(&self, from: VolumeId, to: VolumeId) -> Result<(), RuntimeError> {
        let (from, to) = (self.volume(from), self.volume(to));
        if !from.exists() {
            let reason = format!("{} is not there", from.display());
            return Err(RuntimeError::Refused { what: "copy a volume", reason });
        }
        gone(std::fs::remove_dir_all(&to)).map_err(failed("copy a volume"))?;
        let copied = tokio::process::Command::new("cp").arg("-a").args([from, to]).output().await;
        let copied = copied.map_err(failed("copy a volume"))?;
        if copied.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&copied.stderr).into_owned();
        Err(RuntimeError::Refused { what: "copy a volume", reason })
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        gone(std::fs::remove_dir_all(self.volume(id))).map_err(failed("remove a volume"))
    }
}

/// How the suite reaches this runtime: its program is the suite's shell script.
struct Subject {
    runtime: Directories,
    /// Gone when the case is over.
    _root: tempfile::TempDir,
}

impl Subject {
    fn new() -> std::io::Result<Self> {
        let root = tempfile::tempdir()?;
        let runtime = Directories {
            name: "directories".parse().map_err(std::io::Error::other)?,
            root: root.path().into(),
            installation: "mine".into(),
            program: ["sh", "-c", SHELL_PROGRAM].map(String::from).into(),
        };
        Ok(Self { runtime, _root: root })
    }
}

#[async_trait]
impl RuntimeUnderTest for Subject {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        self.runtime()
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(Directories { installation: "theirs".into(), ..self.runtime.clone() })
    }

    fn volume_path(&self, volume: VolumeId) -> String {
        self.runtime.volume(volume).display().to_string()
    }

    fn root_path(&self, computer: ComputerId) -> String {
        self.runtime.computer(computer).join("root").display().to_string()
    }
}

fn main() -> anyhow::Result<()> {
    let capabilities = Subject::new()?.runtime.capabilities();
    let trials = cases().into_iter().map(|case| {
        let (name, is_ignored) = (case.name, why_ignored(&case, &capabilities).is_some());
        let run = move || {
            let subject = Arc::new(Subject::new()?);
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(case.run(subject));
            Ok(())
        };
        Trial::test(format!("directories::{name}"), run).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit()
}
