//! Agents and messages, counted along the log.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use raworc_core::agent::{Agent, State};
use raworc_core::control::ControlPlane;
use raworc_core::event::{Event, EventKind};
use raworc_core::ids::{AgentId, MessageId, Revision, TenantName};
use raworc_core::operator::Waiting;
use raworc_core::store::{AgentQuery, ComputerQuery, MAX_PAGE, Page, StoreError};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Samples are folded into buckets this often, whether or not anybody scrapes.
const UPKEEP: Duration = Duration::from_secs(10);

/// How long until the agents are counted again where the store did not answer.
const RETRY: Duration = Duration::from_secs(5);

/// The counting, until this is dropped.
#[derive(Debug)]
pub struct Followed(#[expect(dead_code, reason = "held, not read")] DropGuard);

/// Counts agents and messages from now on: what is there by one look at the store, what comes by the log. `waiting`
/// tells what waits in the operator of this process.
#[must_use]
pub fn follow(
    control: &ControlPlane,
    handle: PrometheusHandle,
    waiting: impl Fn() -> Waiting + Send + 'static,
) -> Followed {
    let (stop, control) = (CancellationToken::new(), control.clone());
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            () = count(&control) => {}
            () = keep_up(&handle, waiting) => {}
            () = stop.cancelled() => {}
        }
    });
    Followed(guard)
}

async fn keep_up(handle: &PrometheusHandle, waiting: impl Fn() -> Waiting) {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        show_waiting(&waiting());
        handle.run_upkeep();
    }
}

fn show_waiting(waiting: &Waiting) {
    metrics::gauge!("raworc_operator_queue").set(float(waiting.agents as u64));
    metrics::gauge!("raworc_operator_due").set(float(waiting.due as u64));
    for engine in &waiting.engines {
        let runtime = engine.runtime.to_string();
        metrics::gauge!("raworc_engine_running", "runtime" => runtime.clone(), "kind" => engine.kind)
            .set(float(engine.running as u64));
        metrics::gauge!("raworc_engine_waiting", "runtime" => runtime, "kind" => engine.kind)
            .set(float(engine.waiting as u64));
    }
}

async fn count(control: &ControlPlane) {
    loop {
        // Before the look, so that nothing falls between the two.
        let mut events = control.system().feed().subscribe();
        let mut tally = match look(control).await {
            Ok(tally) => tally,
            Err(error) => {
                tracing::debug!(%error, "agents cannot be counted");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        tally.show();
        loop {
            match events.recv().await {
                Ok(event) => {
                    tally.take(&event);
                    tally.show();
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Every living agent. The tenants are those of users' default and of whoever has a computer.
async fn look(control: &ControlPlane) -> Result<Tally, StoreError> {
    let store = control.system().store();
    let mut tenants = BTreeSet::from([TenantName::default()]);
    for (runtime, _) in control.runtimes().iter() {
        let mut query = ComputerQuery { runtime: runtime.clone(), reclaim: false, after: None, limit: MAX_PAGE };
        loop {
            let Page { items, next } = store.computers(&query).await?;
            query.after = items.last().map(|computer| computer.id());
            tenants.extend(items.into_iter().map(|computer| computer.tenant));
            if next.is_none() {
                break;
            }
        }
    }
    let mut tally = Tally::default();
    for tenant in tenants {
        let mut query = AgentQuery::of(tenant);
        loop {
            let Page { items, next } = store.agents(&query).await?;
            items.iter().for_each(|agent| tally.add(agent));
            query.after = next;
            if query.after.is_none() {
                break;
            }
        }
    }
    Ok(tally)
}

/// What is known of an agent.
#[derive(Debug)]
struct Known {
    state: State,
    queued: u64,
    /// What stands in the log up to here is known.
    revision: Revision,
    /// What made it start, and since when it does.
    starts: Option<(&'static str, Timestamp)>,
    /// Its messages that came since it is known, and have not ended.
    messages: HashMap<MessageId, Came>,
}

/// A message that has not ended.
#[derive(Debug)]
struct Came {
    at: Timestamp,
    /// What its agent did then.
    to: State,
    taken_up: bool,
}

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Took {
    /// It was taken up for the first time, by an agent that was in this state when it came.
    Up(State, f64),
    /// It has ended.
    End(f64),
}

impl Known {
    fn new(state: State, queued: u64, revision: Revision) -> Self {
        Self { state, queued, revision, starts: None, messages: HashMap::new() }
    }

    /// What an event says of the time that a message took.
    fn time(&mut self, event: &Event, to: &str) -> Option<Took> {
        let id = event.message?;
        let since = |came: &Came| event.at.duration_since(came.at).as_secs_f64().max(0.0);
        match (event.kind, to) {
            (EventKind::MessageAccepted, _) => {
                self.messages.insert(id, Came { at: event.at, to: self.state, taken_up: false });
                None
            }
            (EventKind::MessageState, "leased") => {
                let came = self.messages.get_mut(&id).filter(|came| !came.taken_up)?;
                came.taken_up = true;
                Some(Took::Up(came.to, since(came)))
            }
            (EventKind::MessageState, "done" | "failed" | "cancelled") => {
                self.messages.remove(&id).map(|came| Took::End(since(&came)))
            }
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    agents: HashMap<AgentId, Known>,
    states: [u64; State::ALL.len()],
    queued: u64,
}

impl Tally {
    fn add(&mut self, agent: &Agent) {
        let (state, queued) = (agent.status.state(), agent.inbox.queued);
        self.put(agent.id, Known::new(state, queued, agent.revision));
    }

    fn put(&mut self, id: AgentId, known: Known) {
        self.forget(id);
        self.states[place(known.state)] += 1;
        self.queued += known.queued;
        self.agents.insert(id, known);
    }

    fn forget(&mut self, id: AgentId) {
        if let Some(known) = self.agents.remove(&id) {
            self.states[place(known.state)] -= 1;
            self.queued -= known.queued;
        }
    }

    fn take(&mut self, event: &Event) {
        let Some(id) = event.agent else { return };
        let text = |field: &str| event.summary.get(field).and_then(Value::as_str).unwrap_or_default();
        match event.kind {
            EventKind::MessageAccepted => metrics::counter!("raworc_messages_accepted_total").increment(1),
            EventKind::MessageState if matches!(text("to"), "done" | "failed" | "cancelled") => {
                metrics::counter!("raworc_messages_ended_total", "state" => text("to").to_owned()).increment(1);
            }
            _ => {}
        }
        if event.kind == EventKind::AgentCreated && !self.agents.contains_key(&id) {
            let starts = Some(("create", event.at));
            self.put(id, Known { starts, ..Known::new(State::Init, 0, event.revision) });
            return;
        }
        let Some(known) = self.agents.get_mut(&id).filter(|known| event.revision > known.revision) else { return };
        known.revision = event.revision;
        match known.time(event, text("to")) {
            Some(Took::Up(to, seconds)) => {
                metrics::histogram!("raworc_message_wait_seconds", "agent" => to.as_str()).record(seconds);
            }
            Some(Took::End(seconds)) => {
                metrics::histogram!("raworc_message_seconds", "state" => text("to").to_owned()).record(seconds);
            }
            None => {}
        }
        match event.kind {
            EventKind::MessageAccepted => {
                known.queued += 1;
                self.queued += 1;
            }
            EventKind::MessageState => {
                let came = u64::from(text("to") == "queued");
                let went = u64::from(text("from") == "queued").min(known.queued);
                known.queued = known.queued + came - went;
                self.queued = self.queued + came - went;
            }
            EventKind::AgentDesired if text("desired") == "awake" && known.state == State::Slept => {
                known.starts = Some(("wake", event.at));
            }
            EventKind::AgentState => {
                let Some(to) = State::ALL.into_iter().find(|state| state.as_str() == text("to")) else { return };
                let from = std::mem::replace(&mut known.state, to);
                self.states[place(from)] -= 1;
                self.states[place(to)] += 1;
                match (to, known.starts.take()) {
                    // A start that fails and is tried again is one start.
                    (State::Init, Some(starts)) if from != State::Idle && from != State::Busy => {
                        known.starts = Some(starts);
                    }
                    (State::Init, _) => {
                        let of = if from == State::Slept { "wake" } else { "restart" };
                        known.starts = Some((of, event.at));
                    }
                    (State::Idle, Some((of, since))) if from == State::Init => {
                        let took = event.at.duration_since(since).as_secs_f64();
                        metrics::histogram!("raworc_agent_start_seconds", "of" => of).record(took.max(0.0));
                    }
                    (State::Deleted, _) => self.forget(id),
                    (State::Idle | State::Busy | State::Slept, _) => {}
                }
            }
            _ => {}
        }
    }

    fn show(&self) {
        for state in State::ALL.into_iter().filter(|state| *state != State::Deleted) {
            metrics::gauge!("raworc_agents", "state" => state.as_str()).set(float(self.states[place(state)]));
        }
        metrics::gauge!("raworc_messages_queued").set(float(self.queued));
    }
}

fn place(state: State) -> usize {
    State::ALL.iter().position(|known| *known == state).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::server::agents::testing::until;
    use crate::server::testing::{Api, said};

    /// What the store says, in the same shape.
    async fn truth(control: &ControlPlane) -> ([u64; State::ALL.len()], u64) {
        let tally = look(control).await.expect("the store answers");
        (tally.states, tally.queued)
    }

    #[test]
    fn a_message_is_timed_from_its_acceptance_to_its_first_lease_and_to_its_end() {
        let (agent, id) = (AgentId::from_uuid(uuid::Uuid::nil()), MessageId::from_uuid(uuid::Uuid::nil()));
        let mut known = Known::new(State::Slept, 0, Revision(0));
        let mut told = |seconds, kind, to| {
            let event = Event {
                revision: Revision(1),
                at: Timestamp::UNIX_EPOCH + Duration::from_secs(seconds),
                tenant: None,
                kind,
                agent: Some(agent),
                name: None,
                message: Some(id),
                summary: json!({ "to": to }),
            };
            known.time(&event, to)
        };
        assert_eq!(told(5, EventKind::MessageState, "leased"), None, "it came before anybody looked");
        assert_eq!(told(5, EventKind::MessageState, "done"), None);
        assert_eq!(told(10, EventKind::MessageAccepted, ""), None);
        assert_eq!(told(12, EventKind::MessageState, "leased"), Some(Took::Up(State::Slept, 2.0)));
        assert_eq!(told(13, EventKind::MessageState, "queued"), None);
        assert_eq!(told(20, EventKind::MessageState, "leased"), None, "it was taken up before");
        assert_eq!(told(25, EventKind::MessageState, "done"), Some(Took::End(15.0)));
        assert_eq!(told(26, EventKind::MessageState, "done"), None, "it is forgotten");
        assert!(known.messages.is_empty());
    }

    #[tokio::test]
    async fn what_the_log_tells_adds_up_to_what_the_store_holds() {
        let api = Api::working().await;
        let mut events = api.control.system().feed().subscribe();
        for name in ["one", "two", "three"] {
            api.agent("ada", name).await;
        }
        api.post("eve", "/agents", &json!({ "name": "four" })).await;
        // In the middle of it.
        let mut tally = look(&api.control).await.expect("the store answers");
        for path in ["/agents/one/messages?wait=20s", "/agents/two/messages"] {
            assert_eq!(api.post("ada", path, &said("hello")).await.status, StatusCode::ACCEPTED);
        }
        api.post("ada", "/agents/two/sleep?wait=20s", &json!(null)).await;
        api.post("ada", "/agents/three/sleep?wait=20s&now=true", &json!(null)).await;
        api.post("ada", "/agents/three/wake?wait=20s", &json!(null)).await;
        api.send(api.request("ada", http::Method::DELETE, "/api/v0/agents/one?wait=20s", None)).await;
        until("the same count", || {
            while let Some(Ok(event)) = events.recv().now_or_never() {
                tally.take(&event);
            }
            let counted = (tally.states, tally.queued);
            let control = api.control.clone();
            async move { truth(&control).await == counted }
        })
        .await;
        assert_eq!(tally.agents.len(), 3);
    }
}
