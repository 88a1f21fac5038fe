//! Copying a tree: links stay links, holes stay holes, and blocks are shared where the file system can.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, copy_file_range, fchmod,
    fchown, fstat, ftruncate, futimens, ioctl_ficlone, linkat, mkdirat, open, openat, readlinkat, seek, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::unlock::{self, Unlocked};

/// How deep directories may nest: two descriptors are held for each, and one more where it was locked.
const DEPTH: usize = 400;

/// A directory that is being copied.
struct Level {
    from: Dir,
    to: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
    /// Locks it again where it was.
    _unlocked: Option<Unlocked>,
}

struct Copy {
    uid: Option<u32>,
    root: OwnedFd,
    /// Where a file with several names was copied to.
    links: HashMap<(u64, u64), CString>,
}

/// Copies the directory `from` to `to`, which must not be there, and gives everything in it to `uid`.
///
/// Sockets are left out: they mean nothing without the process behind them.
pub(crate) fn copy(from: &Path, to: &Path, uid: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(to)?;
    let from = unlock::open(CWD, &CString::new(from.as_os_str().as_bytes())?, directory_flags())?;
    let root = open(to, directory_flags(), Mode::empty())?;
    let mut copy = Copy { uid, root: root.try_clone()?, links: HashMap::new() };
    let mut levels = vec![level(from, root, Vec::new())?];
    while let Some(current) = levels.last_mut() {
        let Some(entry) = current.from.next() else {
            if let Some(done) = levels.pop() {
                copy.finish(done.to.as_fd(), &done.stat)?;
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let below = copy.entry(current, name)?;
        if let Some(below) = below {
            if levels.len() == DEPTH {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("its directories nest deeper than {DEPTH}"),
                ));
            }
            levels.push(below);
        }
    }
    Ok(())
}

fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY
}

fn level((from, unlocked): (OwnedFd, Option<Unlocked>), to: OwnedFd, path: Vec<u8>) -> io::Result<Level> {
    let mut stat = fstat(&from)?;
    if let Some(unlocked) = &unlocked {
        stat.st_mode = unlocked.mode();
    }
    Ok(Level { from: Dir::new(from)?, to, stat, path, _unlocked: unlocked })
}

impl Copy {
    /// Copies one entry; gives the level below where it is a directory.
    fn entry(&mut self, level: &Level, name: &CStr) -> io::Result<Option<Level>> {
        let found = match statat(level.from.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // An agent that runs may take a file away meanwhile.
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut path = level.path.clone();
        path.extend(name.to_bytes());
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let from = unlock::open(level.from.fd()?, name, directory_flags())?;
                mkdirat(&level.to, name, Mode::RWXU)?;
                let to = openat(&level.to, name, directory_flags(), Mode::empty())?;
                path.push(b'/');
                return self::level(from, to, path).map(Some);
            }
            FileType::RegularFile => self.file(level, name, path)?,
            FileType::Symlink => {
                let target = readlinkat(level.from.fd()?, name, Vec::new())?;
                symlinkat(&target, &level.to, name)?;
                if let Some(uid) = self.uid {
                    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
                    rustix::fs::chownat(&level.to, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                utimensat(&level.to, name, &times(&found), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::Fifo => {
                rustix::fs::mknodat(&level.to, name, FileType::Fifo, Mode::from_raw_mode(found.st_mode), 0)?;
                if let Some(uid) = self.uid {
                    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
                    rustix::fs::chownat(&level.to, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {}
        }
        Ok(None)
    }

    fn file(&mut self, level: &Level, name: &CStr, path: Vec<u8>) -> io::Result<()> {
        // Without NONBLOCK, a pipe that was put in the file's place would hold this process.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (from, unlocked) = match unlock::open(level.from.fd()?, name, flags) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut stat = fstat(&from)?;
        if let Some(unlocked) = unlocked {
            stat.st_mode = unlocked.mode();
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            linkat(&self.root, first, &level.to, name, AtFlags::empty())?;
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(&level.to, name, flags, Mode::RUSR | Mode::WUSR)?;
        content(from.as_fd(), to.as_fd(), u64::try_from(stat.st_size).unwrap_or(0))?;
        self.finish(to.as_fd(), &stat)?;
        if stat.st_nlink > 1 {
            self.links.insert(key, CString::new(path)?);
        }
        Ok(())
    }

    /// Gives a copy its owner, then its rights and times, which a change of owner would undo.
    fn finish(&self, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        if let Some(uid) = self.uid {
            fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
        }
        fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        futimens(to, &times(stat))?;
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    }
}

/// Shares the blocks where the file system can, else copies what is not a hole.
fn content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(size);
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            let want = usize::try_from(end - read_at).unwrap_or(usize::MAX);
            match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // Some file systems cannot copy by themselves, least of all to another.
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    read_at = copy_piece(from, to, read_at, want)?;
                    write_at = read_at;
                }
                Err(error) => return Err(error.into()),
            }
        }
        at = end;
    }
    Ok(())
}

/// Copies up to `want` bytes at `at` by way of this process; gives where the next piece begins.
fn copy_piece(from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: u64, want: usize) -> io::Result<u64> {
    let mut buffer = vec![0; want.min(1 << 20)];
    let got = rustix::io::pread(from, &mut buffer, at)?;
    if got == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file grew shorter while it was copied"));
    }
    let mut left = &buffer[..got];
    let mut next = at;
    while !left.is_empty() {
        let written = rustix::io::pwrite(to, left, next)?;
        left = &left[written..];
        next += written as u64;
    }
    Ok(next)
}
