//! A server or an operator: a process that is killed, frozen, asked to leave and started again on its machine.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use super::network::Network;
use crate::clock::off_by;
use crate::process::{Process, unsound};

/// How long it may take to serve, however often it is begun, or to end when it is asked to.
const LIMIT: Duration = Duration::from_secs(60);

/// By how many seconds machines' clocks are off.
const OFF: [i64; 4] = [-600, 300, -300, 600];

/// Before what ended is begun again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is started on a machine of the network, and ends with this process.
pub(crate) fn ends_with_us(network: &Network, machine: u8, program: impl AsRef<OsStr>) -> Command {
    let on = network.on(machine);
    let mut command = Command::new(&on[0]);
    command.args(&on[1..]).arg(program).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The binary that is tested.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("RAWORC").unwrap_or_else(|| env!("CARGO_BIN_EXE_raworc").into()).into()
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) machine: u8,
    network: Arc<Network>,
    home: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    process: Process,
    /// How often it was asked to leave.
    left: AtomicU64,
}

impl Node {
    /// One that does not run yet.
    pub(crate) fn new(
        machine: u8,
        network: Arc<Network>,
        home: &Path,
        arguments: Vec<String>,
        variables: Vec<(String, String)>,
    ) -> std::io::Result<Self> {
        let home = home.join(format!("machine-{machine}"));
        std::fs::create_dir(&home)?;
        Ok(Self {
            machine,
            network,
            home,
            arguments,
            variables,
            process: Process::default(),
            left: AtomicU64::default(),
        })
    }

    /// Starts it, and begins it anew where it ends before it serves, as whoever supervises it would. Waits until it serves.
    pub(crate) async fn start(&self) -> Result<(), String> {
        self.start_at(None).await
    }

    /// The same, with a point at which it halts itself.
    pub(crate) async fn start_at(&self, point: Option<&str>) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match tokio::time::timeout_at(deadline, self.start_once(point)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) if Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
                Ok(Err(error)) => return Err(format!("machine {}: {error}", self.machine)),
                Err(_) => return Err(format!("machine {} does not serve after {LIMIT:?}", self.machine)),
            }
        }
    }

    async fn start_once(&self, point: Option<&str>) -> Result<(), String> {
        let mut child =
            self.command(point).and_then(|mut command| command.spawn()).map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no standard output")?;
        // It may be looked at, and killed, before it serves.
        self.process.hold(child).await;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).await.map_err(|error| error.to_string())?;
        let said = serde_json::from_str::<serde_json::Value>(&line);
        said.map(drop).map_err(|_| format!("it says {line:?}; its log ends with\n{}", self.log_tail()))
    }

    /// The binary, on its machine and with what it is told.
    fn raworc<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = ends_with_us(&self.network, self.machine, binary());
        command
            .args(args)
            .arg("--data")
            .arg(self.home.join("data"))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", &self.home)
            .envs(self.variables.iter().cloned())
            .envs(off_by(OFF[usize::from(self.machine) % OFF.len()]))
            .current_dir(&self.home);
        command
    }

    /// What its store says is wrong with itself.
    pub(crate) async fn unsound(&self) -> Vec<String> {
        unsound(self.raworc(["store", "verify"])).await
    }

    fn command(&self, point: Option<&str>) -> std::io::Result<Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home.join("log"))?;
        let arguments = self.arguments.iter().map(String::as_str);
        let mut command = self.raworc(arguments.chain(["-o", "json", "--log", "info"]));
        command.envs(point.map(|point| ("FAILPOINT", point))).stdout(Stdio::piped()).stderr(log);
        Ok(command)
    }

    /// The last lines that it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(400)..].join("\n")
    }

    /// How often it was asked to leave.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }

    /// Asks it to leave. Says what is wrong with its end.
    pub(crate) async fn end(&self) -> Result<(), String> {
        self.left.fetch_add(1, Ordering::SeqCst);
        self.process.end(&format!("machine {}", self.machine), LIMIT).await
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
