//! Starts a command, with pipes or on a terminal of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use http::StatusCode;
use raworc_core::program::{ExecRequest, ExecStatus, TerminalSize};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::super::reply::LinkError;
use super::Exec;
use super::streams::{Source, Stdin};
use crate::{processes, terminal};

/// Starts it. The second result ends with the command.
pub(super) fn start(
    request: &ExecRequest,
    home: &Path,
    agent: &BTreeMap<String, String>,
) -> Result<(Exec, impl Future<Output = ()> + Send + 'static), LinkError> {
    let (program, _) = request.command.split_first().ok_or_else(|| LinkError::invalid("the command is empty"))?;
    if request.command.iter().any(|word| word.contains('\0')) {
        return Err(LinkError::invalid("the command contains a NUL character"));
    }
    let cwd = request.cwd.as_ref().map_or_else(|| home.to_owned(), |cwd| crate::home::resolve(home, cwd));
    if !cwd.is_dir() {
        return Err(LinkError::not_found(format!("the directory {} is not there", cwd.display())));
    }
    let mut env = processes::environment(home, agent);
    if request.terminal.is_some() && !agent.contains_key("TERM") {
        env.insert("TERM".into(), "xterm-256color".into());
    }
    env.extend(request.env.iter().map(|(key, value)| (key.clone(), value.clone())));
    let started = match request.terminal {
        Some(size) => on_terminal(request, size, &cwd, env),
        None => with_pipes(request, &cwd, env),
    };
    let (child, mut exec) = started.map_err(|error| failed(program, &error))?;
    let (told, ended) = watch::channel(None);
    exec.ended = ended;
    Ok((exec, wait(child, told)))
}

fn failed(program: &str, error: &io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let message = format!("{program:?} is not in this computer; see its PATH and image");
            LinkError::new(StatusCode::NOT_FOUND, "command_not_found", message)
        }
        _ => LinkError::io(program, error),
    }
}

async fn wait(mut child: Child, told: watch::Sender<Option<ExecStatus>>) {
    let exit_code = child.wait().await.map_or(-1, crate::processes::exit_code);
    told.send_replace(Some(ExecStatus { exit_code }));
}

fn exec(child: &Child) -> io::Result<Exec> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
    let (_, ended) = watch::channel(None);
    let none = || Mutex::new(None);
    Ok(Exec { pid, stdin: Mutex::new(None), stdout: none(), stderr: none(), terminal: None, ended })
}

fn with_pipes(request: &ExecRequest, cwd: &PathBuf, env: BTreeMap<String, String>) -> io::Result<(Child, Exec)> {
    let mut child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .env_clear()
        .envs(env)
        .current_dir(cwd)
        .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut exec = exec(&child)?;
    exec.stdin = Mutex::new(child.stdin.take().map(Stdin::Pipe));
    exec.stdout = Mutex::new(child.stdout.take().map(|stdout| Box::new(stdout) as Source));
    exec.stderr = Mutex::new(child.stderr.take().map(|stderr| Box::new(stderr) as Source));
    Ok((child, exec))
}

fn on_terminal(
    request: &ExecRequest,
    size: TerminalSize,
    cwd: &PathBuf,
    env: BTreeMap<String, String>,
) -> io::Result<(Child, Exec)> {
    let (terminal, end) = terminal::open(size.rows, size.cols)?;
    let child = pty_process::Command::new(&request.command[0])
        .args(&request.command[1..])
        .env_clear()
        .envs(env)
        .current_dir(cwd)
        .spawn(end)
        .map_err(terminal::failed)?;
    let mut exec = exec(&child)?;
    exec.terminal = Some(terminal.as_fd().try_clone_to_owned()?);
    let (reader, writer) = terminal.into_split();
    exec.stdout = Mutex::new(Some(Box::new(reader) as Source));
    exec.stdin = Mutex::new(request.stdin.then_some(Stdin::Terminal(writer)));
    Ok((child, exec))
}
