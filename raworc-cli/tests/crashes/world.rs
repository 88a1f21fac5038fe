//! A server with those who call it and those who read its log, and how all of it comes to its end and is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use raworc_core::agent::{Agent, Desired, State};
use raworc_core::control::History as Page;
use raworc_core::ids::{AgentName, Revision};
use raworc_core::labels::Selector;
use raworc_core::message::{Message, Role};
use raworc_core::program::ExecRequest;
use raworc_http::client::{Ask, Client, ClientError, Told};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::check::violations;
use crate::clients::{Caller, INTACT, Recorder, Seen, label, read};
use crate::history::{AgentAtEnd, History, Kept, Logged};
use crate::machine;
use crate::place::Place;
use crate::server::Server;

/// How long everything may take to come to its end, once nothing goes wrong any more: a program that halted counts as lost
/// after 30 s, and a message has three attempts.
const LIMIT: Duration = Duration::from_secs(150);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Who reads the log, by name, and what each was told.
pub(crate) type Readers = BTreeMap<String, (Seen, JoinHandle<()>)>;

pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) recorder: Arc<Recorder>,
    readers: Readers,
    twice: Arc<Mutex<BTreeSet<String>>>,
    watcher: JoinHandle<()>,
    troubles: Vec<String>,
    past: Mutex<Vec<AgentAtEnd>>,
}

impl World {
    /// A server that serves, with two readers.
    pub(crate) async fn start(place: Place) -> Result<Self, String> {
        let server = Arc::new(Server::new(place).map_err(|error| error.to_string())?);
        server.start(None).await?;
        let mut readers = BTreeMap::new();
        for (name, restless_after) in [("the steady reader", usize::MAX), ("the restless reader", 17)] {
            let (client, _) = server.client().await?;
            let seen = Seen::default();
            readers.insert(name.to_owned(), (seen.clone(), tokio::spawn(read(client, seen, restless_after))));
        }
        let twice = Arc::<Mutex<BTreeSet<String>>>::default();
        let watcher = tokio::spawn(watch(server.clone(), twice.clone()));
        Ok(Self {
            server,
            recorder: Arc::default(),
            readers,
            twice,
            watcher,
            troubles: Vec::new(),
            past: Mutex::default(),
        })
    }

    pub(crate) async fn caller(&self, name: &str, seed: u64) -> Result<Caller, String> {
        let (place, client) = (self.server.place().clone(), self.server.client().await?);
        Ok(Caller::new(name.to_owned(), place, seed, client, self.recorder.clone()))
    }

    /// Keeps how an agent is that will be deleted, and at which nobody else is at work. Tells it.
    pub(crate) async fn remember(&self, client: &Client, name: &AgentName) -> Result<AgentAtEnd, String> {
        let read = Mutex::default();
        until("an agent is read", async || {
            let agent = at_end(client, &client.agent(name).await?).await?;
            *read.lock().unwrap_or_else(PoisonError::into_inner) = agent;
            Ok(true)
        })
        .await?;
        let agent: AgentAtEnd = read.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.past.lock().unwrap_or_else(PoisonError::into_inner).push(agent.clone());
        Ok(agent)
    }

    /// Something about the server that should not be.
    pub(crate) fn trouble(&mut self, what: impl Into<String>) {
        self.troubles.push(what.into());
    }

    /// Waits until everything has come to its end, takes all down, and says what is wrong with what was.
    pub(crate) async fn finish(mut self, seed: u64) -> Result<String, String> {
        let mut history = History::default();
        if let Err(error) = self.come_to_rest(&mut history).await {
            self.trouble(error);
        }
        self.server.kill().await;
        self.watcher.abort();
        for (_, reader) in self.readers.values() {
            reader.abort();
        }
        history.calls = self.recorder.calls();
        history.calls.sort_by_key(|call| call.begun);
        history.machine.twice = self.twice.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        history.machine.troubles = self.troubles;
        history.past = self.past.into_inner().unwrap_or_else(PoisonError::into_inner);
        let found = violations(&history);
        if found.is_empty() {
            let (calls, entries) = (history.calls.len(), history.log.len());
            let known = history.agents.iter().chain(&history.past);
            let messages: usize = known.clone().map(|agent| agent.messages.len()).sum();
            return Ok(format!("{calls} calls, {entries} entries, {messages} messages of {} agents", known.count()));
        }
        machine::sweep(self.server.home(), &self.server.data());
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crashes-{seed}.history"));
        let logs = format!("{}\n{}", self.server.log_tail(), self.server.place().log_tail());
        let written = std::fs::write(&kept, format!("{history}\n{logs}"));
        let where_ = written.map_or_else(|error| error.to_string(), |()| kept.display().to_string());
        let shown: Vec<_> = found.iter().take(20).map(String::as_str).collect();
        let shown = shown.join("\n  ");
        Err(format!("{} violations:\n  {shown}\nthe whole history: {where_}", found.len()))
    }

    async fn come_to_rest(&self, history: &mut History) -> Result<(), String> {
        self.server.signal(Signal::CONT).await;
        let (client, _) = self.server.client().await?;
        until("every message has its end", async || {
            for agent in everybody(&client).await? {
                client.wake(&agent.name, true, Ask::new()).await?;
            }
            for agent in everybody(&client).await? {
                let messages = all_messages(&client, &agent).await?;
                if agent.status.state() != State::Idle || messages.iter().any(|message| !message.state.is_ended()) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
        .unwrap_or_default();
        let agents = everybody(&client).await.map_err(said)?;
        for agent in &agents {
            history.agents.push(at_end(&client, agent).await.map_err(said)?);
        }
        for (agent, end) in agents.iter().zip(&mut history.agents).step_by(2) {
            client.sleep(&agent.name, false, Ask::new()).await.map_err(said)?;
            end.asked = word(&Desired::Asleep);
        }
        let rested = until("every agent rests", async || Ok(everybody(&client).await?.iter().all(rests))).await;
        for (agent, end) in everybody(&client).await.map_err(said)?.iter().zip(&mut history.agents) {
            end.desired = word(&agent.desired);
            end.state = agent.status.state().as_str().to_owned();
            end.runs = agent.status.run.is_some();
        }
        if rested.is_ok() {
            // The engine may have more to take away of those that were deleted before.
            let volumes = || self.volumes().len() == agents.len();
            until("volumes are those of agents", async || Ok(volumes())).await.unwrap_or_default();
        }
        history.machine.computers_at_rest =
            machine::computers(self.server.home(), self.server.place().is_killed()).len();
        history.machine.volumes_at_rest = self.volumes().len();
        history.log = whole_log(&client).await.map_err(said)?;
        history.machine.unsound = self.server.unsound().await;
        let_catch_up(&self.readers, history).await;
        history.machine.left_of_deleted = self.delete_all(&client).await?;
        self.server.end().await?;
        let left = || self.server.place().alive(&self.server.data());
        until("nothing is left of the server", async || Ok(left().is_empty())).await.unwrap_or_default();
        history.machine.left_of_server = left();
        Ok(())
    }

    fn volumes(&self) -> Vec<String> {
        self.server.place().volumes(&self.server.data())
    }

    /// Deletes every agent. Tells what is left of them.
    async fn delete_all(&self, client: &Client) -> Result<Vec<String>, String> {
        for agent in everybody(client).await.map_err(said)? {
            client.delete_agent(&agent.name, Ask::new()).await.map_err(said)?;
        }
        let data = self.server.data();
        let left = || self.server.place().left_of_agents(&data);
        until("what was deleted is gone", async || Ok(left().is_empty())).await.unwrap_or_default();
        let running =
            machine::running(&data, self.server.place().is_killed()).into_iter().map(|process| format!("{process:?}"));
        Ok(left().into_iter().chain(running).collect())
    }
}

/// Waits until all readers were told the whole log, and notes what they were told.
pub(crate) async fn let_catch_up(readers: &Readers, history: &mut History) {
    let last = history.log.last().map(|entry| entry.revision);
    let told = |seen: &Seen| seen.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
    let all = async || Ok(readers.values().all(|(seen, _)| told(seen) >= last));
    until("readers are told all", all).await.unwrap_or_default();
    for (name, (seen, _)) in readers {
        history.readers.insert(name.clone(), seen.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
}

/// Looks for volumes that two computers have, for as long as it is polled.
async fn watch(server: Arc<Server>, twice: Arc<Mutex<BTreeSet<String>>>) {
    loop {
        let seen = machine::twice(server.home(), server.place().is_killed());
        twice.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks again until it is so. What a call ends with meanwhile is as good as that it is not.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> Result<bool, ClientError>) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    while !is_so().await.unwrap_or(false) {
        if Instant::now() >= deadline {
            return Err(format!("not within {LIMIT:?}: {what}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

pub(crate) fn said(error: ClientError) -> String {
    format!("{}: {error}", error.code)
}

pub(crate) async fn everybody(client: &Client) -> Result<Vec<Agent>, ClientError> {
    client.all_agents(None, &Selector::default()).await
}

pub(crate) async fn all_messages(client: &Client, agent: &Agent) -> Result<Vec<Message>, ClientError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = client.messages(&agent.name, Page { newest_first: false, after, limit: None }).await?;
        all.extend(page.items);
        after = page.next.and_then(|next| next.parse().ok());
        if after.is_none() {
            return Ok(all);
        }
    }
}

pub(crate) fn rests(agent: &Agent) -> bool {
    match agent.desired {
        Desired::Awake => agent.status.state() == State::Idle,
        Desired::Asleep => agent.status.state() == State::Slept && agent.status.run.is_none(),
        Desired::Deleted => false,
    }
}

pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) async fn at_end(client: &Client, agent: &Agent) -> Result<AgentAtEnd, ClientError> {
    let messages = all_messages(client, agent).await?;
    let replies = |id| messages.iter().filter(|message| message.reply_to == Some(id)).map(Message::text).collect();
    let said = messages.iter().filter(|message| message.role == Role::User).map(|message| Kept {
        id: message.id.to_string(),
        seq: message.seq,
        label: label(&message.text()).to_owned(),
        state: word(&message.state),
        attempt: message.attempt,
        replies: replies(message.id),
    });
    let said = said.collect();
    let trace = run(client, agent, "cat trace 2>&- || true").await?;
    let intact = run(client, agent, INTACT).await?;
    Ok(AgentAtEnd {
        id: agent.id.to_string(),
        name: agent.name.to_string(),
        messages: said,
        // It was looked at while it was awake.
        asked: word(&Desired::Awake),
        trace: trace.lines().map(str::to_owned).collect(),
        intact: intact.lines().map(str::to_owned).collect(),
        ..AgentAtEnd::default()
    })
}

/// What a shell says in the agent's home. An agent can be idle while its program has still to notice that its connection was
/// cut, and to make another: it is asked again until it is there.
async fn run(client: &Client, agent: &Agent, script: &str) -> Result<String, ClientError> {
    let request: ExecRequest =
        serde_json::from_value(serde_json::json!({ "command": ["sh", "-c", script] })).expect("a request");
    let deadline = Instant::now() + LIMIT;
    loop {
        match client.run(&agent.name, &request, Duration::from_secs(30)).await {
            Err(error) if error.code == "unreachable" && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            ran => return Ok(ran?.stdout),
        }
    }
}

pub(crate) async fn whole_log(client: &Client) -> Result<Vec<Logged>, ClientError> {
    let mut events = client.read_events(None, Some(Revision(0))).await?;
    let mut log = Vec::new();
    while let Some(told) = events.next().await {
        if let Told::Event(event) = told? {
            log.push(Logged {
                revision: event.revision.0,
                kind: event.kind.as_str().to_owned(),
                agent: event.agent.map(|id| id.to_string()).unwrap_or_default(),
                message: event.message.map(|id| id.to_string()).unwrap_or_default(),
                to: event.summary["to"].as_str().unwrap_or_default().to_owned(),
                seq: event.summary["seq"].as_u64().unwrap_or_default(),
            });
        }
    }
    Ok(log)
}

/// Tells those who make calls to stop, and waits for them.
pub(crate) async fn stop(flag: &AtomicBool, callers: Vec<JoinHandle<()>>) {
    flag.store(true, Ordering::SeqCst);
    for caller in callers {
        let _ = caller.await;
    }
}
