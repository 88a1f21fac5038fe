//! Serving processes of this same program, and what they cost the machine.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::seal::MasterKey;
use raworc_http::client::Client;
use secrecy::SecretString;
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
    #[serde(default)]
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
            .arg(data)
            .env("RAWORC_STORE", "sqlite");
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

    /// A client of another process of the same installation, with the token that this one gave.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn client_of(&self, other: &Self) -> anyhow::Result<Client> {
        let client = Client::new(&other.up.server)?;
        let token = self.up.token.clone().context("it gave no token")?;
        Ok(client.with_token(token))
    }

    /// Time that it has had on processors.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(Stat::of(self.pid)?.own)
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

/// What the kernel tells of a process.
pub(super) struct Stat {
    #[cfg_attr(not(any(feature = "postgres", feature = "mysql")), expect(dead_code, reason = "of databases alone"))]
    pub(super) parent: u32,
    /// Time that it has had on processors.
    pub(super) own: Duration,
    /// Time that those of its children had that have ended.
    #[cfg_attr(not(any(feature = "postgres", feature = "mysql")), expect(dead_code, reason = "of databases alone"))]
    pub(super) of_children: Duration,
}

impl Stat {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, which may hold anything, ends with the last bracket; proc(5) counts from it.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or_default().parse::<u64>();
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(Self {
            parent: u32::try_from(field(1)?)?,
            own: time(field(11)? + field(12)?),
            of_children: time(field(13)? + field(14)?),
        })
    }
}

/// What the processes of one installation are given alike, whatever this machine's own configuration says.
pub(super) struct Site {
    dir: PathBuf,
    config: PathBuf,
    #[cfg_attr(not(any(feature = "postgres", feature = "mysql")), expect(dead_code, reason = "of servers alone"))]
    pub(super) password: SecretString,
}

impl Site {
    /// With rows in `store` and data in `dir`.
    pub(super) fn new(dir: &Path, store: &str, runtime: &str) -> anyhow::Result<Self> {
        std::fs::create_dir(dir)?;
        let (config, key, password) = (dir.join("raworc.toml"), dir.join("master.key"), dir.join("password"));
        let secret: [u8; 16] = SystemEntropy.bytes();
        let secret = format!("{secret:02x?}");
        std::fs::write(&key, MasterKey::generate(&SystemEntropy).to_text())?;
        std::fs::write(&password, &secret)?;
        // A string of JSON is one of TOML.
        let text = |value: &Path| serde_json::json!(value);
        let lines = [
            format!("store = {}", serde_json::json!(store)),
            format!("runtime = {}", serde_json::json!(runtime)),
            format!("master_key_file = {}", text(&key)),
            format!("admin_password_file = {}", text(&password)),
            "listen = \"127.0.0.1:0\"".to_owned(),
            "log = \"warn\"".to_owned(),
            format!("agents.sockets = {}", text(&dir.join("sockets"))),
        ];
        std::fs::write(&config, lines.join("\n"))?;
        Ok(Self { dir: dir.to_owned(), config, password: SecretString::from(secret) })
    }

    /// `up` on a simulated engine.
    pub(super) async fn engine(&self) -> anyhow::Result<Process> {
        self.start("bench-server", "engine").await
    }

    /// A process of it, with a data directory of this name.
    pub(super) async fn start(&self, role: &str, data: &str) -> anyhow::Result<Process> {
        let mut command = this_program()?;
        // But for where the program of computers lies, which is a matter of this machine.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RAWORC_") && name != "RAWORC_AGENTD" {
                command.env_remove(name);
            }
        }
        command.args([role, "-o", "json", "--config"]).arg(&self.config).arg("--data").arg(self.dir.join(data));
        Process::start(command, PATIENCE).await
    }

    /// The configuration that its processes have.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn config(&self) -> &Path {
        &self.config
    }
}

/// Processes of this machine that want a processor, over the last minute.
#[cfg(any(feature = "docker", feature = "postgres", feature = "mysql"))]
pub(super) fn load() -> anyhow::Result<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").context("the load of this machine cannot be read")?;
    Ok(load.split(' ').next().unwrap_or_default().parse()?)
}

pub(super) fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe().context("this program cannot be found")?))
}
