//! A served installation, and what tests wait for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::home::Home;

/// `raworc up`, or a server or operator, until it is dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    /// Where it serves; an operator serves nowhere.
    pub(crate) url: String,
    /// What it said as it began.
    #[allow(dead_code, reason = "not every binary's tests look at it")]
    pub(crate) started: serde_json::Value,
}

impl Up {
    pub(crate) fn start(home: &Home) -> Self {
        Self::of(home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]))
    }

    /// Runs a command that becomes `raworc up`.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("raworc starts");
        let out = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("it says where it serves");
        let started: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("it ended, or says {line:?}"));
        Self { url: started["server"].as_str().unwrap_or_default().to_owned(), started, child }
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("it is gone");
    }

    /// Asks it to end, and returns its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.ask_to_end();
        self.child.wait().expect("it ends").code()
    }

    fn ask_to_end(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.ask_to_end();
        let _ = self.child.wait();
    }
}

/// Asks again until it is so, for a minute at most.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    panic!("not within a minute: {what}");
}

/// Processes on this machine one of whose arguments is this.
pub(crate) fn processes_with(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("Linux");
    let lines = processes.flatten().filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())).count()
}

/// Processes that see this directory among their mounts, with the name of the program that each runs.
pub(crate) fn processes_seeing(directory: &std::path::Path) -> Vec<(i32, String)> {
    let name = directory.display().to_string();
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten().filter(|entry| *entry.file_name() != *own);
    let seeing = entries.filter(|entry| {
        std::fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(&name))
    });
    let named = seeing.filter_map(|entry| {
        let line = String::from_utf8(std::fs::read(entry.path().join("cmdline")).ok()?).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, line.split('\0').next()?.to_owned()))
    });
    named.collect()
}

/// What `raworc agent get` tells of an agent.
pub(crate) fn agent(home: &Home, name: &str) -> serde_json::Value {
    serde_json::from_str(&home.run(&["agent", "get", name, "-o", "json"]).ok()).expect("JSON")
}

/// The condition of this kind, where the agent has one.
pub(crate) fn condition(home: &Home, name: &str, kind: &str) -> Option<serde_json::Value> {
    let agent = agent(home, name);
    let conditions = agent["status"]["conditions"].as_array().expect("a list");
    conditions.iter().find(|condition| condition["type"] == kind).cloned()
}
