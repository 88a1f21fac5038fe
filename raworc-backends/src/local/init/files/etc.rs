//! `/etc` of a computer: a few files of its own, and what programs need to find libraries, certificates and names.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::mount::MountFlags;

use super::super::privileges::AGENT;
use super::super::{Failure, Tried};
use super::Root;
use crate::local::plan::{Plan, Step};
use crate::local::shown::ETC;

/// Files that are copied, or linked where they are links.
const FILES: [&str; 17] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/services",
    "/etc/protocols",
    "/etc/mime.types",
    "/etc/magic",
    "/etc/profile",
    "/etc/bash.bashrc",
    "/etc/inputrc",
    "/etc/login.defs",
    "/etc/shells",
];

pub(super) fn fill(root: &Root<'_>, plan: &Plan) -> Result<(), Failure> {
    let host = &plan.hostname;
    let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    root.file("/etc/passwd", passwd(shell).as_bytes())?;
    root.file("/etc/group", format!("root:x:0:\ntty:x:5:\nagent:x:{AGENT}:\nnogroup:x:65534:\n").as_bytes())?;
    root.file("/etc/hostname", format!("{host}\n").as_bytes())?;
    root.file("/etc/hosts", format!("127.0.0.1 localhost {host}\n::1 localhost {host}\n").as_bytes())?;
    root.file("/etc/resolv.conf", b"")?;
    root.file("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\n")?;
    for directory in ETC {
        if fs::symlink_metadata(directory).is_ok_and(|kind| kind.is_dir()) {
            root.bind(Path::new(directory), directory, MountFlags::RDONLY)?;
        }
    }
    for file in FILES {
        copy(root, file)?;
    }
    symlink("/proc/self/mounts", root.at("/etc/mtab")).tried(Step::Files, "link /etc/mtab")
}

/// Copies a file that every user of the machine may read, or leaves it out.
fn copy(root: &Root<'_>, path: &str) -> Result<(), Failure> {
    let Ok(kind) = fs::symlink_metadata(path) else { return Ok(()) };
    if kind.is_symlink() {
        if let (Ok(target), Some(parent)) = (fs::read_link(path), root.at(path).parent()) {
            fs::create_dir_all(parent).tried(Step::Files, format!("make the directory of {path}"))?;
            return symlink(target, root.at(path)).tried(Step::Files, format!("link {path}"));
        }
        return Ok(());
    }
    if !kind.is_file() || !is_for_everybody(Path::new(path)) {
        return Ok(());
    }
    // Who puts the root together may still be one who cannot read it.
    fs::read(path).map_or(Ok(()), |content| root.file(path, &content))
}

/// Whether every user of the machine may read this file, by the rights of the file and of the directories above.
fn is_for_everybody(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let allows = |path: &Path, right| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & right != 0);
    allows(&path, 0o004) && path.ancestors().skip(1).all(|directory| allows(directory, 0o001))
}

fn passwd(shell: &str) -> String {
    format!(
        "root:x:0:0:root:/:/usr/sbin/nologin\n\
         agent:x:{AGENT}:{AGENT}:agent:/agent:{shell}\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_every_user_may_read_is_for_computers() {
        let top = tempfile::tempdir().expect("a directory");
        let (directory, file) = (top.path().join("below"), top.path().join("below/file"));
        fs::create_dir(&directory).and_then(|()| fs::write(&file, "text")).expect("made");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        for (above, between, own, for_all) in [
            (0o755, 0o711, 0o644, true),
            (0o755, 0o711, 0o640, false),
            (0o755, 0o750, 0o644, false),
            (0o700, 0o755, 0o644, false),
        ] {
            set(&file, own);
            set(&directory, between);
            set(top.path(), above);
            assert_eq!(is_for_everybody(&file), for_all, "{above:o} {between:o} {own:o}");
        }
        assert!(!is_for_everybody(&top.path().join("none")));
    }
}
