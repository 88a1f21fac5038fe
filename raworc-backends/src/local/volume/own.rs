//! Handing a tree over to another user.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchown, fstat, open, openat, statat};
use rustix::io::Errno;

/// How deep directories may nest: a descriptor or two are held for each.
const DEPTH: usize = 400;

/// Gives a volume and all in it to `uid`, the volume's own directory last: until then it tells that this is not done.
///
/// A file that has a name outside of the volume too, a device, and what is mounted there stay as they are: they are not
/// the volume's to give.
pub(crate) fn hand_over(volume: &Path, uid: u32) -> io::Result<()> {
    let root = open(volume, FLAGS, Mode::empty())?;
    // How many names of a file that has several are still to be found.
    let mut elsewhere = HashMap::new();
    walk(&root, &mut |_, _, stat| {
        if has_more_names(stat) {
            let left = elsewhere.entry((stat.st_dev, stat.st_ino)).or_insert(stat.st_nlink);
            *left = left.saturating_sub(1);
        }
        Ok(())
    })?;
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    walk(&root, &mut |directory, name, stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device || elsewhere.get(&(stat.st_dev, stat.st_ino)).is_some_and(|&names| names > 0) {
            return Ok(());
        }
        Ok(chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
    })?;
    Ok(fchown(&root, user, group)?)
}

const FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);

fn has_more_names(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) != FileType::Directory && stat.st_nlink > 1
}

/// Shows every entry below `root` on its file system, by its name in an open directory and without following a link.
fn walk(root: &OwnedFd, visit: &mut dyn FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()>) -> io::Result<()> {
    let device = fstat(root)?.st_dev;
    let mut levels = vec![(root.try_clone()?, Dir::read_from(root)?)];
    while let Some((directory, entries)) = levels.last_mut() {
        let Some(entry) = entries.next() else {
            levels.pop();
            continue;
        };
        let name: CString = entry?.file_name().to_owned();
        if name.as_c_str() == c"." || name.as_c_str() == c".." {
            continue;
        }
        let stat = match statat(&*directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_dev == device => stat,
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        visit(directory.as_fd(), &name, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = openat(&*directory, &name, FLAGS, Mode::empty())?;
            if levels.len() == DEPTH {
                let reason = format!("its directories nest deeper than {DEPTH}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            let entries = Dir::read_from(&below)?;
            levels.push((below, entries));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").uid()
    }

    #[test]
    fn a_volume_is_handed_over_with_all_in_it_and_nothing_beyond() {
        if !rustix::process::geteuid().is_root() {
            // An ordinary user has nobody to hand anything to, and the runtime does not try.
            let directory = tempfile::tempdir().expect("a directory");
            assert!(hand_over(directory.path(), 4242).is_err());
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let (volume, outside) = (directory.path().join("volume"), directory.path().join("outside"));
        fs::create_dir_all(volume.join("a/b")).expect("made");
        fs::write(&outside, "precious").expect("written");
        fs::write(volume.join("a/b/file"), "own").expect("written");
        fs::hard_link(volume.join("a/b/file"), volume.join("second-name")).expect("linked");
        fs::hard_link(&outside, volume.join("of-others")).expect("linked");
        symlink(&outside, volume.join("link")).expect("linked");
        symlink(directory.path(), volume.join("up")).expect("linked");
        // Once more over what is done, as after a call that was cut short.
        for uid in [4242, 4243] {
            hand_over(&volume, uid).expect("handed over");
            for path in ["", "a", "a/b", "a/b/file", "second-name", "link", "up"] {
                assert_eq!(owner(&volume.join(path)), uid, "{path}");
            }
        }
        assert_eq!((owner(&outside), owner(directory.path())), (0, 0), "what lies outside is not the volume's");
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused_and_keeps_its_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut deep = directory.path().to_path_buf();
        for _ in 0..=DEPTH {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("made");
        let before = owner(directory.path());
        let error = hand_over(directory.path(), before).expect_err("too deep");
        assert!(error.to_string().contains("nest deeper"), "{error}");
        assert_eq!(owner(directory.path()), before);
    }
}
