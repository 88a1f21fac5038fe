//! The root of a computer: what of the machine is shown, and where.

mod etc;
mod table;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};

use super::{Failure, Tried};
use crate::local::config::{LINK_PATH, PROGRAM_PATH};
use crate::local::plan::{Plan, Step};
use crate::local::shown::SYSTEM;

/// Devices that are shown. None of them reaches hardware.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Entries of `/proc` that tell of the whole machine, or act on it: shown empty.
const HIDDEN: [&str; 8] =
    ["kcore", "keys", "key-users", "kmsg", "timer_list", "sched_debug", "latency_stats", "sysrq-trigger"];

/// Directories of `/proc` that act on the machine: shown read-only.
const FROZEN: [&str; 4] = ["sys", "bus", "fs", "irq"];

/// Puts the root together on `plan.root`, makes it `/`, and lets go of everything else.
///
/// Returns the directory with the limits on namespaces, as it was before it became read-only.
pub(super) fn build(plan: &Plan) -> Result<OwnedFd, Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .tried(Step::Files, "make mounts private")?;
    let root = Root { path: &plan.root };
    root.tmpfs("", 16 << 20, 0o755)?;
    for system in SYSTEM {
        root.show_system(system)?;
    }
    etc::fill(&root, plan)?;
    let limits = root.proc()?;
    root.dev(plan)?;
    root.tmpfs("tmp", plan.tmp_size, 0o1777)?;
    // Not all of /run: where the caller is no root, whatever is mounted here is the program's own.
    root.directory("run", 0o755)?;
    root.tmpfs("run/raworc", plan.tmp_size / 4, 0o700)?;
    root.own_directory("run/raworc", plan)?;
    if let Some(link) = &plan.link_dir {
        root.bind(link, LINK_PATH, MountFlags::RDONLY | MountFlags::NOEXEC)?;
    }
    if let Some(file) = &plan.program_file {
        root.bind(file, PROGRAM_PATH, MountFlags::RDONLY)?;
    }
    for directory in ["var/cache", "var/lib", "var/log", "home", "mnt", "srv"] {
        root.directory(directory, 0o755)?;
    }
    symlink("/tmp", root.at("var/tmp")).tried(Step::Files, "link /var/tmp")?;
    root.bind(&plan.volume, "agent", MountFlags::empty())?;
    nix::unistd::sethostname(&plan.hostname).tried(Step::Files, "set the host name")?;
    root.enter()?;
    Ok(limits)
}

/// The root while it is put together.
struct Root<'a> {
    path: &'a Path,
}

impl Root<'_> {
    fn at(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    fn directory(&self, inside: &str, mode: u32) -> Result<PathBuf, Failure> {
        let path = self.at(inside);
        let what = || format!("make /{}", inside.trim_start_matches('/'));
        fs::create_dir_all(&path).tried(Step::Files, what())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).tried(Step::Files, what())?;
        Ok(path)
    }

    fn own_directory(&self, inside: &str, plan: &Plan) -> Result<(), Failure> {
        let path = self.directory(inside, 0o700)?;
        chown(path, plan.drop_to, plan.drop_to).tried(Step::Files, format!("hand over /{inside}"))
    }

    fn file(&self, inside: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.at(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).tried(Step::Files, format!("make the directory of {inside}"))?;
        }
        fs::write(path, content).tried(Step::Files, format!("write {inside}"))
    }

    fn tmpfs(&self, inside: &str, size: u64, mode: u32) -> Result<(), Failure> {
        let path = self.at(inside);
        fs::create_dir_all(&path).tried(Step::Files, format!("make /{inside}"))?;
        let options = format!("size={size},nr_inodes=200000,mode={mode:o}");
        let options = std::ffi::CString::new(options).map_err(std::io::Error::other).tried(Step::Files, "mount")?;
        mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .tried(Step::Files, format!("mount a tmpfs on /{inside}"))
    }

    /// Shows `from` at `inside`, with no set-user-id programs, no devices unless `devices`, and `more` flags, down
    /// to every mount below it.
    fn bind(&self, from: &Path, inside: &str, more: MountFlags) -> Result<(), Failure> {
        self.bind_with(from, inside, MountFlags::NOSUID | MountFlags::NODEV | more)
    }

    fn bind_with(&self, from: &Path, inside: &str, flags: MountFlags) -> Result<(), Failure> {
        let to = self.at(inside);
        let what = || format!("show {} at /{}", from.display(), inside.trim_start_matches('/'));
        if !to.exists() {
            if fs::metadata(from).tried(Step::Files, what())?.is_dir() {
                fs::create_dir_all(&to).tried(Step::Files, what())?;
            } else {
                self.file(inside, b"")?;
            }
        }
        mount_bind_recursive(from, &to).tried(Step::Files, what())?;
        for point in table::below(&to).tried(Step::Files, "read the table of mounts")? {
            mount_remount(&point.path, MountFlags::BIND | point.flags | flags, "")
                .tried(Step::Files, format!("restrict {}", point.path.display()))?;
        }
        Ok(())
    }

    /// Shows a directory of the machine as it is there: a directory, a link, or not at all.
    fn show_system(&self, path: &str) -> Result<(), Failure> {
        let Ok(kind) = fs::symlink_metadata(path) else { return Ok(()) };
        if kind.is_symlink() {
            let target = fs::read_link(path).tried(Step::Files, format!("read {path}"))?;
            return symlink(target, self.at(path)).tried(Step::Files, format!("link {path}"));
        }
        self.bind(Path::new(path), path, MountFlags::RDONLY)
    }

    fn proc(&self) -> Result<OwnedFd, Failure> {
        let path = self.directory("proc", 0o555)?;
        mount("proc", &path, "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
            .tried(Step::Proc, "mount /proc")?;
        let limits =
            rustix::fs::open(path.join("sys/user"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .tried(Step::Proc, "open /proc/sys/user")?;
        for name in FROZEN {
            let entry = path.join(name);
            if entry.exists() {
                self.bind_with(&entry, &format!("proc/{name}"), FROZEN_FLAGS)?;
            }
        }
        for name in HIDDEN {
            if path.join(name).exists() {
                self.bind_with(Path::new("/dev/null"), &format!("proc/{name}"), MountFlags::NOSUID)?;
            }
        }
        Ok(limits)
    }

    fn dev(&self, plan: &Plan) -> Result<(), Failure> {
        let dev = self.directory("dev", 0o755)?;
        for name in DEVICES {
            let device = Path::new("/dev").join(name);
            if device.exists() {
                self.bind_with(&device, &format!("dev/{name}"), MountFlags::NOSUID | MountFlags::NOEXEC)?;
            }
        }
        self.tmpfs("dev/shm", plan.tmp_size / 4, 0o1777)?;
        let terminals = self.directory("dev/pts", 0o755)?;
        mount(
            "devpts",
            &terminals,
            "devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            c"newinstance,ptmxmode=0666,mode=0620",
        )
        .tried(Step::Files, "mount /dev/pts")?;
        for (link, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            symlink(target, dev.join(link)).tried(Step::Files, format!("link /dev/{link}"))?;
        }
        Ok(())
    }

    /// Makes it `/` and read-only, and lets go of the machine's.
    fn enter(self) -> Result<(), Failure> {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount_remount(self.path, flags, "").tried(Step::Files, "make / read-only")?;
        let what = "change the root";
        std::env::set_current_dir(self.path).tried(Step::Files, what)?;
        rustix::process::pivot_root(".", ".").tried(Step::Files, what)?;
        unmount(".", UnmountFlags::DETACH).tried(Step::Files, "let go of the machine's files")?;
        std::env::set_current_dir("/").tried(Step::Files, what)
    }
}

const FROZEN_FLAGS: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);
