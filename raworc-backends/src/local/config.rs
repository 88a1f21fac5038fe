//! What a [`LocalRuntime`](super::LocalRuntime) is opened with.

use std::path::PathBuf;

use raworc_core::ids::RuntimeName;
use raworc_core::quantity::{Bytes, Cpu};

/// Where the program's file appears inside a computer, read-only.
pub const PROGRAM_PATH: &str = "/opt/raworc/raworc-agentd";

/// Where the directory with the agents' socket appears inside a computer, read-only.
pub const LINK_PATH: &str = "/run/raworc/link";

/// The hidden first argument by which a binary runs itself as the helper that builds a computer.
pub const INIT_COMMAND: &str = "raworc-local-init";

/// Processor time of a computer whose spec names none: enough to build with, and no machine is one agent's alone.
pub const DEFAULT_CPU: Cpu = Cpu::from_millis(2000);

/// Processes and threads of a computer whose spec names no limit.
pub const DEFAULT_PIDS: u32 = 4096;

/// Memory of a computer whose spec names none: half of this machine's, 4 GiB at most.
#[must_use]
pub fn default_memory() -> Bytes {
    let machine = rustix::system::sysinfo();
    let total = u128::from(machine.totalram) * u128::from(machine.mem_unit);
    Bytes::new(u64::try_from(total / 2).unwrap_or(u64::MAX).min(4 << 30))
}

/// How far computers are cut off from the machine and from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Namespaces of their own for users, files, processes, network, names and ipc. Without them nothing starts.
    #[default]
    Required,
    /// None: programs run as the caller, with all that the caller may do. Only for people who ask for it.
    None,
}

/// User ids outside that are given to computers, one for each volume, where the caller is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Default for UidRange {
    /// A range that neither distributions nor container engines hand out.
    fn default() -> Self {
        Self { first: 1_900_000_000, count: 200_000 }
    }
}

/// What a [`LocalRuntime`](super::LocalRuntime) is opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalOptions {
    /// The name under which agents ask for it.
    pub name: RuntimeName,
    /// Which installation's computers it holds. Others may share the directory.
    pub installation: String,
    /// Where computers and volumes lie.
    pub state_dir: PathBuf,
    /// The directory with the agents' socket, shown inside at [`LINK_PATH`]. Directory and socket have to be open for
    /// every user (0755 and 0666), because programs run as others; the directories above need not be.
    pub link_dir: Option<PathBuf>,
    /// The program in a computer and its arguments.
    pub program: Vec<String>,
    /// The program's file, shown inside at [`PROGRAM_PATH`].
    pub program_file: Option<PathBuf>,
    /// What runs [`init_main`](super::init_main): the calling binary with [`INIT_COMMAND`].
    pub init: Vec<String>,
    /// How far computers are cut off.
    pub isolation: Isolation,
    /// Files and directories beside `state_dir` that no computer may be shown, such as those with keys. Where one of them
    /// lies below a directory that computers are shown, nothing is opened.
    pub private: Vec<PathBuf>,
    /// User ids for computers, where the caller is root.
    pub uids: UidRange,
    /// Processor time where a spec names none.
    pub default_cpu: Option<Cpu>,
    /// Memory where a spec names none.
    pub default_memory: Option<Bytes>,
    /// Processes where a spec names none.
    pub default_pids: Option<u32>,
    /// Size of `/tmp`, and of `/run` and `/dev/shm` together half of it. It is memory, and counts as such.
    pub tmp_size: Bytes,
}

impl LocalOptions {
    /// Options for computers of `installation` below `state_dir`, isolated, running the file that is shown at
    /// [`PROGRAM_PATH`].
    #[must_use]
    pub fn new(name: RuntimeName, installation: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            name,
            installation: installation.into(),
            state_dir: state_dir.into(),
            link_dir: None,
            program: vec![PROGRAM_PATH.into()],
            program_file: None,
            init: vec!["/proc/self/exe".into(), INIT_COMMAND.into()],
            isolation: Isolation::default(),
            private: Vec::new(),
            uids: UidRange::default(),
            default_cpu: Some(DEFAULT_CPU),
            default_memory: Some(default_memory()),
            default_pids: Some(DEFAULT_PIDS),
            tmp_size: Bytes::new(1 << 30),
        }
    }

    /// Shows `link_dir` inside at [`LINK_PATH`].
    #[must_use]
    pub fn with_link_dir(mut self, link_dir: impl Into<PathBuf>) -> Self {
        self.link_dir = Some(link_dir.into());
        self
    }

    /// Shows `file` inside at [`PROGRAM_PATH`].
    #[must_use]
    pub fn with_program_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.program_file = Some(file.into());
        self
    }

    /// Runs `program` in computers.
    #[must_use]
    pub fn with_program(mut self, program: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.program = program.into_iter().map(Into::into).collect();
        self
    }

    /// Names files and directories that no computer may be shown.
    #[must_use]
    pub fn with_private(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.private.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Sets how far computers are cut off.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }
}
