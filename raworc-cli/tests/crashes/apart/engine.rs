//! An engine in a process of its own, which outlives operators: the simulated one, whose computers run real programs, each
//! with a namespace of processes and a directory as its volume. It writes down what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raworc_core::runtime::simulated::{Exit, Inside, Profile, SimulatedOptions, SimulatedRuntime, program_fn};
use raworc_core::runtime::{Boot, Capabilities, Runtime};
use raworc_http::server::remote::{self, Ask, RemoteRuntime};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::network::{ENGINE, Network};
use super::node::{binary, ends_with_us};

/// The engine's port on its machine.
const PORT: u16 = 9009;

/// How long what was killed may take to be gone.
const LIMIT: Duration = Duration::from_secs(10);

/// The engine as the test has it.
#[derive(Debug)]
pub(crate) struct Engine {
    process: Child,
    home: PathBuf,
    pub(crate) address: SocketAddr,
}

/// Something that the engine did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) what: What,
    pub(crate) volume: String,
    pub(crate) computer: String,
    pub(crate) incarnation: u64,
    /// The first process in the computer.
    pub(crate) pid: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum What {
    /// It made a computer, or was asked to and has it.
    #[default]
    Ensured,
    /// A program was started.
    Begun,
    /// Nothing of that start is left.
    Ended,
    VolumeRemoved,
}

impl Engine {
    pub(crate) async fn start(network: &Network, home: &Path) -> Result<Self, String> {
        let home = home.join("engine");
        std::fs::create_dir_all(home.join("volumes")).map_err(|error| error.to_string())?;
        let address = network.address(ENGINE, PORT);
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = ends_with_us(network, ENGINE, own);
        let log = File::create(home.join("log")).map_err(|error| error.to_string())?;
        command.arg("--engine").arg(address.to_string()).arg(&home).stdout(Stdio::piped()).stderr(log);
        // What it is written to ends with this process, and with that the engine and all that it started.
        command.stdin(Stdio::piped());
        let mut process = command.spawn().map_err(|error| error.to_string())?;
        let mut said = [0];
        let out = process.stdout.as_mut().ok_or("no standard output")?;
        out.read_exact(&mut said).await.map_err(|error| format!("the engine does not begin: {error}"))?;
        Ok(Self { process, home, address })
    }

    /// The computers that it has.
    pub(crate) async fn computers(&self) -> Result<Vec<String>, String> {
        let listed = RemoteRuntime::new(self.address).list().await.map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|seen| seen.computer.to_string()).collect())
    }

    pub(crate) fn volumes(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.home.join("volumes")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// What it has done so far.
    pub(crate) fn journal(&self) -> Journal {
        let text = std::fs::read_to_string(self.home.join("journal")).unwrap_or_default();
        // The last line may not be whole yet.
        Journal(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends it with all that it has started.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        drop(self.process.stdin.take());
        let ended = tokio::time::timeout(LIMIT, self.process.wait()).await;
        ended.map(drop).map_err(|_| format!("the engine did not end within {LIMIT:?}"))
    }
}

/// What an engine did, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(pub(crate) Vec<Done>);

impl Journal {
    /// The starts that live.
    pub(crate) fn live(&self) -> Vec<Done> {
        let mut live = BTreeMap::new();
        for done in &self.0 {
            match done.what {
                What::Begun => drop(live.insert(done.pid, done.clone())),
                What::Ended => drop(live.remove(&done.pid)),
                What::Ensured | What::VolumeRemoved => {}
            }
        }
        live.into_values().collect()
    }

    /// Volumes that two starts had at once.
    pub(crate) fn twice(&self) -> Vec<String> {
        let (mut live, mut twice) = (BTreeMap::<&str, BTreeSet<i32>>::new(), Vec::new());
        for done in &self.0 {
            let of_volume = live.entry(&done.volume).or_default();
            match done.what {
                What::Begun => {
                    of_volume.insert(done.pid);
                    if of_volume.len() > 1 {
                        twice.push(done.volume.clone());
                    }
                }
                What::Ended => drop(of_volume.remove(&done.pid)),
                What::Ensured | What::VolumeRemoved => {}
            }
        }
        twice
    }

    /// Volumes that had more than one computer in their life.
    pub(crate) fn second_computers(&self) -> Vec<String> {
        let mut computers = BTreeMap::<&str, BTreeSet<&str>>::new();
        for done in self.0.iter().filter(|done| done.what == What::Ensured) {
            computers.entry(&done.volume).or_default().insert(&done.computer);
        }
        let second = computers.into_iter().filter(|(_, computers)| computers.len() > 1);
        second.map(|(volume, computers)| format!("volume {volume} had the computers {computers:?}")).collect()
    }

    /// How often each computer was started.
    pub(crate) fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for done in self.0.iter().filter(|done| done.what == What::Begun) {
            *starts.entry(done.computer.clone()).or_default() += 1;
        }
        starts
    }
}

/// The engine's own side of it.
#[derive(Debug)]
struct Machine {
    home: PathBuf,
    journal: Mutex<File>,
}

impl Machine {
    fn tell(&self, done: &Done) {
        let line = serde_json::to_string(done).unwrap_or_default() + "\n";
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.write_all(line.as_bytes()).expect("the journal takes what is done");
    }

    fn volume(&self, id: impl std::fmt::Display) -> PathBuf {
        self.home.join("volumes").join(id.to_string())
    }

    fn asked(&self, ask: &Ask) {
        match ask {
            Ask::Ensure(spec) => {
                let (volume, computer) = (spec.volume.to_string(), spec.id.to_string());
                self.tell(&Done { what: What::Ensured, volume, computer, ..Done::default() });
            }
            Ask::RemoveVolume { id } => {
                // It may be gone already.
                let _ = std::fs::remove_dir_all(self.volume(id));
                self.tell(&Done { what: What::VolumeRemoved, volume: id.to_string(), ..Done::default() });
            }
            _ => {}
        }
    }

    async fn run(self: Arc<Self>, inside: Inside) -> Exit {
        let Some(line) = inside.boot_line().await else { return Exit(1) };
        match Program::begin(self, &inside, &line).await {
            Ok(mut program) => program.run(&inside).await,
            Err(error) => {
                inside.log(format!("{error}\n"));
                Exit(126)
            }
        }
    }
}

/// One start. Where it is dropped, nothing of it is left.
struct Program {
    machine: Arc<Machine>,
    /// What waits for the program. It is gone once all in the computer is.
    child: Child,
    done: Done,
}

impl Program {
    async fn begin(machine: Arc<Machine>, inside: &Inside, line: &str) -> io::Result<Self> {
        let volume = inside.spec().volume;
        let home = machine.volume(volume);
        std::fs::create_dir_all(&home)?;
        // It ends with the engine, and what is in the computer with it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mut child = command
            .args(["--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--"])
            .arg(binary())
            .arg("agentd")
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("RAWORC_HOME", &home)
            .env("HOME", &home)
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (input, mut log) = (child.stdin.take(), child.stderr.take());
        let own = inside.clone();
        inside.spawn(async move {
            let mut bytes = [0; 4096];
            while let Some(log) = &mut log
                && let Ok(count @ 1..) = log.read(&mut bytes).await
            {
                own.log(&bytes[..count]);
            }
        });
        let incarnation = Boot::from_line(line).map(|boot| boot.incarnation.0).unwrap_or_default();
        let (volume, computer) = (volume.to_string(), inside.computer().to_string());
        let mut program =
            Self { machine, child, done: Done { what: What::Begun, volume, computer, incarnation, pid: 0 } };
        while let Some(parent) = program.child.id()
            && program.done.pid == 0
            && program.child.try_wait()?.is_none()
        {
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            let first = children.unwrap_or_default().split_whitespace().next().and_then(|pid| pid.parse().ok());
            program.done.pid = first.unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        program.machine.tell(&program.done);
        if let Some(mut input) = input {
            // It may have ended already.
            let _ = input.write_all(line.as_bytes()).await;
        }
        Ok(program)
    }

    fn signal(&self, signal: Signal) {
        if self.done.pid > 0
            && let Some(pid) = Pid::from_raw(self.done.pid)
        {
            // It may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    async fn run(&mut self, inside: &Inside) -> Exit {
        tokio::select! {
            biased;
            () = inside.stop_asked() => self.signal(Signal::TERM),
            _ = self.child.wait() => {}
        }
        let ended = self.child.wait().await;
        Exit(ended.ok().and_then(|status| status.code()).unwrap_or(137))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It cannot be waited for in another way where the task is cut short, and takes a moment.
        let deadline = Instant::now() + LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            self.signal(Signal::KILL);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.machine.tell(&Done { what: What::Ended, ..self.done.clone() });
    }
}

/// The process of the engine: answers at `address` until its standard input ends.
pub(crate) async fn run(address: SocketAddr, home: PathBuf) -> io::Result<()> {
    let journal = File::options().create(true).append(true).open(home.join("journal"))?;
    let machine = Arc::new(Machine { home, journal: Mutex::new(journal) });
    let own = Arc::clone(&machine);
    let options = SimulatedOptions::new(Profile::Container)
        .with_capabilities(Capabilities::default())
        .with_program(program_fn(move |inside| Arc::clone(&own).run(inside)));
    let runtime = SimulatedRuntime::new(options);
    let listener = TcpListener::bind(address).await?;
    tokio::io::stdout().write_all(b"\n").await?;
    let mut rest = Vec::new();
    let mut input = tokio::io::stdin();
    tokio::select! {
        ended = remote::serve(listener, Arc::new(runtime), Arc::new(move |ask: &Ask| machine.asked(ask))) => ended,
        _ = input.read_to_end(&mut rest) => Ok(()),
    }
}
