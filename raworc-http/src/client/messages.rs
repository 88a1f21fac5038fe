//! Messages and steps.

use std::time::Duration;

use http::Method;
use raworc_core::control::{History, SendMessage};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::MAX_PAGE;
use tokio::time::Instant;

use super::{Ask, Client, ClientError, json};
use crate::api::Page;

impl Client {
    /// Says something to an agent. With a wait it has ended then, or is as far as it is. Where it is accepted and cannot be waited
    /// for, it is told as it was: with an error it would be taken for not sent, and be sent again.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `inbox_full`.
    pub async fn send(&self, name: &AgentName, said: &SendMessage, ask: Ask) -> Result<Message, ClientError> {
        let request = json(self.request(Method::POST, self.of_agent(name, &["messages"])), said)?;
        let deadline = Instant::now() + ask.wait_time();
        let first = ask.wait_time().min(self.wait_limit);
        let sent: Message = self.change(request, &ask.wait(first)).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        // Once it is accepted there is no need of the key any more.
        if left.is_zero() || sent.state.is_ended() {
            return Ok(sent);
        }
        Ok(self.message(name, sent.id, Some(left)).await.unwrap_or(sent))
    }

    /// A message; with a wait, once it has ended or the time is over.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn message(
        &self,
        name: &AgentName,
        id: MessageId,
        wait: Option<Duration>,
    ) -> Result<Message, ClientError> {
        let url = self.of_agent(name, &["messages", &id.to_string()]);
        self.ask_until(self.request(Method::GET, url), wait.unwrap_or_default(), &mut None).await
    }

    /// A page of the messages to and from an agent.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn messages(&self, name: &AgentName, history: History) -> Result<Page<Message>, ClientError> {
        let mut request = self.request(Method::GET, self.of_agent(name, &["messages"]));
        request = request.query(&[("newest_first", history.newest_first)]);
        if let Some(after) = history.after {
            request = request.query(&[("after", after)]);
        }
        if let Some(limit) = history.limit {
            request = request.query(&[("limit", limit)]);
        }
        self.fetch(request).await
    }

    /// The newest `limit` of the messages to and from an agent, the oldest of them first.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn newest_messages(&self, name: &AgentName, limit: usize) -> Result<Vec<Message>, ClientError> {
        let (mut all, mut after) = (Vec::new(), None);
        while all.len() < limit {
            let rows = Some(MAX_PAGE.min(limit - all.len()));
            let page = self.messages(name, History { newest_first: true, after, limit: rows }).await?;
            all.extend(page.items);
            after = page.next.and_then(|next| next.parse().ok());
            if after.is_none() {
                break;
            }
        }
        all.reverse();
        Ok(all)
    }

    /// The answer to a message, if it has one: what is done has, and what failed or was cancelled may.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn reply_to(&self, name: &AgentName, message: &Message) -> Result<Option<Message>, ClientError> {
        // Between the two there is what was said to the agent meanwhile.
        let mut history = History { newest_first: false, after: Some(message.seq), limit: Some(20) };
        loop {
            let page = self.messages(name, history).await?;
            let found = page.items.into_iter().find(|other| other.reply_to == Some(message.id));
            match (found, page.next.and_then(|next| next.parse().ok())) {
                (Some(reply), _) => return Ok(Some(reply)),
                (None, None) => return Ok(None),
                (None, Some(after)) => history = History { newest_first: false, after: Some(after), limit: None },
            }
        }
    }

    /// Cancels a message.
    ///
    /// # Errors
    /// `message_state` where it has ended, `not_found`.
    pub async fn cancel_message(&self, name: &AgentName, id: MessageId, ask: Ask) -> Result<Message, ClientError> {
        let url = self.of_agent(name, &["messages", &id.to_string(), "cancel"]);
        self.change(self.request(Method::POST, url), &ask).await
    }

    /// A page of what an agent did after the step of a number: for a message, or in all, its setup included.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn steps(
        &self,
        name: &AgentName,
        message: Option<MessageId>,
        after: u64,
    ) -> Result<Page<Step>, ClientError> {
        let url = match message {
            Some(id) => self.of_agent(name, &["messages", &id.to_string(), "steps"]),
            None => self.of_agent(name, &["steps"]),
        };
        self.fetch(self.request(Method::GET, url).query(&[("after", after)])).await
    }

    /// All that an agent did after the step of a number, as [`steps`](Self::steps).
    ///
    /// # Errors
    /// `not_found`.
    pub async fn all_steps(
        &self,
        name: &AgentName,
        message: Option<MessageId>,
        mut after: u64,
    ) -> Result<Vec<Step>, ClientError> {
        let mut all = Vec::new();
        loop {
            let page = self.steps(name, message, after).await?;
            all.extend(page.items);
            match page.next.and_then(|next| next.parse().ok()) {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }
}
