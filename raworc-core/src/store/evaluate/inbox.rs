//! What happens to messages and steps.

use std::time::Duration;

use serde_json::json;

use super::draft::{Draft, short};
use super::later;
use crate::agent::{Agent, AgentEvent, Desired, Inbox};
use crate::event::EventKind;
use crate::ids::MessageId;
use crate::message::{Message, MessageDecision, MessageEvent, MessageState, Role};
use crate::step::{NewStep, STEPS_TOTAL, Step};
use crate::store::commit::{Conflict, Ending, NewMessage, Reply};

/// What a message that somebody wanted cancelled ends by.
fn cancel() -> MessageEvent {
    MessageEvent::Cancel { reason: "cancelled by request".into() }
}

impl Draft {
    pub(super) fn held_message(&mut self, agent: &mut Agent, event: MessageEvent) -> Result<(), Conflict> {
        let Some(id) = agent.status.message else { return Ok(()) };
        let cancelled = self.rows.messages.get(&id).is_some_and(|message| message.cancel_requested);
        match event {
            // Who held it is gone before it could obey: nobody wants it done again.
            MessageEvent::Requeue { .. } if cancelled => self.message_event(agent, id, cancel()),
            event => self.message_event(agent, id, event),
        }
    }

    pub(super) fn cancel_inbox(&mut self, agent: &mut Agent, why: &str) -> Result<(), Conflict> {
        let mut open: Vec<_> = self
            .rows
            .messages
            .values()
            .filter(|message| message.agent == agent.id && !message.state.is_ended())
            .map(|message| (message.seq, message.id))
            .collect();
        open.sort_unstable();
        open.into_iter().try_for_each(|(_, id)| self.cancel_with_agent(agent, id, why))
    }

    /// Cancels a message that waits, unless somebody was quicker.
    pub(super) fn cancel_queued(&mut self, agent: &mut Agent, id: MessageId, why: &str) -> Result<(), Conflict> {
        match self.rows.messages.get(&id) {
            Some(message) if message.state == MessageState::Queued => self.cancel_with_agent(agent, id, why),
            Some(_) => Ok(()),
            None => Err(Conflict::NoMessage(id)),
        }
    }

    fn cancel_with_agent(&mut self, agent: &mut Agent, id: MessageId, why: &str) -> Result<(), Conflict> {
        self.message_event(agent, id, MessageEvent::Cancel { reason: why.to_owned() })?;
        // Nobody asked for this one, and there may be a whole inbox of them.
        self.untold.insert(id);
        Ok(())
    }

    fn message_event(&mut self, agent: &mut Agent, id: MessageId, event: MessageEvent) -> Result<(), Conflict> {
        let now = self.rows.now;
        let mut message =
            self.rows.messages.remove(&id).filter(|m| m.agent == agent.id).ok_or(Conflict::NoMessage(id))?;
        let from = message.state;
        let to = match from.on(&event, message.attempt) {
            MessageDecision::Deny => return Err(Conflict::MessageState { id, state: from }),
            MessageDecision::Ignore => from,
            MessageDecision::Move(to) => to,
        };
        if to != from {
            message.state = to;
            match event {
                MessageEvent::Lease(incarnation) => {
                    message.attempt += 1;
                    message.incarnation = Some(incarnation);
                    message.leased_at = Some(now);
                }
                MessageEvent::Resume(incarnation) => message.incarnation = Some(incarnation),
                MessageEvent::Requeue { reason } if to == MessageState::Failed => message.reason = Some(reason),
                MessageEvent::Fail { reason } | MessageEvent::Cancel { reason } => message.reason = Some(reason),
                MessageEvent::Requeue { .. } | MessageEvent::Park | MessageEvent::Finish => {}
            }
            if to.is_ended() {
                message.ended_at = Some(now);
            }
            if to == MessageState::Queued {
                agent.inbox.queue(&message);
            }
            if from == MessageState::Queued {
                agent.inbox.unqueue(&message);
            }
            let summary = json!({
                "from": from, "to": to, "seq": message.seq, "attempt": message.attempt,
                "reason": message.reason.as_deref().map(short),
            });
            self.tell(agent, EventKind::MessageState, Some(id), summary);
            self.messages.insert(id);
        }
        self.rows.messages.insert(id, message);
        Ok(())
    }

    pub(super) fn accept(&mut self, agent: &mut Agent, new: &NewMessage) -> Result<(), Conflict> {
        agent.inbox.last_seq += 1;
        let message = Message {
            id: new.id,
            tenant: agent.tenant.clone(),
            agent: agent.id,
            seq: agent.inbox.last_seq,
            role: new.role,
            author: new.author.clone(),
            parts: new.parts.clone(),
            reply_to: None,
            state: MessageState::Queued,
            attempt: 0,
            incarnation: None,
            cancel_requested: false,
            reason: None,
            created_at: self.rows.now,
            leased_at: None,
            ended_at: None,
            traceparent: new.traceparent,
        };
        agent.inbox.queue(&message);
        let summary = json!({ "seq": message.seq, "role": message.role });
        self.messages.insert(message.id);
        self.rows.messages.insert(message.id, message);
        self.tell(agent, EventKind::MessageAccepted, Some(new.id), summary);
        self.desire(agent, Desired::Awake, false)
    }

    pub(super) fn lease(&mut self, agent: &mut Agent, id: MessageId) -> Result<(), Conflict> {
        let incarnation = agent.status.incarnation;
        self.transition(agent, &AgentEvent::Leased(id), "MessageLeased", "works on a message", None)?;
        self.message_event(agent, id, MessageEvent::Lease(incarnation))?;
        agent.status.message = Some(id);
        if let Some(run) = &mut agent.status.run {
            run.step_bytes = 0;
        }
        agent.status.busy_until = Some(later(self.rows.now, Duration::from_secs(agent.spec.busy_timeout.into())));
        Ok(())
    }

    pub(super) fn end(
        &mut self,
        agent: &mut Agent,
        id: MessageId,
        ending: &Ending,
        reply: Option<&Reply>,
    ) -> Result<(), Conflict> {
        if agent.status.message != Some(id) {
            return Err(Conflict::NotHeld(id));
        }
        let event = match ending {
            Ending::Done => MessageEvent::Finish,
            Ending::Failed { reason } => MessageEvent::Fail { reason: reason.clone() },
            Ending::Cancelled => cancel(),
            Ending::Parked => MessageEvent::Park,
        };
        self.message_event(agent, id, event)?;
        if let Some(reply) = reply {
            agent.inbox.last_seq += 1;
            let now = self.rows.now;
            let message = Message {
                id: reply.id,
                tenant: agent.tenant.clone(),
                agent: agent.id,
                seq: agent.inbox.last_seq,
                role: Role::Agent,
                author: format!("agent:{}", agent.name),
                parts: reply.parts.clone(),
                reply_to: Some(id),
                state: MessageState::Done,
                attempt: 0,
                incarnation: Some(agent.status.incarnation),
                cancel_requested: false,
                reason: None,
                created_at: now,
                leased_at: None,
                ended_at: Some(now),
                traceparent: None,
            };
            let summary = json!({ "seq": message.seq, "reply_to": id });
            self.messages.insert(message.id);
            self.rows.messages.insert(message.id, message);
            self.tell(agent, EventKind::MessageReply, Some(reply.id), summary);
        }
        agent.status.restarts = 0;
        agent.status.message = None;
        self.transition(agent, &AgentEvent::Ended, "MessageEnded", "its message has ended", None)
    }

    pub(super) fn request_cancel(&mut self, agent: &mut Agent, id: MessageId, obey: Duration) -> Result<(), Conflict> {
        let message = self.rows.messages.get_mut(&id).filter(|m| m.agent == agent.id).ok_or(Conflict::NoMessage(id))?;
        if agent.status.message != Some(id) {
            return self.message_event(agent, id, cancel());
        }
        // Told in any case, so that the answer holds it.
        self.messages.insert(id);
        if message.cancel_requested {
            return Ok(());
        }
        message.cancel_requested = true;
        agent.status.cancel_by = Some(later(self.rows.now, obey));
        agent.status.version += 1;
        self.tell(agent, EventKind::MessageCancel, Some(id), json!({}));
        Ok(())
    }

    pub(super) fn add_steps(
        &mut self,
        agent: &mut Agent,
        message: Option<MessageId>,
        attempt: u32,
        steps: &[NewStep],
    ) -> Result<(), Conflict> {
        agent.check_run()?;
        let steps = agent.with_room(steps);
        if steps.is_empty() {
            return Ok(());
        }
        let first = agent.inbox.last_step + 1;
        for new in steps {
            agent.inbox.last_step += 1;
            self.steps.push(Step {
                tenant: agent.tenant.clone(),
                agent: agent.id,
                seq: agent.inbox.last_step,
                message,
                attempt,
                incarnation: agent.status.incarnation,
                kind: new.kind,
                tool: new.tool,
                text: new.text,
                at: self.rows.now,
            });
        }
        let summary = json!({ "first": first, "last": agent.inbox.last_step });
        self.tell(agent, EventKind::StepsAdded, message, summary);
        Ok(())
    }
}

impl Inbox {
    fn queue(&mut self, message: &Message) {
        self.queued += 1;
        self.queued_bytes += message.weight();
    }

    fn unqueue(&mut self, message: &Message) {
        self.queued -= 1;
        // What was queued before bytes were counted has not been.
        self.queued_bytes = self.queued_bytes.saturating_sub(message.weight());
    }
}

impl Agent {
    /// Those of the steps that there is room for, and a word in the place of the first that there is none for.
    fn with_room(&mut self, steps: &[NewStep]) -> Vec<NewStep> {
        let Some(run) = &mut self.status.run else { return Vec::new() };
        let mut kept = Vec::new();
        for step in steps {
            if run.step_bytes >= STEPS_TOTAL {
                break;
            }
            run.step_bytes = (run.step_bytes + step.weight()).min(STEPS_TOTAL);
            kept.push(if run.step_bytes < STEPS_TOTAL { step.clone() } else { NewStep::no_room() });
        }
        kept
    }
}
