//! The processes of the computer, as `/proc` shows them, and how to end those that belong together.
//!
//! The local runtime reads `/proc/PID/stat` as well, for other fields: neither crate may depend on the other, and the core
//! knows no processes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// Its parent.
    pub(crate) parent: i32,
    /// Its group.
    pub(crate) group: i32,
    /// Its state, such as `R`, or `Z` for one that has ended.
    pub(crate) state: char,
    /// Ticks of processor time that it and its ended children have used.
    pub(crate) ticks: u64,
    /// When it began, in ticks since the machine did: with the id, the identity of one process.
    pub(crate) started: u64,
    /// Pages of memory that it holds.
    pub(crate) pages: u64,
}

/// All processes.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// Reads a line of `/proc/PID/stat`. The name in it may hold blanks and brackets.
fn parse(stat: &str) -> Option<Process> {
    let (start, rest) = stat.rsplit_once(')')?;
    let pid = start.split_once(' ')?.0.parse().ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ticks: (11..=14).map(|n| number(n).unwrap_or(0)).sum(),
        started: number(19)?,
        pages: number(21).unwrap_or(0),
    })
}

/// The identities of processes.
pub(crate) type Identities = HashSet<(i32, u64)>;

/// What belongs to `leader`: its group and all that descends from it.
pub(crate) fn family(leader: i32) -> Vec<Process> {
    relatives(leader, &Identities::new())
}

/// What belongs to `leader` or is one of `others`, with all that descends from these.
fn relatives(leader: i32, others: &Identities) -> Vec<Process> {
    let all = all();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in &all {
        children.entry(process.parent).or_default().push(*process);
    }
    let belongs = |p: &&Process| p.pid == leader || p.group == leader || others.contains(&(p.pid, p.started));
    let mut members: BTreeMap<i32, Process> = all.iter().filter(belongs).map(|p| (p.pid, *p)).collect();
    let mut todo: Vec<i32> = members.keys().copied().collect();
    while let Some(pid) = todo.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if members.insert(child.pid, *child).is_none() {
                todo.push(child.pid);
            }
        }
    }
    members.into_values().collect()
}

/// The identities of what belongs to `leader` now.
pub(crate) fn identities(leader: i32) -> Identities {
    family(leader).iter().map(|process| (process.pid, process.started)).collect()
}

/// Interrupts `leader` and what belongs to it but is not among `spared`, as Ctrl-C does; tells who was interrupted.
///
/// The elder first, so parents before their children: a shell that hears of the interrupt only after its child has died
/// of it would begin what follows.
pub(crate) fn interrupt_family(leader: i32, spared: &Identities) -> Identities {
    let mut asked = family(leader);
    asked.retain(|process| process.pid == leader || !spared.contains(&(process.pid, process.started)));
    asked.sort_by_key(|process| (process.started, process.pid));
    for process in &asked {
        send(process.pid, Signal::INT);
    }
    asked.iter().map(|process| (process.pid, process.started)).collect()
}

/// Ends what belongs to `leader` or is one of `others`, but is not among `spared`.
///
/// The leader is halted before the others are looked for, so that what forks without end is ended too.
pub(crate) async fn end_family(leader: i32, spared: &Identities, others: &Identities) {
    send(leader, Signal::STOP);
    end_started(leader, spared, others).await;
    send(leader, Signal::KILL);
}

/// Ends what belongs to `leader` or is one of `others`, but is neither the leader itself nor among `spared`. The look
/// is repeated until none is left.
pub(crate) async fn end_started(leader: i32, spared: &Identities, others: &Identities) {
    const ROUNDS: u32 = 50;
    for _ in 0..ROUNDS {
        let mut family = relatives(leader, others);
        family.retain(|process| process.state != 'Z' && process.pid != leader);
        family.retain(|process| !spared.contains(&(process.pid, process.started)));
        if family.is_empty() {
            break;
        }
        for process in &family {
            send(process.pid, Signal::STOP);
        }
        for process in &family {
            send(process.pid, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Ends a whole group at once.
pub(crate) fn kill_group(leader: i32) {
    // A group that is gone already needs no end.
    if let Some(pid) = Pid::from_raw(leader) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// By which a runtime without isolation finds what a computer's programs leave behind.
const MARK: &str = "RAWORC_COMPUTER";

/// The environment of what the program starts: its own, which is the image's, and the agent's on top.
pub(crate) fn environment(home: &Path, agent: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    over(std::env::vars_os(), home, agent)
}

fn over(
    own: impl Iterator<Item = (OsString, OsString)>,
    home: &Path,
    agent: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = own
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| {
            (key == MARK || !key.starts_with("RAWORC_"))
                && !matches!(key.as_str(), "BASH_ENV" | "ENV" | "OLDPWD" | "PWD")
        })
        .collect();
    env.insert("HOME".into(), home.display().to_string());
    for (key, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("PAGER", "cat"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("DEBIAN_FRONTEND", "noninteractive"),
    ] {
        env.entry(key.into()).or_insert_with(|| value.into());
    }
    env.extend(agent.iter().map(|(key, value)| (key.clone(), value.clone())));
    env
}

/// An exit code as shells tell it: 128 and the signal's number where a signal ended the process.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_confuse() {
        let stat = "42 (a) b) (c) S 7 42 42 0 -1 4194560 1 2 0 0 10 20 30 40 20 0 1 0 999 1000 55 1844674407370955 1";
        let process = parse(stat).expect("a process");
        assert_eq!((process.pid, process.state, process.parent, process.group), (42, 'S', 7, 42));
        assert_eq!((process.ticks, process.started, process.pages), (100, 999, 55));
    }

    #[test]
    fn of_what_is_raworcs_only_the_computers_mark_is_passed_on() {
        let own =
            [("RAWORC_COMPUTER", "mark"), ("RAWORC_HOME", "x"), ("RAWORC_LOG", "x"), ("PWD", "x"), ("IMAGE", "own")];
        let agent = BTreeMap::from([("AGENT".to_owned(), "set".to_owned())]);
        let env = over(own.into_iter().map(|(key, value)| (key.into(), value.into())), Path::new("/home"), &agent);
        let has = |key: &str| env.get(key).map(String::as_str);
        assert_eq!((has("RAWORC_COMPUTER"), has("IMAGE"), has("AGENT")), (Some("mark"), Some("own"), Some("set")));
        assert_eq!((has("RAWORC_HOME"), has("RAWORC_LOG"), has("PWD")), (None, None, None));
        assert_eq!(has("HOME"), Some("/home"));
    }

    #[test]
    fn this_test_is_among_all_processes() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(all().iter().any(|process| process.pid == own));
    }
}
