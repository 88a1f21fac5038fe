//! A serving process of this same program, and what it costs the machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use raworc_http::client::Client;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one may take to start that has an image built before.
#[cfg(feature = "docker")]
const IMAGE_PATIENCE: Duration = Duration::from_secs(900);

/// What a serving process says when it is up.
#[derive(Debug, Deserialize)]
pub(super) struct Up {
    pub(super) server: String,
    #[serde(default)]
    pub(super) token: Option<String>,
}

/// A process that ends with this one.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: u32,
    up: Up,
    // Kept open: a process that cannot write its output any more ends.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// The installation that is measured, on a simulated engine.
    pub(super) async fn bench_server(data: &Path) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command.arg("bench-server").arg("--data").arg(data);
        Self::start(command, PATIENCE).await
    }

    /// `raworc up` on the local runtime, as people start it.
    pub(super) async fn up(data: &Path, config: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command
            .args([
                "up",
                "--runtime",
                "local",
                "--no-login",
                "--listen",
                "127.0.0.1:0",
                "--log",
                "warn",
                "-o",
                "json",
                "--data",
            ])
            .arg(data);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        Self::start(command, PATIENCE).await
    }

    /// `raworc up` on a Docker engine. It may have to build its image first.
    #[cfg(feature = "docker")]
    pub(super) async fn up_on_docker(data: &Path, admin_password: &Path) -> anyhow::Result<Self> {
        let mut command = this_program()?;
        command
            .args(["up", "--runtime", "docker", "--no-login", "--listen", "127.0.0.1:0", "--log", "warn", "-o", "json"])
            .arg("--admin-password-file")
            .arg(admin_password)
            .arg("--data")
            .arg(data);
        Self::start(command, IMAGE_PATIENCE).await
    }

    async fn start(mut command: Command, patience: Duration) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let pid = child.id().context("the process has ended")?;
        let output = child.stdout.take().context("its output cannot be read")?;
        let mut lines = BufReader::new(output).lines();
        let first = tokio::time::timeout(patience, lines.next_line()).await.context("it took too long to start")??;
        let first = first.context("the process that is to be measured did not start; it says why above")?;
        let up = serde_json::from_str(&first).with_context(|| format!("it said {first:?}"))?;
        Ok(Self { child, pid, up, _output: lines })
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let client = Client::new(&self.up.server)?;
        Ok(match &self.up.token {
            Some(token) => client.with_token(token.clone()),
            None => client,
        })
    }

    /// Time that it has had on processors.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Memory that it holds, in MiB.
    pub(super) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has no memory")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Ends it in order.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        tokio::time::timeout(PATIENCE, self.child.wait()).await.context("it took too long to end")??;
        Ok(())
    }
}

pub(super) fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("this program cannot be found")?))
}
