//! One shell that lives on between calls, with its directory, variables, functions and background jobs.
//!
//! Commands go to it by a pipe, each as a quoted text for `eval`, and run on a [terminal], so that they cannot read what
//! follows. Their output and the shell's marks come back by the terminal, in the order in which they were written. A mark
//! holds a random token and is written to a descriptor that commands do not inherit, so that no output can be taken for
//! it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pty_process::Pty;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::OUTPUT_LIMIT;
use super::arguments::quote;
use crate::processes::{self, Identities};

mod marks;
mod terminal;

use marks::{Finished, Marks};

/// How long a command that is interrupted may take to end by itself, unless said otherwise.
const GRACE: Duration = Duration::from_millis(400);

/// What commands are given to: the first that the image has.
const SHELLS: [&str; 2] = ["bash", "sh"];

/// The exit code of a shell that was killed.
const KILLED: i32 = 137;

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
    /// How long a command that is interrupted may take to end by itself.
    grace: Duration,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: i32,
    stdin: ChildStdin,
    /// The end of the terminal from which its state can be set.
    terminal: OwnedFd,
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
        Self { home: home.to_owned(), cwd: home.to_owned(), exports: Vec::new(), grace: GRACE, running: None }
    }

    /// The agent's home.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Where the next command runs.
    pub(super) fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Runs a command to its end, or until `limit` or `cancel` end it with what it has started: its processes' children
    /// and the shell's group, jobs of earlier commands excepted.
    ///
    /// A process that the command has cut loose, which has lost its parent and left the group, cannot be told from one of
    /// an earlier command. It lives on as theirs do, and ends with the computer.
    pub(super) async fn run(
        &mut self,
        command: &str,
        env: &BTreeMap<String, String>,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> io::Result<Ran> {
        let mut remarks = Vec::from_iter(self.refresh(env));
        let token = hex::encode(SystemEntropy.bytes::<16>());
        let script = script(command, &token);
        let mut running = match self.running.take() {
            Some(running) => running,
            None => {
                let (running, moved) = self.start(env).await?;
                remarks.extend(moved);
                running
            }
        };
        terminal::calm(running.terminal.as_fd())?;
        let before = processes::identities(running.pid);
        running.output.marks().expect(&token);
        let deadline = Instant::now() + limit;
        let mut broken = None;
        let ended = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                broken = Some(Exit::Cancelled);
                None
            }
            () = tokio::time::sleep_until(deadline) => {
                broken = Some(Exit::TimedOut);
                None
            }
            ended = finish(&mut running, &script) => Some(ended?),
        };
        let ended = match ended {
            Some(ended) => ended,
            None => interrupt(&mut running, &before, self.grace).await,
        };
        let (code, why) = match ended {
            Ended::Itself(finished) => {
                if !finished.cwd.is_empty() {
                    self.cwd = PathBuf::from(String::from_utf8_lossy(&finished.cwd).into_owned());
                }
                self.exports = finished.exports;
                let output = running.output.marks().take(OUTPUT_LIMIT).into_text();
                self.running = Some(running);
                return Ok(Ran { output, exit: broken.unwrap_or(Exit::Code(finished.code)), remark: joined(&remarks) });
            }
            Ended::Shell(code) => (code, "the command ended the shell"),
            Ended::Killed(cwd) => {
                if let Some(cwd) = cwd {
                    self.cwd = cwd;
                }
                (KILLED, "the shell was ended with it")
            }
        };
        remarks.push(self.farewell(why));
        let output = running.output.marks().take(OUTPUT_LIMIT).into_text();
        // Jobs of earlier commands live on; dropping what is left would end their group.
        running.pid = 0;
        Ok(Ran { output, exit: broken.unwrap_or(Exit::Code(code)), remark: joined(&remarks) })
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

    /// Starts one where the last one was, or at home where that cannot be; the second result says so.
    async fn start(&mut self, env: &BTreeMap<String, String>) -> io::Result<(Running, Option<String>)> {
        let error = match self.start_here(env).await {
            Err(error) if self.cwd != self.home => error,
            started => return Ok((started?, None)),
        };
        let left = std::mem::replace(&mut self.cwd, self.home.clone());
        let running = self.start_here(env).await?;
        let (left, home) = (left.display(), self.home.display());
        Ok((running, Some(format!("the shell cannot begin in {left} ({error}), and begins in {home}"))))
    }

    async fn start_here(&mut self, env: &BTreeMap<String, String>) -> io::Result<Running> {
        for program in SHELLS {
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
                // A directory that is not there is told by the same error, whatever the program.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.cwd.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "this computer's image has neither bash nor sh"))
    }

    fn spawn(&self, program: &str, env: &BTreeMap<String, String>) -> io::Result<Running> {
        let (pty, end) = terminal::open()?;
        let terminal = pty.as_fd().try_clone_to_owned()?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(processes::environment(&self.home, env))
            .envs(plain(env))
            .current_dir(&self.cwd)
            .stdin(Stdio::piped())
            .stdout(end.try_clone()?)
            .stderr(end)
            .process_group(0);
        let mut child = command.spawn()?;
        // The command holds the terminal's other end until it is dropped.
        drop(command);
        let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        let output = Arc::new(Output { marks: Mutex::new(Marks::new(OUTPUT_LIMIT)), changed: Notify::new() });
        // It reads until the last background job has closed the terminal, or these would block or fail to write.
        tokio::spawn(pump(pty, Arc::clone(&output)));
        Ok(Running { child, pid, stdin, terminal, output, env: env.clone() })
    }
}

/// What keeps commands from painting for a person, where the agent's environment does not ask for that.
fn plain(agent: &BTreeMap<String, String>) -> impl Iterator<Item = (&'static str, &'static str)> {
    [("TERM", "dumb"), ("NO_COLOR", "1")].into_iter().filter(|(key, _)| !agent.contains_key(*key))
}

enum Ended {
    /// The command; the shell goes on.
    Itself(Finished),
    /// The shell with it.
    Shell(i32),
    /// The shell, because we ended it; it was there.
    Killed(Option<PathBuf>),
}

/// Interrupts the command as Ctrl-C does. Where that does not help it is ended, with all that it has started.
async fn interrupt(running: &mut Running, before: &Identities, grace: Duration) -> Ended {
    let cwd = cwd_of(running.pid);
    let asked = processes::interrupt_family(running.pid, before);
    let finished = tokio::time::timeout(grace, finish(running, "")).await;
    match finished {
        Ok(Ok(Ended::Itself(finished))) => {
            // What it left in the background was started by it as well.
            processes::end_started(running.pid, before, &asked).await;
            Ended::Itself(finished)
        }
        Ok(Ok(Ended::Shell(_))) => {
            processes::end_started(running.pid, before, &asked).await;
            settle(&running.output).await;
            Ended::Killed(cwd)
        }
        Ok(Ok(Ended::Killed(_)) | Err(_)) | Err(_) => kill(running, before, &asked).await,
    }
}

/// Ends the shell and what the command has started.
async fn kill(running: &mut Running, before: &Identities, asked: &Identities) -> Ended {
    let cwd = cwd_of(running.pid);
    processes::end_family(running.pid, before, asked).await;
    // The reader gets what is still in the terminal.
    let _ = running.child.wait().await;
    settle(&running.output).await;
    Ended::Killed(cwd)
}

fn cwd_of(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
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

/// A terminal that is silent for so long has nothing more of an ended shell.
const SILENCE: Duration = Duration::from_millis(20);

/// Waits until the reader has taken what the ended shell left in the terminal. Jobs that go on may hold it open, so a
/// short silence counts as the end.
async fn settle(output: &Output) {
    while !output.marks().closed() && tokio::time::timeout(SILENCE, output.changed.notified()).await.is_ok() {}
}

async fn pump(mut terminal: Pty, output: Arc<Output>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        // A terminal tells its end by an error.
        let read = terminal.read(&mut buffer).await.unwrap_or(0);
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

/// What the shell reads for one command. The braces give the command the terminal even where an earlier command has
/// redirected the shell, and no hold of the descriptor for marks.
fn script(command: &str, token: &str) -> String {
    let command = match quote(command) {
        // A word that needs no quotes may still be an alias's or a reserved one.
        plain if !plain.starts_with('\'') => format!("'{plain}'"),
        quoted => quoted,
    };
    format!(
        "{{ eval {command}\n}} <&9 1>&9 2>&9 9>&-\n\
         {{ \\command printf '\\036{token} %d\\n\\036' \"$?\"; \\command pwd; \\command export -p; \
         \\command printf '\\036{token}\\036'; }} >&9 2>/dev/null 9>&-\n"
    )
}

fn joined(remarks: &[String]) -> Option<String> {
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

#[cfg(test)]
mod tests;
