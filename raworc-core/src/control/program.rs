//! What the program inside a computer does: boot, set up, take messages, take steps, answer.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::Instrument;
use tracing::field::display;

use super::ControlPlane;
use super::activity::{ActivityGuard, ActivityKind};
use super::call::Call;
use super::deltas::Delta;
use super::messages::{check_parts, message_in};
use crate::agent::{Agent, AgentEvent, ConditionKind, Desired, NetworkMode, SetupRecord, State};
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::ids::{CommitId, ComputerId, MessageId};
use crate::message::Message;
use crate::principal::Principal;
use crate::program::{
    BootRequest, DeltaReport, EndReport, LeaseReply, PROTOCOL, ProgramSpec, SetupReport, SetupTask, StepsReport,
    WorkSpec,
};
use crate::quantity::Bytes;
use crate::step::{NewStep, STEP_LIMIT, STEPS_TOTAL, Step};
use crate::store::{
    AgentChange, AgentOp, Backoff, Check, Commit, Conflict, Ending, MAX_PAGE, MAX_PAGE_BYTES, MessageQuery, Reply,
    StepQuery, StoreError,
};
use crate::trace;

/// What a setup script has beyond its limit, to tell how it ended.
const REPORTING: Duration = Duration::from_secs(15);

/// Steps that one report may hold.
const STEPS_LIMIT: usize = 1000;

/// Bytes that the name of a step's tool may have.
const TOOL_LIMIT: usize = 256;

/// Bytes that the reason of a message that failed may have.
const REASON_LIMIT: usize = 4 << 10;

/// Steps that are read at a time, going back from the last one.
const STRETCH: u64 = 100;

/// Bytes of words that are passed on at once. Some hundred of them wait in memory for those who are slow to read.
const DELTA_LIMIT: usize = 128 << 10;

/// A program that traded in its key.
#[derive(Debug, Clone)]
pub struct Booted {
    /// Who it is from now on.
    pub principal: Principal,
    /// All that it has to know.
    pub spec: ProgramSpec,
}

/// SHA-256 of a boot key, as the store keeps it.
pub(crate) fn key_hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// The program takes messages from now on.
fn ready() -> AgentOp {
    AgentOp::Transition {
        event: AgentEvent::Ready,
        reason: "Ready".into(),
        message: "waits for a message".into(),
        backoff: None,
    }
}

impl ControlPlane {
    /// Trades a program's one-time key for its identity. It takes messages from then on; or where a setup script has to run
    /// first, that begins, with its time.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] where the key is not good or was used; [`Error::StaleIncarnation`] where its start is
    /// over; [`Error::Invalid`] where its protocol is not spoken here.
    pub async fn boot(&self, request: &BootRequest) -> Result<Booted, Error> {
        const REFUSED: Error = Error::Unauthenticated { reason: "the boot key is not good, or was used before" };
        if !PROTOCOL.accepts(request.protocol) {
            let (own, other) = (PROTOCOL, request.protocol);
            return Err(Error::invalid(
                "protocol",
                format!(
                    "{}.{} is not spoken here: this server speaks {}.{} and two minors back",
                    other.major, other.minor, own.major, own.minor
                ),
            ));
        }
        let computer = self.inner.store.computer(request.computer).await?;
        let computer = computer.filter(|computer| computer.reclaim_since.is_none()).ok_or(REFUSED)?;
        let agent = self.inner.store.agent_by_id(computer.agent).await?.value.ok_or(REFUSED)?;
        // A script that is written from here on is for the next start.
        let setup = self.setup_due(&agent, request.computer);
        let first = match &setup {
            None => ready(),
            Some(task) => {
                AgentOp::SetupBegun { hash: task.hash.clone(), deadline: self.settings().setup_limit + REPORTING }
            }
        };
        let change = AgentChange {
            agent: agent.id,
            when: vec![Check::Alive, Check::Incarnation(request.incarnation)],
            ops: vec![AgentOp::Boot { key_hash: key_hash(&request.key) }, first],
        };
        let span = trace::for_agent("boot", &*self.inner.store, &agent).await;
        let commit = Commit::of(self.commit_id(), change);
        let committed = match self.inner.store.commit(commit).instrument(span).await {
            Err(StoreError::Conflict(Conflict::NoAgent(_))) => return Err(REFUSED),
            other => other?,
        };
        let agent = super::agents::first_agent(committed)?;
        if agent.status.computer != Some(request.computer) {
            return Err(Error::StaleIncarnation { present: agent.status.incarnation });
        }
        let principal = Principal::Agent {
            tenant: agent.tenant.clone(),
            agent: agent.id,
            computer: request.computer,
            incarnation: request.incarnation,
        };
        let work = self.work_of(&agent);
        let disk_limit = self.measured_disk(&agent).map(Bytes::get);
        let spec = ProgramSpec {
            agent: agent.id,
            name: agent.name,
            tenant: agent.tenant,
            computer: request.computer,
            incarnation: request.incarnation,
            setup,
            proxied: agent.spec.network.mode == NetworkMode::Closed,
            disk_limit,
            work,
        };
        Ok(Booted { principal, spec })
    }

    fn setup_due(&self, agent: &Agent, computer: ComputerId) -> Option<SetupTask> {
        let script = agent.spec.setup.clone()?;
        let hash = SetupRecord::hash_of(&script);
        let done = agent.status.is_set_up(computer, &hash);
        (!done).then(|| SetupTask { script, hash, limit: self.settings().setup_limit.as_secs() })
    }

    fn work_of(&self, agent: &Agent) -> WorkSpec {
        WorkSpec {
            instructions: agent.spec.instructions.clone(),
            env: agent.spec.env.clone(),
            model: self.settings().models.get(agent.spec.model.as_deref()).cloned(),
            limits: self.settings().work,
        }
    }

    /// A setup script has ended: its program takes messages from now on; or the script failed, and it is stopped until
    /// somebody changes something.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over; [`Error::Invalid`] where this start was not told to
    /// run that script.
    pub async fn end_setup(&self, call: &Call, report: SetupReport) -> Result<Agent, Error> {
        let agent = self.own(call).await?;
        let computer = self.computer_of(call)?;
        let begun = agent.status.run.as_ref().and_then(|run| run.setup.as_ref());
        if begun.is_none_or(|begun| begun.hash != report.hash) {
            return Err(Error::invalid("hash", "this is not the setup script that this start was told to run"));
        }
        let failure = report.failure.map(|text| tail(text, 4 << 10));
        let outcome = match &failure {
            None => ready(),
            Some(output) => AgentOp::Transition {
                event: AgentEvent::StartFailed,
                reason: "SetupFailed".into(),
                message: format!(
                    "the setup script failed; change it, or wake the agent with retry. The end of its output:\n{output}"
                ),
                backoff: Some(Backoff::UntilChanged),
            },
        };
        let record = SetupRecord { computer, hash: report.hash, failure };
        let span = trace::for_agent("end the setup", &*self.inner.store, &agent).await;
        self.commit_own(&agent, call, vec![AgentOp::SetSetup(record), outcome], None).instrument(span).await
    }

    fn computer_of(&self, call: &Call) -> Result<ComputerId, Error> {
        match &call.principal {
            Principal::Agent { computer, .. } => Ok(*computer),
            Principal::User { .. } => Err(Error::Internal("a user has no computer".into())),
        }
    }

    /// The next message, if one comes within `wait`. The same again, if the program holds one already.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn lease(&self, call: &Call, wait: Duration) -> Result<Option<LeaseReply>, Error> {
        let Principal::Agent { agent: id, .. } = &call.principal else {
            return self.own(call).await.map(|_| None);
        };
        self.inner.feed.until(*id, wait, move || self.try_lease(call)).await
    }

    async fn try_lease(&self, call: &Call) -> Result<Option<LeaseReply>, Error> {
        let agent = self.own(call).await?;
        if let Some(held) = agent.status.message {
            return self.held(&agent, held).await.map(Some);
        }
        if agent.status.state() != State::Idle || agent.desired != Desired::Awake || !agent.has_work() {
            return Ok(None);
        }
        let query = MessageQuery { open: true, limit: 1, ..MessageQuery::of(agent.id) };
        let Some(message) = self.inner.store.messages(&query).await?.items.into_iter().next() else {
            return Ok(None);
        };
        let change = AgentChange {
            agent: agent.id,
            when: vec![
                Check::Incarnation(agent.status.incarnation),
                Check::Desired(Desired::Awake),
                Check::Without(ConditionKind::DiskFull),
            ],
            ops: vec![AgentOp::Lease(message.id)],
        };
        let span = trace::part("lease", message.traceparent);
        span.record("raworc.agent", display(agent.id));
        span.record("raworc.message", display(message.id));
        span.record("raworc.attempt", message.attempt + 1);
        match self.inner.store.commit(Commit::of(self.commit_id(), change)).instrument(span).await {
            Ok(committed) => {
                let message = message_in(committed, message.id)?;
                let Agent { tenant, name, status, .. } = &agent;
                tracing::info!(
                    message_id = %message.id, attempt = message.attempt, agent = %agent.id, agent_name = %name, %tenant,
                    incarnation = %status.incarnation, "a message is taken up"
                );
                let earlier_steps =
                    if message.attempt > 1 { self.steps_of(&agent, &message).await? } else { Vec::new() };
                Ok(Some(LeaseReply { message, earlier_steps, work: self.work_of(&agent) }))
            }
            Err(StoreError::Conflict(Conflict::StaleIncarnation { found, .. })) => {
                Err(Error::StaleIncarnation { present: found })
            }
            // It was cancelled, its volume was found full, or sleep was asked for, in this moment: the event of that is what the next look waits
            // for, so that nothing is asked again and again.
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn held(&self, agent: &Agent, id: MessageId) -> Result<LeaseReply, Error> {
        let message = self.inner.store.message(agent.id, id).await?;
        let message = message.ok_or_else(|| Error::Internal("the message in hand is gone".into()))?;
        let earlier_steps = self.steps_of(agent, &message).await?;
        Ok(LeaseReply { message, earlier_steps, work: self.work_of(agent) })
    }

    /// The last steps that were taken for a message, what a page holds at most: who carries on needs to know the latest.
    async fn steps_of(&self, agent: &Agent, message: &Message) -> Result<Vec<Step>, Error> {
        let of = |after, limit| StepQuery { agent: agent.id, message: Some(message.id), after, limit };
        let first = self.inner.store.steps(&of(0, 1)).await?.items.into_iter().next();
        let Some(first) = first else { return Ok(Vec::new()) };
        let mut latest = VecDeque::new();
        // Read back from the agent's last step. Steps for a message stand together, but for a setup in between.
        let mut end = agent.inbox.last_step;
        let mut room = MAX_PAGE_BYTES as u64;
        while end >= first.seq {
            let after = end.saturating_sub(STRETCH);
            let mut stretch = Vec::new();
            let mut from = after;
            loop {
                let page = self.inner.store.steps(&of(from, MAX_PAGE)).await?;
                stretch.extend(page.items.into_iter().take_while(|step| step.seq <= end));
                match stretch.last() {
                    Some(last) if page.next.is_some() && last.seq > from && last.seq < end => from = last.seq,
                    _ => break,
                }
            }
            for step in stretch.into_iter().rev() {
                if latest.len() == MAX_PAGE || step.weight() > room {
                    return Ok(latest.into());
                }
                room -= step.weight();
                latest.push_front(step);
            }
            end = after;
        }
        Ok(latest.into())
    }

    /// Records what the program did, up to [`STEPS_TOTAL`] bytes for one message. What is beyond it is dropped, and the
    /// last step that is kept says so: the work itself goes on.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn add_steps(&self, call: &Call, report: StepsReport) -> Result<(), Error> {
        check_steps(&report.steps)?;
        let agent = self.own(call).await?;
        // Nothing would be kept, and a commit of nothing takes its place on the disk too.
        let full = agent.status.run.as_ref().is_some_and(|run| run.step_bytes >= STEPS_TOTAL);
        let held = report.message.is_none_or(|id| agent.status.message == Some(id));
        if held && (full || report.steps.is_empty()) {
            return Ok(());
        }
        let attempt = self.attempt_at(&agent, report.message).await?;
        let op = AgentOp::AddSteps { message: report.message, attempt, steps: report.steps };
        let held = report.message.map(Check::Holds);
        self.commit_when(&agent, call, held, vec![op], Some(report.commit)).await.map(drop)
    }

    /// Records what a server has to say of what the program does, with the message in hand where there is one.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn add_remarks(&self, call: &Call, steps: Vec<NewStep>) -> Result<(), Error> {
        let report = |message| StepsReport { commit: self.commit_id(), message, steps: steps.clone() };
        let in_hand = self.own(call).await?.status.message;
        match self.add_steps(call, report(in_hand)).await {
            // It ended in this moment, or another one was taken up.
            Err(Error::NotHeld(_)) => {
                let in_hand = self.own(call).await?.status.message;
                self.add_steps(call, report(in_hand)).await
            }
            added => added,
        }
    }

    async fn attempt_at(&self, agent: &Agent, message: Option<MessageId>) -> Result<u32, Error> {
        let Some(id) = message else { return Ok(0) };
        let message = self.inner.store.message(agent.id, id).await?;
        message.map(|message| message.attempt).ok_or_else(|| Error::NotFound { what: "message", name: id.to_string() })
    }

    /// Passes on words as the model writes them, up to 128 KiB at once. They are not kept.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn add_delta(&self, call: &Call, report: DeltaReport) -> Result<(), Error> {
        if report.text.len() > DELTA_LIMIT {
            return Err(Error::invalid("text", "longer than 128 KiB; pass words on as they come"));
        }
        let agent = self.own(call).await?;
        self.inner.feed.deltas().tell(Delta { agent: agent.id, message: report.message, text: report.text });
        Ok(())
    }

    /// Ends the message in hand, with its answer.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over; a conflict where it does not hold the message.
    pub async fn end(&self, call: &Call, report: EndReport) -> Result<Agent, Error> {
        check_steps(&report.steps)?;
        let parts = report.reply.filter(|parts| !parts.is_empty());
        if let Some(parts) = &parts {
            check_parts("reply", parts)?;
        }
        check_ending(&report.ending)?;
        let agent = self.own(call).await?;
        let mut ops = Vec::new();
        if !report.steps.is_empty() {
            let attempt = self.attempt_at(&agent, Some(report.message)).await?;
            ops.push(AgentOp::AddSteps { message: Some(report.message), attempt, steps: report.steps });
        }
        let reply = parts.map(|parts| Reply { id: self.reply_id(), parts });
        let how = match &report.ending {
            Ending::Done => "done",
            Ending::Failed { .. } => "failed",
            Ending::Cancelled => "cancelled",
            Ending::Parked => "parked",
        };
        ops.push(AgentOp::End { message: report.message, ending: report.ending, reply });
        let after = self.commit_own(&agent, call, ops, Some(report.commit)).await?;
        let Agent { tenant, name, status, .. } = &agent;
        tracing::info!(
            message_id = %report.message, how, agent = %agent.id, agent_name = %name, %tenant,
            incarnation = %status.incarnation, "a message has ended"
        );
        Ok(after)
    }

    fn reply_id(&self) -> MessageId {
        self.inner.entropy.message_id(self.inner.clock.now())
    }

    /// The program is called by its server, or calls a model: it stays awake while the guard is held.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn hold_own(&self, call: &Call, kind: ActivityKind) -> Result<(Agent, ActivityGuard), Error> {
        let agent = self.own(call).await?;
        let guard = self.inner.activity.hold(&agent, kind, self.now()).await?;
        Ok((agent, guard))
    }

    /// Whether this is the present program of its agent. Returns the agent.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn check_program(&self, call: &Call) -> Result<Agent, Error> {
        self.own(call).await
    }

    async fn commit_own(
        &self,
        agent: &Agent,
        call: &Call,
        ops: Vec<AgentOp>,
        id: Option<CommitId>,
    ) -> Result<Agent, Error> {
        self.commit_when(agent, call, None, ops, id).await
    }

    async fn commit_when(
        &self,
        agent: &Agent,
        call: &Call,
        also: Option<Check>,
        ops: Vec<AgentOp>,
        id: Option<CommitId>,
    ) -> Result<Agent, Error> {
        let Principal::Agent { incarnation, .. } = &call.principal else {
            return Err(Error::Internal("a user has no incarnation".into()));
        };
        let when = [Check::Incarnation(*incarnation)].into_iter().chain(also).collect();
        let change = AgentChange { agent: agent.id, when, ops };
        let commit = Commit::of(id.unwrap_or_else(|| self.commit_id()), change);
        super::agents::first_agent(self.inner.store.commit(commit).await?)
    }
}

fn check_steps(steps: &[NewStep]) -> Result<(), Error> {
    let tool_too_long = |step: &NewStep| step.tool.as_ref().is_some_and(|tool| tool.len() > TOOL_LIMIT);
    if steps.len() > STEPS_LIMIT || steps.iter().any(|step| step.text.len() > STEP_LIMIT || tool_too_long(step)) {
        return Err(Error::invalid(
            "steps",
            "use up to 1000 steps of up to 64 KiB each, and 256 bytes for a tool's name",
        ));
    }
    Ok(())
}

fn check_ending(ending: &Ending) -> Result<(), Error> {
    match ending {
        Ending::Parked => Err(Error::invalid("ending", "this release knows no approvals yet")),
        Ending::Failed { reason } if reason.len() > REASON_LIMIT => {
            Err(Error::invalid("ending.failed.reason", "longer than 4 KiB"))
        }
        Ending::Failed { reason } if reason.contains('\0') => {
            Err(Error::invalid("ending.failed.reason", "it holds a NUL character"))
        }
        Ending::Done | Ending::Failed { .. } | Ending::Cancelled => Ok(()),
    }
}

/// The last `limit` bytes of a text at most, cut between characters.
fn tail(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let cut = text.ceil_char_boundary(text.len() - limit);
        text.drain(..cut);
    }
    text
}
