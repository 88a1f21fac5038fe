//! Who looks on: sees every commit with the rows before and after it, and says which invariant does not hold.
//!
//! What is allowed stands here a second time, written from the design and not from the code that it checks.

mod agents;
mod engine;
mod messages;
mod purges;
mod quotas;

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::coverage::word;
use super::world::{World, short};
use super::{Violation, coverage};
use crate::agent::{Agent, AgentEvent};
use crate::event::Event;
use crate::ids::{AgentId, CommitId, ComputerId, Incarnation, MessageId, Revision};
use crate::message::Message;
use crate::runtime::simulated::PROGRAM;
use crate::store::{AgentOp, Change, Commit, Committed, EventFilter, MemoryStore, Store, StoreError};

/// What a look comes to.
pub(super) type Found = Result<(), Violation>;

/// That something holds, or which invariant does not.
pub(super) fn must(holds: bool, invariant: u8, what: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}

/// Somebody holds an agent awake by a server.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) agent: AgentId,
    pub(super) incarnation: Incarnation,
    pub(super) process: usize,
    pub(super) dead: CancellationToken,
    pub(super) since: Instant,
}

pub(super) struct Checker {
    /// The whole log.
    pub(super) log: Vec<Event>,
    /// Every message as it is.
    pub(super) messages: BTreeMap<MessageId, Message>,
    /// Every agent as the last commit left it.
    pub(super) agents: BTreeMap<AgentId, Agent>,
    /// Commits that are to have an audit row.
    pub(super) audited: BTreeSet<CommitId>,
    /// Who is held awake.
    pub(super) holds: BTreeMap<u64, Hold>,
    stream: BoxStream<'static, Result<Vec<Event>, StoreError>>,
    first: BTreeMap<CommitId, Committed>,
    booted: BTreeSet<(AgentId, Incarnation)>,
    answered: BTreeSet<MessageId>,
    late: BTreeSet<ComputerId>,
}

/// One commit that went through, and what was before it.
struct Passed<'a> {
    commit: &'a Commit,
    committed: &'a Committed,
    before: &'a BTreeMap<AgentId, Agent>,
    events: &'a [Event],
    program: Option<(ComputerId, Incarnation)>,
}

impl Passed<'_> {
    fn ops(&self, agent: AgentId) -> impl Iterator<Item = &AgentOp> {
        ops(self.commit).filter(move |(of, _)| *of == agent).map(|(_, op)| op)
    }
}

fn ops(commit: &Commit) -> impl Iterator<Item = (AgentId, &AgentOp)> {
    commit.changes.iter().flat_map(|change| match change {
        Change::Agent(change) => change.ops.iter().map(|op| (change.agent, op)).collect(),
        Change::Reclaimed(_) | Change::Record(_) => Vec::new(),
    })
}

/// The event of the agents' machine that an op brings.
fn event_of(op: &AgentOp) -> Option<&'static str> {
    match op {
        AgentOp::Transition { event, .. } => Some(word(event)),
        AgentOp::Lease(id) => Some(word(&AgentEvent::Leased(*id))),
        AgentOp::End { .. } => Some(word(&AgentEvent::Ended)),
        _ => None,
    }
}

impl World {
    /// Commits, and looks at what became of it. Nothing else happens meanwhile.
    pub(super) fn apply(&self, who: &str, commit: Commit) -> Result<Committed, StoreError> {
        let program = PROGRAM.try_with(|program| *program).ok();
        let mut checker = self.checker();
        let before = Self::rows(&self.store, &commit);
        for (agent, op) in ops(&commit) {
            if let (Some(agent), Some(event)) = (before.get(&agent), event_of(op)) {
                self.counts().pair(agent.status.state(), event);
            }
        }
        let answer = Self::at_once(self.store.commit(commit.clone()));
        let found = checker.look(self, &commit, &before, &answer, program);
        drop(checker);
        self.tell(who, &commit, &answer);
        if let Err(violation) = found {
            self.fail(violation.invariant, violation.what);
        }
        self.committed.notify_waiters();
        answer
    }

    pub(super) fn rows(store: &MemoryStore, commit: &Commit) -> BTreeMap<AgentId, Agent> {
        let ids = commit.footprint().agents.into_keys();
        ids.filter_map(|id| Some((id, Self::at_once(store.agent_by_id(id)).ok()?.value?))).collect()
    }

    fn tell(&self, who: &str, commit: &Commit, answer: &Result<Committed, StoreError>) {
        use std::fmt::Write;
        let mut what = String::new();
        for change in &commit.changes {
            // Writing to a String cannot fail.
            let _ = match change {
                Change::Agent(change) => write!(what, " {}", short(change.agent)),
                Change::Reclaimed(id) => write!(what, " reclaimed {}", short(id)),
                Change::Record(change) => write!(what, " record {}", change.key.name),
            };
        }
        for (_, op) in ops(commit) {
            let _ = match event_of(op) {
                Some(event) => write!(what, " {event}"),
                None => write!(what, " {}", coverage::op_word(op)),
            };
        }
        match answer {
            Ok(done) => {
                let state = done.agents.first().map(|agent| agent.status.state().as_str()).unwrap_or_default();
                let incarnation = done.agents.first().map(|agent| agent.status.incarnation.0).unwrap_or_default();
                self.say(format_args!("{who} commits{what}: {} {state} #{incarnation}", done.revision));
            }
            Err(error) => self.say(format_args!("{who} commits{what}: no, {error}")),
        }
    }
}

impl Checker {
    pub(super) fn new(store: &MemoryStore) -> Self {
        let stream = match World::at_once(store.watch(Revision(0), EventFilter::default())) {
            Ok(stream) => stream,
            Err(_) => futures::stream::empty().boxed(),
        };
        Self {
            log: Vec::new(),
            messages: BTreeMap::new(),
            agents: BTreeMap::new(),
            audited: BTreeSet::new(),
            holds: BTreeMap::new(),
            stream,
            first: BTreeMap::new(),
            booted: BTreeSet::new(),
            answered: BTreeSet::new(),
            late: BTreeSet::new(),
        }
    }

    fn look(
        &mut self,
        world: &World,
        commit: &Commit,
        before: &BTreeMap<AgentId, Agent>,
        answer: &Result<Committed, StoreError>,
        program: Option<(ComputerId, Incarnation)>,
    ) -> Found {
        let from = self.log.len();
        while let Some(Some(Ok(burst))) = self.stream.next().now_or_never() {
            self.log.extend(burst);
        }
        let events = self.log.split_off(from);
        let found = self.look_at(world, commit, before, answer, program, &events);
        self.log.extend(events);
        found
    }

    fn look_at(
        &mut self,
        world: &World,
        commit: &Commit,
        before: &BTreeMap<AgentId, Agent>,
        answer: &Result<Committed, StoreError>,
        program: Option<(ComputerId, Incarnation)>,
        events: &[Event],
    ) -> Found {
        let Ok(committed) = answer else {
            must(events.is_empty(), 2, || format!("a commit that was refused has events: {events:?}"))?;
            return must(*before == World::rows(&world.store, commit), 2, || "a refused commit changed rows".into());
        };
        if let Some(first) = self.first.get(&commit.id) {
            must(events.is_empty(), 9, || "a commit that was sent again had another effect".into())?;
            return must(first == committed, 9, || {
                format!("sent again, a commit was answered {committed:?}, not {first:?}")
            });
        }
        self.first.insert(commit.id, committed.clone());
        if committed.replayed {
            return must(events.is_empty(), 9, || "a request that was sent again had another effect".into());
        }
        if commit.audit.is_some() {
            self.audited.insert(commit.id);
        }
        for (place, event) in (self.log.len() as u64 + 1..).zip(events) {
            must(event.revision == Revision(place), 2, || {
                format!("revision {} where {place} is next", event.revision)
            })?;
        }
        must(committed.revision.0 == (self.log.len() + events.len()) as u64, 2, || {
            format!(
                "a commit says revision {} and its last event is {}",
                committed.revision,
                self.log.len() + events.len()
            )
        })?;
        let passed = Passed { commit, committed, before, events, program };
        self.messages(&passed)?;
        self.fence(&passed)?;
        for agent in &committed.agents {
            self.agent(world, &passed, agent)?;
            self.agents.insert(agent.id, agent.clone());
        }
        self.quotas(world, &passed)
    }
}
