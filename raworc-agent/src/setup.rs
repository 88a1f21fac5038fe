//! Runs the setup script, with its output as steps.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use raworc_core::program::{SetupReport, SetupTask};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::calls::{CallError, Calls};
use crate::outbox::{Outbox, log_step};
use crate::processes::{self, Identities};
use crate::shared::Shared;
use crate::truncate::{Collector, whole_characters};

/// Bytes of output that a failure shows.
const FAILURE_TAIL: usize = 4 << 10;

/// Bytes of output that are reported as steps; of more only the last part is told with a failure.
const REPORTED: usize = 1 << 20;

/// After the script's end, how long what it left running may be silent.
const SILENCE: Duration = Duration::from_millis(100);

/// Runs the script and tells how it ended.
pub(crate) async fn run(
    task: &SetupTask,
    home: &Path,
    shared: &Shared,
    calls: &Arc<Calls>,
) -> Result<SetupReport, CallError> {
    let mut outbox = Outbox::new(Arc::clone(calls), None);
    let ended = match start(task, home, shared) {
        Ok(script) => script.follow(Duration::from_secs(task.limit), &mut outbox).await?,
        Err(error) if error.kind() == ErrorKind::NotFound && home.is_dir() => {
            Some("the setup script cannot be started: this computer's image has no sh".into())
        }
        Err(error) => Some(format!("the setup script cannot be started: {error}")),
    };
    outbox.flush().await?;
    Ok(SetupReport { hash: task.hash.clone(), failure: ended })
}

struct Script {
    child: Child,
    pid: i32,
    output: pipe::Receiver,
}

impl Drop for Script {
    fn drop(&mut self) {
        // Where the program ends first. What a script that ended by itself has started lives on.
        if self.child.id().is_some() {
            processes::kill_group(self.pid);
        }
    }
}

fn start(task: &SetupTask, home: &Path, shared: &Shared) -> std::io::Result<Script> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new("sh");
    command
        .args(["-e", "-c", &task.script])
        .env_clear()
        .envs(processes::environment(home, &shared.env()))
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = command.spawn()?;
    drop(command);
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(std::io::ErrorKind::NotFound)?;
    Ok(Script { child, pid, output: pipe::Receiver::from_owned_fd(reader.into())? })
}

impl Script {
    /// Reads to the end, and tells why it failed where it did.
    async fn follow(mut self, limit: Duration, outbox: &mut Outbox) -> Result<Option<String>, CallError> {
        let mut tail = Collector::tail(FAILURE_TAIL);
        let mut reported = Reported::default();
        let mut buffer = vec![0; 16 << 10];
        let mut status = None;
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let timed_out = loop {
            tokio::select! {
                biased;
                // First, for output without end is always ready.
                () = &mut deadline => break true,
                error = outbox.run() => return Err(error),
                read = self.output.read(&mut buffer) => {
                    let piece = &buffer[..read.unwrap_or(0)];
                    if piece.is_empty() {
                        break false;
                    }
                    tail.push(piece);
                    reported.take(piece, outbox);
                }
                ended = self.child.wait(), if status.is_none() => status = Some(ended),
                () = tokio::time::sleep(SILENCE), if status.is_some() => break false,
            }
        };
        if timed_out {
            processes::end_family(self.pid, &Identities::new(), &Identities::new()).await;
        }
        let status = match status {
            Some(status) => status,
            None => self.child.wait().await,
        };
        let why = match status {
            Ok(_) if timed_out => format!("it was ended after {} s, its limit", limit.as_secs()),
            Ok(status) if status.success() => {
                self.leave();
                return Ok(None);
            }
            Ok(status) => format!("exit code {}", crate::processes::exit_code(status)),
            Err(error) => format!("nobody knows how it ended: {error}"),
        };
        let output = tail.into_text();
        Ok(Some(format!("{output}{}[setup failed: {why}]", if output.ends_with('\n') { "" } else { "\n" })))
    }

    /// What the script has put into the background goes on, and must not block or die of writing.
    fn leave(self) {
        let mut script = self;
        tokio::spawn(async move { tokio::io::copy(&mut script.output, &mut tokio::io::sink()).await });
    }
}

/// What was reported of the output.
#[derive(Debug, Default)]
struct Reported {
    bytes: usize,
    /// The beginning of a character whose rest did not come yet.
    held: Vec<u8>,
}

impl Reported {
    fn take(&mut self, piece: &[u8], outbox: &mut Outbox) {
        if self.bytes > REPORTED {
            return;
        }
        self.bytes += piece.len();
        self.held.extend_from_slice(piece);
        let rest = self.held.split_off(whole_characters(&self.held));
        let whole = std::mem::replace(&mut self.held, rest);
        outbox.push(log_step(&String::from_utf8_lossy(&whole)));
        if self.bytes > REPORTED {
            outbox.push(log_step("\n[the rest of the setup's output is not shown]\n"));
        }
    }
}
