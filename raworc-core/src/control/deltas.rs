//! Words as models write them, for those who watch an agent. Not kept: who was not there has the steps and the reply.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::ids::{AgentId, MessageId};

/// Deltas of an agent that a slow listener may be behind before it misses some. Each is 128 KiB at most.
const BEHIND: usize = 32;

/// Words that a model wrote just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The agent that thinks.
    pub agent: AgentId,
    /// For which message.
    pub message: MessageId,
    /// The words.
    pub text: String,
}

/// Where a delta was told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// By its program to this process.
    Here,
    /// To another process, which passed it on.
    Elsewhere,
}

type Told = (Arc<Delta>, Origin);

/// Who listens to an agent's deltas.
#[derive(Debug)]
struct Listeners {
    tell: broadcast::Sender<Told>,
    /// How many of them want what is told elsewhere, too.
    wanting: usize,
    count: usize,
}

type Listened = BTreeMap<AgentId, Listeners>;

/// The deltas of a process. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Deltas(Arc<watch::Sender<Listened>>);

impl Deltas {
    /// Tells what the program of an agent said here.
    pub(super) fn tell(&self, delta: Delta) {
        self.pass((Arc::new(delta), Origin::Here));
    }

    /// Tells what another process passed on.
    pub fn tell_of_elsewhere(&self, delta: Delta) {
        self.pass((Arc::new(delta), Origin::Elsewhere));
    }

    fn pass(&self, told: Told) {
        if let Some(listeners) = self.0.borrow().get(&told.0.agent) {
            // The last of them may be leaving.
            let _ = listeners.tell.send(told);
        }
    }

    /// Every delta of an agent from now on, in whatever process it is told, as far as others pass them on.
    #[must_use]
    pub fn of(&self, agent: AgentId) -> DeltaStream {
        self.listen(agent, false)
    }

    /// Those alone that its program tells in this process, for another one: what was passed on is not passed on again.
    #[must_use]
    pub fn told_here(&self, agent: AgentId) -> DeltaStream {
        self.listen(agent, true)
    }

    fn listen(&self, agent: AgentId, here_alone: bool) -> DeltaStream {
        let mut receiver = None;
        self.0.send_if_modified(|listened| {
            let listeners = listened.entry(agent).or_insert_with(|| Listeners {
                tell: broadcast::Sender::new(BEHIND),
                wanting: 0,
                count: 0,
            });
            receiver = Some(listeners.tell.subscribe());
            listeners.count += 1;
            listeners.wanting += usize::from(!here_alone);
            !here_alone && listeners.wanting == 1
        });
        DeltaStream { agent, receiver, here_alone, deltas: self.clone() }
    }

    fn leave(&self, agent: AgentId, here_alone: bool) {
        self.0.send_if_modified(|listened| {
            let Some(listeners) = listened.get_mut(&agent) else { return false };
            listeners.count -= 1;
            listeners.wanting -= usize::from(!here_alone);
            let unwanted = !here_alone && listeners.wanting == 0;
            if listeners.count == 0 {
                listened.remove(&agent);
            }
            unwanted
        });
    }

    /// Tells of which agents deltas are wanted from other processes, as that changes.
    #[must_use]
    pub fn wanted(&self) -> WantedDeltas {
        WantedDeltas(self.0.subscribe())
    }
}

/// The deltas of an agent, from its beginning on.
pub struct DeltaStream {
    agent: AgentId,
    receiver: Option<broadcast::Receiver<Told>>,
    here_alone: bool,
    deltas: Deltas,
}

impl fmt::Debug for DeltaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaStream").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl DeltaStream {
    /// The next one. Who is too slow misses some. Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Arc<Delta> {
        while let Some(receiver) = &mut self.receiver {
            match receiver.recv().await {
                Ok((_, Origin::Elsewhere)) if self.here_alone => {}
                Ok((delta, _)) => return delta,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => self.receiver = None,
            }
        }
        std::future::pending().await
    }
}

impl Drop for DeltaStream {
    fn drop(&mut self) {
        self.deltas.leave(self.agent, self.here_alone);
    }
}

/// The agents of which deltas are wanted.
#[derive(Debug)]
pub struct WantedDeltas(watch::Receiver<Listened>);

impl WantedDeltas {
    /// Those of now.
    #[must_use]
    pub fn now(&mut self) -> BTreeSet<AgentId> {
        let listened = self.0.borrow_and_update();
        listened.iter().filter(|(_, listeners)| listeners.wanting > 0).map(|(agent, _)| *agent).collect()
    }

    /// Waits until they are others than those that were told last; false once nobody listens any more, ever.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    fn delta(agent: AgentId, text: &str) -> Delta {
        Delta { agent, message: SystemEntropy.message_id(SystemClock.now()), text: text.into() }
    }

    #[tokio::test]
    async fn what_was_passed_on_is_not_passed_on_again() {
        let (deltas, agent) = (Deltas::default(), SystemEntropy.agent_id(SystemClock.now()));
        let other = SystemEntropy.agent_id(SystemClock.now());
        let (mut all, mut here) = (deltas.of(agent), deltas.told_here(agent));
        deltas.tell_of_elsewhere(delta(agent, "there"));
        deltas.tell(delta(other, "somebody else"));
        deltas.tell(delta(agent, "here"));
        assert_eq!((all.next().await.text.as_str(), all.next().await.text.as_str()), ("there", "here"));
        assert_eq!(here.next().await.text, "here");
    }

    #[tokio::test]
    async fn deltas_are_wanted_while_somebody_listens_who_is_no_process() {
        let (deltas, agent) = (Deltas::default(), SystemEntropy.agent_id(SystemClock.now()));
        let mut wanted = deltas.wanted();
        assert!(wanted.now().is_empty());
        let passed_on = deltas.told_here(agent);
        assert!(wanted.now().is_empty(), "two processes would want it of each other for ever");
        let (first, second) = (deltas.of(agent), deltas.of(agent));
        assert!(wanted.changed().await);
        assert_eq!(wanted.now(), BTreeSet::from([agent]));
        drop(first);
        assert!(!wanted.0.has_changed().expect("it is there"), "one still listens");
        drop(second);
        assert!(wanted.changed().await);
        assert!(wanted.now().is_empty());
        drop(passed_on);
        assert!(deltas.0.borrow().is_empty(), "nothing is kept of those who left");
    }
}
