//! What this machine shows of an installation: processes, control groups, directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// The program in a computer, as it is named there.
const PROGRAM: &str = "/opt/raworc/raworc-agentd";

/// A process of a container whose program has not begun.
const NOT_BEGUN: &str = "runc";

/// The state of a socket that is connected, in the kernel's table.
const CONNECTED: &str = "03";

/// A process that sees a volume of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    name: String,
    volume: Option<String>,
    /// Its namespace of processes, where it is not the machine's.
    computer: Option<PathBuf>,
}

/// All processes that see this directory among their mounts, this one aside.
pub(crate) fn processes(directory: &Path) -> Vec<Process> {
    let directory = directory.display().to_string();
    let own = std::fs::read_link("/proc/self/ns/pid").ok();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let seeing = pids.filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id())).filter_map(|pid| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
        if !mounts.contains(&directory) {
            return None;
        }
        let volume =
            mounts.lines().find_map(|line| Some(line.split_once("/volumes/")?.1.split(['/', ' ']).next()?.to_owned()));
        let computer =
            std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok().filter(|space| Some(space) != own.as_ref());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let name = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?).into_owned();
        Some(Process { pid, name, volume, computer })
    });
    seeing.collect()
}

/// The programs of computers.
pub(crate) fn programs(directory: &Path) -> Vec<Process> {
    named(directory, PROGRAM)
}

/// Processes of this name in computers.
pub(crate) fn named(directory: &Path, name: &str) -> Vec<Process> {
    processes(directory).into_iter().filter(|process| process.name == name).collect()
}

/// The computers that run, by their volume. Of an engine that can be killed those are `only_linked`: it loses track of what it
/// was starting, which waits for its boot line for a while, beside the start after it.
pub(crate) fn computers(directory: &Path, only_linked: bool) -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut computers = BTreeMap::<_, BTreeSet<_>>::new();
    for process in running(directory, only_linked) {
        if let (Some(volume), Some(computer)) = (process.volume, process.computer) {
            computers.entry(volume).or_default().insert(computer);
        }
    }
    computers
}

/// Processes of computers, or those of them whose program is linked.
pub(crate) fn running(directory: &Path, only_linked: bool) -> Vec<Process> {
    let mut processes = processes(directory);
    processes.retain(|process| !only_linked || is_linked(process));
    processes
}

/// Whether there is more than its own in the computer of this process: beside the pair that a program has for signals, a
/// connection to its server. Until it was told its boot line it has none, and touches nothing.
fn is_linked(process: &Process) -> bool {
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/unix", process.pid)).unwrap_or_default();
    sockets.lines().filter(|line| line.split_whitespace().nth(5) == Some(CONNECTED)).count() > 2
}

/// Volumes that two computers have at this moment.
pub(crate) fn twice(directory: &Path, only_linked: bool) -> Vec<String> {
    let twice = |computers: BTreeMap<String, BTreeSet<PathBuf>>| {
        computers.into_iter().filter(|(_, computers)| computers.len() > 1).collect::<BTreeMap<_, _>>()
    };
    let seen = twice(computers(directory, only_linked));
    if seen.is_empty() {
        return Vec::new();
    }
    // One look takes a while, in which one computer can end and the next begin. What both looks see lived in between.
    let again = twice(computers(directory, only_linked));
    let both = seen
        .into_iter()
        .filter(|(volume, first)| again.get(volume).is_some_and(|second| first.intersection(second).count() > 1));
    both.map(|(volume, _)| volume).collect()
}

/// Sends a signal to a process if it is the one that it was.
pub(crate) fn signal(process: &Process, directory: &Path, signal: Signal) {
    if processes(directory).contains(process)
        && let Some(pid) = Pid::from_raw(process.pid)
    {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Directories of computers, of volumes and of what is being thrown away, by their kind.
pub(crate) fn kept(data: &Path, kind: &str) -> Vec<String> {
    let installations = std::fs::read_dir(data.join("local")).into_iter().flatten().flatten();
    let kept =
        installations.flat_map(|entry| std::fs::read_dir(entry.path().join(kind)).into_iter().flatten().flatten());
    kept.map(|entry| format!("{kind}/{}", entry.file_name().to_string_lossy())).collect()
}

/// Control groups of the installation.
pub(crate) fn groups(data: &Path) -> Vec<String> {
    let Ok(name) = std::fs::read_to_string(data.join("installation")) else { return Vec::new() };
    let (mut next, mut found) = (vec![PathBuf::from("/sys/fs/cgroup")], Vec::new());
    while let Some(directory) = next.pop() {
        if directory.to_string_lossy().contains(name.trim()) {
            found.push(directory.display().to_string());
        }
        let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        next.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    found
}

/// Everything that lives of the installation.
pub(crate) fn alive(data: &Path) -> Vec<String> {
    // What an engine was making when it was killed is its own, and runs nothing yet.
    let processes = processes(data)
        .into_iter()
        .filter(|process| process.name != NOT_BEGUN)
        .map(|process| format!("process {} ({})", process.pid, process.name));
    processes.chain(groups(data).into_iter().map(|group| format!("control group {group}"))).collect()
}

/// Ends what a test that failed has left, so that nothing of it stays on this machine.
pub(crate) fn sweep(home: &Path, data: &Path) {
    for pid in processes(home).into_iter().filter_map(|process| Pid::from_raw(process.pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    // Groups within others come after them in the list, and those that are not empty yet are left.
    for group in groups(data).iter().rev() {
        let _ = std::fs::remove_dir(group);
    }
}

/// Whether a process was halted by a signal.
pub(crate) fn is_halted(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tT"))
}
