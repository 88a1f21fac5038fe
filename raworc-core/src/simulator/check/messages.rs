//! Messages: numbers without gaps, turns in order, one end, one reply, one event for each change.

use super::{Checker, Found, Passed, must};
use crate::agent::State;
use crate::event::EventKind;
use crate::ids::AgentId;
use crate::message::{MAX_ATTEMPTS, Message, MessageState};
use crate::simulator::world::short;

impl Checker {
    pub(super) fn messages(&mut self, passed: &Passed<'_>) -> Found {
        for message in &passed.committed.messages {
            match self.messages.get(&message.id) {
                None => self.comes(passed, message)?,
                Some(before) => self.goes_on(passed, before, message)?,
            }
            if let Some(cause) = message.reply_to {
                let name = short(cause);
                must(self.answered.insert(cause), 3, || format!("message {name} is answered twice"))?;
                let ended = passed.committed.messages.iter().any(|m| m.id == cause && m.state.is_ended());
                must(ended, 3, || format!("message {name} is answered and does not end"))?;
            }
            self.messages.insert(message.id, message.clone());
        }
        self.inboxes_end(passed)
    }

    /// An inbox that ends with its agent is told by the log alone.
    fn inboxes_end(&mut self, passed: &Passed<'_>) -> Found {
        let deleted = passed.committed.agents.iter().filter(|agent| agent.status.state() == State::Deleted);
        for agent in deleted.map(|agent| agent.id) {
            let open: Vec<_> = self.of(agent).filter(|message| !message.state.is_ended()).cloned().collect();
            for before in open {
                let after = Message { state: MessageState::Cancelled, ended_at: Some(passed.committed.now), ..before };
                self.goes_on(passed, &self.messages[&after.id], &after)?;
                self.messages.insert(after.id, after);
            }
        }
        Ok(())
    }

    fn of(&self, agent: AgentId) -> impl Iterator<Item = &Message> {
        self.messages.values().filter(move |message| message.agent == agent)
    }

    fn comes(&self, passed: &Passed<'_>, message: &Message) -> Found {
        let name = short(message.id);
        let last = self.of(message.agent).map(|message| message.seq).max().unwrap_or(0);
        must(message.seq == last + 1, 3, || format!("message {name} has number {} after {last}", message.seq))?;
        let kind = if message.reply_to.is_some() { EventKind::MessageReply } else { EventKind::MessageAccepted };
        let told = passed.events.iter().filter(|event| event.kind == kind && event.message == Some(message.id));
        must(told.count() == 1, 2, || format!("message {name} came and that is not told once"))?;
        let first = if message.reply_to.is_some() { MessageState::Done } else { MessageState::Queued };
        must(message.state == first, 3, || format!("message {name} came as {}", message.state))
    }

    fn goes_on(&self, passed: &Passed<'_>, before: &Message, after: &Message) -> Found {
        let name = short(after.id);
        let (from, to) = (before.state, after.state);
        let told: Vec<_> = passed
            .events
            .iter()
            .filter(|event| event.kind == EventKind::MessageState && event.message == Some(after.id))
            .filter_map(|event| Some((event.summary.get("from")?.as_str()?, event.summary.get("to")?.as_str()?)))
            .collect();
        if from == to {
            must(told.is_empty(), 2, || format!("message {name} stays {from} and the log tells {told:?}"))?;
            return must(!from.is_ended() || before == after, 3, || format!("message {name} changed after its end"));
        }
        must(told == [(from.as_str(), to.as_str())], 2, || {
            format!("message {name}: {from} to {to} is told as {told:?}")
        })?;
        must(!from.is_ended(), 3, || format!("message {name} was {from} and is {to}"))?;
        match (from, to) {
            (MessageState::Queued, MessageState::Leased) => {
                let first = self.of(after.agent).filter(|m| !m.state.is_ended()).map(|m| m.seq).min();
                must(first == Some(after.seq), 3, || format!("message {name} is taken up before {first:?}"))?;
                must(after.attempt == before.attempt + 1, 3, || {
                    format!("message {name} is at attempt {}", after.attempt)
                })
            }
            (MessageState::Leased, MessageState::Queued) => {
                must(after.attempt < MAX_ATTEMPTS, 3, || format!("message {name} is tried too often"))
            }
            (MessageState::Leased | MessageState::Queued, to) => {
                must(to.is_ended() && after.ended_at.is_some(), 3, || format!("message {name} is {to} after {from}"))
            }
            _ => must(false, 3, || format!("message {name} went from {from} to {to}")),
        }
    }
}
