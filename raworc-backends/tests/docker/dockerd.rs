//! A Docker engine of a test's own, to be killed, frozen and started anew. Its bridges are in a network of its own, from which
//! nothing outside is reached.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::time::Instant;

/// What computers are made from: any image with a shell.
pub(crate) const IMAGE: &str = "debian:bookworm-slim";

/// How long it may take to answer, or to end when it is asked to.
const LIMIT: Duration = Duration::from_secs(60);

/// An engine that ends with this, with all that it made.
#[derive(Debug)]
pub(crate) struct Dockerd {
    dir: tempfile::TempDir,
    process: Mutex<Option<Child>>,
    /// Whether containers go on while it is not there.
    live_restore: AtomicBool,
    /// Whether users of containers are others outside.
    is_mapped: bool,
}

/// Root of a container, as an engine's machine sees it where that maps users.
pub(crate) const MAPPED_ROOT: u32 = 100_000;

/// Why this machine does not let a test have an engine of its own.
pub(crate) fn obstacle() -> Option<&'static str> {
    let is_there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("only root can start an engine");
    }
    if !is_there("dockerd") || !is_there("setpriv") {
        return Some("dockerd or setpriv is missing");
    }
    None
}

/// Whether there is something that this machine does not let be tested, for this reason; `scripts/test` looks for what is said
/// of it. Where `RAWORC_TEST_REQUIRED` names Docker, that is a failure.
#[expect(clippy::print_stdout, reason = "scripts/test looks for it")]
pub(crate) fn is_untested(what: &str, reason: Option<&str>) -> bool {
    let Some(reason) = reason else { return false };
    let required = std::env::var("RAWORC_TEST_REQUIRED").unwrap_or_default();
    let is_required = required.split(',').any(|name| name == "docker");
    assert!(!is_required, "Docker is required, and this machine does not let {what} be tested, since {reason}");
    println!("NOT TESTED on this machine: {what}, since {reason}");
    true
}

/// The engine of this machine, which lends its image.
pub(crate) fn host() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into())
}

/// Whether that answers.
pub(crate) fn answers() -> bool {
    let asked = Command::new("docker").args(["--host", &host(), "version"]).output();
    asked.is_ok_and(|output| output.status.success())
}

impl Dockerd {
    /// One that answers, with the image.
    pub(crate) fn start() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        Self::start_in(dir, false)
    }

    /// One whose users of containers are unprivileged ones outside.
    pub(crate) fn start_mapped() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        // Its root has to come by here.
        let open = Permissions::from_mode(0o711);
        std::fs::set_permissions(dir.path(), open).map_err(|error| error.to_string())?;
        Self::start_in(dir, true)
    }

    /// One whose data have a disk of their own, of this size.
    pub(crate) fn start_within(size: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&data);
        let mounted = mount.output().map_err(|error| error.to_string())?;
        if !mounted.status.success() {
            return Err(format!("no disk of its own: {}", String::from_utf8_lossy(&mounted.stderr)));
        }
        Self::start_in(dir, false)
    }

    fn start_in(dir: tempfile::TempDir, is_mapped: bool) -> Result<Self, String> {
        let engine = Self { dir, process: Mutex::default(), live_restore: AtomicBool::default(), is_mapped };
        engine.make_network()?;
        engine.resume()?;
        engine.load()?;
        Ok(engine)
    }

    /// Makes its network, which goes with the directory.
    fn make_network(&self) -> Result<(), String> {
        let network = self.network();
        std::fs::write(&network, "").map_err(|error| error.to_string())?;
        let made = Command::new("unshare").arg(format!("--net={}", network.display())).arg("true").output();
        let made = made.map_err(|error| error.to_string())?;
        match made.status.success() {
            true => Ok(()),
            false => Err(format!("no network of its own: {}", String::from_utf8_lossy(&made.stderr))),
        }
    }

    fn network(&self) -> PathBuf {
        self.path().join("net")
    }

    /// Where its data lie.
    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Its address.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path().join("docker.sock").display())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Says whether containers go on while it is not there, from its next start on.
    pub(crate) fn set_live_restore(&self, goes_on: bool) {
        self.live_restore.store(goes_on, Ordering::SeqCst);
    }

    /// Starts it, and waits until it answers. It ends with the thread that this is called by.
    pub(crate) fn resume(&self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("dockerd does not start: {error}");
        // What a killed one left would be taken for one that runs, once another process has its number.
        let _ = std::fs::remove_file(self.path().join("pid"));
        self.forget_containerd();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("log"));
        let log = log.map_err(failed)?;
        let mut command = Command::new("setpriv");
        // It does not outlive the test: it ends with the thread that starts it.
        // In a network of its own, which stays while it is not there, with all that goes on in it.
        command.args(["--pdeathsig", "TERM", "nsenter"]).arg(format!("--net={}", self.network().display()));
        if self.is_mapped {
            // Which users it may take is read from files of the machine, which sees others there.
            let users = self.path().join("users");
            std::fs::write(&users, format!("daemon:{MAPPED_ROOT}:65536\n")).map_err(failed)?;
            let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec \"$@\"";
            command.args(["unshare", "--mount", "sh", "-c", script]).arg(users);
        }
        command.args(["dockerd", "--host"]).arg(self.host());
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(self.path().join(name));
        }
        command.args(["--shutdown-timeout", "2"]);
        if self.is_mapped {
            command.args(["--userns-remap", "daemon"]);
        }
        if self.live_restore.load(Ordering::SeqCst) {
            command.arg("--live-restore");
        }
        // It says when it answers, as it would to systemd.
        let notes = self.path().join("notes");
        let _ = std::fs::remove_file(&notes);
        let told = UnixDatagram::bind(&notes).map_err(failed)?;
        command.env("NOTIFY_SOCKET", &notes);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)?;
        let is_told = waits_for(&told, &child).map_err(|error| failed(error.into()))?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        match is_told && self.docker(["version"]).is_ok() {
            true => Ok(()),
            false => Err(format!("dockerd does not answer; its log ends with\n{}", self.log_tail())),
        }
    }

    /// Waits until its containerd has ended with it: the next one would take it for one that serves. Takes away the note of it.
    fn forget_containerd(&self) {
        let note = self.path().join("exec/containerd/containerd.pid");
        let Ok(pid) = std::fs::read_to_string(&note) else { return };
        let deadline = Instant::now() + LIMIT;
        // What has ended and is not waited for yet has a directory, and no command line.
        let line = || std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        while line().contains(&*self.path().to_string_lossy()) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = std::fs::remove_file(note);
    }

    /// Ends it as `kill -9` does, and says whether it ran until then. What runs in its containers goes on until it is started
    /// again.
    pub(crate) fn kill(&self) -> bool {
        let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() else { return false };
        let _ = child.kill();
        child.wait().is_ok_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = process.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// The command `docker` on it; its output, or what it says of why not.
    pub(crate) fn docker(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String, String> {
        let mut command = Command::new("docker");
        let output = command.arg("--host").arg(self.host()).args(args).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// What it has that bears this label: containers, volumes and networks.
    pub(crate) fn labelled(&self, label: &str) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for (kind, list) in [
            ("container", &["ps", "-a", "--format", "{{.Names}}"][..]),
            ("volume", &["volume", "ls", "--format", "{{.Name}}"]),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ] {
            let filter = format!("label={label}");
            let listed = self.docker(list.iter().copied().chain(["--filter", &filter]))?;
            all.extend(listed.lines().map(|name| format!("{kind} {name}")));
        }
        Ok(all)
    }

    fn load(&self) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut save = Command::new("docker");
        let mut save = save.args(["--host", &host(), "save", IMAGE]).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let image = save.stdout.take().ok_or("no output")?;
        let mut load = Command::new("docker");
        let loaded = load.arg("--host").arg(self.host()).args(["load", "--quiet"]).stdin(image).output();
        let saved = save.wait().map_err(failed)?;
        let loaded = loaded.map_err(failed)?;
        if saved.success() && loaded.status.success() {
            return Ok(());
        }
        Err(format!("the image cannot be had: {}", String::from_utf8_lossy(&loaded.stderr)))
    }

    /// The last lines that it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Takes away its containers and asks it to end: one that is killed leaves them and their mounts.
    fn end(&self) -> Result<(), String> {
        self.signal(Signal::CONT);
        if self.docker(["version"]).is_err() {
            self.kill();
            self.resume()?;
        }
        for container in self.docker(["ps", "-aq"])?.lines() {
            self.docker(["rm", "-f", "-v", container])?;
        }
        self.stop()
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(&self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let mut child = self.process.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or("it does not run")?;
        let deadline = Instant::now() + LIMIT;
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it did not end".into());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Whether an engine says that it answers, before it ends and in time.
fn waits_for(told: &UnixDatagram, engine: &Child) -> rustix::io::Result<bool> {
    let pid = i32::try_from(engine.id()).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    let engine = pidfd_open(pid, PidfdFlags::empty())?;
    let mut ends = [PollFd::new(told, PollFlags::IN), PollFd::new(&engine, PollFlags::IN)];
    let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut ends, Some(&limit))?;
    Ok(ends[0].revents().contains(PollFlags::IN))
}

/// Takes away what is left of an engine that did not end in order: processes that have its directory in their command line or
/// their root in it, and mounts below it. A process that any other engine is about to start sees those mounts too, for it
/// begins with a copy of the machine's.
pub(crate) fn sweep(directory: &Path) {
    let name = directory.display().to_string();
    let is_at_root = |line: &str| line.split(' ').nth(4) == Some("/");
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let read = |what: &str| {
            let bytes = std::fs::read(entry.path().join(what)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let is_inside = || read("mountinfo").lines().any(|line| is_at_root(line) && line.contains(&name));
        if read("cmdline").contains(&name) || is_inside() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|place| place.starts_with(&name));
    for place in below.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", place]).output();
    }
}

impl Drop for Dockerd {
    #[expect(clippy::print_stderr, reason = "what stays on this machine has to be known")]
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("an engine in {} was not ended in order: {error}", self.path().display());
            self.kill();
        }
        sweep(self.path());
    }
}
