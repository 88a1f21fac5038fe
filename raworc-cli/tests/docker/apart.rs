//! Two servers and two operators on one engine and one PostgreSQL, killed one after another, and the engine and programs too,
//! while agents sleep, wake and work. It takes minutes, and is run where it is asked for.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use raworc_core::entropy::{EntropyExt, SystemEntropy};
use tokio::time::Instant;

use crate::database::{self, Database};
use crate::dockerd::{Dockerd, is_untested, obstacle};
use crate::home::{Home, Ran};
use crate::on_engine;

const ROUNDS: usize = 30;
const AGENTS: usize = 3;

/// How long a message may take in all, and whatever else is waited for.
const LIMIT: Duration = Duration::from_secs(150);

/// What is killed in a round.
const VICTIMS: [&str; 6] = ["server 0", "server 1", "operator 0", "operator 1", "engine", "program"];

pub(crate) fn servers_and_operators_are_killed_apart() {
    let postgres = database::server("postgres");
    if is_untested(
        "servers and operators apart on Docker",
        obstacle().or(postgres.is_err().then_some("there is no PostgreSQL")),
    ) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(Database::with(&postgres.expect("it is there"), async |database| {
        let store = database.url();
        tokio::task::spawn_blocking(move || rounds(store)).await.expect("it holds");
    }));
}

struct World {
    home: Home,
    engine: Dockerd,
    store: String,
    ports: [u16; 2],
    processes: Mutex<[Option<Child>; 4]>,
}

impl World {
    fn new(store: String) -> Self {
        let home = Home::new();
        std::fs::write(home.path().join("password"), "nobody guesses this one").expect("written");
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        std::fs::write(home.path().join("master.key"), key).expect("written");
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port").port();
        let engine = Dockerd::start().expect("an engine");
        Self { home, engine, store, ports: [free(), free()], processes: Mutex::default() }
    }

    /// Starts a process, 0 and 1 the servers, and waits until it says that it has begun.
    fn start(&self, n: usize) {
        let (role, data) = if n < 2 { ("server", format!("server-{n}")) } else { ("operator", "operators".to_owned()) };
        let mut command = on_engine(&self.engine, &self.home, &[role, "-o", "json", "--log", "error", "--data", &data]);
        command
            .env("RAWORC_STORE", &self.store)
            .env("RAWORC_MASTER_KEY_FILE", self.home.path().join("master.key"))
            .env("RAWORC_AGENTS__SOCKETS", self.home.path().join("sockets"));
        if n < 2 {
            let listen = format!("127.0.0.1:{}", self.ports[n]);
            command.args(["--listen", &listen, "--admin-password-file", "password"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("raworc starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says that it has begun");
        assert!(line.starts_with('{'), "{role} {n} ended, or says {line:?}");
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(child);
    }

    fn kill(&self, n: usize) {
        let child = self.processes.lock().unwrap_or_else(PoisonError::into_inner)[n].take();
        if let Some(mut child) = child {
            child.kill().expect("killed");
            child.wait().expect("it is gone");
        }
    }

    fn command(&self, server: usize, args: &[&str]) -> Command {
        let mut command = self.home.raworc(args);
        command.env("RAWORC_SERVER", format!("http://127.0.0.1:{}", self.ports[server]));
        command
    }

    /// Runs a command at one server or the other until it succeeds, as a caller does whose server is gone.
    fn persist(&self, args: &[&str], first: usize) -> String {
        let deadline = Instant::now() + LIMIT;
        for n in first.. {
            let ran = Ran::of(self.command(n % 2, args).output().expect("raworc runs"));
            if ran.code == 0 {
                return ran.out;
            }
            assert!(Instant::now() < deadline, "{args:?}: {ran:#?}");
            std::thread::park_timeout(Duration::from_millis(300));
        }
        unreachable!("one server or the other is asked")
    }

    fn label(&self) -> String {
        let name = std::fs::read_to_string(self.home.path().join("operators/installation")).expect("there");
        format!("raworc.installation={}", name.trim())
    }

    /// Kills somebody, and has them back a moment later.
    fn strike(&self, victim: &str, pause: Duration) {
        std::thread::park_timeout(pause);
        match victim.split_once(' ') {
            Some((role, n)) => {
                let n = n.parse::<usize>().expect("a number") + if role == "server" { 0 } else { 2 };
                self.kill(n);
                std::thread::park_timeout(pause / 2);
                self.start(n);
            }
            None if victim == "engine" => {
                assert!(self.engine.kill(), "it ran until then");
                self.engine.resume().expect("it is back");
            }
            None => {
                let filter = format!("label={}", self.label());
                let running = self.engine.docker(["ps", "-q", "--filter", &filter]).unwrap_or_default();
                if let Some(container) = running.lines().next() {
                    // It may have ended by itself.
                    drop(self.engine.docker(["kill", container]));
                }
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        (0..4).for_each(|n| self.kill(n));
    }
}

/// A number below `end`.
fn chance(end: usize) -> usize {
    u64::from_le_bytes(SystemEntropy.bytes()) as usize % end
}

fn rounds(store: String) {
    let world = World::new(store);
    (0..4).for_each(|n| world.start(n));
    for server in 0..2 {
        world.command(server, &["login", "admin", "--password-file", "password"]).output().expect("logged in");
    }
    let names: Vec<_> = (0..AGENTS).map(|n| format!("agent-{n}")).collect();
    for name in &names {
        world.persist(&["agent", "create", name, "--wait"], 0);
    }
    let mut struck = Vec::new();
    for round in 0..ROUNDS {
        // Some are to be woken in the middle of it.
        for name in names.iter().filter(|_| chance(2) == 0) {
            world.persist(&["agent", "sleep", name], chance(2));
        }
        let victim = VICTIMS[chance(VICTIMS.len())];
        struck.push(victim);
        std::thread::scope(|scope| {
            for name in &names {
                let world = &world;
                scope.spawn(move || {
                    let (key, first) = (format!("{name} {round}"), chance(2));
                    let text = format!("!echo '{key}' >> log && sync && echo written");
                    let sent = world.persist(&["send", name, &text, "--no-steps", "--idempotency-key", &key], first);
                    assert!(sent.ends_with("written\n"), "{key}: {sent}");
                });
            }
            world.strike(victim, Duration::from_millis(chance(1500) as u64));
        });
    }
    let mut doubled = 0;
    for name in &names {
        let log = world.persist(&["agent", "exec", name, "--", "cat", "log"], 0);
        let mut seen = BTreeSet::new();
        let first: Vec<_> = log.lines().filter(|line| seen.insert(*line)).collect();
        let all: Vec<_> = (0..ROUNDS).map(|round| format!("{name} {round}")).collect();
        assert_eq!(first, all, "nothing that was accepted is lost, and all of it is in order");
        doubled += log.lines().count() - ROUNDS;
        // Slept and woken, to the byte.
        world.persist(&["agent", "sleep", name], 0);
        assert_eq!(world.persist(&["agent", "exec", name, "--", "cat", "log"], 1), log);
    }
    let label = world.label();
    for name in &names {
        world.persist(&["agent", "delete", name], 0);
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = world.engine.labelled(&label).expect("the engine answers");
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left over: {left:?}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
    tell(&format!(
        "{ROUNDS} rounds, {doubled} commands run once more after their program was killed; killed: {struck:?}"
    ));
}

#[expect(clippy::print_stdout, reason = "what was done is what it is run for")]
fn tell(text: &str) {
    println!("{text}");
}
