//! Signs of life of programs, and what they say of their volumes.

use super::ControlPlane;
use super::call::Call;
use crate::agent::{Agent, Measured};
use crate::error::Error;
use crate::message::MessageState;
use crate::program::{HeartbeatReply, HeartbeatReport};
use crate::quantity::Bytes;
use crate::store::{AgentChange, Check, Commit, Conflict, Stamped, StoreError};

/// How often what a report changes is tried again in one call, where something else changes the agent in that moment.
/// The next report says it again.
const TRIES: usize = 4;

impl ControlPlane {
    /// The program lives. What it says of its volume takes effect before this returns: a program that reports before it
    /// asks for a message is given none that would have to wait. One that reports nothing is older than that.
    ///
    /// # Errors
    /// [`Error::StaleIncarnation`] where the program's start is over.
    pub async fn heartbeat(&self, call: &Call, report: Option<HeartbeatReport>) -> Result<HeartbeatReply, Error> {
        let Stamped { value: agent, now } = self.own_read(call).await?;
        self.inner.activity.heard(&agent, now).await;
        let (held, limit) = (agent.status.message, self.measured_disk(&agent));
        let id = agent.id;
        let measured =
            report.map_or(Measured::Never, |report| report.disk_used.map_or(Measured::NotYet, Measured::Bytes));
        self.note_disk(call, Stamped { value: agent, now }, measured).await?;
        let cancel = match held {
            None => None,
            Some(message) => self.inner.store.message(id, message).await?,
        };
        let cancel = cancel.filter(|message| message.cancel_requested && message.state == MessageState::Leased);
        Ok(HeartbeatReply { cancel: cancel.map(|message| message.id), disk_limit: limit.map(Bytes::get) })
    }

    /// What the agent's volume may hold, where its program has to measure that.
    pub(super) fn measured_disk(&self, agent: &Agent) -> Option<Bytes> {
        let runtime = agent.spec.runtime.as_ref()?;
        let known = self.runtimes();
        let (_, able) = known.iter().find(|(name, _)| name == runtime)?;
        agent.spec.resources.disk.filter(|_| !able.disk_limit)
    }

    async fn note_disk(&self, call: &Call, mut read: Stamped<Agent>, measured: Measured) -> Result<(), Error> {
        for _ in 0..TRIES {
            let agent = &read.value;
            let Some(op) = agent.on_measured(self.measured_disk(agent), measured, read.now) else { break };
            let status = &agent.status;
            // Of several who hear the same, the first commits it.
            let when = vec![
                Check::Incarnation(status.incarnation),
                Check::Status(status.version),
                Check::Generation(agent.generation),
            ];
            let change = AgentChange { agent: agent.id, when, ops: vec![op] };
            match self.inner.store.commit(Commit::of(self.commit_id(), change)).await {
                Ok(_) => break,
                Err(StoreError::Conflict(Conflict::Status { .. } | Conflict::Generation { .. })) => {
                    read = self.own_read(call).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
