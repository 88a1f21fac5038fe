//! Carries out what was planned, and makes no choices.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::gate::Pass;
use super::jobs::Subject;
use super::observe::{self, Question};
use super::plan::{Place, Plan, View, Work, backoff, plan, wanted};
use super::{Again, Engine, RETRY_LOOK, Shared, death, reclaim, spawn_job};
use crate::agent::{Agent, AgentEvent, ConditionKind, Desired, Run, State};
use crate::computer::Computer;
use crate::control::key_hash;
use crate::entropy::EntropyExt;
use crate::ids::{AgentId, CommitId, ComputerId};
use crate::runtime::{Boot, ComputerSpec, Ensured, Phase, Progress, RuntimeError, StartId};
use crate::store::{AgentChange, AgentOp, Change, Check, Commit, NewComputer, QuotaDelta, QuotaKind, StoreError};

/// How long an image may take before people are told that it is being pulled.
const PREPARE_QUIET: Duration = Duration::from_secs(1);

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
    if let Some(question) = question.filter(|_| look) {
        observe::begin(shared, engine, &agent, question);
    }
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
        work,
        operator: shared.shards.me(),
        operators: &operators,
        listening: shared.listening(read.now),
        moved,
        now: read.now,
    };
    let plan = plan(&view, &shared.settings);
    let again = carry_out(shared, engine, agent, computer, plan, read.now).await?;
    shared.time.settle(id, upto);
    Ok(again)
}

async fn carry_out(
    shared: &Arc<Shared>,
    engine: &Engine,
    agent: Agent,
    computer: Option<Computer>,
    plan: Plan,
    now: Timestamp,
) -> Result<Again, StoreError> {
    match plan {
        Plan::Wait(at) => Ok(wait(at, now)),
        Plan::Commit { when, mut ops, release } => {
            let log = death::change(shared, engine, &agent, &mut ops).await?;
            commit(shared, &agent, when, ops, release, log).await?;
            if agent.desired == Desired::Deleted
                && let Some(id) = agent.status.computer
            {
                reclaim::soon(shared, id).await;
            }
            Ok(Again::Now)
        }
        Plan::Begin { on, wake } => {
            let replaced = agent.status.computer.filter(|_| matches!(on, Place::Fresh(_)));
            begin(shared, &agent, on, wake).await?;
            if let Some(id) = replaced {
                reclaim::soon(shared, id).await;
            }
            Ok(Again::Now)
        }
        Plan::Start => {
            start(shared, agent, computer);
            Ok(Again::Triggered)
        }
        Plan::Stop => {
            stop(shared, agent);
            Ok(Again::Triggered)
        }
    }
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

fn commit_id(shared: &Shared) -> CommitId {
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
    let fresh = |volume| {
        let spec = ComputerSpec {
            id: shared.entropy.computer_id(now),
            volume,
            image: None,
            resources: agent.spec.resources,
            network: agent.spec.network.clone(),
            root: false,
        };
        runtime.map(|runtime| NewComputer { runtime, spec: wanted(agent, &spec) })
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

/// Asks the engine to start the run that was begun, apart from the look.
fn start(shared: &Arc<Shared>, agent: Agent, computer: Option<Computer>) {
    let Some(job) = shared.jobs.begin(Subject::Agent(agent.id)) else { return };
    let task = Arc::clone(shared);
    spawn_job(shared, async move {
        let shared = task;
        let result = match computer {
            Some(computer) => started(&shared, &agent, &computer).await,
            None => Err(refused("the computer's row is missing")),
        };
        let ops = match result {
            Ok((start_id, ensured)) => started_ops(&agent, start_id, &ensured),
            // The next operator finds it begun and nobody at it.
            Err(Cut::Stopped) => return,
            Err(Cut::Failed(error)) => {
                tracing::warn!(agent = %agent.id, name = %agent.name, %error, "a computer could not be started");
                vec![AgentOp::Transition {
                    event: AgentEvent::StartFailed,
                    reason: error.reason().into(),
                    message: error.to_string(),
                    backoff: Some(backoff(agent.status.restarts.max(1), &shared.settings)),
                }]
            }
        };
        record(&shared, &agent, ops).await;
        drop(job);
        shared.queue.look(agent.id);
    });
}

/// Records what an engine did for a run, if that run is still the present one.
async fn record(shared: &Shared, agent: &Agent, ops: Vec<AgentOp>) {
    let when = vec![Check::Incarnation(agent.status.incarnation)];
    let change = AgentChange { agent: agent.id, when, ops };
    let commit = Commit::of(commit_id(shared), change);
    let mut wait = Duration::from_millis(50);
    loop {
        match shared.store.commit(commit.clone()).await {
            Err(error) if error.is_retryable() && !shared.stop.is_cancelled() => {
                tokio::time::sleep(shared.entropy.jitter(wait)).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                tracing::info!(agent = %agent.id, %error, "what an engine did came too late");
                return;
            }
            Ok(_) => return,
        }
    }
}

fn started_ops(agent: &Agent, start_id: StartId, ensured: &Ensured) -> Vec<AgentOp> {
    let mut ops = vec![AgentOp::Started { start_id }];
    let facts = [
        (ConditionKind::LimitsEnforced, &ensured.limits_missing),
        (ConditionKind::NetworkIsolated, &ensured.network_unproved),
    ];
    for (kind, missing) in facts {
        match missing {
            Some(why) => ops.push(AgentOp::SetCondition {
                kind,
                status: false,
                reason: "NotEnforced".into(),
                message: why.clone(),
            }),
            None if agent.status.conditions.get(kind).is_some() => ops.push(AgentOp::ClearCondition(kind)),
            None => {}
        }
    }
    ops
}

async fn started(shared: &Shared, agent: &Agent, computer: &Computer) -> Result<(StartId, Ensured), Cut> {
    let engine = &shared.engines[&computer.runtime];
    let runtime = &engine.entry.runtime;
    prepare(shared, engine, agent, computer).await?;
    let incarnation = agent.status.incarnation;
    let key = shared.jobs.take_key(agent.id, incarnation);
    let key = key.ok_or_else(|| refused("its key is gone"))?;
    let boot = Boot {
        agent_url: engine.entry.agent_url.clone(),
        ca: engine.entry.ca.clone(),
        computer: computer.id(),
        incarnation,
        key,
    };
    let _pass = turn(shared, engine, agent).await?;
    // The way here may have been long: what is over is not started.
    still_wanted(shared, agent).await?;
    let ensured = limited(shared, "make the computer", runtime.ensure(&computer.spec)).await?;
    go_on(shared)?;
    let start_id = limited(shared, "start the computer", runtime.start(computer.id(), &boot)).await?;
    Ok((start_id, ensured))
}

/// Waits for the agent's turn at the engine. The time for that is not the program's.
async fn turn(shared: &Shared, engine: &Engine, agent: &Agent) -> Result<Pass, Cut> {
    let pass = engine.gate.enter(&agent.tenant);
    tokio::pin!(pass);
    loop {
        let wait = tokio::time::timeout(shared.settings.start_limit / 4, &mut pass);
        if let Ok(pass) = unless_stopped(shared, wait).await? {
            return Ok(pass);
        }
        record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
    }
}

/// Fails where the run that was begun is over, or is being ended.
async fn still_wanted(shared: &Shared, agent: &Agent) -> Result<(), Cut> {
    go_on(shared)?;
    let now = shared.store.agent_by_id(agent.id).await;
    let now = now.map_err(|error| RuntimeError::Unavailable(error.to_string()))?.value;
    let run = now.as_ref().and_then(|now| now.status.run.as_ref());
    if run.is_some_and(|run| run.incarnation == agent.status.incarnation && !run.ending) {
        Ok(())
    } else {
        Err(refused("this start is over"))
    }
}

/// Why a job did not come to its end.
pub(super) enum Cut {
    /// The operator is told to stop: what is left to do is another one's.
    Stopped,
    /// The engine did not do it.
    Failed(RuntimeError),
}

impl From<RuntimeError> for Cut {
    fn from(error: RuntimeError) -> Self {
        Self::Failed(error)
    }
}

fn refused(reason: &str) -> Cut {
    Cut::Failed(RuntimeError::Refused { what: "start", reason: reason.into() })
}

/// Stands before each call of an engine but a job's first: the operator may have been told to stop meanwhile.
pub(super) fn go_on(shared: &Shared) -> Result<(), Cut> {
    if shared.stop.is_cancelled() { Err(Cut::Stopped) } else { Ok(()) }
}

/// Waits for something that need not be waited for any more once the operator is told to stop.
pub(super) async fn unless_stopped<T>(shared: &Shared, wait: impl Future<Output = T>) -> Result<T, Cut> {
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(Cut::Stopped),
        done = wait => Ok(done),
    }
}

pub(super) async fn limited<T>(
    shared: &Shared,
    what: &'static str,
    call: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let limit = shared.settings.call_limit;
    tokio::time::timeout(limit, caught(what, call)).await.unwrap_or(Err(RuntimeError::TimedOut { what, limit }))
}

/// A runtime that panics fails its call, and nothing else.
async fn caught<T>(what: &'static str, call: impl Future<Output = Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
    let panicked = |_| Err(RuntimeError::Refused { what, reason: "the runtime panicked".into() });
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(panicked)
}

/// Sees to it that the image is there. Where that takes long, people are told, and the start has longer.
async fn prepare(shared: &Shared, engine: &Engine, agent: &Agent, computer: &Computer) -> Result<(), Cut> {
    let (progress, mut told) = tokio::sync::watch::channel(None::<Progress>);
    let image = computer.spec.image.as_deref();
    let limit = shared.settings.prepare_limit;
    let tell = move |now: Progress| {
        progress.send_replace(Some(now));
    };
    let pull = tokio::time::timeout(limit, caught("have the image", engine.entry.runtime.prepare(image, &tell)));
    tokio::pin!(pull);
    let timed_out = |_| Err(RuntimeError::TimedOut { what: "have the image", limit });
    if let Ok(done) = unless_stopped(shared, tokio::time::timeout(PREPARE_QUIET, &mut pull)).await? {
        return Ok(done.unwrap_or_else(timed_out)?);
    }
    record(shared, agent, vec![AgentOp::Extend { deadline: limit }]).await;
    let done = loop {
        // Nobody waits for an image that nobody wants any more.
        still_wanted(shared, agent).await?;
        let message = told.borrow_and_update().as_ref().map_or_else(|| "is being pulled".into(), describe);
        let condition = AgentOp::SetCondition {
            kind: ConditionKind::Ready,
            status: false,
            reason: "ImagePulling".into(),
            message: format!("image {}: {message}", image.unwrap_or("(default)")),
        };
        record(shared, agent, vec![condition]).await;
        let pause = tokio::time::timeout(Duration::from_secs(2), &mut pull);
        if let Ok(done) = unless_stopped(shared, pause).await? {
            break done.unwrap_or_else(timed_out);
        }
    };
    record(shared, agent, vec![AgentOp::Extend { deadline: shared.settings.start_limit }]).await;
    Ok(done?)
}

fn describe(progress: &Progress) -> String {
    match progress.total {
        Some(total) if total > 0 => format!("{} ({} %)", progress.what, progress.done * 100 / total),
        _ => progress.what.clone(),
    }
}

/// Asks the engine to end the present run, apart from the look.
fn stop(shared: &Arc<Shared>, agent: Agent) {
    let subject = Subject::Agent(agent.id);
    let Some(job) = shared.jobs.begin(subject) else { return };
    let task = Arc::clone(shared);
    spawn_job(shared, async move {
        let shared = task;
        let incarnation = agent.status.incarnation;
        shared.jobs.take_key(agent.id, incarnation);
        let stopped = match (agent.status.computer, &agent.spec.runtime) {
            (Some(id), Some(runtime)) => {
                let engine = &shared.engines[runtime];
                match unless_stopped(&shared, engine.gate.enter(&agent.tenant)).await {
                    Ok(_pass) => stop_run(&shared, engine, &agent, id).await,
                    Err(cut) => Err(cut),
                }
            }
            _ => Ok(()),
        };
        match stopped {
            Ok(()) => {
                shared.jobs.succeeded(subject);
                record(&shared, &agent, vec![AgentOp::RunEnded { incarnation }]).await;
            }
            Err(Cut::Stopped) => return,
            Err(Cut::Failed(error)) => {
                tracing::warn!(agent = %agent.id, name = %agent.name, %error, "a computer could not be stopped");
                pause(&shared, subject).await;
            }
        }
        drop(job);
        shared.queue.look(agent.id);
    });
}

/// Waits before the engine is asked again.
pub(super) async fn pause(shared: &Shared, subject: Subject) {
    let failures = shared.jobs.failed(subject);
    let wait = Duration::from_millis(500) * (1 << failures.min(7));
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = tokio::time::sleep(shared.entropy.jitter(wait)) => {}
    }
}

/// Ends the run that was given up: the start that is known to be its, or the one that the engine says runs.
async fn stop_run(shared: &Shared, engine: &Engine, agent: &Agent, id: ComputerId) -> Result<(), Cut> {
    if let Some(start) = agent.status.run.as_ref().and_then(|run| run.start_id.clone()) {
        return stop_start(shared, engine, id, &start).await;
    }
    let Some(start) = running(shared, engine, id).await? else { return Ok(()) };
    // Read after the engine was asked: while no later run has begun, what was seen is none of a later run's.
    let now = shared.store.agent_by_id(agent.id).await;
    let now = now.map_err(|error| RuntimeError::Unavailable(error.to_string()))?.value;
    if now.is_some_and(|now| now.status.incarnation == agent.status.incarnation) {
        stop_start(shared, engine, id, &start).await
    } else {
        Ok(())
    }
}

/// Ends whichever start of a computer the engine says runs.
pub(super) async fn stop_computer(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<(), Cut> {
    match running(shared, engine, id).await? {
        Some(start) => stop_start(shared, engine, id, &start).await,
        None => Ok(()),
    }
}

async fn running(shared: &Shared, engine: &Engine, id: ComputerId) -> Result<Option<StartId>, RuntimeError> {
    let seen = limited(shared, "look at the computer", engine.entry.runtime.observe(id)).await?;
    Ok(match seen.map(|seen| seen.phase) {
        Some(Phase::Running(start) | Phase::Stopping(start)) => Some(start),
        Some(Phase::Stopped { .. }) | None => None,
    })
}

async fn stop_start(shared: &Shared, engine: &Engine, id: ComputerId, start: &StartId) -> Result<(), Cut> {
    go_on(shared)?;
    let grace = shared.settings.stop_grace;
    limited(shared, "stop the computer", engine.entry.runtime.stop(id, start, grace)).await?;
    Ok(())
}
