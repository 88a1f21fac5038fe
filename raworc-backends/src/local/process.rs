//! Processes of this machine: who they are, and their end.

use std::collections::HashMap;
use std::fs;

use raworc_core::runtime::StartId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in clock ticks after the machine did.
    pub(crate) started: u64,
    /// Which start of the machine that was.
    pub(crate) boot: String,
}

impl Identity {
    /// Reads the identity of a process that exists.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, started: stat(pid)?.started, boot: boot_id() })
    }

    /// Its form as a [`StartId`].
    pub(crate) fn start_id(&self) -> StartId {
        StartId(format!("{}.{}.{}", self.pid, self.started, self.boot))
    }

    /// Whether it has not ended. One that has is in the table of processes until its parent asks how, which may be never.
    pub(crate) fn is_alive(&self) -> bool {
        self.boot == boot_id() && stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.has_ended())
    }

    /// Whether its number is still its own.
    fn is_there(&self) -> bool {
        self.boot == boot_id() && stat(self.pid).is_some_and(|stat| stat.started == self.started)
    }

    /// Ends it, and never another process that got its number.
    pub(crate) fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // One whose first thread has ended looks like an ended one, and may live on in others.
        if self.is_there() {
            pidfd_send_signal(&handle, Signal::KILL).ok();
        }
    }
}

/// What `/proc/PID/stat` tells of a process.
struct Stat {
    /// Such as `R`; `Z` or `X` for one that has ended.
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold any character.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

/// Which start of the machine this is.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// All processes below `ancestor`, as far as `/proc` shows them.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = pid.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = stat(pid)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor.as_raw_nonzero().get()];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(below.iter().filter_map(|&pid| Pid::from_raw(pid)));
        next.extend(below);
    }
    found
}

/// In the environment of a program without isolation, and an argument of every helper: of which computer it is.
pub(crate) const MARK: &str = "RAWORC_COMPUTER";

/// Processes whose mark begins so.
pub(crate) fn marked(place: &str) -> Vec<Identity> {
    let is_marked = |pid: u32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        let mut values = environment.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(MARK.as_bytes()));
        arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(place.as_bytes()))
            || values.any(|value| value.strip_prefix(b"=").is_some_and(|value| value.starts_with(place.as_bytes())))
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    // Told apart first: another process may have the number by the time that it is ended.
    let processes = pids.filter_map(|pid: u32| Some((pid, Identity::of(pid)?)));
    processes.filter(|(pid, _)| is_marked(*pid)).map(|(_, process)| process).collect()
}

/// Ends a process and all below it. What they leave behind meanwhile is found by its mark.
pub(crate) fn end_with_descendants(process: &Identity) {
    if let Some(pid) = Pid::from_raw(process.pid)
        && process.is_alive()
    {
        let below = descendants(pid).into_iter().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
        below.filter_map(Identity::of).for_each(|process| process.kill());
    }
    process.kill();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_mark_and_by_nothing_else() {
        let place = format!("test-{}-", std::process::id());
        let mark = format!("{place}one");
        let sleep = |command: &mut std::process::Command| command.arg("1000").spawn().expect("started");
        let mut one = sleep(std::process::Command::new("/bin/sleep").env(MARK, &mark));
        let mut other = sleep(std::process::Command::new("/bin/sleep").env("OTHER", &mark));
        let found: Vec<_> = marked(&place).into_iter().map(|process| process.pid.unsigned_abs()).collect();
        assert_eq!(found, [one.id()]);
        marked(&mark).iter().for_each(end_with_descendants);
        assert!(!one.wait().expect("ended").success());
        assert!(other.try_wait().expect("asked").is_none(), "the other one lives");
        other.kill().and_then(|()| other.wait()).expect("ended");
        assert_eq!(marked(&place), []);
    }

    #[test]
    fn a_process_that_ended_is_not_alive_while_nobody_has_asked_how() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("started");
        let process = Identity::of(child.id()).expect("it exists");
        assert!(process.is_alive());
        process.kill();
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).expect("ended");
        assert!(!process.is_alive(), "a zombie holds nothing any more");
        child.wait().expect("asked");
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let me = Identity::of(std::process::id()).expect("this process exists");
        assert!(me.is_alive());
        assert!(!Identity { started: me.started + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot: "another".into(), ..me }.is_alive());
    }
}
