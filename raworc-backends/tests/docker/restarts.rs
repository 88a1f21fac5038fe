//! An engine that is ended and begun again, with its containers: one of the test's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use libtest_mimic::Trial;
use raworc_core::runtime::{Phase, Runtime, RuntimeError, RuntimeEvent};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::machine::{IMAGE, Machine, host, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("what_ran_on_an_engine_that_was_ended_or_killed_is_seen_stopped_and_starts_again", an_engine_restarts)]
}

/// Without networks, so that it is in nobody's way.
struct Engine {
    directory: TempDir,
    dockerd: Option<Child>,
}

impl Engine {
    async fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut engine = Self { directory, dockerd: None };
        engine.start().await;
        engine.load();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn answers(&self) -> bool {
        let asked = Command::new("docker").args(["--host", &self.host(), "version"]).output();
        asked.is_ok_and(|asked| asked.status.success())
    }

    /// It ends with this process, whatever becomes of it.
    async fn start(&mut self) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new("setpriv");
        // In a network of its own: without a bridge an engine takes away the one of the machine's.
        command.args(["--pdeathsig", "TERM", "unshare", "--net", "dockerd", "--bridge=none", "--iptables=false"]);
        command.args(["--host", &self.host()]);
        for (name, file) in [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")] {
            command.arg(format!("--{name}={}", self.path(file).display()));
        }
        self.dockerd = Some(command.stderr(log.try_clone().expect("a log")).stdout(log).spawn().expect("it starts"));
        while !self.answers() {
            let ended = self.dockerd.as_mut().and_then(|dockerd| dockerd.try_wait().ok().flatten());
            assert!(ended.is_none(), "{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut dockerd) = self.dockerd.take() else { return };
        if let Some(pid) = i32::try_from(dockerd.id()).ok().and_then(Pid::from_raw) {
            let _ended = kill_process(pid, signal);
        }
        let _waited = dockerd.wait();
        // Its containerd went with it. Where nobody reaps that, it looks alive to the next one.
        let _gone = std::fs::remove_file(self.path("exec/containerd/containerd.pid"));
    }

    /// Brings the image from the other engine.
    fn load(&self) {
        let mut saved = Command::new("docker");
        let saved = saved.args(["--host", &host(), "save", IMAGE]).stdout(Stdio::piped()).spawn();
        let mut saved = saved.expect("saved");
        let out = saved.stdout.take().expect("a pipe");
        let loaded = Command::new("docker").args(["--host", &self.host(), "load"]).stdin(out).output();
        assert!(loaded.expect("loaded").status.success() && saved.wait().expect("it ends").success());
    }
}

/// What an engine left that was killed and never came back goes too.
impl Drop for Engine {
    fn drop(&mut self) {
        self.end(Signal::TERM);
        let own = self.directory.path().display().to_string();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid = process.file_name().to_str().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            if let (true, Some(pid)) = (String::from_utf8_lossy(&line).contains(&own), pid) {
                let _ended = kill_process(pid, Signal::KILL);
            }
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&own));
        for path in below.collect::<Vec<_>>().into_iter().rev() {
            let _gone = Command::new("umount").args(["--lazy", path]).output();
        }
    }
}

#[expect(clippy::print_stdout, reason = "scripts/test looks for it")]
async fn an_engine_restarts() {
    let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !geteuid().is_root() || !["dockerd", "setpriv", "docker"].iter().all(|name| has(name)) {
        println!("NOT TESTED on this machine: an engine that restarts, since only root can start one, with dockerd");
        return;
    }
    let mut engine = Engine::new().await;
    let machine = Machine::with("cat kept 2>/dev/null; echo runs; echo here > kept; sleep 1000", |mut options| {
        options.host = engine.host();
        options
    });
    let made = machine.made().await;
    let mut before = machine.start(&made).await;
    machine.said(made.id, "runs\n").await;
    for signal in [Signal::TERM, Signal::KILL] {
        let mut events = machine.runtime.watch().await.expect("followed");
        // The request goes out when it is first asked.
        let (told, ()) = tokio::join!(events.by_ref().collect::<Vec<_>>(), async {
            let asked = machine.runtime.list().await;
            assert_eq!(asked.expect("listed").len(), 1);
            engine.end(signal);
        });
        drop(told);
        let observed = machine.runtime.observe(made.id).await;
        assert!(matches!(observed, Err(RuntimeError::Unavailable(_))), "nobody takes it for gone: {observed:?}");
        engine.start().await;
        let phase = machine.phase(made.id).await;
        assert!(matches!(phase, Some(Phase::Stopped { .. })), "after {signal:?}: {phase:?}");
        machine.runtime.stop(made.id, &before, Duration::ZERO).await.expect("nothing to stop");
        let mut events = machine.runtime.watch().await.expect("followed again");
        machine.runtime.ensure(&made).await.expect("still there");
        let start = machine.start(&made).await;
        assert_ne!(start, before);
        assert_eq!(events.next().await, Some(RuntimeEvent::Changed(made.id)));
        assert_eq!(machine.said(made.id, "here\nruns\n").await, "here\nruns\n", "its files are there");
        before = start;
    }
    machine.runtime.remove(made.id).await.expect("removed");
    machine.runtime.remove_volume(made.volume).await.expect("removed");
    assert_eq!(machine.runtime.list().await.expect("listed"), vec![]);
}
