//! A program without isolation: still ended with all that it started.

use std::fs::File;

use rustix::process::{Pid, Signal, WaitOptions};

use super::reap::Running;
use super::{Failure, Tried};
use crate::local::plan::{Plan, Step, read_frame};
use crate::local::process;

/// Runs the program to its end, then ends its descendants, double-forked ones too.
pub(super) fn run(control: &mut File, plan: &Plan) -> Result<(), Failure> {
    let boot = read_frame(control).tried(Step::Plan, "read the boot line")?;
    let me = rustix::process::getpid();
    // What loses its parent becomes a child of this process.
    rustix::process::set_child_subreaper(Some(me)).tried(Step::Program, "adopt what is left behind")?;
    let outcome = Running::start(plan, &boot).and_then(|running| {
        running.supervise(control).tried(Step::Program, "look after the program")?;
        Ok(())
    });
    end_descendants(me);
    outcome
}

/// Ends every descendant; they cannot leave, because what they leave behind comes to this process.
fn end_descendants(me: Pid) {
    loop {
        for pid in process::descendants(me) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
