//! The table of mounts, `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::mount::MountFlags;

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Where.
    pub(super) path: PathBuf,
    /// Restrictions that it bears already, and that a remount may not lift.
    pub(super) flags: MountFlags,
}

/// The mounts at and below `path`.
pub(super) fn below(path: &Path) -> io::Result<Vec<Point>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?, path))
}

fn parse(table: &[u8], path: &Path) -> Vec<Point> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ').skip(4);
            let at = unescape(fields.next()?);
            let flags = flags(fields.next()?);
            at.starts_with(path).then_some(Point { path: at, flags })
        })
        .collect()
}

fn flags(options: &[u8]) -> MountFlags {
    options.split(|&byte| byte == b',').fold(MountFlags::empty(), |flags, option| {
        flags
            | match option {
                b"ro" => MountFlags::RDONLY,
                b"nosuid" => MountFlags::NOSUID,
                b"nodev" => MountFlags::NODEV,
                b"noexec" => MountFlags::NOEXEC,
                _ => MountFlags::empty(),
            }
    })
}

/// Space, tab, line break and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_path_are_found_with_their_flags_and_odd_names() {
        let table = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            28 27 0:25 / /usr ro,nosuid - ext4 /dev/vda rw\n\
            29 28 0:26 / /usr/a\\040b rw,nodev,noexec - ext4 /dev/vda rw\n\
            30 27 0:27 / /usrx rw - tmpfs tmpfs rw\n";
        assert_eq!(
            parse(table, Path::new("/usr")),
            [
                Point { path: "/usr".into(), flags: MountFlags::RDONLY | MountFlags::NOSUID },
                Point { path: "/usr/a b".into(), flags: MountFlags::NODEV | MountFlags::NOEXEC },
            ]
        );
    }
}
