//! An installation with a model and one agent, ada.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use raworc_cli::session::Session;
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::message::{Message, MessageState};
use raworc_core::step::Step;
use raworc_http::client::{Ask, Client, EventStream, Told};
use secrecy::SecretString;

use crate::models::Model;
use crate::proxy::Proxy;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// `raworc up` with a model, and an agent in it, until it is dropped.
pub(crate) struct World {
    up: Child,
    home: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) token: String,
    pub(crate) ada: AgentName,
    /// What stands between the gateway and the model.
    pub(crate) proxy: Proxy,
}

/// What differs from case to case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Tokens that the model is said to read at once.
    pub(crate) context: u32,
    /// Tokens that it may write for one message.
    pub(crate) tokens: u32,
}

impl Default for Setting {
    fn default() -> Self {
        Self { context: 8192, tokens: 60 }
    }
}

impl World {
    pub(crate) async fn new(model: &Model) -> Self {
        Self::with(model, Setting::default()).await
    }

    pub(crate) async fn with(model: &Model, setting: Setting) -> Self {
        let proxy = Proxy::start(model.address).await;
        let home = tempfile::tempdir().expect("a temporary directory");
        let file = format!(
            "listen = \"127.0.0.1:0\"\nruntime = \"local\"\nlog = \"warn\"\n\n[work]\ntokens = {}\n\n[model]\nname = {:?}\nurl = \"http://{}/v1\"\n\
             wire = \"openai\"\ncontext = {}\nkey_file = \"model.key\"\n",
            setting.tokens, model.name, proxy.address, setting.context
        );
        std::fs::write(home.path().join("raworc.toml"), file).expect("written");
        std::fs::write(home.path().join("model.key"), &model.key).expect("written");
        let mut up = raworc(&home, &["up", "-o", "json"]).stdout(Stdio::piped()).spawn().expect("raworc starts");
        let out = up.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("it says where it serves");
        let started: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let session = std::fs::read(home.path().join(".config/raworc/session.json")).expect("it logs its user in");
        let session: Session = serde_json::from_slice(&session).expect("a session");
        let url = started["server"].as_str().expect("an address");
        let token = session.logins[url].token.clone();
        let client = Client::new(url).expect("a client").with_token(SecretString::from(token.clone()));
        let ada: AgentName = "ada".parse().expect("a name");
        let world = Self { up, home, client, token, ada, proxy };
        let ada = CreateAgent { name: world.ada.clone(), spec: raworc_core::agent::AgentSpec::default() };
        world.client.create_agent(&ada, Ask::new().wait_secs(60)).await.expect("made");
        world
    }

    /// The files of a model's address and key on this machine, outside of any computer.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.home.path().join("raworc.toml")
    }

    /// What happens to ada from now on.
    pub(crate) async fn follow(&self) -> EventStream {
        self.client.follow(Some(&self.ada), None).await.expect("followed")
    }

    /// Says something to ada without waiting for what comes of it.
    pub(crate) async fn begin(&self, text: &str) -> MessageId {
        self.client.send(&self.ada, &SendMessage::text(text), Ask::new()).await.expect("accepted").id
    }

    /// Waits for the end of a message.
    pub(crate) async fn end(&self, id: MessageId) -> Message {
        let message = self.client.message(&self.ada, id, Some(PATIENCE)).await.expect("the message");
        assert!(message.state.is_ended(), "not ended after {PATIENCE:?}: {message:#?}");
        message
    }

    /// Says something to ada, and returns what is answered.
    pub(crate) async fn say(&self, text: &str) -> String {
        let message = self.end(self.begin(text).await).await;
        assert_eq!(message.state, MessageState::Done, "{message:#?}");
        self.answer(&message).await
    }

    /// What was answered.
    pub(crate) async fn answer(&self, message: &Message) -> String {
        let reply = self.client.reply_to(&self.ada, message).await.expect("read").expect("an answer");
        assert!(!reply.text().trim().is_empty(), "{reply:#?}");
        reply.text()
    }

    pub(crate) async fn steps(&self, id: MessageId) -> Vec<Step> {
        self.client.steps(&self.ada, Some(id), 0).await.expect("steps").items
    }

    /// Runs a command in ada's computer with this on its standard input, and returns its exit code and output.
    pub(crate) fn exec(&self, script: &str, input: &str) -> (Option<i32>, String) {
        let mut command = raworc(&self.home, &["agent", "exec", "-i", "ada", "--", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("raworc runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The figures of the server.
    pub(crate) async fn figure(&self, line: &str) -> u64 {
        let url = format!("{}/metrics", self.client.server().trim_end_matches('/'));
        let answer = reqwest::Client::new().get(url).bearer_auth(&self.token).send().await.expect("an answer");
        let text = answer.error_for_status().expect("figures").text().await.expect("figures");
        let found = text.lines().find_map(|other| other.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("there is no {line} in {text}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let pid = i32::try_from(self.up.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.up.wait();
    }
}

/// The binary, with nothing of the surroundings that could change what it does.
fn raworc(home: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raworc"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAWORC_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(home.path()).env("HOME", home.path()).env("NO_COLOR", "1").stdin(Stdio::null());
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    command
}

/// Waits for the first words of the answer to this message.
pub(crate) async fn first_words(told: &mut EventStream, id: MessageId) {
    while let Some(next) = told.next().await {
        if matches!(next.expect("told"), Told::Delta(delta) if delta.message == id) {
            return;
        }
    }
    panic!("the stream ended before the model wrote anything");
}
