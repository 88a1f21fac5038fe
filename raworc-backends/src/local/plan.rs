//! What the runtime and its helper say to each other over the helper's standard input and output.
//!
//! To the helper: one frame with the [`Plan`] for each of its two stages, one with the boot line, then single bytes
//! ([`ASK_END`]). The end of the stream ends the computer. From the helper: a [`Status`] a line.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Asks the program to end.
pub(crate) const ASK_END: u8 = b'T';

/// How long a frame may be.
const FRAME_LIMIT: usize = 1 << 20;

/// What the helper builds and runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Whether namespaces are made.
    pub(crate) isolated: bool,
    /// An empty directory on which the root is put together.
    pub(crate) root: PathBuf,
    /// The user and group outside, where they are not the caller's.
    pub(crate) drop_to: Option<u32>,
    /// `cgroup.procs` files to enter.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The name of the computer.
    pub(crate) hostname: String,
    /// What is shown at `/agent`.
    pub(crate) volume: PathBuf,
    /// What is shown at `LINK_PATH`.
    pub(crate) link_dir: Option<PathBuf>,
    /// What is shown at `PROGRAM_PATH`.
    pub(crate) program_file: Option<PathBuf>,
    /// The program and its arguments; only a look around where empty.
    pub(crate) program: Vec<String>,
    /// Its environment, and nothing else.
    pub(crate) env: BTreeMap<String, String>,
    /// Where it begins.
    pub(crate) cwd: PathBuf,
    /// Bytes of `/tmp`.
    pub(crate) tmp_size: u64,
    /// A limit on processes for this user, where no cgroup holds it.
    pub(crate) nproc: Option<u64>,
}

/// At which step the helper failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Reading the plan.
    Plan,
    /// Entering the cgroups.
    Cgroup,
    /// Making the namespaces.
    Namespaces,
    /// Mapping the user.
    User,
    /// Putting the root together.
    Files,
    /// Mounting `/proc`.
    Proc,
    /// Bringing up the loopback interface.
    Network,
    /// Giving up privileges.
    Privileges,
    /// Running the program.
    Program,
}

/// What a look around from inside found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    /// `/proc/self/ns/*`, by name.
    pub(crate) namespaces: BTreeMap<String, String>,
    /// Processes in `/proc`.
    pub(crate) processes: Vec<u32>,
    /// Network interfaces.
    pub(crate) interfaces: Vec<String>,
    /// Entries of `/`.
    pub(crate) root: Vec<String>,
    /// The effective user.
    pub(crate) uid: u32,
    /// Effective, permitted, inheritable and bounding capabilities, in hexadecimal.
    pub(crate) capabilities: Vec<String>,
    /// Whether `/agent` could be written to.
    pub(crate) home_writable: bool,
}

/// What the helper tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// The second stage runs, under this process id of the first one's namespace.
    Inner(u32),
    /// The program runs.
    Started,
    /// What was found, where there is no program.
    Seen(Sight),
    /// It could not be done.
    Failed {
        /// At which step.
        step: Step,
        /// What was tried.
        what: String,
        /// What the system answered.
        reason: String,
    },
    /// The program ended.
    Ended {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

/// A frame: length and bytes.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), bytes].concat()
}

/// Reads what [`frame`] made, and not a byte more.
pub(crate) fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_LIMIT {
        return Err(io::Error::other(format!("a frame of {length} bytes is too long")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
