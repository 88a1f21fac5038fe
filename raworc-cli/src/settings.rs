//! The configuration of a serving process: `raworc.toml`, then `RAWORC_*`, then options.

mod keys;
mod retention;
mod tracing;

pub use self::tracing::Tracing;
#[cfg(feature = "docker")]
pub(crate) use keys::DEFAULT_IMAGE;
pub use keys::{Default, KEYS, Key, OTHER_VARIABLES};
pub use retention::{Kept, Retention};

use std::net::{AddrParseError, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use config::{Config, Environment, FileFormat};
#[cfg(feature = "docker")]
use raworc_backends::docker::{EngineAddress, Named};
use raworc_core::agent::is_host_pattern;
use raworc_core::control;
use raworc_core::ids::{RuntimeName, UserName};
use raworc_core::program::{ModelSpec, ModelWire, WorkLimits};
use raworc_core::quantity::{Bytes, Cpu, InvalidQuantity};
use raworc_http::server::CALLS_PER_COMPUTER;
use raworc_http::server::agents::egress::PrivateHost;
use secrecy::SecretString;
use serde::Deserialize;

use crate::args::{AdminArgs, AssemblyArgs};
use crate::exit::{Exit, Failure};
use crate::session;

/// The configuration of a serving process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where everything is kept.
    #[serde(default)]
    pub data: PathBuf,
    /// The address of the API.
    pub listen: String,
    /// Where rows are kept: `sqlite`, or the address of a database, which may hold a password.
    pub store: SecretString,
    /// The file with the database's password.
    pub store_password_file: Option<PathBuf>,
    /// The file with the master key; `master.key` in the data directory where absent.
    pub master_key_file: Option<PathBuf>,
    /// The master key itself.
    pub master_key: Option<SecretString>,
    /// The first admin's name.
    pub admin: UserName,
    /// The file with the first admin's password.
    pub admin_password_file: Option<PathBuf>,
    /// What to log.
    pub log: String,
    /// How to log it on standard error.
    pub log_format: LogFormat,
    /// Where the log is kept as well.
    pub log_dir: Option<PathBuf>,
    /// How many files of it are kept.
    pub log_files: usize,
    /// Traces.
    pub tracing: Tracing,
    /// What makes computers whose agent names no runtime.
    pub runtime: RuntimeKind,
    /// The runtime `local`.
    pub local: Local,
    /// The runtime `docker`.
    pub docker: Docker,
    /// The way out of closed computers.
    #[serde(default)]
    pub egress: Egress,
    /// Where agents' programs dial.
    #[serde(default)]
    pub agents: Agents,
    /// Where the processes of an installation reach each other.
    pub internal: Internal,
    /// `raworc operator`.
    #[serde(default)]
    pub operator: Operator,
    /// Limits.
    pub limits: Limits,
    /// How long what is old is kept.
    pub retention: Retention,
    /// Limits of the work on one message.
    pub work: Work,
    /// The model that agents think with unless their spec names another.
    pub model: Model,
    /// Further models.
    #[serde(default)]
    pub models: Vec<Model>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, else for programs.
    Auto,
    /// Lines for people.
    Text,
    /// A line of JSON each.
    Json,
}

/// What makes computers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Docker where its engine answers and has the image or can build or pull it, else `local`.
    Auto,
    /// Linux namespaces and directories of this machine.
    Local,
    /// Containers of a Docker engine.
    Docker,
}

/// The runtime `docker`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Docker {
    /// The name under which agents ask for it.
    pub name: RuntimeName,
    /// Where its engine answers; where Docker's own command line finds it where absent.
    pub host: Option<String>,
    /// The directory of TLS to it.
    pub tls: Option<PathBuf>,
    /// Whether it may be reached without TLS on another machine.
    pub without_tls: bool,
    /// Whether it is on another machine.
    pub remote: bool,
    /// The image of a computer whose agent names none.
    pub image: String,
    /// Processor time of a computer whose agent names none.
    pub cpu: Limit<Cpu>,
    /// Memory of a computer whose agent names none.
    pub memory: Limit<Bytes>,
    /// Processes of a computer whose agent names no limit; 0 for any number.
    pub pids: u32,
}

#[cfg(feature = "docker")]
impl Docker {
    /// Where its engine answers.
    ///
    /// # Errors
    /// Where Docker's configuration names one that is none.
    pub fn address(&self) -> Result<EngineAddress, Failure> {
        let named = Named::host(self.host.clone()).with_tls(self.tls.clone());
        EngineAddress::find(&named).map_err(|error| {
            Failure::new(Exit::Usage, "no Docker engine can be found")
                .because(error)
                .hint("name one by docker.host, such as unix:///var/run/docker.sock")
        })
    }
}

/// Where agents' programs dial.
#[derive(Debug, Clone, PartialEq, Eq, std::default::Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// The directory of the servers' sockets.
    pub sockets: Option<PathBuf>,
    /// The address of the listener with TLS.
    pub listen: Option<String>,
    /// The addresses at which computers reach the servers' listeners, with commas between.
    pub address: Option<String>,
}

/// Where the processes of an installation reach each other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    /// The address of the listener.
    pub listen: String,
    /// The host, with its port where that is another, at which others reach it.
    pub address: Option<String>,
}

impl Internal {
    /// The address of the listener.
    ///
    /// # Errors
    /// Where it is none, with an example of one.
    pub fn listen_address(&self) -> Result<SocketAddr, Failure> {
        self.listen.parse().map_err(|_| {
            Failure::new(Exit::Usage, format!("internal.listen: {:?} is no address", self.listen))
                .hint("write an address of this machine and a port, such as 0.0.0.0:9002 or 10.0.0.1:9002")
        })
    }
}

/// `raworc operator`.
#[derive(Debug, Clone, PartialEq, Eq, std::default::Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Where it says how it is.
    pub listen: Option<String>,
}

impl Operator {
    /// The address at which it says how it is, where it is to.
    ///
    /// # Errors
    /// Where it is none, with an example of one.
    pub fn listen_address(&self) -> Result<Option<SocketAddr>, Failure> {
        let Some(text) = &self.listen else { return Ok(None) };
        here(text).map(Some).map_err(|_| {
            Failure::new(Exit::Usage, format!("operator.listen: {text:?} is no address"))
                .hint("write an address of this machine and a port, such as 127.0.0.1:9003")
        })
    }
}

impl Agents {
    /// The address of the listener with TLS, where there is to be one.
    ///
    /// # Errors
    /// Where it is none, with an example of one.
    pub fn listen_address(&self) -> Result<Option<SocketAddr>, Failure> {
        let Some(text) = &self.listen else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Failure::new(Exit::Usage, format!("agents.listen: {text:?} is no address"))
                .hint("write an address of this machine and a port, such as 0.0.0.0:9001 or 10.0.0.1:9001")
        })
    }

    /// The addresses at which computers reach the servers, with the port of the listener at `listen` unless another one is
    /// named.
    ///
    /// # Errors
    /// Where one is none, or nothing follows from `listen`.
    pub fn reached_at(&self, listen: SocketAddr) -> Result<Vec<SocketAddr>, Failure> {
        // Programs resolve no names: what a computer is told of a name is up to its engine.
        let hint = "write the address at which computers reach this machine, such as 10.0.0.1 or 10.0.0.1:9001, several with \
                    commas between; no name";
        let read = |text: &str| {
            let with_port = text.parse::<SocketAddr>().ok();
            let address = with_port.or_else(|| Some(SocketAddr::new(text.parse().ok()?, listen.port())));
            address
                .filter(|address| !address.ip().is_unspecified())
                .ok_or_else(|| Failure::new(Exit::Usage, format!("agents.address: {text:?} is no address")).hint(hint))
        };
        match &self.address {
            Some(text) => text.split(',').map(str::trim).map(read).collect(),
            None if listen.ip().is_unspecified() => {
                Err(Failure::new(Exit::Usage, format!("agents.address is missing, and nobody can dial {listen}"))
                    .hint(hint))
            }
            None => Ok(vec![listen]),
        }
    }
}

/// The runtime `local`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// The name under which agents ask for it.
    pub name: RuntimeName,
    /// Whether its computers have walls.
    pub isolation: bool,
    /// Processor time of a computer whose agent names none.
    pub cpu: Limit<Cpu>,
    /// Memory of a computer whose agent names none; the runtime's default where absent.
    pub memory: Option<Limit<Bytes>>,
    /// Processes of a computer whose agent names no limit; 0 for any number.
    pub pids: u32,
}

/// An amount that computers may have at most; none where `0` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String", bound(deserialize = "T: FromStr<Err = InvalidQuantity>"))]
pub struct Limit<T>(pub Option<T>);

impl<T: FromStr<Err = InvalidQuantity>> TryFrom<String> for Limit<T> {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "0" { Ok(Self(None)) } else { text.parse().map(|amount| Self(Some(amount))) }
    }
}

/// The way out of closed computers.
#[derive(Debug, Clone, PartialEq, Eq, std::default::Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Names that agents may reach, where their lists have them, though they lead to addresses which are not public.
    #[serde(default)]
    pub private: Vec<PrivateHost>,
}

impl Egress {
    fn check(&self) -> Result<(), Failure> {
        match self.private.iter().find(|private| !is_host_pattern(&private.host) || private.ranges.is_empty()) {
            None => Ok(()),
            Some(private) => Err(Failure::new(Exit::Usage, format!("egress.private: {:?} cannot be used", private.host))
                .hint("write host = \"packages.example.org\", or \"*.example.org\" for all below it, and ranges = [\"10.1.0.0/16\"]")),
        }
    }
}

/// Limits of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Messages that may wait for one agent.
    pub inbox: u64,
    /// Bytes of text in them.
    pub inbox_bytes: u64,
    /// Agents that a tenant may have; 0 for any number.
    pub agents_per_tenant: u64,
    /// Streams of events, and calls into computers, that one user may have open.
    pub streams_per_principal: usize,
    /// Calls into one computer that may be open.
    pub calls_per_computer: usize,
    /// Seconds that a setup script may run.
    pub setup_seconds: u64,
    /// Seconds for which an agent can be kept awake by one ask.
    pub keep_awake_seconds: u64,
    /// Seconds that a program has to obey a cancel.
    pub cancel_seconds: u64,
    /// Seconds for which a key of idempotency is remembered.
    pub idempotency_seconds: u64,
}

impl Limits {
    fn check(&self) -> Result<(), Failure> {
        let keys = [
            ("streams_per_principal", self.streams_per_principal, usize::MAX),
            ("calls_per_computer", self.calls_per_computer, CALLS_PER_COMPUTER),
        ];
        match keys.into_iter().find(|(_, value, most)| *value == 0 || value > most) {
            None => Ok(()),
            Some((key, value, most)) => {
                let failure = Failure::new(Exit::Usage, format!("limits.{key}: {value} cannot be had"));
                Err(match most {
                    usize::MAX => failure.hint("choose 1 or more"),
                    most => failure.hint(format!("choose 1 to {most}: a computer's link has no room for more")),
                })
            }
        }
    }
}

/// Limits of the work on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Model calls.
    pub rounds: u32,
    /// Tokens that the model may write.
    pub tokens: u32,
    /// Seconds of one tool call.
    pub tool_seconds: u64,
}

/// A model and where it is served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name, as its server knows it.
    pub name: String,
    /// The address of its server.
    pub url: String,
    /// What its server speaks.
    #[serde(default = "ollama")]
    pub wire: ModelWire,
    /// Tokens that it can read at once.
    #[serde(default = "context")]
    pub context: u32,
    /// Whether it sees pictures.
    #[serde(default)]
    pub vision: bool,
    /// The file with the key that its server asks for.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The key itself.
    #[serde(default)]
    pub key: Option<SecretString>,
}

const fn ollama() -> ModelWire {
    ModelWire::Ollama
}

const fn context() -> u32 {
    32_768
}

impl Settings {
    /// Reads the configuration: defaults, the file, the environment, options; what comes later wins.
    ///
    /// # Errors
    /// Names the key that is unknown or cannot be read, and where it stands.
    pub fn load(args: &AssemblyArgs) -> Result<Self, Failure> {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let variables = variables.filter_map(|(name, value)| Some((name, value.into_string().ok()?)));
        Self::read(args, find_file(args)?.as_deref(), variables.collect())
    }

    /// Reads the configuration from a given file and environment.
    ///
    /// # Errors
    /// Names the key that is unknown or cannot be read, and where it stands.
    pub fn read(
        args: &AssemblyArgs,
        file: Option<&Path>,
        variables: std::collections::HashMap<String, String>,
    ) -> Result<Self, Failure> {
        let source = file.map_or_else(|| "RAWORC_* or the options".to_owned(), |file| file.display().to_string());
        let failed = |error: config::ConfigError| {
            Failure::new(Exit::Usage, format!("the configuration cannot be read ({source}): {error}"))
                .hint("docs/reference/configuration.md lists every key")
        };
        let mut builder = Config::builder();
        for key in KEYS {
            if let Some(value) = key.value() {
                builder = builder.set_default(key.name, value).map_err(failed)?;
            }
        }
        if let Some(file) = file {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(Exit::Usage, format!("cannot read the configuration file {}", file.display()))
                    .because(error)
            })?;
            builder = builder.add_source(config::File::from_str(&text, FileFormat::Toml));
        }
        let ours = keys::from_environment(variables)?;
        let environment = Environment::with_prefix("RAWORC")
            .prefix_separator("_")
            .separator("__")
            .ignore_empty(true)
            .source(Some(ours));
        builder = builder.add_source(environment);
        for (key, value) in options(args) {
            builder = builder.set_override(key, value).map_err(failed)?;
        }
        let mut settings: Self = builder.build().and_then(Config::try_deserialize).map_err(failed)?;
        if settings.data.as_os_str().is_empty() {
            settings.data = session::default_data_dir()?;
        }
        settings.data = settled("data", &settings.data)?;
        settings.agents.sockets =
            settings.agents.sockets.map(|sockets| settled("agents.sockets", &sockets)).transpose()?;
        settings.limits.check()?;
        settings.egress.check()?;
        settings.tracing.check()?;
        if settings.log_files == 0 {
            return Err(Failure::new(Exit::Usage, "log_files: 0 cannot be kept").hint("choose 1 or more"));
        }
        Ok(settings)
    }

    /// Where the master key lies.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.master_key_file.clone().unwrap_or_else(|| self.data.join("master.key"))
    }

    /// Takes what was said of the first admin on the command line.
    pub fn with_first_admin(&mut self, args: AdminArgs) {
        if let Some(name) = args.admin {
            self.admin = name;
        }
        self.admin_password_file = args.admin_password_file.or_else(|| self.admin_password_file.take());
    }

    /// The directory of the servers' sockets, which computers on this machine are given.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.agents.sockets.clone().unwrap_or_else(|| self.data.join("link"))
    }

    /// The address of the API.
    ///
    /// # Errors
    /// Where it is no address, with an example of one.
    pub fn listen_address(&self) -> Result<SocketAddr, Failure> {
        here(&self.listen).map_err(|_| {
            Failure::new(Exit::Usage, format!("listen: {:?} is no address", self.listen))
                .hint("write an address and a port, such as 127.0.0.1:9000 or [::1]:9000")
        })
    }

    /// All models; the first is the default.
    pub fn all_models(&self) -> impl Iterator<Item = &Model> {
        std::iter::once(&self.model).chain(&self.models).filter(|model| !model.name.is_empty())
    }

    /// Limits and defaults, as the control plane takes them.
    #[must_use]
    pub fn control(&self) -> control::Settings {
        let mut settings = control::Settings::default();
        let limits = &self.limits;
        settings.inbox_limit = limits.inbox;
        settings.inbox_bytes = limits.inbox_bytes;
        settings.agents_per_tenant = (limits.agents_per_tenant > 0).then_some(limits.agents_per_tenant);
        settings.setup_limit = Duration::from_secs(limits.setup_seconds);
        settings.keep_awake_limit = Duration::from_secs(limits.keep_awake_seconds);
        settings.cancel_grace = Duration::from_secs(limits.cancel_seconds);
        settings.idempotency_ttl = Duration::from_secs(limits.idempotency_seconds);
        settings.default_runtime = match self.runtime {
            RuntimeKind::Auto => None,
            RuntimeKind::Local => Some(self.local.name.clone()),
            RuntimeKind::Docker => Some(self.docker.name.clone()),
        };
        settings.retention = self.retention.times();
        settings.work =
            WorkLimits { rounds: self.work.rounds, tokens: self.work.tokens, tool_seconds: self.work.tool_seconds };
        settings.models = self.all_models().fold(control::Models::default(), |models, model| {
            models.with(ModelSpec {
                name: model.name.clone(),
                wire: model.wire,
                context: model.context,
                vision: model.vision,
            })
        });
        settings
    }
}

impl Model {
    /// The key that its server asks for, from the file or as it was given.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn secret(&self) -> Result<Option<SecretString>, Failure> {
        let Some(file) = &self.key_file else {
            return Ok(self.key.clone());
        };
        let text = std::fs::read_to_string(file).map_err(|error| {
            let message = format!("cannot read the key of model {:?} from {}", self.name, file.display());
            Failure::new(Exit::Usage, message).because(error)
        })?;
        Ok(Some(SecretString::from(text.trim().to_owned())))
    }
}

/// A path that computers are shown, absolute and without `..`. An engine refuses another one, or leaves out `..` by the letters
/// alone and tells a path that is not the one which it was given. Links stay as they are written.
fn settled(key: &str, path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{key}: {path:?} is no directory")).because(error))?;
    let parts: Vec<_> = path.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else { return Ok(path) };
    let (up, rest) = parts.split_at(last + 1);
    let up: PathBuf = up.iter().collect();
    let mut settled = std::fs::canonicalize(&up).map_err(|error| {
        Failure::new(Exit::Usage, format!("{key}: {} leads nowhere", up.display()))
            .because(error)
            .hint("write the path without `..`, or make the directories before it")
    })?;
    settled.extend(rest);
    Ok(settled)
}

/// An address of this machine, which may go by its usual name.
fn here(text: &str) -> Result<SocketAddr, AddrParseError> {
    text.replacen("localhost:", "127.0.0.1:", 1).parse()
}

fn find_file(args: &AssemblyArgs) -> Result<Option<PathBuf>, Failure> {
    if let Some(asked) = &args.config.config {
        return Ok(Some(asked.clone()));
    }
    let here = PathBuf::from("raworc.toml");
    let home = session::config_dir().map(|dir| dir.join("raworc.toml"));
    Ok([Some(here), home.ok()].into_iter().flatten().find(|path| path.is_file()))
}

fn options(args: &AssemblyArgs) -> Vec<(&'static str, config::Value)> {
    let path = |path: &PathBuf| config::Value::from(path.to_string_lossy().into_owned());
    let given = [
        ("data", args.data.as_ref().map(path)),
        ("listen", args.listen.clone().map(Into::into)),
        ("master_key_file", args.master_key_file.as_ref().map(path)),
        ("log", args.log.clone().map(Into::into)),
        ("runtime", args.runtime.clone().map(Into::into)),
        ("local.isolation", args.no_isolation.then(|| false.into())),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

#[cfg(test)]
mod tests;
