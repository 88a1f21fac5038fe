//! What people say to agents.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ControlPlane;
use super::agents::first_agent;
use super::call::Call;
use crate::agent::Agent;
use crate::entropy::EntropyExt;
use crate::error::Error;
use crate::ids::{AgentName, MessageId, TenantName};
use crate::message::{MESSAGE_LIMIT, Message, PARTS_LIMIT, Part, Role};
use crate::principal::Action;
use crate::step::Step;
use crate::store::{
    AgentChange, AgentOp, Check, Commit, Committed, Conflict, MAX_PAGE, MessageQuery, NewMessage, Page, StepQuery,
    StoreError,
};
use crate::trace;

/// Says something to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// Who speaks: `user`, the default, or `system`, which only those may who may change the agent.
    #[serde(default)]
    pub role: Role,
    /// What is said. A single text that begins with `!` is a shell command.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 64))]
    pub parts: Vec<Part>,
}

impl SendMessage {
    /// A text from a user.
    pub fn text(text: impl Into<String>) -> Self {
        Self { role: Role::User, parts: vec![Part::text(text)] }
    }
}

/// A message that was accepted: it survives whatever happens, and will be done, failed or cancelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The message.
    pub message: Message,
    /// Its agent.
    pub agent: Agent,
    /// Whether an earlier request with the same key had accepted it.
    pub replayed: bool,
}

/// A message that was asked, and what came of it so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The message.
    pub message: Message,
    /// The agent's answer, where there is one.
    pub reply: Option<Message>,
}

/// Which messages of an agent to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct History {
    /// From the newest to the oldest.
    pub newest_first: bool,
    /// Beyond this number, in the direction of reading.
    pub after: Option<u64>,
    /// At most so many; [`MAX_PAGE`] where absent.
    pub limit: Option<usize>,
}

impl ControlPlane {
    /// Accepts a message for an agent, and wakes it.
    ///
    /// # Errors
    /// Where the message cannot be taken, or too many wait already.
    pub async fn send(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        request: SendMessage,
    ) -> Result<Accepted, Error> {
        check_message(&request)?;
        let action = match request.role {
            Role::System => Action::Update,
            Role::User if Message::command(&request.parts).is_some() => Action::Exec,
            Role::User | Role::Agent => Action::Message,
        };
        let verb = "messages.create";
        let accept = async {
            let agent = self.seek(call, tenant, name, action).await?;
            if request.role == Role::System && Message::command(&request.parts).is_some() {
                self.seek(call, tenant, name, Action::Exec).await?;
            }
            let settings = self.settings();
            let new = NewMessage {
                id: self.inner.entropy.message_id(self.inner.clock.now()),
                role: request.role,
                author: call.principal.to_string(),
                parts: request.parts.clone(),
                traceparent: call.traceparent,
            };
            let change = AgentChange {
                agent: agent.id,
                when: vec![
                    Check::Alive,
                    Check::InboxBelow(settings.inbox_limit),
                    Check::InboxBytesBelow(settings.inbox_bytes),
                ],
                ops: vec![AgentOp::Accept(new)],
            };
            let commit = Commit::of(self.commit_id(), change);
            let commit = self.sign(call, commit, tenant, verb, name.as_str(), &request)?;
            let full = |limit, unit| Error::InboxFull { name: name.clone(), limit, unit };
            match self.inner.store.commit(commit).await {
                Err(StoreError::Conflict(Conflict::InboxFull(limit))) => Err(full(limit, "messages").into()),
                Err(StoreError::Conflict(Conflict::InboxBytesFull(limit))) => Err(full(limit, "bytes").into()),
                committed => Ok(call.note(committed?)),
            }
        };
        let accepted = accepted(self.once(call, tenant, verb, name, &request, accept).await?)?;
        let Message { id, agent, seq, .. } = &accepted.message;
        trace::note("raworc.agent", agent);
        trace::note("raworc.message", id);
        tracing::info!(message_id = %id, seq, %agent, agent_name = %name, %tenant, "a message is accepted");
        Ok(accepted)
    }

    /// Says something to an agent and waits for its answer, for so long. Where the message has not ended by then, it is
    /// not lost: it is done later.
    ///
    /// # Errors
    /// Where the message cannot be taken, or the agent is gone before it is done.
    pub async fn ask(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        request: SendMessage,
        limit: Duration,
    ) -> Result<Answered, Error> {
        let id = self.send(call, tenant, name, request).await?.message.id;
        let message = self.wait_for_message(call, tenant, name, id, limit).await?;
        if !message.state.is_ended() {
            return Ok(Answered { message, reply: None });
        }
        let mut query = MessageQuery { after: Some(message.seq), ..MessageQuery::of(message.agent) };
        // Its answer was written in the commit of its end, behind whatever was queued meanwhile.
        loop {
            let page = self.inner.store.messages(&query).await?;
            let last = page.items.last().map(|message| message.seq);
            let reply = page.items.into_iter().find(|reply| reply.reply_to == Some(id));
            if reply.is_some() || page.next.is_none() {
                return Ok(Answered { message, reply });
            }
            query.after = last;
        }
    }

    /// A message of an agent.
    ///
    /// # Errors
    /// Where it is not there or the caller may not see it.
    pub async fn get_message(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        id: MessageId,
    ) -> Result<Message, Error> {
        let agent = self.find(call, tenant, name, Action::Get).await?;
        self.message_of(&agent, id).await
    }

    async fn message_of(&self, agent: &Agent, id: MessageId) -> Result<Message, Error> {
        let found = self.inner.store.message(agent.id, id).await?;
        found.ok_or_else(|| Error::NotFound { what: "message", name: id.to_string() })
    }

    /// Messages of an agent.
    ///
    /// # Errors
    /// Where the agent is not there or the caller may not see it.
    pub async fn history(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        request: History,
    ) -> Result<Page<Message>, Error> {
        let agent = self.find(call, tenant, name, Action::Get).await?;
        let query = MessageQuery {
            agent: agent.id,
            open: false,
            newest_first: request.newest_first,
            after: request.after,
            limit: request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE),
        };
        Ok(self.inner.store.messages(&query).await?)
    }

    /// Steps of an agent after a number: those for a message, or all of them, setup included.
    ///
    /// # Errors
    /// Where the agent is not there or the caller may not see it.
    pub async fn steps(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        message: Option<MessageId>,
        after: u64,
        limit: Option<usize>,
    ) -> Result<Page<Step>, Error> {
        let agent = self.find(call, tenant, name, Action::Get).await?;
        if let Some(id) = message {
            self.message_of(&agent, id).await?;
        }
        let limit = limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        Ok(self.inner.store.steps(&StepQuery { agent: agent.id, message, after, limit }).await?)
    }

    /// Cancels a message: at once where it is queued, by its program where it is held.
    ///
    /// # Errors
    /// [`Error::MessageState`] where it has ended.
    pub async fn cancel_message(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        id: MessageId,
    ) -> Result<Message, Error> {
        let ops = vec![AgentOp::RequestCancel { message: id, obey: self.settings().cancel_grace }];
        let done = self.change(call, tenant, name, (Action::Operate, "messages.cancel"), &id, ops).await?;
        message_in(done, id)
    }

    /// Waits until a message has ended, or the time is over. Returns it as it is then.
    ///
    /// # Errors
    /// Where it is not there or the caller may not see it.
    pub async fn wait_for_message(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        id: MessageId,
        limit: Duration,
    ) -> Result<Message, Error> {
        let agent = self.find(call, tenant, name, Action::Get).await?;
        let agent = &agent;
        let probe = move || async move {
            let message = self.message_of(agent, id).await?;
            Ok(message.state.is_ended().then_some(message))
        };
        match self.inner.feed.until(agent.id, limit, probe).await? {
            Some(message) => Ok(message),
            None => self.message_of(agent, id).await,
        }
    }
}

/// A message as a commit left it.
pub(super) fn message_in(committed: Committed, id: MessageId) -> Result<Message, Error> {
    let message = committed.messages.into_iter().find(|message| message.id == id);
    message.ok_or_else(|| Error::Internal("a commit left its message out".into()))
}

fn accepted(committed: Committed) -> Result<Accepted, Error> {
    let replayed = committed.replayed;
    let message = committed.messages.first().cloned();
    let message = message.ok_or_else(|| Error::Internal("a commit changed no message".into()))?;
    Ok(Accepted { message, agent: first_agent(committed)?, replayed })
}

fn check_message(request: &SendMessage) -> Result<(), Error> {
    if request.role == Role::Agent {
        return Err(Error::invalid("role", "only the agent's own program speaks as the agent; use user or system"));
    }
    check_parts("parts", &request.parts)?;
    if request.parts.iter().all(|part| matches!(part, Part::Text { text } if text.trim().is_empty())) {
        return Err(Error::invalid("parts", "the message is empty"));
    }
    Ok(())
}

/// What holds for the parts of whatever message, from people and from programs.
pub(super) fn check_parts(field: &str, parts: &[Part]) -> Result<(), Error> {
    let refuse = |reason: &str| Err(Error::invalid(field, reason));
    if parts.is_empty() || parts.len() > PARTS_LIMIT {
        return refuse("use 1 to 64 parts");
    }
    if parts.iter().map(|part| part.as_text().len()).sum::<usize>() > MESSAGE_LIMIT {
        return refuse("the text is longer than 1 MiB in all; put it in a file of the agent's computer");
    }
    if parts.iter().any(|part| part.as_text().contains('\0')) {
        return refuse("the text holds a NUL character");
    }
    if parts.iter().any(|part| matches!(part, Part::Blob { .. })) {
        return refuse("this release takes text only");
    }
    Ok(())
}
