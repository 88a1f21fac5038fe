//! One shell that lives on between calls, with its directory, variables, functions and background jobs.
//!
//! Commands go to it on its standard input, each as a quoted text for `eval`, so that they cannot read what follows.
//! Their output and the shell's marks come back in one pipe. A mark holds a random token and is written to a
//! descriptor that commands do not inherit, so that no output can be taken for it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raworc_core::entropy::{EntropyExt, SystemEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::OUTPUT_LIMIT;
use super::arguments::quote;
use crate::processes;

mod marks;

use marks::{Finished, Marks};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself.
    Code(i32),
    /// Because its time was over.
    TimedOut,
    /// Because somebody asked for that.
    Cancelled,
}

/// What a command did.
#[derive(Debug)]
pub(super) struct Ran {
    /// What it printed, and what background jobs have printed since the command before.
    pub(super) output: String,
    /// How it ended.
    pub(super) exit: Exit,
    /// What has become of the shell, where it is not the same any more.
    pub(super) remark: Option<String>,
}

/// The shell, started when it is first needed and again whenever it is gone.
#[derive(Debug)]
pub(super) struct Shell {
    home: PathBuf,
    /// Where it is, or where the next one begins.
    cwd: PathBuf,
    /// The exported variables as the shell last told them: a script that sets them again.
    exports: Vec<u8>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: i32,
    stdin: ChildStdin,
    output: Arc<Output>,
    /// The agent's environment at the start.
    env: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Output {
    marks: Mutex<Marks>,
    changed: Notify,
}

impl Output {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        processes::kill_group(self.pid);
    }
}

impl Shell {
    pub(super) fn new(home: &Path) -> Self {
        Self { home: home.to_owned(), cwd: home.to_owned(), exports: Vec::new(), running: None }
    }

    /// The agent's home.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Where the next command runs.
    pub(super) fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Runs a command to its end, or until `limit` or `cancel` end it with all the processes that it has started.
    pub(super) async fn run(
        &mut self,
        command: &str,
        env: &BTreeMap<String, String>,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> io::Result<Ran> {
        let mut remark = self.refresh(env);
        let token = hex(&SystemEntropy.bytes::<16>());
        let script = script(command, &token);
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start(env).await?,
        };
        let before = processes::identities(running.pid);
        running.output.marks().expect(&token);
        let deadline = Instant::now() + limit;
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => Ended::Broken(Exit::Cancelled),
            () = tokio::time::sleep_until(deadline) => Ended::Broken(Exit::TimedOut),
            ended = finish(&mut running, &script) => ended?,
        };
        let exit = match ended {
            Ended::Itself(finished) => {
                if !finished.cwd.is_empty() {
                    self.cwd = PathBuf::from(String::from_utf8_lossy(&finished.cwd).into_owned());
                }
                self.exports = finished.exports;
                let output = running.output.marks().take(OUTPUT_LIMIT).into_text();
                self.running = Some(running);
                return Ok(Ran { output, exit: Exit::Code(finished.code), remark });
            }
            Ended::Shell(code) => {
                remark = Some(self.farewell("the command ended the shell"));
                Exit::Code(code)
            }
            Ended::Broken(exit) => {
                if let Ok(cwd) = std::fs::read_link(format!("/proc/{}/cwd", running.pid)) {
                    self.cwd = cwd;
                }
                processes::end_family(running.pid, &before).await;
                // The reader gets what is still in the pipe.
                let _ = running.child.wait().await;
                settle(&running.output).await;
                remark = Some(self.farewell("the shell was ended with it"));
                exit
            }
        };
        let output = running.output.marks().take(OUTPUT_LIMIT).into_text();
        // Jobs of earlier commands live on; dropping what is left would end their group.
        running.pid = 0;
        Ok(Ran { output, exit, remark })
    }

    /// A shell that something else has ended is replaced, and a changed environment of the agent needs a new one.
    /// Background jobs go on.
    fn refresh(&mut self, env: &BTreeMap<String, String>) -> Option<String> {
        let gone = |running: &mut Running| !matches!(running.child.try_wait(), Ok(None));
        if let Some(mut running) = self.running.take_if(gone) {
            running.pid = 0;
            return Some(self.farewell("the shell has been ended since the last command"));
        }
        let mut running = self.running.take_if(|running| running.env != *env)?;
        running.pid = 0;
        for gone in running.env.keys().filter(|key| !env.contains_key(*key)) {
            self.exports.extend_from_slice(format!("unset {gone}\n").as_bytes());
        }
        Some(self.farewell("the agent's environment has changed"))
    }

    fn farewell(&self, why: &str) -> String {
        format!(
            "{why}; a new one begins in {}, with the exported variables but without functions and other variables",
            self.cwd.display()
        )
    }

    async fn start(&mut self, env: &BTreeMap<String, String>) -> io::Result<Running> {
        if !self.cwd.is_dir() {
            self.cwd.clone_from(&self.home);
        }
        let mut last = None;
        for program in ["bash", "sh"] {
            match self.spawn(program, env) {
                Ok(mut running) => {
                    let mut script = b"exec 9>&1\n".to_vec();
                    script.append(&mut self.exports);
                    let own = env.iter().map(|(key, value)| format!("\nexport {key}={}", quote(value)));
                    script.extend_from_slice(own.collect::<String>().as_bytes());
                    script.push(b'\n');
                    running.stdin.write_all(&script).await?;
                    return Ok(running);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn spawn(&self, program: &str, env: &BTreeMap<String, String>) -> io::Result<Running> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(processes::environment(&self.home, env))
            .current_dir(&self.cwd)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        // The command holds the pipe's other end until it is dropped.
        drop(command);
        let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        let output = Arc::new(Output { marks: Mutex::new(Marks::new(OUTPUT_LIMIT)), changed: Notify::new() });
        let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        // It reads until the last background job has closed the pipe, or these would block or die of writing.
        tokio::spawn(pump(receiver, Arc::clone(&output)));
        Ok(Running { child, pid, stdin, output, env: env.clone() })
    }
}

enum Ended {
    Itself(Finished),
    Shell(i32),
    Broken(Exit),
}

async fn finish(running: &mut Running, script: &str) -> io::Result<Ended> {
    let Running { child, stdin, output, .. } = running;
    let written = async {
        // A shell that ends meanwhile shows below.
        let _ = stdin.write_all(script.as_bytes()).await;
        std::future::pending::<io::Result<Ended>>().await
    };
    let marked = async {
        loop {
            let changed = output.changed.notified();
            if let Some(finished) = output.marks().finished() {
                return Ok(Ended::Itself(finished));
            }
            changed.await;
        }
    };
    let gone = async {
        let status = child.wait().await?;
        settle(output).await;
        Ok(Ended::Shell(crate::processes::exit_code(status)))
    };
    tokio::select! {
        biased;
        ended = marked => ended,
        ended = gone => ended,
        ended = written => ended,
    }
}

/// Waits until the reader has taken what the ended shell left in the pipe. Jobs that go on may hold the pipe open, so
/// a short silence counts as the end.
async fn settle(output: &Output) {
    const SILENCE: Duration = Duration::from_millis(20);
    while !output.marks().closed() && tokio::time::timeout(SILENCE, output.changed.notified()).await.is_ok() {}
}

async fn pump(mut pipe: pipe::Receiver, output: Arc<Output>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        let mut marks = output.marks();
        if read == 0 {
            marks.close();
        } else {
            marks.feed(&buffer[..read]);
        }
        drop(marks);
        output.changed.notify_waiters();
        if read == 0 {
            return;
        }
    }
}

/// What the shell reads for one command. The braces give the command no standard input, the shell's own output even
/// where an earlier command has redirected it, and no hold of the descriptor for marks.
fn script(command: &str, token: &str) -> String {
    let command = match quote(command) {
        // A word that needs no quotes may still be an alias's or a reserved one.
        plain if !plain.starts_with('\'') => format!("'{plain}'"),
        quoted => quoted,
    };
    format!(
        "{{ eval {command}\n}} </dev/null 1>&9 2>&9 9>&-\n\
         {{ \\command printf '\\036{token} %d\\036' \"$?\"; \\command pwd; \\command export -p; \
         \\command printf '\\036{token}\\036'; }} >&9 2>/dev/null 9>&-\n"
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
