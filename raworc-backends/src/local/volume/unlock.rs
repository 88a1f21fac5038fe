//! What an agent has locked against itself is locked against a caller who is the same user; root passes anyway.

use std::ffi::{CStr, CString};
use std::fs::{Permissions, set_permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

/// Something that its owner may use for as long as this lives.
#[derive(Debug)]
pub(super) struct Unlocked {
    mode: u32,
    held: OwnedFd,
}

impl Unlocked {
    /// Lifts the rights of a directory or a file. It is held by its inode: the name may be another's a moment later.
    fn lift(at: impl AsFd, name: &CStr) -> io::Result<Self> {
        let held = openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let mode = fstat(&held)?.st_mode;
        if !matches!(FileType::from_raw_mode(mode), FileType::Directory | FileType::RegularFile) {
            return Err(Errno::ACCESS.into());
        }
        let unlocked = Self { mode, held };
        unlocked.set(mode | 0o700)?;
        Ok(unlocked)
    }

    fn set(&self, mode: u32) -> io::Result<()> {
        let place = format!("/proc/self/fd/{}", self.held.as_raw_fd());
        set_permissions(place, Permissions::from_mode(mode & 0o7777))
    }

    /// Its rights as they were, with its kind.
    pub(super) const fn mode(&self) -> u32 {
        self.mode
    }
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        if let Err(error) = self.set(self.mode) {
            tracing::warn!(%error, "what was unlocked for a copy stays so");
        }
    }
}

/// Opens `name` in the directory `at`. Where its rights keep its own owner out, these are lifted until what comes with
/// it is dropped.
pub(super) fn open(at: impl AsFd, name: &CStr, flags: OFlags) -> io::Result<(OwnedFd, Option<Unlocked>)> {
    match openat(&at, name, flags, Mode::empty()) {
        Ok(opened) => Ok((opened, None)),
        Err(Errno::ACCESS) => {
            let unlocked = Unlocked::lift(&at, name)?;
            Ok((openat(&at, name, flags, Mode::empty())?, Some(unlocked)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Moves a directory elsewhere. One that its owner cannot write to cannot be moved, so that is lifted meanwhile.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let _unlocked = Unlocked::lift(CWD, &CString::new(from.as_os_str().as_bytes())?)?;
            std::fs::rename(from, to)
        }
        done => done,
    }
}
