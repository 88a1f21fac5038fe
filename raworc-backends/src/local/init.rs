//! The helper that builds a computer: the calling binary, run again.
//!
//! The first stage enters the cgroups and makes the namespaces. The second is process 1 inside: it puts the root
//! together, gives up every privilege, runs the program, reaps what is left behind, and ends when the program ends or
//! the runtime's end of the pipe is closed; the kernel then ends everything else in its namespace.

mod files;
mod network;
mod plain;
mod privileges;
mod reap;
mod sight;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::config::INIT_COMMAND;
use super::plan::{Plan, Status, Step, read_frame};

pub(crate) use privileges::AGENT;

const INNER: &str = "inner";

/// Runs the helper where this process was started as one, else does nothing.
///
/// Has to be the first thing in `main`, before any thread exists:
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = raworc_backends::local::init_main() {
///         return code;
///     }
///     // ...
///     std::process::ExitCode::SUCCESS
/// }
/// ```
#[must_use]
pub fn init_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next() != Some(OsString::from(INIT_COMMAND)) {
        return None;
    }
    let inner = args.next() == Some(OsString::from(INNER));
    let outcome = if inner { second_stage() } else { first_stage() };
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&Status::Failed { step: failure.step, what: failure.what, reason: failure.source.to_string() });
            ExitCode::FAILURE
        }
    })
}

/// Leaves the session keyring of whoever started the server, which every process below shares, for a new one.
fn leave_keyring() -> Result<(), Failure> {
    match keyutils_raw::keyctl_join_session_keyring(None).map_err(io::Error::from) {
        Ok(_) => Ok(()),
        // What this process may not ask of the kernel, or what the kernel does not have, nobody inside can either.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
        Err(error) => Err(error).tried(Step::Privileges, "leave the caller's session keyring"),
    }
}

/// Why the helper stopped.
#[derive(Debug)]
struct Failure {
    step: Step,
    what: String,
    source: io::Error,
}

/// Says what was tried where it failed.
trait Tried<T> {
    fn tried(self, step: Step, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, step: Step, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure { step, what: what.into(), source: error.into() })
    }
}

/// Writes a status line. Nobody is left to be told where that fails.
fn tell(status: &Status) {
    if let Ok(mut line) = serde_json::to_vec(status) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    }
}

/// The runtime's end: read without a buffer, so that the next stage finds what follows.
fn control() -> Result<File, Failure> {
    let fd = rustix::stdio::stdin().try_clone_to_owned().tried(Step::Plan, "open the control pipe")?;
    Ok(File::from(fd))
}

fn read_plan(control: &mut File) -> Result<Plan, Failure> {
    let frame = read_frame(control).tried(Step::Plan, "read the plan")?;
    serde_json::from_slice(&frame).map_err(io::Error::from).tried(Step::Plan, "read the plan")
}

/// Lets go of what the caller's own parent left open: it is not for computers.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .collect();
    for fd in open.into_iter().filter(|&fd| fd > 2) {
        // The directory that was just read is closed already.
        nix::unistd::close(fd).ok();
    }
    Ok(())
}

fn first_stage() -> Result<(), Failure> {
    close_inherited().tried(Step::Plan, "close inherited files")?;
    let mut control = control()?;
    let plan = read_plan(&mut control)?;
    rustix::process::setsid().tried(Step::Plan, "leave the caller's session")?;
    leave_keyring()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for procs in &plan.cgroups {
        std::fs::write(procs, "0").tried(Step::Cgroup, format!("enter the cgroup {}", procs.display()))?;
    }
    if !plan.isolated {
        return plain::run(&mut control, &plan);
    }
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    if plan.drop_to.is_some() {
        unshare(spaces).tried(Step::Namespaces, "make namespaces as root")?;
    } else {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        unshare(CloneFlags::CLONE_NEWUSER | spaces).tried(Step::Namespaces, "make a user namespace")?;
        privileges::map(uid.as_raw(), gid.as_raw())?;
        privileges::keep_over_exec()?;
    }
    let mut child = Command::new("/proc/self/exe")
        .args([INIT_COMMAND, INNER])
        .args(std::env::args_os().nth(2))
        .env_clear()
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .tried(Step::Namespaces, "start the second stage")?;
    tell(&Status::Inner(child.id()));
    child.wait().tried(Step::Namespaces, "wait for the second stage")?;
    Ok(())
}

fn second_stage() -> Result<(), Failure> {
    let mut control = control()?;
    let plan = read_plan(&mut control)?;
    let boot = read_frame(&mut control).tried(Step::Plan, "read the boot line")?;
    rustix::process::setsid().tried(Step::Plan, "lead a session")?;
    network::loopback_up()?;
    let limits = files::build(&plan)?;
    if let Some(uid) = plan.drop_to {
        privileges::become_user(uid)?;
    }
    privileges::forbid_user_namespaces(&limits);
    drop(limits);
    privileges::give_up(plan.nproc)?;
    if plan.program.is_empty() {
        tell(&Status::Seen(sight::look()?));
        return Ok(());
    }
    reap::run(&mut control, &plan, &boot)
}
