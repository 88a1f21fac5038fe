//! Messages and steps.

use std::time::Duration;

use http::Method;
use raworc_core::control::{History, SendMessage};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::message::{Message, MessageState};
use raworc_core::step::Step;

use super::{ANSWER_LIMIT, Ask, Client, ClientError, json};
use crate::api::{Page, WAIT_LIMIT, Wait};

impl Client {
    /// Says something to an agent. With a wait it has ended then, or is as far as it is.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `inbox_full`.
    pub async fn send(&self, name: &AgentName, said: &SendMessage, ask: Ask) -> Result<Message, ClientError> {
        let request = json(self.request(Method::POST, self.of_agent(name, &["messages"])), said)?;
        self.change(request, &ask).await
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
        let request = self.request(Method::GET, url);
        let Some(wait) = wait else { return self.fetch(request).await };
        let wait = wait.min(WAIT_LIMIT);
        let request = request.query(&[("wait", Wait(wait).to_string())]).timeout(ANSWER_LIMIT + wait);
        let response = self.send_once(request).await?;
        self.read(response).await
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

    /// The answer to a message that is done, if it has one.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn reply_to(&self, name: &AgentName, message: &Message) -> Result<Option<Message>, ClientError> {
        if message.state != MessageState::Done {
            return Ok(None);
        }
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
}
