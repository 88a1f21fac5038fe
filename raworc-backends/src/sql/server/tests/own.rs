//! A database server of a test's own, for what would disturb others' tests.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A server that `scripts/database` brought up, and starts again where it is killed.
#[derive(Debug)]
pub(crate) struct Own {
    child: Child,
    url: String,
    dir: PathBuf,
}

impl Own {
    /// Brings one up of a kind, with options of `scripts/database`.
    pub(crate) fn start(kind: &str, options: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/database");
        let variable = format!("RAWORC_TEST_{}", kind.to_uppercase());
        // It ends with its standard input, and so with this process, however that ends.
        let tell = format!("echo \"${variable}_URL\"; echo \"${variable}_DIR\"; exec cat");
        let mut command = Command::new(script);
        command.args(options).args([kind, "bash", "-c", &tell]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut line = || lines.next().and_then(Result::ok).unwrap_or_else(|| panic!("{kind} does not come up"));
        let (url, dir) = (line(), line().into());
        Self { child, url, dir }
    }

    /// The address of its own database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Kills it, as it would be by a loss of power, but for what the kernel holds. It is started again over its data, which this
    /// waits for, and not until it answers.
    pub(crate) fn kill(&self) {
        let server = || std::fs::read_to_string(self.file("server")).expect("it has said its number");
        let killed = server();
        self.signal(Signal::KILL);
        for _ in 0..600 {
            if server() != killed {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        panic!("it is not started again");
    }

    /// A file in its directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let server = std::fs::read_to_string(self.file("server")).expect("it has said its number");
        let pid = server.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
        kill_process(pid, signal).expect("it lives");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
