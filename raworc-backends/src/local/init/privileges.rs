//! Who the computer is outside, and what it may do: nothing.

use std::fs;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Failure, Tried};
use crate::local::plan::Step;

/// The user inside.
pub(crate) const AGENT: u32 = 1000;

/// Maps [`AGENT`] in the user namespace of this process to `uid` and `gid` outside, and nobody else.
pub(super) fn map(uid: u32, gid: u32) -> Result<(), Failure> {
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{AGENT} {uid} 1")),
        ("gid_map", format!("{AGENT} {gid} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), line).tried(Step::User, format!("write {file}"))?;
    }
    Ok(())
}

/// Keeps the capabilities of a new user namespace over an exec by a user who is not root in it.
pub(super) fn keep_over_exec() -> Result<(), Failure> {
    let what = "keep capabilities for the second stage";
    let sets = rustix::thread::capabilities(None).tried(Step::Privileges, what)?;
    let sets = CapabilitySets { inheritable: sets.permitted, ..sets };
    rustix::thread::set_capabilities(None, sets).tried(Step::Privileges, what)?;
    for capability in sets.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true).tried(Step::Privileges, what)?;
    }
    Ok(())
}

/// Turns root into the unprivileged user `uid` outside, who is [`AGENT`] in a user namespace of its own.
///
/// The capabilities are kept over the change of user, because some systems let only root make user namespaces.
pub(super) fn become_user(uid: u32) -> Result<(), Failure> {
    let what = "become the computer's user";
    rustix::thread::set_keep_capabilities(true).tried(Step::User, what)?;
    setgroups(&[]).tried(Step::User, what)?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group).tried(Step::User, format!("become the group {uid}"))?;
    setresuid(user, user, user).tried(Step::User, format!("become the user {uid}"))?;
    let sets = rustix::thread::capabilities(None).tried(Step::User, what)?;
    let sets = CapabilitySets { effective: sets.permitted, ..sets };
    rustix::thread::set_capabilities(None, sets).tried(Step::User, what)?;
    unshare(CloneFlags::CLONE_NEWUSER).tried(Step::Namespaces, "make a user namespace as root")?;
    // A change of user makes a process unreadable to itself under /proc.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).tried(Step::User, what)?;
    map(uid, uid)
}

/// Lets nobody inside make user namespaces. Kernels without the limit have no other harm from it, because no
/// capability is left to use there but in namespaces of their own.
pub(super) fn forbid_user_namespaces(limits: &OwnedFd) {
    if let Ok(file) = rustix::fs::openat(limits, "max_user_namespaces", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    {
        rustix::io::write(&file, b"0").ok();
    }
}

/// Gives up every capability for good, and hides this process from those that it will start.
pub(super) fn give_up(nproc: Option<u64>) -> Result<(), Failure> {
    let what = "give up privileges";
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).tried(Step::Privileges, what)?;
    if nproc.is_some() {
        let limit = Rlimit { current: nproc, maximum: nproc };
        rustix::process::setrlimit(Resource::Nproc, limit).tried(Step::Privileges, what)?;
    }
    rustix::thread::set_no_new_privs(true).tried(Step::Privileges, what)?;
    rustix::thread::clear_ambient_capability_set().tried(Step::Privileges, what)?;
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error).tried(Step::Privileges, what),
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).tried(Step::Privileges, what)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).tried(Step::Privileges, what)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).tried(Step::Privileges, what)
}
