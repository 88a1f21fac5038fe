//! Clients that make random calls of the real API and write down each with what came of it, and readers of the log.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use raworc_core::agent::{Agent, Desired};
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::ids::{AgentName, MessageId, Revision};
use raworc_core::message::Message;
use raworc_http::client::{Ask, Client, ClientError, Told};
use rustix::process::{Pid, Signal, kill_process};

use crate::history::{Act, Call, NO_CODE, Outcome};
use crate::place::Place;

/// Agents are few, so that clients get in each other's way.
pub(crate) const NAMES: [&str; 4] = ["ada", "bob", "cy", "dee"];

/// Keeps what clients do, on one clock.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    clock: AtomicU64,
    /// A process that is killed as soon as something is acknowledged that may not be lost.
    doomed: Mutex<Option<Pid>>,
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages whose acceptance a client was told of.
    pub(crate) fn accepted(&self) -> u64 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|call| matches!(call.outcome, Outcome::Message { .. })).count() as u64
    }

    /// Kills this process the moment that a client has the answer to a message or to a create, and no sooner.
    pub(crate) fn kill_at_next_answer(&self, process: Option<Pid>) {
        *self.doomed.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    fn answered(&self, act: &Act, outcome: &Outcome) {
        let is_new = matches!(act, Act::Send { .. } | Act::Create { .. });
        if is_new && matches!(outcome, Outcome::Message { .. } | Outcome::Agent { .. }) {
            let doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner).take();
            doomed.map(|process| kill_process(process, Signal::KILL));
        }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a call and keeps what came of it.
    pub(crate) async fn keep(
        &self,
        agent: &AgentName,
        act: Act,
        call: impl Future<Output = Result<Outcome, ClientError>>,
    ) -> Outcome {
        let begun = self.now();
        let outcome = call.await.unwrap_or_else(failed);
        self.answered(&act, &outcome);
        let kept = Call { begun, ended: self.now(), agent: agent.to_string(), act, outcome: outcome.clone() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        outcome
    }
}

/// What a call came to that was not acknowledged.
fn failed(error: ClientError) -> Outcome {
    match error.status {
        // A server that cannot say whether it was done answers one of these.
        Some(status) if !matches!(status.as_u16(), 502..=504 | 507) => Outcome::Refused { code: error.code },
        _ => Outcome::Unknown { why: error.code },
    }
}

fn is(agent: Agent) -> Outcome {
    Outcome::Agent { id: agent.id.to_string() }
}

pub(crate) fn accepted(message: Message) -> Outcome {
    Outcome::Message { id: message.id.to_string(), agent: message.agent.to_string(), seq: message.seq }
}

/// The work of a message: after a while it leaves a file and then its label on the volume, and another mark where other work
/// is under way, and says that it [`did`] it. Where it is interrupted, what writes the file can end well with a part of it,
/// and the shell goes on.
pub(crate) fn work(label: &str, millis: u32) -> String {
    let seconds = f64::from(millis) / 1000.0;
    let file =
        "yes $L | head -c 65536 > new; [ $(wc -c < new) = 65536 ] && mv new kept-$L && echo $L >> trace && echo did $L";
    format!("!L={label}; (flock -n 9 || echo both $L >> trace; sleep {seconds}; {file}) 9>>lock")
}

/// What [`work`] says at its end.
pub(crate) fn did(label: &str) -> String {
    format!("did {label}")
}

/// Tells the labels of those files that are as [`work`] left them, and of others `damaged` and their labels.
pub(crate) const INTACT: &str = r#"for file in kept-*; do
    [ -e "$file" ] || continue
    label=${file#kept-}
    if yes "$label" | head -c 65536 | cmp -s - "$file"; then echo "$label"; else echo "damaged $label"; fi
done"#;

/// The label of a message that [`work`] wrote.
pub(crate) fn label(text: &str) -> &str {
    text.strip_prefix("!L=").and_then(|rest| rest.split_once(';')).map_or(text, |(label, _)| label)
}

/// One that makes calls.
pub(crate) struct Caller {
    name: String,
    place: Place,
    chance: Xoshiro256PlusPlus,
    /// One for each server. What one does not answer, the next one is asked.
    clients: Vec<Client>,
    at: AtomicUsize,
    /// How long an answer is waited for, where there is another server to ask.
    patience: Duration,
    names: Vec<AgentName>,
    token: String,
    recorder: Arc<Recorder>,
    sent: u32,
    /// What it sent under a key, to be sent again.
    keyed: Option<(AgentName, String, String, u32)>,
    made: Option<(CreateAgent, String)>,
    /// What was accepted last, to be cancelled.
    last: Option<(AgentName, MessageId)>,
}

impl Caller {
    pub(crate) fn new(
        name: String,
        place: Place,
        seed: u64,
        (client, token): (Client, String),
        recorder: Arc<Recorder>,
    ) -> Self {
        let chance = Xoshiro256PlusPlus::seed_from_u64(seed);
        let names = NAMES.iter().map(|name| name.parse().expect("a name")).collect();
        let (clients, at, patience) = (vec![client], AtomicUsize::default(), Duration::MAX);
        let (sent, keyed, made, last) = (0, None, None, None);
        Self { name, place, chance, clients, at, patience, names, token, recorder, sent, keyed, made, last }
    }

    /// One that goes on at these servers too, where an answer does not come in time.
    pub(crate) fn with_others(mut self, others: Vec<Client>, patience: Duration) -> Self {
        self.clients.extend(others);
        self.patience = patience;
        // Callers do not all begin at the same one.
        *self.at.get_mut() = self.chance.random_range(0..self.clients.len());
        self
    }

    /// One that calls for these agents.
    pub(crate) fn about(mut self, names: Vec<AgentName>) -> Self {
        self.names = names;
        self
    }

    fn client(&self) -> &Client {
        &self.clients[self.at.load(Ordering::Relaxed) % self.clients.len()]
    }

    /// Makes a call, keeps what came of it, and turns to another server where nothing did.
    async fn keep(
        &self,
        agent: &AgentName,
        act: Act,
        call: impl Future<Output = Result<Outcome, ClientError>>,
    ) -> Outcome {
        let call = async {
            let late = Outcome::Unknown { why: "it was not waited for any longer".into() };
            tokio::time::timeout(self.patience, call).await.unwrap_or(Ok(late))
        };
        let outcome = self.recorder.keep(agent, act, call).await;
        if matches!(outcome, Outcome::Unknown { .. }) {
            self.at.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Calls until it is told to stop.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::SeqCst) {
            self.one().await;
            let pause = self.chance.random_range(0..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn one(&mut self) {
        let number = self.chance.random_range(0..self.names.len());
        let name = self.names[number].clone();
        match self.chance.random_range(0..100) {
            0..=44 => {
                let millis = self.chance.random_range(0..400);
                let keyed = self.chance.random_bool(0.6);
                self.send(&name, keyed, millis).await;
            }
            45..=51 => self.send_again().await,
            52..=61 => self.get(&name).await,
            62..=75 => {
                let again = self.chance.random_bool(0.2);
                self.create(self.place.agent(name, number), again).await;
            }
            76..=82 => {
                let now = self.chance.random_bool(0.3);
                self.sleep(&name, now).await;
            }
            83..=90 => drop(self.wake(&name).await),
            91..=93 => self.cancel(&name).await,
            94..=97 => self.cancel_last().await,
            // Rarely: what a deleted agent had done cannot be looked at any more.
            _ => {
                if self.chance.random_bool(0.4) {
                    self.delete(&name).await;
                }
            }
        }
    }

    fn new_label(&mut self) -> String {
        self.sent += 1;
        format!("{}-{}", self.name, self.sent)
    }

    pub(crate) async fn send(&mut self, name: &AgentName, keyed: bool, millis: u32) -> Outcome {
        let label = self.new_label();
        let outcome = if keyed {
            let key = format!("key-{label}");
            self.keyed = Some((name.clone(), label.clone(), key.clone(), millis));
            self.send_under(name, &label, &key, millis).await
        } else {
            let act = Act::Send { label: label.clone(), key: None };
            self.keep(name, act, self.send_without(name, work(&label, millis))).await
        };
        if let Outcome::Message { id, .. } = &outcome {
            self.last = id.parse().ok().map(|id| (name.clone(), id));
        }
        outcome
    }

    async fn send_under(&self, name: &AgentName, label: &str, key: &str, millis: u32) -> Outcome {
        let act = Act::Send { label: label.to_owned(), key: Some(key.to_owned()) };
        let said = SendMessage::text(work(label, millis));
        let mut outcome = Outcome::Unknown { why: "it was not tried".into() };
        // Each server that there is, under the same key.
        for _ in &self.clients {
            let call = async { self.client().send(name, &said, Ask::new().with_key(key)).await.map(accepted) };
            outcome = self.keep(name, act.clone(), call).await;
            if !matches!(outcome, Outcome::Unknown { .. }) {
                break;
            }
        }
        outcome
    }

    /// Without a key, and once: the typed client has a key for each call.
    async fn send_without(&self, name: &AgentName, text: String) -> Result<Outcome, ClientError> {
        let unknown = |error: reqwest::Error| Outcome::Unknown { why: error.without_url().to_string() };
        let url = format!("{}/api/v0/agents/{name}/messages", self.client().server());
        let call = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(30)).build();
        let call = call.expect("a client").post(url).bearer_auth(&self.token).json(&SendMessage::text(text));
        let answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => return Ok(unknown(error)),
        };
        let status = answer.status();
        let Ok(body) = answer.json::<serde_json::Value>().await else {
            return Ok(Outcome::Unknown { why: format!("{status} without a body") });
        };
        Ok(match serde_json::from_value::<Message>(body.clone()) {
            Ok(message) if status.is_success() => accepted(message),
            _ if matches!(status.as_u16(), 502..=504 | 507) => Outcome::Unknown { why: status.to_string() },
            _ => Outcome::Refused { code: body["error"]["code"].as_str().unwrap_or(NO_CODE).to_owned() },
        })
    }

    async fn send_again(&mut self) {
        if let Some((name, label, key, millis)) = self.keyed.clone() {
            self.send_under(&name, &label, &key, millis).await;
        }
    }

    pub(crate) async fn get(&self, name: &AgentName) {
        let seen = |agent: Agent| if agent.desired == Desired::Deleted { Outcome::Going } else { is(agent) };
        let call = async { self.client().agent(name).await.map(seen) };
        self.keep(name, Act::Get, call).await;
    }

    /// Creates this agent, or the same as before under the key of before.
    pub(crate) async fn create(&mut self, new: CreateAgent, again: bool) -> Outcome {
        let (new, key) = match self.made.clone().filter(|_| again) {
            Some(made) => made,
            None => (new, format!("make-{}", self.new_label())),
        };
        self.made = Some((new.clone(), key.clone()));
        let call = async { self.client().create_agent(&new, Ask::new().with_key(&key)).await.map(is) };
        self.keep(&new.name, Act::Create { key: key.clone() }, call).await
    }

    pub(crate) async fn sleep(&self, name: &AgentName, now: bool) -> Outcome {
        let call = async { self.client().sleep(name, now, Ask::new()).await.map(is) };
        self.keep(name, Act::Sleep { now }, call).await
    }

    pub(crate) async fn wake(&self, name: &AgentName) -> Outcome {
        let call = async { self.client().wake(name, false, Ask::new()).await.map(is) };
        self.keep(name, Act::Wake, call).await
    }

    async fn cancel(&self, name: &AgentName) {
        let call = async { self.client().cancel(name, Ask::new()).await.map(is) };
        self.keep(name, Act::Cancel, call).await;
    }

    async fn cancel_last(&self) {
        if let Some((name, id)) = &self.last {
            let call = async { self.client().cancel_message(name, *id, Ask::new()).await.map(accepted) };
            self.keep(name, Act::CancelMessage { message: id.to_string() }, call).await;
        }
    }

    pub(crate) async fn delete(&self, name: &AgentName) -> Outcome {
        let call = async { self.client().delete_agent(name, Ask::new()).await.map(is) };
        self.keep(name, Act::Delete, call).await
    }
}

/// What a reader was told.
pub(crate) type Seen = Arc<Mutex<Vec<u64>>>;

/// Follows the log from its beginning for as long as it is polled. It begins anew, after the last that it was told, where
/// its stream ends, and by itself after so many entries.
pub(crate) async fn read(client: Client, seen: Seen, restless_after: usize) {
    read_by_turns(vec![client], seen, restless_after, Duration::MAX).await;
}

/// The same from one server after the other, each until nothing has come for so long.
pub(crate) async fn read_by_turns(clients: Vec<Client>, seen: Seen, restless_after: usize, patience: Duration) {
    for client in clients.iter().cycle() {
        let last = seen.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or(0);
        let follow = tokio::time::timeout(patience, client.follow(None, Some(Revision(last)))).await;
        let Ok(Ok(stream)) = follow else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let events = stream.take_while(|told| std::future::ready(told.is_ok()));
        let events = events.filter_map(|told| {
            std::future::ready(match told {
                Ok(Told::Event(event)) => Some(event),
                _ => None,
            })
        });
        let mut events = std::pin::pin!(events.take(restless_after));
        while let Ok(Some(event)) = tokio::time::timeout(patience, events.next()).await {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(event.revision.0);
        }
    }
}
