//! Agents in whatever image there is, by the static program.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use futures::TryStreamExt;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::AgentName;
use raworc_core::program::{ExecRequest, TerminalSize};
use raworc_http::client::Client;

use crate::home::{Home, Ran};
use crate::up::{Up, condition, until};
use crate::{Cleared, docker, host, label, raworc, run, trial_label_ahead};

/// What computers are made of here unless an agent names another: it is small, and the engine of tests has it.
pub(crate) const DEBIAN: &str = "debian:bookworm-slim";

/// The program as releases have it, and what says which one that is.
pub(crate) fn static_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/agentd");
        let output = Command::new(script).arg("dev").stderr(Stdio::inherit()).output().expect("the script runs");
        assert!(output.status.success(), "the static program cannot be built");
        PathBuf::from(String::from_utf8(output.stdout).expect("UTF-8").trim())
    })
}

/// An image of a test's own, from files. It goes with the test.
struct Image(String);

impl Image {
    fn of(files: &Path, options: &[&str]) -> Self {
        let name = format!("localhost/raworc-test:{}", SystemEntropy.uuid(SystemClock.now()).simple());
        let mut archive = tar::Builder::new(Vec::new());
        archive.follow_symlinks(false);
        archive.append_dir_all(".", files).expect("packed");
        let mut import = Command::new("docker");
        import.args(["--host", &host(), "import"]).args(options).args(["-", &name]);
        let mut child = import.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the docker command");
        let mut input = child.stdin.take().expect("an input");
        input.write_all(&archive.into_inner().expect("packed")).expect("written");
        drop(input);
        assert!(child.wait().expect("ended").success(), "the image was made");
        Self(name)
    }

    /// Nothing at all.
    fn bare() -> Self {
        Self::of(tempfile::tempdir().expect("a directory").path(), &[])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["image", "rm", "-f", &self.0]);
    }
}

pub(crate) fn busybox_program() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    found.expect("busybox, linked statically; scripts/setup busybox-static installs it")
}

pub(crate) fn up(home: &Home, program: Option<&Path>, runtime: &str, image: &str) -> Command {
    let mut command = raworc(home, &["up", "--listen", "127.0.0.1:0", "--log", "warn"]);
    command.env("RAWORC_RUNTIME", runtime).env("RAWORC_DOCKER__IMAGE", image);
    command.envs(program.map(|program| ("RAWORC_AGENTD", program)));
    command
}

/// As programs read it.
pub(crate) fn json(mut command: Command) -> Command {
    command.args(["-o", "json"]);
    command
}

/// What the engine tells of containers in which a home's installation tries images out, from now on: of what is past it keeps little, and that is
/// everybody's.
struct Starts {
    label: String,
    told: PathBuf,
    events: Child,
}

impl Starts {
    fn of(home: &Home) -> Self {
        let (label, now) = (trial_label_ahead(home), docker(&["info", "--format", "{{.SystemTime}}"]));
        let told = home.path().join("events");
        let mut events = Command::new("docker");
        events.args(["--host", &host(), "events", "--since", &now, "--filter", &label, "--filter", "event=create"]);
        events.args(["--filter", "event=start", "--format", "{{.Action}} {{.Actor.ID}}"]);
        let events = events.stdout(std::fs::File::create(&told).expect("made")).spawn().expect("the docker command");
        Self { label, told, events }
    }

    /// How many there were so far.
    fn count(&self) -> usize {
        // What the engine tells of this one comes after all that was before.
        let last = docker(&["create", "--label", self.label.trim_start_matches("label="), DEBIAN, "true"]);
        docker(&["rm", &last]);
        let mut told = String::new();
        until("the engine has told all", || {
            told = std::fs::read_to_string(&self.told).expect("there");
            told.contains(&last)
        });
        told.lines().filter(|line| line.starts_with("start ")).count()
    }
}

impl Drop for Starts {
    fn drop(&mut self) {
        self.events.kill().expect("killed");
        self.events.wait().expect("it is gone");
    }
}

pub(crate) fn up_tries_it_out() {
    let (home, bare) = (Home::new(), Image::bare());
    let _cleared = Cleared(&home);
    let starts = Starts::of(&home);
    let described = |mut command: Command| {
        // The page for people says what computers are made of.
        let mut child = command.stdout(Stdio::piped()).spawn().expect("raworc starts");
        let out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let line = std::io::BufRead::lines(out).map_while(Result::ok).find(|line| line.contains("runtime"));
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("asked to end");
        child.wait().expect("ended");
        line.expect("it says what computers are made of")
    };
    let why = "needs a C library of which the image has none of its kind, or is made for another processor: build the static one with scripts/agentd and set RAWORC_AGENTD";
    let auto = described(up(&home, None, "auto", &bare.0));
    assert!(auto.contains("local, ") && auto.contains("; not docker: ") && auto.contains(why), "{auto}");
    let asked = described(up(&home, None, "docker", &bare.0));
    assert!(asked.contains("which cannot be used yet: ") && asked.contains(why), "{asked}");
    let before = starts.count();
    assert!(before >= 2, "it was tried each time: {before}");
    for expected in [1, 1] {
        let taken = described(up(&home, Some(static_program()), "auto", &bare.0));
        assert!(taken.contains("docker at ") && !taken.contains("cannot"), "{taken}");
        assert_eq!(starts.count() - before, expected, "it is tried once and then known");
    }
    let other = described(up(&home, Some(static_program()), "auto", DEBIAN));
    assert!(other.contains("docker at "), "{other}");
    assert_eq!(starts.count() - before, 2, "another image is tried");
    assert_eq!(docker(&["ps", "-aq", "--filter", &starts.label]), "", "no trial is left");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &starts.label]), "", "nor its volume");
}

pub(crate) fn unfit_for_an_agent() {
    let (home, bare) = (Home::new(), Image::bare());
    let _cleared = Cleared(&home);
    let _up = Up::of(json(up(&home, None, "docker", DEBIAN)));
    run(&home, &["agent", "create", "ada", "--image", &bare.0]).ok();
    let reason = || condition(&home, "ada", "Ready").map(|ready| ready["reason"].clone());
    until("the reason is told", || reason().is_some_and(|reason| reason == "ProgramUnfit"));
    let told = run(&home, &["agent", "explain", "ada"]).ok();
    assert!(told.contains("set RAWORC_AGENTD"), "{told}");
    let exec = run(&home, &["agent", "exec", "ada", "--", "true"]);
    assert!(exec.code != 0 && exec.err.contains("has none of its kind"), "{exec:#?}");
    // Another image is tried at once.
    run(&home, &["agent", "edit", "ada", "--image", DEBIAN]).ok();
    until("it works", || run(&home, &["agent", "exec", "ada", "--", "true"]).code == 0);
}

/// A whole life in this image, by what its shell alone can do.
fn live(image: &str) {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let up = Up::of(json(up(&home, Some(static_program()), "docker", DEBIAN)));
    let setup = "echo set up > set; exec 2>&1; echo $HOME";
    run(&home, &["agent", "create", "ada", "--image", image, "--setup", setup, "--wait"]).ok();
    let ask = |text: &str| run(&home, &["send", "ada", text]).ok();
    assert!(
        ask("!read -r line < set; echo \"$line by $LINE in $PWD\"; LINE=kept; export LINE")
            .contains("set up by  in /agent")
    );
    assert!(ask("!echo \"$LINE\"; cd /; pwd; echo $((6 * 7))").contains("kept\n/\n42"), "its shell lives on");
    assert!(ask("!exit 3").contains("[exit code 3]"));
    let shell = run(&home, &["agent", "exec", "ada", "--", "/bin/sh", "-c", "echo $PATH; echo $HOME; exit 4"]);
    assert!(shell.code == 4 && shell.out.ends_with("/bin\n/agent\n"), "{shell:#?}");
    let nothing = run(&home, &["agent", "exec", "ada", "--", "no-such-command"]);
    assert!(nothing.err.contains("is not in this computer"), "{nothing:#?}");
    std::fs::write(home.path().join("here"), [0, 159, 146, 150]).expect("written");
    run(&home, &["agent", "cp", "here", "ada:there"]).ok();
    std::fs::create_dir(home.path().join("tree")).expect("made");
    std::fs::write(home.path().join("tree/leaf"), "green").expect("written");
    run(&home, &["agent", "cp", "tree", "ada:tree"]).ok();
    over_http(&up, &home);
    run(&home, &["agent", "sleep", "ada"]).ok();
    let log = run(&home, &["agent", "logs", "ada"]);
    assert!(log.out.contains("starting"), "{log:#?}");
    run(&home, &["agent", "wake", "ada"]).ok();
    assert!(
        ask("!read -r line < tree/leaf; echo \"$line\"; read -r line < set; echo \"$line\"").contains("green\nset up")
    );
    assert!(run(&home, &["agent", "logs", "ada"]).ok().contains("ready"));
    run(&home, &["agent", "cp", "ada:there", "back"]).ok();
    assert_eq!(std::fs::read(home.path().join("back")).expect("there"), [0, 159, 146, 150]);
    run(&home, &["agent", "cp", "ada:tree", "again"]).ok();
    assert_eq!(std::fs::read_to_string(home.path().join("again/leaf")).expect("there"), "green");
    run(&home, &["agent", "delete", "ada", "--yes"]).ok();
    let label = label(&home);
    until("all of it is gone", || {
        let lists: [&[&str]; 2] = [&["ps", "-aq"], &["volume", "ls", "-q"]];
        lists.iter().all(|list| docker(&[list, &["--filter", label.as_str()][..]].concat()).is_empty())
    });
}

/// What the command line does only on a terminal, or not at all: a terminal inside, and figures.
fn over_http(up: &Up, home: &Home) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = client(up, home);
        let name = AgentName::new("ada").expect("a name");
        let size = TerminalSize { rows: 20, cols: 70 };
        let script = "if [ -t 0 ]; then echo a terminal; fi; read -r said; echo \"heard $said\"; exit 5";
        let request = ExecRequest {
            command: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
            cwd: None,
            env: Default::default(),
            terminal: Some(size),
            stdin: true,
        };
        let exec = client.exec(&name, &request, true).await.expect("begun");
        let mut out = exec.stdout().await.expect("output");
        let (typed, shown) = tokio::join!(exec.stdin("hello\n".to_owned()), async {
            let mut shown = String::new();
            while let Some(piece) = out.try_next().await.expect("read") {
                shown.push_str(&String::from_utf8_lossy(&piece));
            }
            shown
        });
        typed.expect("typed");
        assert!(shown.contains("a terminal") && shown.contains("heard hello"), "{shown}");
        assert_eq!(exec.wait().await.expect("an end").exit_code, 5);
        let stats = client.stats(&name).await.expect("figures");
        assert!(stats.processes >= 2 && stats.memory_bytes > 0 && stats.disk_bytes.is_some(), "{stats:?}");
    });
}

fn client(up: &Up, home: &Home) -> Client {
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("a login");
    let session: serde_json::Value = serde_json::from_str(&session).expect("JSON");
    let token = session["logins"][&up.url]["token"].as_str().expect("a token").to_owned();
    Client::new(&up.url).expect("an address").with_token(token)
}

pub(crate) fn debian() {
    live(DEBIAN);
}

/// As small distributions are: one binary with many names, another C library, no accounts.
pub(crate) fn busybox() {
    let files = tempfile::tempdir().expect("a directory");
    let bin = files.path().join("bin");
    std::fs::create_dir_all(&bin).expect("made");
    std::fs::create_dir_all(files.path().join("tmp")).expect("made");
    std::fs::copy(busybox_program(), bin.join("busybox")).expect("copied");
    let names = Command::new(busybox_program()).arg("--list").output().expect("its names");
    for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("linked");
    }
    let image = Image::of(files.path(), &[]);
    live(&image.0);
}

pub(crate) fn one_shell() {
    let files = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(files.path().join("bin")).expect("made");
    std::fs::copy(busybox_program(), files.path().join("bin/sh")).expect("copied");
    let image = Image::of(files.path(), &[]);
    live(&image.0);
}

/// The program is there all the same: files come and go, and what needs a shell says that there is none.
pub(crate) fn no_shell() {
    let (home, bare) = (Home::new(), Image::bare());
    let _cleared = Cleared(&home);
    let _up = Up::of(json(up(&home, Some(static_program()), "docker", DEBIAN)));
    run(&home, &["agent", "create", "ada", "--image", &bare.0, "--wait"]).ok();
    let said = |ran: Ran| format!("{}{}", ran.out, ran.err);
    let told = said(run(&home, &["send", "ada", "!echo hello"]));
    assert!(told.contains("this computer's image has neither bash nor sh"), "{told}");
    let told = said(run(&home, &["agent", "exec", "ada", "--", "sh", "-c", "true"]));
    assert!(told.contains("\"sh\" is not in this computer; see its PATH and image"), "{told}");
    std::fs::write(home.path().join("here"), "kept").expect("written");
    run(&home, &["agent", "cp", "here", "ada:there"]).ok();
    run(&home, &["agent", "sleep", "ada"]).ok();
    run(&home, &["agent", "cp", "ada:there", "back"]).ok();
    assert_eq!(std::fs::read_to_string(home.path().join("back")).expect("there"), "kept");
    run(&home, &["agent", "create", "bob", "--image", &bare.0, "--setup", "true"]).ok();
    let ready = || condition(&home, "bob", "Ready").unwrap_or_default();
    until("its setup has failed", || ready()["reason"] == "SetupFailed");
    assert!(ready()["message"].to_string().contains("this computer's image has no sh"), "{}", ready());
}

/// The engine makes computers of it, and the program is ours; what is in it cannot be executed.
pub(crate) fn another_processor() {
    let files = tempfile::tempdir().expect("a directory");
    let shell = files.path().join("bin/sh");
    std::fs::create_dir(files.path().join("bin")).expect("made");
    // As much of an ELF header as says which machine it is for: none that there is.
    let mut header = [0; 64];
    header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    (header[16], header[18]) = (2, 0x2a);
    std::fs::write(&shell, header).expect("written");
    std::fs::set_permissions(&shell, Permissions::from_mode(0o755)).expect("set");
    let image = Image::of(files.path(), &["--platform", "linux/s390x"]);
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(json(up(&home, Some(static_program()), "docker", DEBIAN)));
    run(&home, &["agent", "create", "ada", "--image", &image.0, "--wait"]).ok();
    let told = run(&home, &["send", "ada", "!echo hello"]);
    assert!(format!("{}{}", told.out, told.err).contains("Exec format error"), "{told:#?}");
}

/// What the image of `deploy/computer` has for an agent at a shell, as its own user and as root.
pub(crate) fn the_computer_image(home: &Home) {
    let _up = Up::of(raworc(home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    run(home, &["agent", "create", "builder", "--wait"]).ok();
    let shell = |name: &str, script: &str| run(home, &["agent", "exec", name, "--", "bash", "-ec", script]);
    let who = shell("builder", "id -un; id -u; echo ~").ok();
    assert_eq!(who, "agent\n1000\n/agent\n");
    shell("builder", "git init -q repo; cd repo; git config user.email a@b; git config user.name a; echo x > f; git add f; git commit -qm one; git log --oneline").ok();
    let made = shell("builder", "python3 -m venv v; v/bin/pip --version; v/bin/python -c 'print(6 * 7)'").ok();
    assert!(made.starts_with("pip ") && made.ends_with("\n42\n"), "{made}");
    let built = shell("builder", "echo 'int main(void) { return 42; }' > a.c; cc -o a a.c; ./a || echo $?").ok();
    assert_eq!(built, "42\n");
    let tools =
        shell("builder", "curl --version | head -n 1; rg --version | head -n 1; jq -n 1; rsync --version | head -n 1")
            .ok();
    assert!(tools.starts_with("curl "), "{tools}");
    let walls = shell("builder", "touch /usr/x");
    assert!(walls.code != 0 && walls.err.contains("Permission denied"), "{walls:#?}");
    // What loses its parent is reaped by process 1, and not by the program.
    let reaped = "for i in 1 2 3 4 5; do (sleep 0.05 &) done; for i in $(seq 1000); do pgrep -x sleep || break; sleep 0.01; done >/dev/null; ps -eo stat= | grep -c ^Z || true";
    assert_eq!(shell("builder", reaped).ok(), "0\n");
    run(home, &["agent", "create", "root", "--root", "--wait"]).ok();
    let packages = shell(
        "root",
        "id -u; apt-get --version | head -n 1; dpkg --print-architecture; dpkg -S /bin/bash; apt-get check",
    )
    .ok();
    assert!(packages.starts_with("0\napt ") && packages.contains("bash: /bin/bash"), "{packages}");
    let installs = "mkdir -p p/DEBIAN; printf 'Package: tiny\\nVersion: 1\\nArchitecture: all\\nMaintainer: a\\nDescription: a\\n' > p/DEBIAN/control; \
        dpkg-deb -b p tiny.deb >/dev/null; apt-get install -y ./tiny.deb >/dev/null 2>&1; dpkg -s tiny | grep Status";
    let installed = "Status: install ok installed\n";
    assert_eq!(shell("root", installs).ok(), installed);
    run(home, &["agent", "sleep", "root"]).ok();
    run(home, &["agent", "wake", "root"]).ok();
    assert_eq!(shell("root", "dpkg -s tiny | grep Status").ok(), installed, "it is there after sleep");
    run(home, &["agent", "delete", "builder", "root", "--yes"]).ok();
    a_layer_on_top(home);
}

/// What the image's own description says of how others begin with it.
fn a_layer_on_top(home: &Home) {
    let image = Image(format!("localhost/raworc-test:{}", SystemEntropy.uuid(SystemClock.now()).simple()));
    let dockerfile = "FROM raworc/computer\nRUN echo on top > /usr/local/layer\n";
    std::fs::write(home.path().join("Dockerfile"), dockerfile).expect("written");
    run(home, &["image", "build", "--file", "Dockerfile", "--tag", &image.0]).ok();
    run(home, &["agent", "create", "layered", "--image", &image.0, "--wait"]).ok();
    let told = run(home, &["send", "layered", "!cat /usr/local/layer; id -un; git --version"]).ok();
    assert!(told.contains("on top\nagent\ngit version "), "{told}");
    run(home, &["agent", "delete", "layered", "--yes"]).ok();
}
