//! Throwing away a tree, however deep, wide or locked it is.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Names that are read of a directory at a time.
const BATCH: usize = 4096;

/// Directories that were moved up into a trash by this process: no two removals at the same time take one name.
static MOVED: AtomicU64 = AtomicU64::new(0);

/// Takes `name` away from the directory `trash`, with all below it.
///
/// A directory within it is first moved up into `trash`, so that depth costs neither memory nor descriptors.
pub(crate) fn remove(trash: &Path, name: &str) -> io::Result<()> {
    let trash = fs::File::open(trash)?;
    let mut left = vec![CString::new(name)?];
    while let Some(name) = left.pop() {
        match unlinkat(&trash, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let directory = open_locked(trash.as_fd(), &name)?;
        loop {
            let entries = names(&directory)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                match unlinkat(&directory, &entry, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR | Errno::PERM) => {
                        // To move a directory one has to be able to write to it.
                        drop(open_locked(directory.as_fd(), &entry)?);
                        let above = loop {
                            let moved = MOVED.fetch_add(1, Ordering::Relaxed);
                            let above = CString::new(format!("{}.{moved}", std::process::id()))?;
                            match rustix::fs::statat(&trash, &above, AtFlags::SYMLINK_NOFOLLOW) {
                                Ok(_) => {}
                                Err(Errno::NOENT) => break above,
                                Err(error) => return Err(error.into()),
                            }
                        };
                        renameat(&directory, &entry, &trash, &above)?;
                        left.push(above);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        unlinkat(&trash, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Opens a directory, after giving its owner every right to it.
fn open_locked(parent: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    if fs::metadata(&path)?.permissions().mode() & 0o700 != 0o700 {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(openat(parent, name, flags | OFlags::RDONLY, Mode::empty())?)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
