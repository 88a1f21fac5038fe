//! Two servers, two operators, an engine and a database, each on a machine of its own, with those who call and those who read;
//! and how all of it comes to its end and is judged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use raworc_core::agent::{Agent, Desired, State};
use raworc_core::control::CreateAgent;
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client, ClientError};
use raworc_http::server::remote::VARIABLE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use super::database::Relay;
use super::engine::{Engine, Journal};
use super::network::{Network, OPERATORS, SERVERS};
use super::node::Node;
use crate::check::violations;
use crate::clients::{Caller, Recorder, Seen, read_by_turns};
use crate::databases::Database;
use crate::history::History;
use crate::place::Place;
use crate::world::{all_messages, at_end, everybody, let_catch_up, rests, said, until, whole_log, word};

const PASSWORD: &str = "nobody guesses this one";

/// Ports, each on its own machine.
const API: u16 = 9000;
const AGENTS: u16 = 9001;
const INTERNAL: u16 = 9002;
const HEALTH: u16 = 9003;

/// How long an answer, or an entry of the log, is waited for at one server while there is another.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks at all agents.
const PAUSE: Duration = Duration::from_millis(300);

/// Calls that look at agents at the end, at a time.
const LOOKS: usize = 8;

pub(crate) struct Fleet {
    pub(crate) network: Arc<Network>,
    pub(crate) database: Database,
    pub(crate) relay: Relay,
    pub(crate) engine: Engine,
    pub(crate) servers: Vec<Node>,
    pub(crate) operators: Vec<Node>,
    pub(crate) recorder: Arc<Recorder>,
    /// One of each server.
    pub(crate) clients: Vec<Client>,
    token: String,
    readers: BTreeMap<String, (Seen, JoinHandle<()>)>,
    troubles: Vec<String>,
    /// The last: all that runs in it ends before.
    _home: tempfile::TempDir,
}

impl Fleet {
    /// All of it, and two readers.
    pub(crate) async fn start(network: Network, database: Database) -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let network = Arc::new(network);
        for (file, text) in [("password", PASSWORD), ("master.key", "ZmlmdHktc2l4dGVlbi1ieXRlcy1mb3ItYS1rZXkhISE=")] {
            std::fs::write(home.path().join(file), text).map_err(|error| error.to_string())?;
        }
        let relay = Relay::start(&network, &database, home.path()).await?;
        let engine = Engine::start(&network, home.path()).await?;
        let node = |machine| {
            let (arguments, variables) = told(&network, machine, home.path(), &relay, &engine);
            Node::new(machine, network.clone(), home.path(), arguments, variables).map_err(|error| error.to_string())
        };
        let servers = SERVERS.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let operators = OPERATORS.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
        // Whoever comes first makes the tables.
        futures::future::try_join_all(servers.iter().chain(&operators).map(Node::start)).await?;
        let address = |machine| format!("http://{}", network.address(machine, API));
        let first = Client::new(&address(SERVERS[0])).map_err(said)?;
        let login = first.login("admin", &PASSWORD.into()).await.map_err(said)?;
        let clients = SERVERS.into_iter().map(|machine| Client::new(&address(machine)));
        let clients = clients.map(|client| client.map(|client| client.with_token(login.token.clone())));
        let clients = clients.collect::<Result<Vec<_>, _>>().map_err(said)?;
        let mut readers = BTreeMap::new();
        for (number, (name, restless_after)) in
            [("the steady reader", usize::MAX), ("the restless reader", 17)].into_iter().enumerate()
        {
            let (seen, mut turns) = (Seen::default(), clients.clone());
            turns.rotate_left(number);
            let reader = tokio::spawn(read_by_turns(turns, seen.clone(), restless_after, PATIENCE));
            readers.insert(name.to_owned(), (seen, reader));
        }
        Ok(Self {
            network,
            database,
            relay,
            engine,
            servers,
            operators,
            recorder: Arc::default(),
            clients,
            token: login.token,
            readers,
            troubles: Vec::new(),
            _home: home,
        })
    }

    pub(crate) fn caller(&self, name: &str, seed: u64, names: &[AgentName]) -> Caller {
        let first = (self.clients[0].clone(), self.token.clone());
        let caller = Caller::new(name.to_owned(), Place::Local, seed, first, self.recorder.clone());
        caller.with_others(self.clients[1..].to_vec(), PATIENCE).about(names.to_vec())
    }

    /// Makes agents of these names, each by a call that is recorded, and waits until they are idle.
    pub(crate) async fn make(&self, names: &[AgentName]) -> Result<(), String> {
        let makers = futures::stream::iter(names.iter().enumerate()).map(|(number, name)| async move {
            let mut caller = self.caller(&format!("maker-{number}"), 0, names);
            caller.create(CreateAgent::named(name.clone()), false).await
        });
        makers.buffer_unordered(LOOKS).collect::<Vec<_>>().await;
        self.become_so("every agent is idle", |agent| agent.status.state() == State::Idle).await
    }

    /// Waits until this is so of every agent.
    pub(crate) async fn become_so(&self, what: &str, is_so: impl Fn(&Agent) -> bool) -> Result<(), String> {
        until(what, async || {
            tokio::time::sleep(PAUSE).await;
            Ok(everybody(&self.clients[0]).await?.iter().all(&is_so))
        })
        .await
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.servers.iter().chain(&self.operators)
    }

    /// Something that should not be.
    pub(crate) fn trouble(&mut self, what: impl Into<String>) {
        self.troubles.push(what.into());
    }

    pub(crate) fn signal_database(&self, signal: Signal) {
        if let Some(pid) = self.relay.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It lives as long as the test.
            let _ = kill_process(pid, signal);
        }
    }

    /// Takes back all that went wrong.
    async fn mend(&self) -> Result<(), String> {
        self.network.heal_all()?;
        self.signal_database(Signal::CONT);
        for node in self.nodes() {
            node.signal(Signal::CONT).await;
            if node.pid().await.is_none() {
                node.start().await?;
            }
        }
        for start in self.engine.journal().live() {
            signal(&start, Signal::CONT);
        }
        Ok(())
    }

    /// Waits until everything has come to its end, takes all down, and says what is wrong with what was.
    pub(crate) async fn finish(mut self, seed: u64) -> Result<String, String> {
        let mut history = History::default();
        if let Err(error) = self.come_to_rest(&mut history).await {
            self.trouble(error);
        }
        if self.engine.ended() {
            self.trouble("the engine ended by itself");
        }
        for node in self.nodes() {
            node.kill().await;
        }
        for (_, reader) in self.readers.values() {
            reader.abort();
        }
        let journal = self.engine.journal();
        history.calls = self.recorder.calls();
        history.calls.sort_by_key(|call| call.begun);
        history.machine.twice = journal.twice();
        history.machine.second_computers = journal.second_computers();
        history.machine.troubles = std::mem::take(&mut self.troubles);
        let found = violations(&history);
        let result = match found.as_slice() {
            [] => {
                let (calls, entries) = (history.calls.len(), history.log.len());
                let messages: usize = history.agents.iter().map(|agent| agent.messages.len()).sum();
                let starts: usize = journal.starts().values().sum();
                Ok(format!("{calls} calls, {entries} entries, {messages} messages, {starts} starts"))
            }
            found => Err(self.told(seed, found, &history, &journal)),
        };
        self.engine.end().await?;
        result
    }

    /// What was found, and where all of it is kept.
    fn told(&self, seed: u64, found: &[String], history: &History, journal: &Journal) -> String {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("apart-{seed}.history"));
        let logs = self.nodes().map(|node| format!("machine {}\n{}\n", node.machine, node.log_tail()));
        let done: String = journal.0.iter().map(|done| format!("{done:?}\n")).collect();
        let written = std::fs::write(&kept, format!("{history}\n{done}\n{}", logs.collect::<String>()));
        let kept = written.map_or_else(|error| error.to_string(), |()| kept.display().to_string());
        let shown: Vec<_> = found.iter().take(20).map(String::as_str).collect();
        format!("{} violations:\n  {}\nthe whole history: {kept}", found.len(), shown.join("\n  "))
    }

    async fn come_to_rest(&self, history: &mut History) -> Result<(), String> {
        self.mend().await?;
        let client = &self.clients[0];
        let is_over = |agent: &Agent| agent.status.state() == State::Idle && agent.inbox.queued == 0;
        until("every message has its end", async || {
            for agent in everybody(client).await?.iter().filter(|agent| !is_over(agent)) {
                client.wake(&agent.name, true, Ask::new()).await?;
            }
            tokio::time::sleep(PAUSE).await;
            Ok(everybody(client).await?.iter().all(is_over))
        })
        .await
        .unwrap_or_default();
        let agents = everybody(client).await.map_err(said)?;
        // Whichever server has the link, each of them finds it.
        let looks = futures::stream::iter(agents.iter().zip(self.clients.iter().cycle()))
            .map(|(agent, client)| at_end(client, agent))
            .buffered(LOOKS);
        for (look, agent) in looks.collect::<Vec<_>>().await.into_iter().zip(&agents) {
            history.agents.push(look.map_err(|error| format!("{} cannot be looked at: {}", agent.name, said(error)))?);
        }
        for (agent, end) in agents.iter().zip(&mut history.agents).step_by(2) {
            client.sleep(&agent.name, false, Ask::new()).await.map_err(said)?;
            end.asked = word(&Desired::Asleep);
        }
        let rested = self.become_so("every agent rests", rests).await;
        for (agent, end) in everybody(client).await.map_err(said)?.iter().zip(&mut history.agents) {
            end.desired = word(&agent.desired);
            end.state = agent.status.state().as_str().to_owned();
            end.runs = agent.status.run.is_some();
        }
        if rested.is_ok() {
            // The engine may have more to take away of those that were deleted before.
            until("computers are those of agents", async || {
                tokio::time::sleep(PAUSE).await;
                Ok(self.engine.computers().await.is_ok_and(|computers| computers.len() == agents.len()))
            })
            .await
            .unwrap_or_default();
        }
        history.machine.computers_at_rest = self.engine.journal().live().len();
        history.machine.volumes_at_rest = self.engine.volumes().len();
        history.log = whole_log(client).await.map_err(said)?;
        history.untold = self.operators.iter().map(Node::left).sum();
        history.machine.unsound = self.servers[0].unsound().await;
        let_catch_up(&self.readers, history).await;
        self.delete_all(history).await?;
        for node in self.nodes() {
            node.end().await?;
        }
        Ok(())
    }

    /// Deletes every agent, and says what is left of them.
    async fn delete_all(&self, history: &mut History) -> Result<(), String> {
        let client = &self.clients[1];
        for agent in everybody(client).await.map_err(said)? {
            client.delete_agent(&agent.name, Ask::new()).await.map_err(said)?;
        }
        until("what was deleted is gone", async || {
            tokio::time::sleep(PAUSE).await;
            Ok(self.left_of_agents().await.is_empty())
        })
        .await
        .unwrap_or_default();
        history.machine.left_of_deleted = self.left_of_agents().await;
        Ok(())
    }

    /// What the engine has. One that does not answer has something, for all that is known.
    async fn left_of_agents(&self) -> Vec<String> {
        let computers = self.engine.computers().await.unwrap_or_else(|error| vec![error]);
        let computers = computers.into_iter().map(|computer| format!("computer {computer}"));
        let live = self.engine.journal().live().into_iter().map(|start| format!("{start:?}"));
        let volumes = self.engine.volumes().into_iter().map(|volume| format!("volume {volume}"));
        computers.chain(live).chain(volumes).collect()
    }

    /// Where an operator says how it is.
    pub(crate) fn health_of(&self, operator: &Node) -> Result<Client, String> {
        Client::new(&format!("http://{}", self.network.address(operator.machine, HEALTH))).map_err(said)
    }

    /// The messages of an agent.
    pub(crate) async fn messages(
        &self,
        client: &Client,
        name: &AgentName,
    ) -> Result<Vec<raworc_core::message::Message>, ClientError> {
        all_messages(client, &client.agent(name).await?).await
    }
}

/// Sends a signal to the program of a start that lives.
pub(crate) fn signal(start: &super::engine::Done, signal: Signal) {
    if start.pid > 0
        && let Some(pid) = Pid::from_raw(start.pid)
    {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// What a process is told of where it is.
fn told(
    network: &Network,
    machine: u8,
    home: &Path,
    relay: &Relay,
    engine: &Engine,
) -> (Vec<String>, Vec<(String, String)>) {
    let at = |port| network.address(machine, port).to_string();
    let servers = SERVERS.map(|machine| network.address(machine, AGENTS).to_string()).join(",");
    let file = |name: &str| home.join(name).display().to_string();
    let mut variables = vec![
        ("RAWORC_STORE", relay.url().to_owned()),
        ("RAWORC_MASTER_KEY_FILE", file("master.key")),
        ("RAWORC_AGENTS__LISTEN", at(AGENTS)),
        ("RAWORC_AGENTS__ADDRESS", servers),
        ("RAWORC_INTERNAL__LISTEN", at(INTERNAL)),
    ];
    let arguments = if SERVERS.contains(&machine) {
        let given = ["server", "--listen", &at(API), "--admin-password-file", &file("password")];
        given.map(str::to_owned).to_vec()
    } else {
        variables.push(("RAWORC_OPERATOR__LISTEN", at(HEALTH)));
        variables.push((VARIABLE, engine.address.to_string()));
        vec!["operator".to_owned()]
    };
    (arguments, variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
