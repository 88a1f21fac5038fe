//! An engine on another machine: a `dockerd` in a network namespace, which this machine reaches by TLS alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::up::until;

/// What its computers are made from.
pub(crate) const IMAGE: &str = "debian:bookworm-slim";

/// The port of an engine with TLS. The namespace is its own, so nobody else has it.
const PORT: u16 = 2376;

/// The engine, until it is dropped.
pub(crate) struct Elsewhere {
    namespace: String,
    /// This machine, as the other one sees it.
    here: String,
    there: String,
    directory: TempDir,
    dockerd: Option<Child>,
}

/// Why there cannot be another machine on this one.
pub(crate) fn why_not() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make a network namespace");
    }
    let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if !["ip", "nsenter", "setpriv", "dockerd"].iter().all(|name| has(name)) {
        return Some("ip, nsenter, setpriv or dockerd is missing");
    }
    let name = format!("rw{:x}p", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &name]).output().is_ok_and(|made| made.status.success());
    let _gone = Command::new("ip").args(["netns", "del", &name]).output();
    (!made).then_some("this kernel lets nobody make a network namespace")
}

fn run(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().expect("it runs");
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Elsewhere {
    pub(crate) fn start() -> Self {
        let namespace = format!("rw{:x}", std::process::id());
        // From what is set apart for trying out networks (RFC 2544).
        let n = std::process::id() % (1 << 14);
        let address = |last: u32| format!("198.18.{}.{}", n >> 6, ((n & 63) << 2) + last);
        // Where sockets' paths stay short.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut this = Self { namespace, here: address(1), there: address(2), directory, dockerd: None };
        this.connect();
        this.vouch();
        this.dockerd = Some(this.dockerd());
        until("the engine answers", || this.try_docker(&["version"]).status.success());
        this.load();
        this
    }

    /// Two interfaces and a cable.
    fn connect(&self) {
        let Self { namespace, here, there, .. } = self;
        let [outer, inner] = ["a", "b"].map(|side| format!("{namespace}{side}"));
        run("ip", &["netns", "add", namespace]);
        run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", namespace]);
        run("ip", &["address", "add", &format!("{here}/30"), "dev", &outer]);
        run("ip", &["link", "set", &outer, "up"]);
        run("ip", &["-n", namespace, "address", "add", &format!("{there}/30"), "dev", &inner]);
        run("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        run("ip", &["-n", namespace, "link", "set", &inner, "up"]);
        run("ip", &["-n", namespace, "route", "add", "default", "via", here]);
    }

    /// An authority, and certificates of the engine and of whoever calls it.
    fn vouch(&self) {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "another machine");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        self.write("ca.pem", &authority.self_signed(&key).expect("signed").pem());
        let issuer = Issuer::from_params(&authority, &key);
        for (prefix, name) in [("engine-", self.there.as_str()), ("", "client.test")] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            self.write(&format!("{prefix}cert.pem"), &params.signed_by(&key, &issuer).expect("signed").pem());
            self.write(&format!("{prefix}key.pem"), &key.serialize_pem());
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// It ends with this process, whatever becomes of it.
    fn dockerd(&self) -> Child {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "nsenter", &format!("--net=/run/netns/{}", self.namespace), "dockerd"]);
        command.arg("--host").arg(self.host()).arg("--tlsverify");
        for (name, file) in [
            ("tlscacert", "ca.pem"),
            ("tlscert", "engine-cert.pem"),
            ("tlskey", "engine-key.pem"),
            ("data-root", "data"),
            ("exec-root", "exec"),
            ("pidfile", "pid"),
        ] {
            command.arg(option(name, file));
        }
        command.stderr(log.try_clone().expect("a log")).stdout(log).spawn().expect("it starts")
    }

    /// An address of this machine for the other one to dial, which nobody has at the moment.
    pub(crate) fn free_port(&self) -> String {
        let taken = std::net::TcpListener::bind((self.here.as_str(), 0)).expect("a port");
        taken.local_addr().expect("an address").to_string()
    }

    /// Its address.
    pub(crate) fn host(&self) -> String {
        format!("tcp://{}:{PORT}", self.there)
    }

    /// The directory with the files of TLS.
    pub(crate) fn files(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", self.files());
        command
    }

    fn try_docker(&self, args: &[&str]) -> Output {
        self.command().args(args).output().expect("the docker command")
    }

    /// What Docker's command line says of it.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let output = self.try_docker(args);
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// Brings the image there from this machine's engine.
    fn load(&self) {
        let mut saved = Command::new("docker");
        let mut saved =
            saved.args(["--host", &super::host(), "save", IMAGE]).stdout(Stdio::piped()).spawn().expect("saved");
        let out = saved.stdout.take().expect("a pipe");
        let loaded = self.command().arg("load").stdin(out).output().expect("loaded");
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        assert!(saved.wait().expect("it ends").success());
    }
}

impl Drop for Elsewhere {
    #[expect(clippy::print_stderr, reason = "what the engine said goes with the test's own words")]
    fn drop(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            let pid = i32::try_from(dockerd.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _waited = dockerd.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
        // The cable goes with it.
        let _gone = Command::new("ip").args(["netns", "del", &self.namespace]).output();
    }
}
