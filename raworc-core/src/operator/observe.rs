//! What engines say of agents' computers. They are asked apart from the looks, one call at a time for each agent, so that
//! one that does not answer holds up nobody; the answer is what the agent is looked at for once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::{limited, say_failed};
use super::jobs::Subject;
use super::plan::{Observation, Work};
use super::{Engine, Shared, spawn};
use crate::agent::{Agent, Run, State};
use crate::entropy::EntropyExt;
use crate::ids::{AgentId, ComputerId, Incarnation};
use crate::runtime::{LimitsReached, Observed, StartId};

/// The longest pause after an engine that gave no answer.
const PAUSE: Duration = Duration::from_secs(30);

/// What an engine is asked about. An answer tells something only of the start that it was asked about, as far as that had
/// come: else it may be older than the start that the row bears. Whatever else moves in the row, such as a deadline or what
/// its steps take, the answer is good.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    computer: ComputerId,
    incarnation: Incarnation,
    run: Option<Stage>,
}

/// How far a start has come.
#[derive(Debug, Clone, PartialEq)]
struct Stage {
    start: Option<StartId>,
    booted: bool,
}

impl Question {
    /// What to ask for this agent, where a run of it is to be judged by the answer.
    pub(super) fn of(agent: &Agent, work: Work) -> Option<Self> {
        let status = &agent.status;
        let judged = match &status.run {
            Some(run) => !run.ending,
            None => status.state() == State::Slept,
        };
        let computer = status.computer.filter(|_| judged && work == Work::None)?;
        let stage = |run: &Run| Stage { start: run.start_id.clone(), booted: run.booted_at.is_some() };
        Some(Self { computer, incarnation: status.incarnation, run: status.run.as_ref().map(stage) })
    }
}

/// What an engine says of an agent's computer; nothing by default.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) observed: Observation,
    pub(super) reached: LimitsReached,
}

impl Default for Answer {
    fn default() -> Self {
        Self { observed: Observation::Unknown, reached: LimitsReached::default() }
    }
}

impl From<Option<Observed>> for Answer {
    fn from(seen: Option<Observed>) -> Self {
        match seen {
            None => Self { observed: Observation::Absent, ..Self::default() },
            Some(seen) => Self { observed: Observation::Present(seen.phase), reached: seen.reached },
        }
    }
}

/// Questions that are open, and answers that no look has taken yet.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<AgentId, Entry>>);

#[derive(Debug)]
struct Entry {
    question: Question,
    /// Whether the engine is being asked, and whether something happened since.
    asking: bool,
    again: bool,
    answer: Option<(Question, Answer)>,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to this question, once; none where that is to be asked anew, because the engine answered another one.
    pub(super) fn take(&self, agent: AgentId, question: Option<&Question>) -> Option<Answer> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&agent) else { return Some(Answer::default()) };
        let answer = entry.answer.take();
        if !entry.asking {
            entries.remove(&agent);
        }
        match answer {
            Some((asked, answer)) if Some(&asked) == question => Some(answer),
            Some(_) => None,
            None => Some(Answer::default()),
        }
    }

    /// Notes a question. Whether somebody has to ask it: else it is asked by whoever asks for this agent already.
    fn pose(&self, agent: AgentId, question: Question) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(agent).or_insert_with(|| Entry {
            question: question.clone(),
            asking: false,
            again: false,
            answer: None,
        });
        entry.question = question;
        entry.again = entry.asking;
        !std::mem::replace(&mut entry.asking, true)
    }

    /// The question that is to be asked now.
    fn question(&self, agent: AgentId) -> Option<Question> {
        self.lock().get(&agent).map(|entry| entry.question.clone())
    }

    /// Keeps an answer for the next look. Whether the engine has to be asked once more.
    fn answered(&self, agent: AgentId, answer: Option<(Question, Answer)>) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&agent) else { return false };
        let failed = answer.is_none();
        if answer.is_some() {
            entry.answer = answer;
        }
        let again = std::mem::take(&mut entry.again) && !failed;
        entry.asking = again;
        if !again && entry.answer.is_none() {
            entries.remove(&agent);
        }
        again
    }
}

/// Asks the engine, apart from the look.
pub(super) fn begin(shared: &Arc<Shared>, engine: &Engine, agent: &Agent, question: Question) {
    if !shared.answers.pose(agent.id, question) {
        return;
    }
    let (id, tenant, runtime) = (agent.id, agent.tenant.clone(), agent.spec.runtime.clone());
    let (gate, task) = (engine.looks.clone(), Arc::clone(shared));
    spawn(shared, async move {
        let shared = task;
        let Some(engine) = runtime.and_then(|name| shared.engines.get(&name)) else { return };
        while let Some(question) = shared.answers.question(id) {
            let asked = {
                let _pass = gate.enter(&tenant).await;
                let call = engine.entry.runtime.observe(question.computer);
                limited(&shared, "look at the computer", call).await
            };
            let subject = Subject::Observe(id);
            let answer = match asked {
                Ok(seen) => {
                    shared.jobs.succeeded(subject);
                    Some((question, seen.into()))
                }
                Err(error) => {
                    say_failed!(error, agent = %id, computer = %question.computer, "a computer cannot be observed");
                    let wait = Duration::from_secs(1 << shared.jobs.failed(subject).min(5)).min(PAUSE);
                    shared.queue.look_after(id, shared.entropy.jitter(wait));
                    None
                }
            };
            let failed = answer.is_none();
            let again = shared.answers.answered(id, answer);
            if !failed {
                shared.queue.trigger(id);
            }
            if !again {
                break;
            }
        }
    });
}
