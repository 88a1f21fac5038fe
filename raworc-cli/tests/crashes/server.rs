//! `raworc up` in a directory of its own, as a process that is killed, frozen and started anew.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use raworc_http::client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use crate::place::Place;
use crate::process::{Process, unsound};

const PASSWORD: &str = "nobody guesses this one";

/// How long it may take to say where it serves, or to end when it is asked to.
const LIMIT: Duration = Duration::from_secs(60);

/// How long another process may have its port.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// A directory, and the server that runs in it, if one does.
#[derive(Debug)]
pub(crate) struct Server {
    home: tempfile::TempDir,
    place: Place,
    /// The port of the first start: clients find each next one at the same address.
    port: Mutex<u16>,
    process: Process,
    /// How long the log was before the present start, while it starts.
    log_before: AtomicUsize,
}

impl Server {
    pub(crate) fn new(place: Place) -> std::io::Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("password"), PASSWORD)?;
        Ok(Self {
            home,
            place,
            port: Mutex::new(0),
            process: Process::default(),
            log_before: AtomicUsize::new(usize::MAX),
        })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Where its computers are made.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn port(&self) -> u16 {
        *self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last lines that it wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// The binary, on its data.
    fn raworc<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let binary = std::env::var_os("RAWORC").unwrap_or_else(|| env!("CARGO_BIN_EXE_raworc").into());
        let mut command = Command::new(binary);
        command
            .args(args)
            .arg("--data")
            .arg(self.data())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What its store says is wrong with itself.
    pub(crate) async fn unsound(&self) -> Vec<String> {
        unsound(self.raworc(["store", "verify"])).await
    }

    fn command(&self, point: Option<&str>) -> std::io::Result<Command> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let listen = format!("127.0.0.1:{}", self.port());
        let mut command = self.raworc(["up", "-o", "json", "--log", "info", "--no-login", "--listen", &listen]);
        command
            .arg("--admin-password-file")
            .arg(self.home.path().join("password"))
            .envs(self.place.variables())
            .envs(point.map(|point| ("FAILPOINT", point)))
            .stdout(Stdio::piped())
            .stderr(log);
        Ok(command)
    }

    /// Starts it, with the point at which it ends or halts itself. Waits until it serves. Nobody holds its port while it is
    /// dead, so another process may have it for a moment.
    pub(crate) async fn start(&self, point: Option<&str>) -> Result<(), String> {
        let deadline = Instant::now() + PORT_LIMIT;
        loop {
            self.log_before.store(self.log_bytes().len(), Ordering::SeqCst);
            let started = self.start_once(point).await;
            let is_late = Instant::now() >= deadline;
            if started.is_ok() || is_late || !self.is_port_taken() {
                // What it ended with is its own end from now on.
                self.log_before.store(usize::MAX, Ordering::SeqCst);
                return started;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log_bytes(&self) -> Vec<u8> {
        std::fs::read(self.log()).unwrap_or_default()
    }

    /// Whether the present start has said that another process has its port.
    fn is_port_taken(&self) -> bool {
        let log = self.log_bytes();
        let said = log.get(self.log_before.load(Ordering::SeqCst)..).unwrap_or_default();
        String::from_utf8_lossy(said).contains(&format!("127.0.0.1:{} is in use", self.port()))
    }

    async fn start_once(&self, point: Option<&str>) -> Result<(), String> {
        let mut child =
            self.command(point).and_then(|mut command| command.spawn()).map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no standard output")?;
        // It may be looked at before it serves.
        self.process.hold(child).await;
        let mut line = String::new();
        let mut lines = BufReader::new(out);
        let read = tokio::time::timeout(LIMIT, lines.read_line(&mut line)).await;
        read.map_err(|_| format!("it does not serve after {LIMIT:?}"))?.map_err(|error| error.to_string())?;
        let said: serde_json::Value = serde_json::from_str(&line)
            .map_err(|_| format!("it does not start and says {line:?}; its log ends with\n{}", self.log_tail()))?;
        let address = said["server"].as_str().unwrap_or_default();
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port")?;
        *self.port.lock().unwrap_or_else(PoisonError::into_inner) = port;
        Ok(())
    }

    /// Starts it, and kills it after this time, as far as it has come.
    pub(crate) async fn start_for(&self, time: Duration) -> std::io::Result<()> {
        self.process.hold(self.command(None)?.stdout(Stdio::null()).spawn()?).await;
        tokio::time::sleep(time).await;
        self.kill().await;
        Ok(())
    }

    /// How it ended by itself, if it has, and is not about to be started again.
    pub(crate) async fn ended(&self) -> Option<std::process::ExitStatus> {
        self.process.ended().await.filter(|status| status.code().is_none() || !self.is_port_taken())
    }

    /// Asks it to end. Says what is wrong with its end.
    pub(crate) async fn end(&self) -> Result<(), String> {
        self.process.end("the server", LIMIT).await
    }

    /// A client of it, as its admin.
    pub(crate) async fn client(&self) -> Result<(Client, String), String> {
        let client = Client::new(&self.address()).map_err(|error| error.to_string())?;
        let login = client.login("admin", &PASSWORD.into()).await.map_err(|error| error.to_string())?;
        Ok((client.with_token(login.token.clone()), login.token))
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Deref for Server {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
