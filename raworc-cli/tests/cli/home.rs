//! A home directory of its own for each test, and the binary run in it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A home directory of its own.
#[derive(Debug)]
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temp dir") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What lies in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("readable");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// The binary, with nothing of the surroundings that could change what it does.
    pub(crate) fn raworc(&self, args: &[&str]) -> Command {
        self.dressed(Command::new(env!("CARGO_BIN_EXE_raworc")), args)
    }

    /// Another program, in this home.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.dressed(Command::new(name), &[])
    }

    /// A shell script for which `"$@"` is the binary with these arguments.
    pub(crate) fn raworc_in(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_raworc")]);
        self.dressed(command, args)
    }

    fn dressed(&self, mut command: Command, args: &[&str]) -> Command {
        let surroundings = std::env::vars_os().map(|(name, _)| name);
        let is_ours = |name: &str| name.starts_with("RAWORC_") || name.starts_with("DOCKER_");
        for name in surroundings.filter(|name| is_ours(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.path())
            .env("HOME", self.path())
            // Whatever engine this machine may have.
            .env("RAWORC_RUNTIME", "local")
            .env("NO_COLOR", "1")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("COLUMNS")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.raworc(args).output().expect("raworc runs"))
    }

    /// Runs it with something on its standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.raworc(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        Ran::of(child.wait_with_output().expect("raworc ends"))
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// All of it in one text for a snapshot, with what differs from run to run taken out.
    pub(crate) fn shown(&self, home: &Home) -> String {
        let text = format!("exit: {}\n-- out\n{}-- err\n{}", self.code, self.out, self.err);
        text.replace(&home.path().display().to_string(), "[HOME]").replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
    }

    /// Its standard output, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.out
    }
}
