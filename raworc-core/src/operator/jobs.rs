//! Jobs: what engines are asked, one at a time for each agent, and the keys of runs that were begun here.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;

use super::plan::Work;
use crate::ids::{AgentId, ComputerId, Incarnation};

/// Computers that are kept in mind at most.
const ANSWERED: usize = 10_000;

/// What a job is done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Agent(AgentId),
    Observe(AgentId),
    Reclaim(ComputerId),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: HashSet<Subject>,
    begun: HashMap<AgentId, (Incarnation, SecretString)>,
    /// Computers on the reclaim list for which an engine was at work and has answered here.
    answered: HashSet<ComputerId>,
    /// How often the engine failed one after another to stop something.
    failures: HashMap<Subject, u32>,
}

/// The engine works for somebody, until this is dropped.
#[derive(Debug)]
pub(super) struct Job {
    jobs: Jobs,
    subject: Subject,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.jobs.lock().running.remove(&self.subject);
    }
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being done for this agent, whose present run is `incarnation`.
    pub(super) fn work(&self, agent: AgentId, incarnation: Incarnation) -> Work {
        let state = self.lock();
        if state.running.contains(&Subject::Agent(agent)) {
            Work::Engine
        } else if state.begun.get(&agent).is_some_and(|(begun, _)| *begun == incarnation) {
            Work::Begun
        } else {
            Work::None
        }
    }

    /// Whether an engine works for it.
    pub(super) fn is_running(&self, subject: Subject) -> bool {
        self.lock().running.contains(&subject)
    }

    /// Begins a job, unless there is one already.
    pub(super) fn begin(&self, subject: Subject) -> Option<Job> {
        self.lock().running.insert(subject).then(|| Job { jobs: self.clone(), subject })
    }

    /// Keeps the key of a run that was begun here.
    pub(super) fn keep_key(&self, agent: AgentId, incarnation: Incarnation, key: SecretString) {
        self.lock().begun.insert(agent, (incarnation, key));
    }

    /// The key of that run, once.
    pub(super) fn take_key(&self, agent: AgentId, incarnation: Incarnation) -> Option<SecretString> {
        let (begun, key) = self.lock().begun.remove(&agent)?;
        (begun == incarnation).then_some(key)
    }

    /// Notes that no call for this computer is under way, which was given up meanwhile.
    pub(super) fn note_answered(&self, computer: ComputerId) {
        let mut state = self.lock();
        // Whoever else reclaims it does not say so here. What is forgotten too early is waited for.
        if state.answered.len() >= ANSWERED {
            state.answered.clear();
        }
        state.answered.insert(computer);
    }

    /// Whether that was noted.
    pub(super) fn is_answered(&self, computer: ComputerId) -> bool {
        self.lock().answered.contains(&computer)
    }

    /// Forgets a computer that is gone.
    pub(super) fn forget(&self, computer: ComputerId) {
        self.lock().answered.remove(&computer);
    }

    /// Notes a failure and returns how many there were in a row before it.
    pub(super) fn failed(&self, subject: Subject) -> u32 {
        let mut state = self.lock();
        let failures = state.failures.entry(subject).or_default();
        *failures += 1;
        *failures - 1
    }

    /// Forgets failures.
    pub(super) fn succeeded(&self, subject: Subject) {
        self.lock().failures.remove(&subject);
    }
}
