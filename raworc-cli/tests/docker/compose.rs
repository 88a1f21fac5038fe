//! `deploy/compose.yaml` on the engine: server, operator and a real database, from images that were made here.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use tokio::time::Instant;

use crate::dockerd::{IMAGE, is_untested};
use crate::home::{Home, Ran};
use crate::images::{busybox_program, static_program};
use crate::{docker, host};

/// Where scripts/database has unpacked them with all their libraries.
const MYSQL: &str = "RAWORC_TEST_MYSQL_ROOT";
const POSTGRES: &str = "RAWORC_TEST_POSTGRES_ROOT";

/// A PostgreSQL, from the root of where it is.
const POSTGRES_LIB: &str = "usr/lib/postgresql/15";

/// A model that the installation is told of.
const MODEL: &str = "of-the-test";

/// How long it may take that something comes about.
const LIMIT: Duration = Duration::from_secs(120);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A database of the compose file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Database {
    Mysql,
    Postgres,
}

impl Database {
    /// Its profile and its service.
    const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
        }
    }

    const fn store(self) -> &'static str {
        match self {
            Self::Mysql => "mysql://raworc@mysql:3306/raworc",
            Self::Postgres => "postgres://raworc@postgres:5432/raworc",
        }
    }

    /// What of it is on this machine, from which an image can be made.
    fn root(self) -> Result<PathBuf, &'static str> {
        let unpacked = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|root| root.exists());
        match self {
            Self::Mysql => unpacked(MYSQL).ok_or("scripts/database has unpacked no MySQL"),
            // It is unpacked where this machine has none.
            Self::Postgres => {
                let root = unpacked(POSTGRES).unwrap_or_else(|| "/".into());
                Some(root).filter(|root| root.join(POSTGRES_LIB).exists()).ok_or("PostgreSQL 15 is not here")
            }
        }
    }
}

/// An installation by the compose file, until it is dropped.
struct Composed {
    home: Home,
    database: Database,
    /// What is of this test alone: the project, and the tag of its images.
    name: String,
    command: Vec<&'static str>,
    /// A port that was free: one that the engine chose would be another after a restart, and the login is at an address.
    port: u16,
}

impl Composed {
    fn new(command: Vec<&'static str>, database: Database) -> Self {
        let name = format!("raworc-test-{}", &SystemEntropy.uuid(SystemClock.now()).simple().to_string()[20..]);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        Self { home: Home::new(), database, name, command, port: free.port() }
    }

    fn image(&self, what: &str) -> String {
        format!("localhost/{what}:{}", self.name)
    }

    /// As a person runs it, with what a test chooses of deploy/.env.
    fn compose(&self, args: &[&str]) -> Output {
        let directory = |name: &str| self.home.path().join(name);
        let engine = host();
        Command::new(self.command[0])
            .args(&self.command[1..])
            .arg("-f")
            .arg(deploy().join("compose.yaml"))
            .args(["-p", &self.name])
            .args(args)
            .env("DOCKER_HOST", &engine)
            .env("COMPOSE_PROFILES", self.database.name())
            .env("RAWORC_STORE", self.database.store())
            .env("RAWORC_PORT", format!("127.0.0.1:{}", self.port))
            .env("RAWORC_DIR", directory("raworc"))
            .env("RAWORC_SECRETS", directory("secrets"))
            .env("RAWORC_DOCKER_SOCKET", engine.trim_start_matches("unix://"))
            .env("RAWORC_IMAGE", self.image("raworc"))
            .env("RAWORC_MYSQL_IMAGE", self.image("mysql"))
            .env("RAWORC_POSTGRES_IMAGE", self.image("postgres"))
            .env("RAWORC_COMPUTER_IMAGE", IMAGE)
            .env("RAWORC_MODEL__NAME", MODEL)
            .env_remove("RAWORC_MODEL__WIRE")
            .output()
            .expect("docker-compose runs")
    }

    #[track_caller]
    fn composed(&self, args: &[&str]) -> String {
        let output = self.compose(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// The containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        self.composed(&["ps", "-q", service]).lines().map(str::to_owned).collect()
    }

    fn inspect(&self, container: &str) -> serde_json::Value {
        let found: Vec<serde_json::Value> = serde_json::from_str(&docker(&["inspect", container])).expect("JSON");
        found.into_iter().next().expect("it is there")
    }

    /// The image with server and operator, from the binary that is tested.
    fn make_raworc(&self) {
        let context = tempfile::tempdir().expect("a directory");
        std::fs::copy(env!("CARGO_BIN_EXE_raworc"), context.path().join("raworc")).expect("copied");
        std::fs::copy(static_program(), context.path().join("raworc-agentd")).expect("copied");
        let dockerfile = deploy().join("raworc/Dockerfile");
        let (file, context) = (dockerfile.display().to_string(), context.path().display().to_string());
        docker(&[
            "build",
            "-q",
            "-t",
            &self.image("raworc"),
            "--build-arg",
            &format!("BASE={IMAGE}"),
            "-f",
            &file,
            &context,
        ]);
    }

    /// An image of the database that tests have, which takes what the compose file says as the official one does.
    fn make_database(&self, root: &Path) {
        let name = self.database.name();
        let script = match self.database {
            Database::Mysql => {
                "tar -C \"$1\" --exclude=./dev --exclude=./mnt -cf - . |
                    docker --host \"$2\" import - \"$3-root\" >/dev/null &&
                printf 'FROM %s-root\\nCOPY busybox entrypoint /\\nENV PATH=/usr/sbin:/usr/bin\\nENTRYPOINT [\"/entrypoint\"]\\n' \"$3\" >Dockerfile"
            }
            Database::Postgres => {
                "cd \"$1\" && if [ \"$1\" = / ]; then
                    libraries=$(ldd $5/bin/postgres $5/bin/initdb | grep -o '/[^ :]* (0x' | cut -d ' ' -f 1 | cut -c 2- | sort -u)
                    set -- \"$@\" --dereference
                else
                    libraries=usr/lib/$(uname -m)-linux-gnu
                fi && tar $6 -cf \"$OLDPWD/root.tar\" $5 usr/share/postgresql/15 $libraries && cd \"$OLDPWD\" &&
                printf 'FROM %s\\nADD root.tar /\\nCOPY busybox entrypoint /\\nENTRYPOINT [\"/entrypoint\"]\\n' \"$4\" >Dockerfile"
            }
        };
        let context = tempfile::tempdir().expect("a directory");
        let entrypoint = context.path().join("entrypoint");
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/docker/compose/{name}-entrypoint"));
        std::fs::copy(ours, &entrypoint).expect("copied");
        std::fs::set_permissions(&entrypoint, std::fs::Permissions::from_mode(0o755)).expect("executable");
        std::fs::copy(busybox_program(), context.path().join("busybox")).expect("copied");
        let image = self.image(name);
        let made = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(root)
            .args([&host(), &image, IMAGE, POSTGRES_LIB])
            .current_dir(context.path())
            .output()
            .expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        docker(&["build", "-q", "-t", &image, &context.path().display().to_string()]);
    }

    /// The command line of a person on this machine.
    fn raworc(&self, args: &[&str]) -> Ran {
        let mut command = self.home.raworc(args);
        Ran::of(command.env("RAWORC_SERVER", format!("http://127.0.0.1:{}", self.port)).output().expect("raworc runs"))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.raworc(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:#?}\n{}", self.logs());
        ran.out
    }

    fn logs(&self) -> String {
        let output = self.compose(&["logs", "--tail", "30"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks again until it is so. Each question takes a second or so.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", self.logs());
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        // What agents left, where the test did not come to its end.
        if let Ok(name) = std::fs::read_to_string(self.home.path().join("raworc/installation")) {
            let label = format!("label=raworc.installation={}", name.trim());
            for found in docker(&["ps", "-aq", "--filter", &label]).lines() {
                docker(&["rm", "-f", found]);
            }
            for found in docker(&["volume", "ls", "-q", "--filter", &label]).lines() {
                docker(&["volume", "rm", found]);
            }
        }
        drop(self.compose(&["down", "-v", "--remove-orphans", "-t", "5"]));
        let database = self.image(self.database.name());
        for image in [&self.image("raworc"), &database, &format!("{database}-root")] {
            drop(Command::new("docker").args(["--host", &host(), "image", "rm", "-f", image]).output());
        }
    }
}

/// `docker-compose` 1.29 or `docker compose`, where one of them is here.
fn command() -> Option<Vec<&'static str>> {
    let works = |command: &[&str]| {
        let mut version = Command::new(command[0]);
        let ran = version.args(&command[1..]).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ran.is_ok_and(|status| status.success())
    };
    [vec!["docker-compose"], vec!["docker", "compose"]].into_iter().find(|command| works(command))
}

pub(crate) fn an_installation_is_brought_up_with_mysql() {
    is_brought_up(Database::Mysql);
}

pub(crate) fn an_installation_is_brought_up_with_postgres() {
    is_brought_up(Database::Postgres);
}

fn is_brought_up(database: Database) {
    let (command, root) = (command(), database.root());
    let lack = match (&command, &root) {
        (None, _) => Some("docker-compose is not here"),
        (_, Err(lack)) => Some(*lack),
        _ if !host().starts_with("unix://") => Some("the engine is on another machine"),
        _ => None,
    };
    if is_untested("deploy/compose.yaml", lack) {
        return;
    }
    let (command, root) = command.zip(root.ok()).expect("they are here");
    let composed = Composed::new(command, database);
    let secrets = composed.home.path().join("secrets");
    let made = Command::new(deploy().join("make-secrets")).arg(&secrets).output().expect("the script runs");
    assert!(made.status.success(), "{made:?}");
    let key = std::fs::read(secrets.join("master.key")).expect("made");
    assert!(Command::new(deploy().join("make-secrets")).arg(&secrets).output().expect("it runs").status.success());
    assert_eq!(std::fs::read(secrets.join("master.key")).expect("there"), key, "a key that is there stays");
    composed.make_raworc();
    composed.make_database(&root);
    composed.composed(&["up", "-d"]);

    // The server is started again until the database is there.
    let password = secrets.join("admin.password").display().to_string();
    let login = ["login", "admin", "--password-file", &password];
    composed.until("somebody can log in", || composed.raworc(&login).code == 0);
    composed.until("a runtime is known", || composed.raworc(&["agent", "create", "ada", "--wait"]).code == 0);
    assert_eq!(composed.ok(&["send", "ada", "!echo kept > note; cat note", "--no-steps"]), "kept\n");
    assert_eq!(composed.ok(&["agent", "exec", "ada", "--", "cat", "note"]), "kept\n");

    let [server, operator, rows] =
        ["server", "operator", database.name()].map(|service| composed.inspect(&composed.containers(service)[0]));
    for (container, has_engine) in [(&server, false), (&operator, true), (&rows, false)] {
        let mounts = container["Mounts"].to_string();
        assert_eq!(mounts.contains("docker.sock"), has_engine, "{mounts}");
    }
    let published = |container: &serde_json::Value| container["HostConfig"]["PortBindings"].to_string();
    assert!(published(&server).contains("9000/tcp"));
    assert_eq!((published(&operator).as_str(), published(&rows).as_str()), ("{}", "{}"), "nobody else is reached");
    composed.until("the server is healthy", || {
        composed.inspect(&composed.containers("server")[0])["State"]["Health"]["Status"] == "healthy"
    });

    let told = server["Config"]["Env"].to_string();
    assert!(told.contains(&format!("\"RAWORC_MODEL__NAME={MODEL}\"")), "{told}");
    assert!(!told.contains("RAWORC_MODEL__WIRE="), "what is not chosen is left to the program: {told}");
    let ask = "exec 3<>/dev/tcp/operator/9003; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3";
    let figures = composed.composed(&["exec", "-T", "server", "bash", "-c", ask]);
    assert!(figures.contains(" 401 "), "figures of an operator are there, for an admin: {figures}");

    // A second operator, and the first one away: the agent wakes all the same, with its files.
    composed.composed(&["up", "-d", "--scale", "operator=2"]);
    composed.until("there are two", || composed.containers("operator").len() == 2);
    composed.ok(&["agent", "sleep", "ada"]);
    docker(&["kill", &composed.containers("operator")[0]]);
    assert_eq!(composed.ok(&["send", "ada", "!cat note", "--no-steps"]), "kept\n");
    // All of it once more, in other containers: what is kept is in volumes.
    composed.composed(&["down", "-t", "5"]);
    composed.composed(&["up", "-d"]);
    composed.until("it serves again", || composed.raworc(&["agent", "get", "ada"]).code == 0);
    assert_eq!(composed.ok(&["send", "ada", "!cat note", "--no-steps"]), "kept\n");
    composed.ok(&["agent", "delete", "ada"]);
    for of in ["server", "operator"] {
        let logs = composed.composed(&["exec", "-T", "server", "sh", "-c", &format!("cat /var/log/raworc/{of}/*")]);
        let line = logs.lines().next().expect("there is a log");
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{of}: {line}");
    }
}
