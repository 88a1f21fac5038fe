//! What a [`DockerRuntime`](super::DockerRuntime) is opened with.

use std::path::PathBuf;
use std::time::Duration;

use raworc_core::ids::RuntimeName;
use raworc_core::quantity::{Bytes, Cpu};

/// Where the program's file appears inside a computer, read-only.
pub const PROGRAM_PATH: &str = "/opt/raworc/raworc-agentd";

/// Where the directory with the agents' socket appears inside a computer, read-only.
pub const LINK_PATH: &str = "/run/raworc/link";

/// How long an engine may take to say whether it is there.
pub const ENGINE_LIMIT: Duration = Duration::from_secs(5);

/// Processor time of a computer whose spec names none.
pub const DEFAULT_CPU: Cpu = Cpu::from_millis(2000);

/// Memory of a computer whose spec names none.
pub const DEFAULT_MEMORY: Bytes = Bytes::new(4 << 30);

/// Processes and threads of a computer whose spec names no limit.
pub const DEFAULT_PIDS: u32 = 4096;

/// What a [`DockerRuntime`](super::DockerRuntime) is opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DockerOptions {
    /// The name under which agents ask for it.
    pub name: RuntimeName,
    /// Which installation's computers it holds. Others may share the engine.
    pub installation: String,
    /// Where the engine answers: `unix:///var/run/docker.sock` or `tcp://host:port`.
    pub host: String,
    /// For TLS to it: the directory with `ca.pem`, and `cert.pem` with `key.pem` where the engine asks who calls.
    pub tls: Option<PathBuf>,
    /// Whether it may be reached without TLS where it is on another machine. Whoever else reaches it so owns that machine.
    pub without_tls: bool,
    /// Whether it is on another machine. Nothing of this one can be shown to its computers then: the program's file is
    /// uploaded, the agents' listener is reached over the network, and no computer's network can be closed.
    pub remote: bool,
    /// The image of computers whose spec names none.
    pub default_image: String,
    /// How the default image is made on the engine. It is never pulled then, whoever offers one of its name.
    pub default_image_is_made: Option<String>,
    /// The directory with the agents' socket, shown inside at [`LINK_PATH`]; not with [`remote`](Self::remote).
    pub link_dir: Option<PathBuf>,
    /// The program in a computer and its arguments.
    pub program: Vec<String>,
    /// How a program is made that runs in images in which this one does not.
    pub program_is_made: Option<String>,
    /// The program's file on this machine, shown inside at [`PROGRAM_PATH`].
    pub program_file: Option<PathBuf>,
    /// Processor time where a spec names none.
    pub default_cpu: Option<Cpu>,
    /// Memory where a spec names none.
    pub default_memory: Option<Bytes>,
    /// Processes where a spec names none.
    pub default_pids: Option<u32>,
}

impl DockerOptions {
    /// Options for computers of `installation` on the engine at `host`, from `image` unless their spec names one, running the
    /// file that is shown at [`PROGRAM_PATH`].
    #[must_use]
    pub fn new(
        name: RuntimeName,
        installation: impl Into<String>,
        host: impl Into<String>,
        image: impl Into<String>,
    ) -> Self {
        Self {
            name,
            installation: installation.into(),
            host: host.into(),
            tls: None,
            without_tls: false,
            remote: false,
            default_image: image.into(),
            default_image_is_made: None,
            link_dir: None,
            program: vec![PROGRAM_PATH.into()],
            program_is_made: None,
            program_file: None,
            default_cpu: Some(DEFAULT_CPU),
            default_memory: Some(DEFAULT_MEMORY),
            default_pids: Some(DEFAULT_PIDS),
        }
    }

    /// Says how the default image is made, so that it is never pulled.
    #[must_use]
    pub fn with_default_image_made_by(mut self, how: impl Into<String>) -> Self {
        self.default_image_is_made = Some(how.into());
        self
    }

    /// Uses TLS by the files of this directory.
    #[must_use]
    pub fn with_tls(mut self, directory: impl Into<PathBuf>) -> Self {
        self.tls = Some(directory.into());
        self
    }

    /// Reaches an engine on another machine without TLS.
    #[must_use]
    pub const fn without_tls(mut self) -> Self {
        self.without_tls = true;
        self
    }

    /// Says that the engine is on another machine.
    #[must_use]
    pub const fn on_another_machine(mut self) -> Self {
        self.remote = true;
        self
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

    /// Says how a program is made that runs in images in which this one does not.
    #[must_use]
    pub fn with_program_made_by(mut self, how: impl Into<String>) -> Self {
        self.program_is_made = Some(how.into());
        self
    }

    /// Runs `program` in computers.
    #[must_use]
    pub fn with_program(mut self, program: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.program = program.into_iter().map(Into::into).collect();
        self
    }
}
