//! Programs and servers that are killed, in the middle of things.

use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use raworc_core::entropy::{Clock, SystemClock};

use crate::home::Home;
use crate::up::{Up, agent, processes_seeing, processes_with, until};

/// An ordinary user.
const NOBODY: u32 = 65534;

#[test]
fn what_was_under_way_when_up_was_killed_is_taken_up_again_and_no_process_of_the_first_run_lives_on() {
    let home = Home::new();
    let first = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    // The first attempt hangs in a sleep that nothing else on this machine sleeps; the second answers.
    let seconds = format!("3{:09}", std::process::id());
    let work = format!("!echo run >> runs; [ $(wc -l < runs) -gt 1 ] || sleep {seconds}; echo finished");
    home.run(&["send", "ada", "--no-wait", &work]).ok();
    until("the work has begun", || processes_with(&seconds) > 0);

    first.kill();
    until("no process of it lives on", || processes_with(&seconds) == 0);

    let second = Up::start(&home);
    until("the message is done", || home.run(&["history", "ada"]).ok().contains("\nfinished"));
    let status: serde_json::Value =
        serde_json::from_str(&home.run(&["agent", "get", "ada", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(status["status"]["incarnation"], 2);
    assert_eq!(home.run(&["agent", "exec", "ada", "--", "cat", "runs"]).ok(), "run\nrun\n", "twice, and not more");
    assert_eq!(second.end(), Some(0));
}

/// `raworc up --no-isolation` of an ordinary user, who may not write to control groups: nothing holds together what
/// agents begin.
fn up_without_walls(home: &Home) -> Up {
    let binary = home.path().join("raworc");
    if !binary.exists() {
        // The binary itself may lie where others cannot go. Whatever another thread begins meanwhile would hold a copy that
        // this process makes open for writing, and nobody runs such a file.
        let copied = home.program("cp").args(["-p", env!("CARGO_BIN_EXE_raworc")]).arg(&binary).status();
        assert!(copied.expect("cp runs").success(), "{} is copied", binary.display());
    }
    let mut command = home.program(&binary.display().to_string());
    command.args(["up", "--no-isolation", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]);
    if rustix::process::geteuid().is_root() {
        chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("handed over");
        command.uid(NOBODY).gid(NOBODY);
    }
    Up::of(command)
}

/// The helpers of computers that this server has.
fn helpers(up: &Up) -> Vec<i32> {
    let parent = format!("PPid:\t{}\n", up.id());
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let helpers = processes.filter(|process| {
        let read = |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        read("status").contains(&parent) && read("cmdline").contains("raworc-local-init")
    });
    helpers.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

#[test]
fn without_walls_what_an_agent_left_behind_is_ended_by_the_next_start_if_nobody_else_could() {
    let home = Home::new();
    let first = up_without_walls(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    // It has no parent, and a session of its own.
    let seconds = format!("4{:09}", std::process::id());
    home.run(&["send", "ada", &format!("!(setsid sleep {seconds} >/dev/null 2>&1 &)")]).ok();
    until("it runs", || processes_with(&seconds) > 0);

    // The server must not see its helper's end, or it would end the rest itself.
    send(i32::try_from(first.id()).expect("a pid"), rustix::process::Signal::STOP);
    let helpers = helpers(&first);
    assert_eq!(helpers.len(), 1, "one computer runs");
    kill(helpers[0]);
    first.kill();
    assert_eq!(processes_with(&seconds), 1, "what was left behind lives on");

    let second = up_without_walls(&home);
    assert_eq!(processes_with(&seconds), 0, "the next start has ended it");
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo alive"]).ok(), "alive\n");
    assert_eq!(second.end(), Some(0));
}

/// The program in the only computer of this home's installation.
fn program(home: &Home) -> Option<i32> {
    let processes = processes_seeing(home.path());
    processes.into_iter().find(|(_, name)| name == "/opt/raworc/raworc-agentd").map(|(pid, _)| pid)
}

fn kill(pid: i32) {
    send(pid, rustix::process::Signal::KILL);
}

fn send(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, signal).expect("sent");
}

/// Control groups on this machine that are this home's installation's: its own, and those of computers in them.
fn groups(home: &Home) -> Vec<std::path::PathBuf> {
    let name = std::fs::read_to_string(home.path().join(".local/share/raworc/installation")).expect("an installation");
    let mut next = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(directory) = next.pop() {
        if directory.to_string_lossy().contains(name.trim()) {
            found.push(directory.clone());
        }
        let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        next.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    found
}

/// Those of computers.
fn groups_of_computers(home: &Home) -> Vec<std::path::PathBuf> {
    let groups = groups(home);
    groups.iter().filter(|group| group.parent().is_some_and(|above| groups.contains(&above.into()))).cloned().collect()
}

/// What the local runtime has of computers and volumes.
fn kept(home: &Home, what: &str) -> usize {
    let local = home.path().join(".local/share/raworc/local");
    let installations = std::fs::read_dir(local).expect("there").flatten();
    installations.flat_map(|entry| std::fs::read_dir(entry.path().join(what)).into_iter().flatten()).count()
}

#[test]
fn a_computer_whose_program_was_killed_is_seen_within_seconds_and_started_again() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "!echo kept > note"]).ok();
    let first = program(&home).expect("its program runs");
    let killed = SystemClock.now();
    kill(first);
    until("it is started again", || agent(&home, "ada")["status"]["incarnation"] == 2);
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat note"]).ok(), "kept\n");
    let events = home.run(&["events", "--since", "0", "--agent", "ada", "-o", "json"]).ok();
    let events: Vec<raworc_core::event::Event> =
        serde_json::from_str(&events).or_else(|_| events.lines().map(serde_json::from_str).collect()).expect("events");
    let seen = events.iter().find(|event| event.at >= killed && event.summary["to"] == "init");
    let seen = seen.unwrap_or_else(|| panic!("its loss is no event: {events:#?}"));
    let took = seen.at.duration_since(killed);
    assert!(took <= jiff::SignedDuration::from_secs(10), "seen after {took:?}: {seen:?}");
    assert!(program(&home).is_some_and(|second| second != first));
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_sleep_that_was_under_way_when_up_was_killed_is_finished_by_the_next() {
    let home = Home::new();
    let first = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    // What ignores that it is asked to end keeps the stop under way for its whole grace.
    let seconds = format!("5{:09}", std::process::id());
    let stubborn = format!("!(trap '' TERM HUP; echo kept > note; sleep {seconds}) & echo begun");
    home.run(&["send", "ada", &stubborn]).ok();
    halt(program(&home).expect("its program runs"));
    home.run(&["agent", "sleep", "ada", "--no-wait"]).ok();
    until("it is put to sleep, and its computer is still there", || {
        let status = agent(&home, "ada")["status"].clone();
        status["state"] == "slept" && !status["run"].is_null()
    });
    first.kill();
    until("no process of it lives on", || processes_with(&seconds) == 0);

    let second = Up::start(&home);
    until("the sleep is finished", || {
        let status = agent(&home, "ada")["status"].clone();
        status["state"] == "slept" && status["run"].is_null()
    });
    assert_eq!(processes_seeing(home.path()), []);
    assert_eq!(groups_of_computers(&home), Vec::<std::path::PathBuf>::new());
    assert_eq!(agent(&home, "ada")["status"]["incarnation"], 1, "nobody started it again");
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat note"]).ok(), "kept\n");
    assert_eq!(second.end(), Some(0));
}

#[test]
fn a_delete_that_was_under_way_when_up_was_killed_is_finished_by_the_next() {
    let home = Home::new();
    let first = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let seconds = format!("6{:09}", std::process::id());
    // So many files cannot be taken away at once.
    let files = "for i in $(seq 30); do mkdir d$i; (cd d$i; touch $(seq 1000)); done";
    home.run(&["send", "ada", &format!("!echo old > note; {files}; sleep {seconds} & echo begun")]).ok();
    home.run(&["agent", "delete", "ada", "--no-wait"]).ok();
    first.kill();
    assert!(kept(&home, "volumes") + kept(&home, "trash") > 0, "the delete had finished already");
    until("no process of it lives on", || processes_with(&seconds) == 0);

    let second = Up::start(&home);
    until("nothing of it is left", || kept(&home, "computers") + kept(&home, "volumes") + kept(&home, "trash") == 0);
    assert_eq!(processes_seeing(home.path()), []);
    assert_eq!(groups_of_computers(&home), Vec::<std::path::PathBuf>::new());
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat note 2>/dev/null || echo new"]).ok(), "new\n");
    assert_eq!(second.end(), Some(0));
}

/// Halts a program, so that it does not end when it is asked to.
fn halt(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("halted");
}

#[test]
fn a_stop_waits_for_nobody_who_would_not_end_and_leaves_nothing_behind() {
    let home = Home::new();
    let log = home.path().join("log");
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "info"]);
    command.stderr(std::fs::File::create(&log).expect("made"));
    let up = Up::of(command);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let open = |args: &[&str]| {
        let mut command = home.raworc(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("raworc runs");
        let mut first = [0];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("it has begun");
        child
    };
    let mut clients = vec![
        open(&["agent", "logs", "ada", "--follow"]),
        open(&["agent", "exec", "-i", "ada", "--", "sh", "-c", "echo begun; exec cat"]),
        open(&["agent", "exec", "ada", "--", "sh", "-c", "echo begun; exec sleep 1000"]),
        open(&["events", "--follow", "--since", "0"]),
    ];
    assert_eq!(up.end(), Some(0));
    assert_eq!(groups(&home), Vec::<std::path::PathBuf>::new());
    assert_eq!(processes_seeing(home.path()), []);
    let log = std::fs::read_to_string(log).expect("a log");
    for cut in ["connections were still open", "that were under way are cut off"] {
        assert!(!log.contains(cut), "{log}");
    }
    for client in &mut clients {
        client.kill().expect("killed");
        client.wait().expect("it is gone");
    }
}
