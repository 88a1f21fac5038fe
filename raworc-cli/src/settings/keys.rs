//! Every key of the configuration, once: its default, its variable, its option, what it means.

use std::collections::HashMap;
use std::time::Duration;

use raworc_core::control;
use raworc_core::store::Retention;
use raworc_http::server::{CALLS_PER_COMPUTER, STREAMS_PER_PRINCIPAL};

use super::Kept;
use crate::exit::{Exit, Failure};

/// What `raworc image build` makes.
pub(crate) const DEFAULT_IMAGE: &str = "raworc/computer:latest";

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name; a dot for each table.
    pub name: &'static str,
    /// Its default.
    pub default: Default,
    /// The option that wins over it.
    pub option: Option<&'static str>,
    /// What it means.
    pub help: &'static str,
}

/// The default of a key.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// None: what happens then is told.
    Unset(&'static str),
    /// A text.
    Text(&'static str),
    /// A text that a library's default is written as.
    Shown(fn() -> String),
    /// A truth.
    Bool(bool),
    /// A number, taken from the defaults of the library so that there is one constant of each.
    Number(fn(&control::Settings) -> u64),
    /// A number of the command line's own.
    Plain(u64),
}

/// All keys, in the order in which they are documented.
pub const KEYS: &[Key] = &[
    key(
        "data",
        Default::Unset("`raworc` in `$XDG_DATA_HOME` or `~/.local/share`"),
        Some("--data"),
        "The directory where everything is kept: database, master key, agents' files.",
    ),
    key(
        "listen",
        Default::Text("127.0.0.1:9000"),
        Some("--listen"),
        "The address of the API. Port 0 takes a free one.",
    ),
    key(
        "store",
        Default::Text("sqlite"),
        None,
        "Where rows are kept: `sqlite`, a file in the data directory, for one process; or a database, such as `postgres://USER@HOST:5432/DATABASE` or `mysql://USER@HOST:3306/DATABASE` (MySQL and MariaDB).",
    ),
    key(
        "store_password_file",
        Default::Unset("the password in `store`, if any"),
        None,
        "The file with the database's password.",
    ),
    key(
        "master_key_file",
        Default::Unset("`master.key` in the data directory"),
        Some("--master-key-file"),
        "The file with the master key: 32 bytes in base64. `raworc up` makes it where it is not there.",
    ),
    key(
        "master_key",
        Default::Unset("read from the file"),
        None,
        "The master key itself. Better in the environment than in a file that others read.",
    ),
    key("admin", Default::Text("admin"), Some("--admin"), "The name of the first admin, made at the first start."),
    key(
        "admin_password_file",
        Default::Unset("a password is made up"),
        Some("--admin-password-file"),
        "The file with the first admin's password: 10 characters or more.",
    ),
    key("log", Default::Text("info"), Some("--log"), "What to log, such as `info` or `warn,raworc_core=debug`."),
    key(
        "log_format",
        Default::Text("auto"),
        None,
        "How the log is written to standard error: `text` for people, `json` for a line of JSON each, or `auto`, text on a terminal and else JSON.",
    ),
    key(
        "log_dir",
        Default::Unset("standard error alone"),
        None,
        "A directory where the log is kept as well, as JSON, in a file for each day.",
    ),
    key("log_files", Default::Plain(14), None, "How many files are kept in `log_dir`, the newest."),
    key(
        "tracing.otlp",
        Default::Unset("no traces"),
        None,
        "The collector of OpenTelemetry that is told of traces, by OTLP over HTTP, such as `http://collector:4318`. What it asks for beside that stands in `OTEL_EXPORTER_OTLP_HEADERS`.",
    ),
    key(
        "tracing.sample",
        Default::Text("1.0"),
        None,
        "The part of the traces that begin here of which it is told, from 0 to 1. Of one that a caller began it is told where the caller's part is.",
    ),
    key(
        "runtime",
        Default::Text("auto"),
        Some("--runtime"),
        "What makes agents' computers unless their spec names another: `docker`; `local`, namespaces of this machine; or `auto`, Docker where an engine answers on a socket of this machine and has the image or can build or pull it, else `local`.",
    ),
    key(
        "docker.name",
        Default::Text("docker"),
        None,
        "The name under which agents ask for it: another one for each engine.",
    ),
    key(
        "docker.host",
        Default::Unset("`DOCKER_HOST`, else Docker's context, else `unix:///var/run/docker.sock`"),
        None,
        "Where the Docker engine answers: `unix:///PATH` or `tcp://HOST:PORT`.",
    ),
    key(
        "docker.tls",
        Default::Unset("`DOCKER_CERT_PATH` with `DOCKER_TLS_VERIFY`, or the context's"),
        None,
        "The directory with `ca.pem`, `cert.pem` and `key.pem` for TLS to an engine at `tcp://`.",
    ),
    key(
        "docker.without_tls",
        Default::Bool(false),
        None,
        "Whether an engine on another machine may be reached without TLS. Whoever else reaches it so owns that machine.",
    ),
    key(
        "docker.remote",
        Default::Bool(false),
        None,
        "Whether the engine is on another machine: computers get the program by upload and dial `agents.address`; they need `--network open`.",
    ),
    key(
        "docker.image",
        Default::Text(DEFAULT_IMAGE),
        None,
        "The image of a computer whose agent names none. `raworc image build` makes the default one.",
    ),
    key(
        "docker.cpu",
        Default::Text("2"),
        None,
        "Cores of a container whose agent names no `resources.cpu`, such as `2` or `500m`; 0 for all that there are.",
    ),
    key(
        "docker.memory",
        Default::Text("4Gi"),
        None,
        "Memory of a container whose agent names no `resources.memory`, such as `2Gi`; 0 for all that there is.",
    ),
    key(
        "docker.pids",
        Default::Plain(4096),
        None,
        "Processes and threads of a container whose agent names no `resources.pids`; 0 for any number.",
    ),
    key(
        "agents.sockets",
        Default::Unset("`link` in the data directory"),
        None,
        "The directory in which each server of this machine has its socket; computers on this machine are given it. Servers and operators name the same.",
    ),
    key(
        "agents.listen",
        Default::Unset("a socket alone"),
        None,
        "Where agents' programs on other machines dial, with TLS, such as `0.0.0.0:9001`.",
    ),
    key(
        "agents.address",
        Default::Unset("`agents.listen`"),
        None,
        "The address at which computers on other machines reach `agents.listen`, such as `10.0.0.1` or `10.0.0.1:9001`. No name. That of whatever balances over several servers, or all of theirs with commas between.",
    ),
    key(
        "internal.listen",
        Default::Text("127.0.0.1:0"),
        None,
        "Where the processes of an installation on one database reach each other, with TLS of their own, such as `0.0.0.0:9002`. Port 0 takes a free one. Not used with SQLite.",
    ),
    key(
        "internal.address",
        Default::Unset("`internal.listen`; this machine's name where that is all of its addresses"),
        None,
        "The host at which the others reach this process, with a port where it is another one.",
    ),
    key(
        "operator.listen",
        Default::Unset("nowhere"),
        Some("--listen"),
        "Where `raworc operator` answers `/livez`, `/readyz` and `/metrics`, such as `127.0.0.1:9003`.",
    ),
    key(
        "local.name",
        Default::Text("local"),
        None,
        "The name under which agents ask for it: another one for each machine.",
    ),
    key(
        "local.isolation",
        Default::Bool(true),
        Some("--no-isolation"),
        "Whether the local runtime's computers have walls. Without, agents can do to this machine what you can.",
    ),
    key(
        "local.cpu",
        Default::Shown(|| raworc_backends::local::DEFAULT_CPU.to_string()),
        None,
        "Cores of a computer whose agent names no `resources.cpu`, such as `2` or `500m`; 0 for all that there are.",
    ),
    key(
        "local.memory",
        Default::Unset("half of this machine's, `4Gi` at most"),
        None,
        "Memory of a computer whose agent names no `resources.memory`, such as `2Gi`; 0 for all that there is.",
    ),
    key(
        "local.pids",
        Default::Plain(raworc_backends::local::DEFAULT_PIDS as u64),
        None,
        "Processes and threads of a computer whose agent names no `resources.pids`; 0 for any number.",
    ),
    key(
        "limits.inbox",
        Default::Number(|settings| settings.inbox_limit),
        None,
        "Messages that may wait for one agent.",
    ),
    key(
        "limits.inbox_bytes",
        Default::Number(|settings| settings.inbox_bytes),
        None,
        "Bytes of text in the messages that may wait for one agent.",
    ),
    key(
        "limits.agents_per_tenant",
        Default::Number(|settings| settings.agents_per_tenant.unwrap_or(0)),
        None,
        "Agents that a tenant may have; 0 for any number.",
    ),
    key(
        "limits.streams_per_principal",
        Default::Plain(STREAMS_PER_PRINCIPAL as u64),
        None,
        "Streams of events, and calls into computers, that one user may have open. A command that somebody is attached to takes four.",
    ),
    key(
        "limits.calls_per_computer",
        Default::Plain(CALLS_PER_COMPUTER as u64),
        None,
        "Calls into one computer that may be open, 300 at most.",
    ),
    key(
        "limits.setup_seconds",
        Default::Number(|settings| settings.setup_limit.as_secs()),
        None,
        "How long a setup script may run.",
    ),
    key(
        "limits.keep_awake_seconds",
        Default::Number(|settings| settings.keep_awake_limit.as_secs()),
        None,
        "The longest that one `keep-awake` can ask for.",
    ),
    key(
        "limits.cancel_seconds",
        Default::Number(|settings| settings.cancel_grace.as_secs()),
        None,
        "How long an agent has to obey a cancel before its computer is started anew.",
    ),
    key(
        "limits.idempotency_seconds",
        Default::Number(|settings| settings.idempotency_ttl.as_secs()),
        None,
        "How long an `Idempotency-Key` is remembered.",
    ),
    key(
        "retention.messages",
        Default::Shown(|| kept(|times| times.messages)),
        None,
        "How long messages that have ended are kept, such as `365d`; 0 for ever. Those of an agent go from the oldest on.",
    ),
    key(
        "retention.steps",
        Default::Shown(|| kept(|times| times.steps)),
        None,
        "How long steps are kept, and no longer than their messages; 0 for ever.",
    ),
    key(
        "retention.events",
        Default::Shown(|| kept(|times| times.events)),
        None,
        "How long the log of events is kept: who follows it and was away for longer reads everything anew; 0 for ever. Of more than a million events the oldest go before.",
    ),
    key(
        "retention.audit",
        Default::Shown(|| kept(|times| times.audit)),
        None,
        "How long audit rows are kept; 0 for ever.",
    ),
    key(
        "retention.deleted_agents",
        Default::Shown(|| kept(|times| times.deleted_agents)),
        None,
        "How long messages and steps of an agent that was deleted are kept; 0 for ever.",
    ),
    key(
        "retention.blobs",
        Default::Shown(|| kept(|times| times.blobs)),
        None,
        "How long files that are kept apart are kept once no message refers to them; 0 for ever.",
    ),
    key("work.rounds", Default::Number(|settings| settings.work.rounds as u64), None, "Model calls for one message."),
    key(
        "work.tokens",
        Default::Number(|settings| settings.work.tokens as u64),
        None,
        "Tokens that the model may write for one message.",
    ),
    key(
        "work.tool_seconds",
        Default::Number(|settings| settings.work.tool_seconds),
        None,
        "How long one tool call may take, unless the call asks for less.",
    ),
    key(
        "model.name",
        Default::Text("gpt-oss:20b"),
        None,
        "The model that agents think with unless their spec names another; `name = \"\"` in a file for none.",
    ),
    key(
        "model.url",
        Default::Text("http://127.0.0.1:11434"),
        None,
        "The address of the server of that model; for `openai` it ends in `/v1`.",
    ),
    key(
        "model.wire",
        Default::Text("ollama"),
        None,
        "What it speaks: `ollama`, or `openai` for whatever is compatible.",
    ),
    key("model.context", Default::Plain(super::context() as u64), None, "Tokens that the model can read at once."),
    key("model.vision", Default::Bool(false), None, "Whether the model sees pictures."),
    key(
        "model.key_file",
        Default::Unset("no key"),
        None,
        "The file with the key that the model's server asks for. No key enters an agent's computer.",
    ),
    key("model.key", Default::Unset("no key"), None, "That key itself."),
];

/// The library's default of a time for which something is kept.
fn kept(read: fn(&Retention) -> Option<Duration>) -> String {
    Kept(read(&Retention::default())).to_string()
}

const fn key(name: &'static str, default: Default, option: Option<&'static str>, help: &'static str) -> Key {
    Key { name, default, option, help }
}

/// Variables that begin with `RAWORC_` and are no keys of the configuration.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("RAWORC_CONFIG", "The configuration file, as `--config`."),
    (
        "RAWORC_CONFIG_DIR",
        "Where `session.json` with your logins lies, and `raworc.toml` is looked for; `raworc` in `$XDG_CONFIG_HOME` or `~/.config` where unset.",
    ),
    ("RAWORC_SERVER", "The server that commands speak to, as `--server`."),
    ("RAWORC_TENANT", "The tenant that commands work in, as `--tenant`."),
    ("RAWORC_TOKEN", "The token that commands use instead of the login, with the server of `RAWORC_SERVER`."),
    ("RAWORC_AGENTD", "The program that is put into agents' computers, where it does not lie beside `raworc`."),
    ("RAWORC_BENCH_DATABASE", "The database server that `raworc bench database` measures on, as `--database`."),
];

impl Key {
    /// Its default as a value, where it has one.
    #[must_use]
    pub fn value(&self) -> Option<config::Value> {
        match self.default {
            Default::Unset(_) => None,
            Default::Text(text) => Some(text.into()),
            Default::Shown(text) => Some(text().into()),
            Default::Bool(value) => Some(value.into()),
            Default::Number(read) => Some(read(&control::Settings::default()).into()),
            Default::Plain(number) => Some(number.into()),
        }
    }

    /// Its variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RAWORC_{}", self.name.replace('.', "__").to_ascii_uppercase())
    }
}

/// The variables that are keys of the configuration. Others that begin with `RAWORC_` are mistakes.
pub(super) fn from_environment(variables: HashMap<String, String>) -> Result<HashMap<String, String>, Failure> {
    let mut ours = HashMap::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("RAWORC_") else {
            continue;
        };
        if KEYS.iter().any(|key| key.variable() == name) {
            ours.insert(name, value);
        } else if !OTHER_VARIABLES.iter().any(|(other, _)| *other == name) && !foreign(rest) {
            let failure = Failure::new(Exit::Usage, format!("{name} is set, and there is no such key"));
            return Err(match nearest(&name) {
                Some(near) => failure.hint(format!("did you mean {near}? Unset {name}")),
                None => failure.hint(format!("unset {name}; docs/reference/configuration.md lists every key")),
            });
        }
    }
    Ok(ours)
}

/// What Kubernetes sets for a service named `raworc`, and what our tests go by.
fn foreign(rest: &str) -> bool {
    rest.starts_with("TEST_") || rest.starts_with("SERVICE_") || rest == "PORT" || rest.starts_with("PORT_")
}

fn nearest(name: &str) -> Option<String> {
    let all = KEYS.iter().map(Key::variable).chain(OTHER_VARIABLES.iter().map(|(other, _)| (*other).to_owned()));
    all.map(|known| (distance(name, &known), known))
        .filter(|&(distance, _)| distance <= 3)
        .min()
        .map(|(_, known)| known)
}

/// How many letters differ, are missing or are too many.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let best = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = best;
        }
    }
    row[b.len()]
}
