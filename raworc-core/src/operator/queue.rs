//! The queue: which agents to look at, and when. An agent stands in it once and is looked at by one task at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Again, RETRY_LOOK};
use crate::ids::AgentId;

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<(Instant, AgentId)>,
    entries: HashMap<AgentId, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// When it is to be looked at, if it waits.
    at: Option<Instant>,
    /// Whether the engine is to be asked, too.
    look: bool,
    /// Whether a task looks at it now.
    running: bool,
    /// Whether something triggered it while a task looked at it.
    again: bool,
}

impl Queue {
    /// Looks at the agent as soon as may be.
    pub(super) fn trigger(&self, agent: AgentId) {
        self.put(agent, Instant::now(), false);
    }

    /// Looks at the agent as soon as may be, and at what its engine says of it.
    pub(super) fn look(&self, agent: AgentId) {
        self.put(agent, Instant::now(), true);
    }

    /// Agents that wait to be looked at, now or later, and those of them that are due.
    pub(super) fn len(&self) -> (usize, usize) {
        let (state, now) = (self.lock(), Instant::now());
        (state.waiting.len(), state.waiting.iter().take_while(|(at, _)| *at <= now).count())
    }

    /// Looks at the agent and at what its engine says of it in a while, or whenever it is looked at before.
    pub(super) fn look_after(&self, agent: AgentId, wait: Duration) {
        self.put(agent, Instant::now() + wait, true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, agent: AgentId, at: Instant, look: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let entry = state.entries.entry(agent).or_default();
        entry.look |= look;
        if entry.running {
            entry.again = true;
            return;
        }
        match entry.at {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                state.waiting.remove(&(later, agent));
            }
            None => {}
        }
        entry.at = Some(at);
        state.waiting.insert((at, agent));
        self.changed.notify_one();
    }

    /// The next agent to look at, and whether its engine is to be asked. It is this task's until [`done`](Self::done).
    pub(super) async fn next(&self) -> (AgentId, bool) {
        loop {
            let changed = self.changed.notified();
            let until = {
                let mut state = self.lock();
                let state = &mut *state;
                match state.waiting.first().copied() {
                    Some((at, agent)) if at <= Instant::now() => {
                        state.waiting.pop_first();
                        let entry = state.entries.entry(agent).or_default();
                        entry.at = None;
                        entry.running = true;
                        return (agent, std::mem::take(&mut entry.look));
                    }
                    Some((at, _)) => Some(at),
                    None => None,
                }
            };
            match until {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// The look is over.
    pub(super) fn done(&self, agent: AgentId, again: Again) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&agent) else { return };
        entry.running = false;
        let triggered = std::mem::take(&mut entry.again);
        let look = entry.look;
        let after = match again {
            Again::Now => Some(Duration::ZERO),
            _ if triggered => Some(Duration::ZERO),
            Again::After(wait) => Some(wait),
            Again::Triggered => None,
        };
        if after.is_none() {
            state.entries.remove(&agent);
            return;
        }
        drop(state);
        self.put(agent, Instant::now() + after.unwrap_or(RETRY_LOOK), look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{EntropyExt, SystemEntropy};

    fn agent() -> AgentId {
        SystemEntropy.agent_id(jiff::Timestamp::UNIX_EPOCH)
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_stands_in_the_queue_once_and_the_earliest_time_wins() {
        let (queue, first, second) = (Queue::default(), agent(), agent());
        queue.trigger(first);
        queue.look(first);
        queue.trigger(second);
        assert_eq!(queue.len(), (2, 2));
        let mut both = [queue.next().await, queue.next().await];
        both.sort_unstable_by_key(|(agent, _)| *agent != first);
        assert_eq!(both, [(first, true), (second, false)]);
        queue.done(first, Again::After(Duration::from_secs(10)));
        queue.done(second, Again::After(Duration::from_secs(5)));
        assert_eq!(queue.len(), (2, 0), "neither is due");
        assert_eq!(queue.next().await.0, second);
        queue.trigger(first);
        assert_eq!(queue.next().await.0, first);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_triggered_during_its_look_is_looked_at_again() {
        let (queue, one) = (Queue::default(), agent());
        queue.trigger(one);
        assert_eq!(queue.next().await.0, one);
        queue.look(one);
        let nothing = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(nothing.is_err(), "it is looked at by one task at a time");
        queue.done(one, Again::Triggered);
        assert_eq!(queue.next().await, (one, true));
    }
}
