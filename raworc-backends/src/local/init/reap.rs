//! Process 1 of a computer: runs the program, reaps, and ends with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::{Failure, Tried, tell};
use crate::local::config::PROGRAM_PATH;
use crate::local::plan::{ASK_END, Plan, Status, Step};

/// The program, while it runs.
pub(super) struct Running {
    pid: Pid,
    children: SignalFd,
}

/// What a [`Running`] came to.
pub(super) enum Outcome {
    /// The program ended.
    Ended,
    /// The runtime closed its end, or is gone.
    Released,
}

/// Runs the program to its end, as process 1 of the namespace.
pub(super) fn run(control: &mut File, plan: &Plan, boot: &[u8]) -> Result<(), Failure> {
    let running = Running::start(plan, boot)?;
    running.supervise(control).tried(Step::Program, "look after the program")?;
    Ok(())
}

impl Running {
    /// Starts the program and hands it its boot line.
    pub(super) fn start(plan: &Plan, boot: &[u8]) -> Result<Self, Failure> {
        let (name, arguments) = plan.program.split_first().map_or(("", [].as_slice()), |(n, a)| (n.as_str(), a));
        let file = match &plan.program_file {
            Some(file) if !plan.isolated && name == PROGRAM_PATH => file.clone(),
            _ => PathBuf::from(name),
        };
        let out = io::stderr().as_fd().try_clone_to_owned().tried(Step::Program, "open the log")?;
        let (stdin, mut boot_end) = io::pipe().tried(Step::Program, "make the boot pipe")?;
        let child = Command::new(&file)
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(&plan.env)
            .current_dir(&plan.cwd)
            .stdin(stdin)
            .stdout(out)
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .map_err(|error| explain(error, &file))
            .tried(Step::Program, format!("run {}", file.display()))?;
        let pid = Pid::from_child(&child);
        // A program that does not read its boot line may end before it is written.
        boot_end.write_all(boot).ok();
        drop(boot_end);
        tell(&Status::Started);
        // Only now, because the program would begin with the signals that are blocked here.
        let mut mask = SigSet::empty();
        mask.add(NixSignal::SIGCHLD);
        mask.thread_block().tried(Step::Program, "block SIGCHLD")?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .tried(Step::Program, "listen for ended processes")?;
        Ok(Self { pid, children })
    }

    /// Reaps until the program ends or the runtime lets go.
    pub(super) fn supervise(&self, control: &mut File) -> io::Result<Outcome> {
        // Whatever ended before the signal was listened to.
        let mut died = true;
        loop {
            if died {
                while self.children.read_signal().is_ok_and(|signal| signal.is_some()) {}
                if let Some(ended) = self.reap() {
                    tell(&ended);
                    return Ok(Outcome::Ended);
                }
            }
            let asked;
            (asked, died) = {
                let mut fds = [PollFd::new(&*control, PollFlags::IN), PollFd::new(&self.children, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Err(rustix::io::Errno::INTR) => (false, false),
                    Err(error) => return Err(error.into()),
                    Ok(_) => (!fds[0].revents().is_empty(), !fds[1].revents().is_empty()),
                }
            };
            if asked {
                let mut byte = [0];
                match control.read(&mut byte) {
                    Ok(1) if byte[0] == ASK_END => {
                        rustix::process::kill_process(self.pid, Signal::TERM).ok();
                    }
                    Ok(1) => {}
                    Ok(_) | Err(_) => return Ok(Outcome::Released),
                }
            }
        }
    }

    /// Reaps all that ended, and says how the program ended where it did.
    fn reap(&self) -> Option<Status> {
        let mut ended = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                ended = Some(told(status));
            }
        }
        ended
    }
}

fn told(status: WaitStatus) -> Status {
    Status::Ended { code: status.exit_status(), signal: status.terminating_signal() }
}

fn explain(error: io::Error, file: &Path) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("{error}; {} has to be executable for every user (chmod 0755)", file.display()),
        ),
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("{error}; it, or the loader that it names, is not in the computer"))
        }
        _ => error,
    }
}
