//! A walk over all files below a directory, which counts what they take on the disk.
//!
//! It goes by descriptors, so that nothing that moves meanwhile leads it astray: it follows no link and stays on one file
//! system. It keeps one descriptor and one small buffer for each level, and nothing for a file.

use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

/// Levels below which is not looked.
const LEVELS: usize = 128;

/// Entries after which it ends, whatever else there is: a directory that grows as it is read has no end.
const ENTRIES: u64 = 20_000_000;

/// Entries between two rests.
const BATCH: u64 = 512;

/// How long it rests: a few times as long as a batch takes where the disk need not be asked.
const REST: Duration = Duration::from_millis(2);

/// How far bytes are counted below the point: a share of a file with several names need not be whole.
const FRACTION: u32 = 20;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// Bytes that all of it takes on the disk.
    pub(super) bytes: u64,
    /// Directories and files that are there and were not looked at.
    pub(super) unseen: u64,
}

/// Who says how fast to walk.
pub(super) trait Pace {
    /// After so many entries. Whether to go on.
    fn step(&mut self, entries: u64) -> bool;
}

/// Rests again and again, and ends when it is told to.
#[derive(Debug)]
pub(super) struct Gentle(CancellationToken);

impl Gentle {
    pub(super) const fn until(stop: CancellationToken) -> Self {
        Self(stop)
    }
}

impl Pace for Gentle {
    fn step(&mut self, entries: u64) -> bool {
        if entries.is_multiple_of(BATCH) {
            std::thread::sleep(REST);
        }
        entries < ENTRIES && !self.0.is_cancelled()
    }
}

/// Counts what is below `root`, itself included. Where it is ended early, what was found until then.
///
/// # Errors
/// Where `root` cannot be looked at.
pub(super) fn walk(root: &Path, pace: &mut dyn Pace) -> io::Result<Walked> {
    let root = rustix::fs::openat(CWD, root, directory() & !OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    let mut found = Found { device: stat.st_dev, scaled: 0, unseen: 0 };
    found.count(&stat);
    let mut levels = vec![Dir::new(root)?];
    let mut entries = 0;
    while let Some(level) = levels.last_mut() {
        let entry = match level.next() {
            Some(Ok(entry)) => entry,
            ended => {
                found.unseen += u64::from(ended.is_some());
                levels.pop();
                continue;
            }
        };
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let at = level.fd()?;
        if let Some(below) = found.entry(at, entry.file_name()) {
            if levels.len() < LEVELS { levels.push(below) } else { found.unseen += 1 }
        }
        entries += 1;
        if !pace.step(entries) {
            break;
        }
    }
    let half = 1 << (FRACTION - 1);
    let bytes = u64::try_from((found.scaled + half) >> FRACTION).unwrap_or(u64::MAX);
    Ok(Walked { bytes, unseen: found.unseen })
}

const fn directory() -> OFlags {
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW)
}

struct Found {
    device: u64,
    /// Bytes, with a fraction.
    scaled: u128,
    unseen: u64,
}

impl Found {
    /// Counts it. A directory is to be looked into.
    fn entry(&mut self, at: BorrowedFd<'_>, name: &CStr) -> Option<Dir> {
        let seen = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT);
        let stat = seen.map_err(|error| self.not_seen(error)).ok()?;
        if !is_directory(&stat) {
            self.count(&stat);
            return None;
        }
        if stat.st_dev != self.device {
            return None;
        }
        self.count(&stat);
        open(at, name).map_err(|error| self.not_seen(error)).ok()
    }

    /// What is gone by now, or is something else, takes no room where it was.
    fn not_seen(&mut self, error: Errno) {
        if !matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
            self.unseen += 1;
        }
    }

    fn count(&mut self, stat: &Stat) {
        let bytes = u128::try_from(stat.st_blocks).unwrap_or_default() * 512;
        // Each name of a file counts for its share, and all of them for the file: nothing has to be remembered.
        let names = if is_directory(stat) { 1 } else { u128::from(stat.st_nlink).max(1) };
        self.scaled += (bytes << FRACTION) / names;
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Opens a directory, and nothing else by its name.
pub(super) fn open(at: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    Dir::new(rustix::fs::openat(at, name, directory(), Mode::empty())?)
}
