//! `/exec`: commands that the server runs in the computer, with their streams.
//!
//! Nothing is buffered beyond one piece: where nobody reads, the command's own pipe fills and the command waits.

mod command;
mod streams;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::program::{ExecRequest, ExecStarted, ExecStatus, TerminalSize};
use tokio::sync::watch;

use super::reply::{self, Body, LinkError};
use crate::processes::{self, Identities};
use crate::shared::Shared;
use streams::{Source, Stdin};

/// How long an ended command is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Commands that may be remembered at once.
const COMMANDS: usize = 1024;

/// The commands of one link.
#[derive(Debug, Default)]
pub(super) struct Execs(Mutex<HashMap<String, Arc<Exec>>>);

/// One command.
pub(super) struct Exec {
    pid: i32,
    stdin: Mutex<Option<Stdin>>,
    stdout: Mutex<Option<Source>>,
    stderr: Mutex<Option<Source>>,
    terminal: Option<std::os::fd::OwnedFd>,
    ended: watch::Receiver<Option<ExecStatus>>,
}

impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec").field("pid", &self.pid).field("ended", &self.ended).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Execs {
    fn get(&self, id: &str) -> Result<Arc<Exec>, LinkError> {
        let exec = lock(&self.0).get(id).cloned();
        exec.ok_or_else(|| LinkError::not_found(format!("there is no command {id:?}, or it ended a while ago")))
    }

    pub(super) fn start(
        self: &Arc<Self>,
        request: ExecRequest,
        home: &Path,
        shared: &Arc<Shared>,
    ) -> Result<Response<Body>, LinkError> {
        if lock(&self.0).len() >= COMMANDS {
            return Err(LinkError::conflict(format!("{COMMANDS} commands run already; end some of them")));
        }
        let (exec, ended) = command::start(&request, home, &shared.env())?;
        let id = hex::encode(SystemEntropy.bytes::<8>());
        lock(&self.0).insert(id.clone(), Arc::new(exec));
        tokio::spawn({
            let (execs, shared, id) = (Arc::downgrade(self), Arc::clone(shared), id.clone());
            async move {
                ended.await;
                shared.meter.written();
                tokio::time::sleep(REMEMBERED).await;
                if let Some(execs) = execs.upgrade() {
                    lock(&execs.0).remove(&id);
                }
            }
        });
        reply::respond_json(&ExecStarted { id })
    }

    pub(super) fn stdout(&self, id: &str) -> Result<Response<Body>, LinkError> {
        let exec = self.get(id)?;
        let source = lock(&exec.stdout).take();
        Self::stream(&exec, source)
    }

    pub(super) fn stderr(&self, id: &str) -> Result<Response<Body>, LinkError> {
        let exec = self.get(id)?;
        let source = lock(&exec.stderr).take();
        Self::stream(&exec, source)
    }

    fn stream(exec: &Exec, source: Option<Source>) -> Result<Response<Body>, LinkError> {
        let source = source.ok_or_else(|| LinkError::conflict("this stream is read already, or there is none"))?;
        Ok(reply::bytes(streams::read(source, exec.ended.clone())))
    }

    pub(super) async fn stdin(&self, id: &str, body: Incoming) -> Result<Response<Body>, LinkError> {
        let exec = self.get(id)?;
        let stdin = lock(&exec.stdin).take();
        let stdin =
            stdin.ok_or_else(|| LinkError::conflict("standard input was not asked for, or was given already"))?;
        let mut ended = exec.ended.clone();
        tokio::select! {
            () = streams::write(stdin, body) => {}
            // A command that has ended reads no more; whoever writes must not wait for it.
            _ = ended.wait_for(Option::is_some) => {}
        }
        Ok(reply::done())
    }

    pub(super) fn resize(&self, id: &str, size: TerminalSize) -> Result<Response<Body>, LinkError> {
        let exec = self.get(id)?;
        let terminal = exec.terminal.as_ref().ok_or_else(|| LinkError::conflict("the command has no terminal"))?;
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).map_err(|error| LinkError::io("resize", &error.into()))?;
        Ok(reply::done())
    }

    pub(super) async fn wait(&self, id: &str) -> Result<Response<Body>, LinkError> {
        let mut ended = self.get(id)?.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        let status = status.ok_or_else(|| LinkError::conflict("nobody knows how the command ended"))?;
        reply::respond_json(&status)
    }

    pub(super) fn end(&self, id: &str) -> Result<Response<Body>, LinkError> {
        let exec = self.get(id)?;
        lock(&self.0).remove(id);
        exec.end();
        Ok(reply::done())
    }

    /// Ends all commands.
    pub(super) fn end_all(&self) {
        for (_, exec) in lock(&self.0).drain() {
            exec.end();
        }
    }
}

impl Exec {
    fn end(&self) {
        // What an ended command has left in the background goes on, and its number may be another's by now.
        if self.ended.borrow().is_some() {
            return;
        }
        let pid = self.pid;
        tokio::spawn(async move { processes::end_family(pid, &Identities::new(), &Identities::new()).await });
    }
}
