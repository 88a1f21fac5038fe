//! Agents and their life.

use std::time::Duration;

use http::Method;
use http::header::IF_MATCH;
use raworc_core::agent::{Agent, SpecChange, State};
use raworc_core::control::{CreateAgent, EditAgent, Explanation};
use raworc_core::ids::AgentName;
use raworc_core::labels::Selector;

use super::{Ask, Client, ClientError, json};
use crate::api::{EgressCount, KeepAwake, Page};

impl Client {
    /// Makes an agent. With a wait it is up then, or its start has failed.
    ///
    /// # Errors
    /// `name_taken`, `invalid`, `quota_exceeded`.
    pub async fn create_agent(&self, new: &CreateAgent, ask: Ask) -> Result<Agent, ClientError> {
        let request = json(self.request(Method::POST, self.of_tenant(&["agents"])), new)?;
        self.change(request, &ask).await
    }

    /// An agent.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn agent(&self, name: &AgentName) -> Result<Agent, ClientError> {
        self.fetch(self.request(Method::GET, self.of_agent(name, &[]))).await
    }

    /// A page of the agents that the caller may see, by name.
    ///
    /// # Errors
    /// `not_found` where there is no such tenant for this caller.
    pub async fn agents(
        &self,
        state: Option<State>,
        selector: &Selector,
        after: Option<&str>,
    ) -> Result<Page<Agent>, ClientError> {
        let mut request = self.request(Method::GET, self.of_tenant(&["agents"]));
        if let Some(state) = state {
            request = request.query(&[("state", state.as_str())]);
        }
        if !selector.is_empty() {
            request = request.query(&[("selector", selector.to_string())]);
        }
        if let Some(after) = after {
            request = request.query(&[("after", after)]);
        }
        self.fetch(request).await
    }

    /// All the agents that the caller may see, by name.
    ///
    /// # Errors
    /// As [`agents`](Self::agents).
    pub async fn all_agents(&self, state: Option<State>, selector: &Selector) -> Result<Vec<Agent>, ClientError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.agents(state, selector, after.as_deref()).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Changes an agent's spec, if its generation is the one given.
    ///
    /// # Errors
    /// `generation_mismatch`, `invalid`, `not_found`.
    pub async fn edit_agent(
        &self,
        name: &AgentName,
        change: SpecChange,
        generation: Option<u64>,
        ask: Ask,
    ) -> Result<Agent, ClientError> {
        let mut request = json(self.request(Method::PATCH, self.of_agent(name, &[])), &EditAgent { spec: change })?;
        if let Some(generation) = generation {
            request = request.header(IF_MATCH, format!("\"{generation}\""));
        }
        self.change(request, &ask).await
    }

    /// Deletes an agent.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_agent(&self, name: &AgentName, ask: Ask) -> Result<Agent, ClientError> {
        self.change(self.request(Method::DELETE, self.of_agent(name, &[])), &ask).await
    }

    /// Wakes an agent; `retry` tries at once what waits to be tried again.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn wake(&self, name: &AgentName, retry: bool, ask: Ask) -> Result<Agent, ClientError> {
        let request = self.request(Method::POST, self.of_agent(name, &["wake"]));
        self.change(request.query(&[("retry", retry)]), &ask).await
    }

    /// Puts an agent to sleep; `now` cancels the message in hand first.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn sleep(&self, name: &AgentName, now: bool, ask: Ask) -> Result<Agent, ClientError> {
        let request = self.request(Method::POST, self.of_agent(name, &["sleep"]));
        self.change(request.query(&[("now", now)]), &ask).await
    }

    /// Cancels the message that an agent works on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn cancel(&self, name: &AgentName, ask: Ask) -> Result<Agent, ClientError> {
        self.change(self.request(Method::POST, self.of_agent(name, &["cancel"])), &ask).await
    }

    /// Keeps an agent awake for so long from now, or no longer than its idle time where none is given.
    ///
    /// # Errors
    /// `agent_asleep`, `invalid`, `not_found`.
    pub async fn keep_awake(&self, name: &AgentName, time: Option<Duration>, ask: Ask) -> Result<Agent, ClientError> {
        let url = self.of_agent(name, &["keep-awake"]);
        let request = match time {
            Some(time) => json(self.request(Method::PUT, url), &KeepAwake { seconds: time.as_secs() })?,
            None => self.request(Method::DELETE, url),
        };
        self.change(request, &ask).await
    }

    /// What an agent's computers reached, and were refused, by host and port.
    ///
    /// # Errors
    /// Where the server refuses or does not answer.
    pub async fn egress(&self, name: &AgentName) -> Result<Vec<EgressCount>, ClientError> {
        let page: Page<EgressCount> = self.fetch(self.request(Method::GET, self.of_agent(name, &["egress"]))).await?;
        Ok(page.items)
    }

    /// Why an agent is as it is, and what comes next.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn explain(&self, name: &AgentName) -> Result<Explanation, ClientError> {
        self.fetch(self.request(Method::GET, self.of_agent(name, &["explain"]))).await
    }
}
