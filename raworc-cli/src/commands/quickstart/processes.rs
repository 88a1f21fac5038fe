//! The processes of a computer, as this machine sees them.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use anyhow::Context as _;
use raworc_core::runtime::StartId;

/// A process, which no other one is: numbers are given again, with another start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Process {
    pid: u32,
    /// In clock ticks since the machine was started.
    started: u64,
}

/// Processes that were seen, with their command lines.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    seen: BTreeMap<Process, String>,
    marker: String,
}

impl Processes {
    /// All of a start, and whatever else bears the marker.
    pub(super) fn of(start: &StartId, marker: &str) -> anyhow::Result<Self> {
        let all = all()?;
        // A start of Docker is named by its container, one of the local runtime by its first process, and more.
        let own: Vec<&Process> = match start.0.split_once('@') {
            Some((container, _)) => all.keys().filter(|process| is_in_container(process.pid, container)).collect(),
            None => {
                let first = start.0.split('.').next().and_then(|pid| pid.parse().ok());
                below(first.with_context(|| format!("{start} is no start of this machine's"))?, &all)
            }
        };
        let mut seen: BTreeMap<_, _> =
            own.into_iter().map(|process| (process.clone(), command_line(process.pid))).collect();
        let marked = all.keys().map(|process| (process.clone(), command_line(process.pid)));
        seen.extend(marked.filter(|(_, line)| line == marker));
        Ok(Self { seen, marker: marker.to_owned() })
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn includes(&self, command: &str) -> bool {
        self.seen.values().any(|line| line == command)
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.seen.iter().map(|(process, line)| format!("{:>8} {}", process.pid, short(line))).collect()
    }

    /// Those that run still, and any other that bears the marker.
    pub(super) fn left(&self) -> anyhow::Result<Vec<String>> {
        let now = all()?;
        let left =
            now.keys().filter(|process| self.seen.contains_key(process) || command_line(process.pid) == self.marker);
        Ok(left.map(|process| format!("{} {}", process.pid, command_line(process.pid))).collect())
    }
}

/// This process and all below it.
fn below(first: u32, all: &HashMap<Process, u32>) -> Vec<&Process> {
    let is_below = |process: &&Process| {
        let mut above = process.pid;
        // A parent may have ended while the list was read; the way up is never longer than the list.
        for _ in 0..all.len() {
            if above == first {
                return true;
            }
            let Some((_, parent)) = all.iter().find(|(other, _)| other.pid == above) else { return false };
            above = *parent;
        }
        false
    };
    all.keys().filter(is_below).collect()
}

/// Whether it stands in the control groups of a container.
fn is_in_container(pid: u32, container: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container))
}

/// Every process of this machine that can be seen, with its parent. Those that ended and wait to be reaped are left out.
fn all() -> anyhow::Result<HashMap<Process, u32>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc cannot be read")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        if let Some((process, parent)) =
            fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|s| read(pid, &s))
        {
            all.insert(process, parent);
        }
    }
    Ok(all)
}

/// The start time and the parent in a line of `/proc/PID/stat` (proc_pid_stat(5)); none for the dead.
fn read(pid: u32, stat: &str) -> Option<(Process, u32)> {
    // The name in parentheses may hold anything, parentheses and spaces too.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let dead = matches!(*fields.first()?, "Z" | "X" | "x");
    let (parent, started) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    (!dead).then_some((Process { pid, started }, parent))
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

fn short(line: &str) -> String {
    const LENGTH: usize = 70;
    if line.chars().count() <= LENGTH { line.to_owned() } else { line.chars().take(LENGTH).collect::<String>() + "..." }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) S (b) S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1";
        assert_eq!(read(42, stat), Some((Process { pid: 42, started: 12345 }, 7)));
        assert_eq!(read(42, &stat.replace(") S 7", ") Z 7")), None);
    }

    #[test]
    fn a_process_is_seen_while_it_runs_and_not_after() {
        let mut child = std::process::Command::new("sleep").arg("31234567.25").spawn().expect("sleep runs");
        let start = StartId(format!("{}.0.0", child.id()));
        let seen = loop {
            // Between fork and exec it bears this test's own name.
            let seen = Processes::of(&start, "sleep 31234567.25").expect("seen");
            if seen.includes("sleep 31234567.25") {
                break seen;
            }
            std::thread::yield_now();
        };
        assert_eq!(seen.len(), 1);
        assert_eq!(seen.left().expect("looked up").len(), 1);
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(seen.left().expect("looked up"), Vec::<String>::new());
    }
}
