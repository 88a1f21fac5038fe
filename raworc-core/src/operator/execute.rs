//! Carries out what was planned, and makes no choices.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument;

use super::observe::{self, Question};
use super::plan::{DELETED, DRAINED, DRAINED_BYTES, Place, Plan, View, Work, deleted, plan};
use super::{Again, RETRY_LOOK, Shared, death, reclaim, span_of, start, stop};
use crate::agent::{Agent, AgentEvent, ConditionKind, Desired, Run, State};
use crate::computer::Computer;
use crate::control::key_hash;
use crate::entropy::EntropyExt;
use crate::ids::{AgentId, CommitId};
use crate::message::MessageState;
use crate::store::{
    AgentChange, AgentOp, Change, Check, Commit, MessageQuery, NewComputer, QuotaDelta, QuotaKind, StoreError,
};
use crate::trace;

/// Looks at an agent and takes one step for it.
pub(super) async fn look_at(shared: &Arc<Shared>, id: AgentId, look: bool) -> Again {
    match try_look(shared, id, look).await {
        Ok(again) => again,
        // Somebody else changed it in this moment: look at what is now.
        Err(StoreError::Conflict(conflict)) => {
            tracing::debug!(agent = %id, %conflict, "a step came too late");
            Again::After(Duration::from_millis(1))
        }
        Err(error) => {
            tracing::warn!(agent = %id, %error, "an agent cannot be looked after");
            Again::After(RETRY_LOOK)
        }
    }
}

async fn try_look(shared: &Arc<Shared>, id: AgentId, look: bool) -> Result<Again, StoreError> {
    let asked = Instant::now();
    let read = shared.store.agent_by_id(id).await?;
    shared.told(read.now, asked);
    let Some(agent) = read.value else { return Ok(Again::Triggered) };
    let Some(runtime) = &agent.spec.runtime else { return Ok(Again::Triggered) };
    let Some(engine) = shared.engines.get(runtime) else { return Ok(Again::Triggered) };
    let work = shared.jobs.work(id, agent.status.incarnation);
    // What was begun here is carried out here, whoever the agent belongs to by now: nobody else has its key.
    if work != Work::Begun && !shared.owns(runtime, id) {
        return Ok(Again::Triggered);
    }
    let question = Question::of(&agent, work);
    let answer = shared.answers.take(id, question.as_ref());
    // Who asked had something to see. Nobody else may ask again.
    if let Some(question) = question.filter(|_| look || answer.is_none()) {
        observe::begin(shared, engine, &agent, question);
    }
    let answer = answer.unwrap_or_default();
    let computer = computer_of(shared, &agent).await?;
    let unstarted = |run: &&Run| run.start_id.is_none() && run.booted_at.is_none();
    let began = agent.status.run.as_ref().filter(unstarted).and_then(|run| run.operator);
    let operators = shared.shards.living(&shared.store, runtime, began).await?;
    let (moved, upto) = shared.time.owed(id);
    let view = View {
        agent: &agent,
        computer: computer.as_ref(),
        observed: answer.observed,
        reached: answer.reached,
        disk_limit: engine.disk_limit(),
        work,
        operator: shared.shards.me(),
        operators: &operators,
        listening: shared.listening(read.now),
        moved: &moved,
        now: read.now,
    };
    let plan = plan(&view, &shared.settings);
    let span = span_of(&agent);
    let again = carry_out(shared, agent, computer, plan, read.now).instrument(span).await?;
    shared.time.settle(id, upto);
    Ok(again)
}

async fn carry_out(
    shared: &Arc<Shared>,
    agent: Agent,
    computer: Option<Computer>,
    plan: Plan,
    now: Timestamp,
) -> Result<Again, StoreError> {
    match plan {
        Plan::Wait(at) => Ok(wait(at, now)),
        Plan::Drain if drain(shared, &agent).await? => Ok(Again::Now),
        Plan::Drain => {
            let plan = deleted(&agent);
            Box::pin(carry_out(shared, agent, computer, plan, now)).await
        }
        Plan::Commit { when, ops, release } => {
            let log = death::forget(shared, &agent, &ops).await?;
            let moves = moves(&ops);
            commit(shared, &agent, when, ops, release, log).await?;
            for (event, reason) in moves {
                tracing::info!(state = %agent.status.state(), ?event, reason, "an agent moves on");
            }
            if agent.desired == Desired::Deleted
                && let Some(id) = agent.status.computer
            {
                reclaim::soon(shared, id).await;
            }
            Ok(Again::Now)
        }
        Plan::Begin { on, wake } => {
            let replaced = agent.status.computer.filter(|_| matches!(on, Place::Fresh(_)));
            let span = trace::for_agent("begin a start", &*shared.store, &agent).await;
            begin(shared, &agent, on, wake).instrument(span).await?;
            if let Some(id) = replaced {
                reclaim::soon(shared, id).await;
            }
            Ok(Again::Now)
        }
        Plan::Start => {
            start::begin(shared, agent, computer);
            Ok(Again::Triggered)
        }
        Plan::Stop => {
            stop::begin(shared, agent);
            Ok(Again::Triggered)
        }
    }
}

/// Cancels the first of the messages that wait for an agent which is to be deleted. Whether there were any.
async fn drain(shared: &Shared, agent: &Agent) -> Result<bool, StoreError> {
    let limit = usize::try_from(DRAINED).unwrap_or(usize::MAX);
    let page = shared.store.messages(&MessageQuery { open: true, limit, ..MessageQuery::of(agent.id) }).await?;
    let mut bytes = 0;
    let first = page.items.iter().filter(|message| message.state == MessageState::Queued).take_while(|message| {
        let is_first = bytes == 0;
        bytes += message.weight().max(1);
        is_first || bytes <= DRAINED_BYTES
    });
    let ops: Vec<_> =
        first.map(|message| AgentOp::CancelQueued { message: message.id, reason: DELETED.into() }).collect();
    if ops.is_empty() {
        return Ok(false);
    }
    let change = AgentChange { agent: agent.id, when: vec![Check::Desired(Desired::Deleted)], ops };
    shared.store.commit(Commit::of(commit_id(shared), change)).await?;
    Ok(true)
}

/// What happens to an agent by these, and the word for why.
fn moves(ops: &[AgentOp]) -> Vec<(AgentEvent, String)> {
    let moves = ops.iter().filter_map(|op| match op {
        AgentOp::Transition { event, reason, .. } => Some((event.clone(), reason.clone())),
        _ => None,
    });
    moves.collect()
}

fn wait(at: Option<Timestamp>, now: Timestamp) -> Again {
    match at {
        None => Again::Triggered,
        Some(at) => {
            // A little late rather than a little early, which would be a look for nothing.
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Again::After(wait + Duration::from_millis(1))
        }
    }
}

/// The computer's row, where a start may be planned.
async fn computer_of(shared: &Shared, agent: &Agent) -> Result<Option<Computer>, StoreError> {
    match (agent.status.state(), agent.status.computer) {
        (State::Init | State::Slept, Some(id)) => shared.store.computer(id).await,
        _ => Ok(None),
    }
}

pub(super) fn commit_id(shared: &Shared) -> CommitId {
    shared.entropy.commit_id(shared.clock.now())
}

async fn commit(
    shared: &Shared,
    agent: &Agent,
    mut when: Vec<Check>,
    ops: Vec<AgentOp>,
    release: bool,
    log: Option<Change>,
) -> Result<(), StoreError> {
    when.push(Check::Status(agent.status.version));
    let mut commit = Commit::of(commit_id(shared), AgentChange { agent: agent.id, when, ops });
    commit.changes.extend(log);
    if release {
        commit.quota = vec![released(agent)];
    }
    shared.store.commit(commit).await.map(drop)
}

fn released(agent: &Agent) -> QuotaDelta {
    QuotaDelta { tenant: agent.tenant.clone(), kind: QuotaKind::Agents, delta: -1, limit: None }
}

async fn begin(shared: &Shared, agent: &Agent, on: Place, wake: bool) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let runtime = agent.spec.runtime.clone();
    let disk_limit = runtime.as_ref().is_some_and(|name| shared.engines[name].disk_limit());
    let fresh = |volume| {
        let spec = agent.wanted(shared.entropy.computer_id(now), volume, disk_limit);
        runtime.map(|runtime| NewComputer { runtime, spec, disk_limit })
    };
    let new = match on {
        Place::Same => None,
        Place::Fresh(volume) => fresh(volume),
        Place::First => fresh(shared.entropy.volume_id(now)),
    };
    let key = URL_SAFE_NO_PAD.encode(shared.entropy.bytes::<32>());
    let mut ops = Vec::new();
    if wake {
        ops.push(AgentOp::Transition {
            event: AgentEvent::WakeAsked,
            reason: "Waking".into(),
            message: "its computer is being started".into(),
            backoff: None,
        });
    }
    ops.push(AgentOp::Begin {
        operator: shared.shards.me(),
        computer: new,
        key_hash: key_hash(&key),
        deadline: shared.settings.start_limit,
        generation: agent.generation,
    });
    ops.push(AgentOp::ClearCondition(ConditionKind::RestartNeeded));
    // A start that somebody asked for, or whose spec is another, begins without it; one after a death shows why.
    if wake || agent.generation != agent.status.observed_generation {
        ops.push(AgentOp::ClearCondition(ConditionKind::LimitReached));
    }
    // The key is kept before the commit: another task may look at the agent as soon as the commit is there.
    shared.jobs.keep_key(agent.id, agent.status.incarnation.next(), key.into());
    let begun = commit(shared, agent, vec![Check::Generation(agent.generation)], ops, false, None).await;
    if begun.is_err() {
        shared.jobs.take_key(agent.id, agent.status.incarnation.next());
    }
    begun
}
