//! The server as the command line sees it: every call that commands make, with errors that say what to do next.

mod computer;
mod follow;
mod wire;

pub(crate) use computer::ByteStream;
pub use computer::ExecStreams;
pub use follow::Told;

use std::time::Duration;

use raworc_core::agent::{Agent, State};
use raworc_core::control::{CreateAgent, EditAgent, Explanation, SendMessage};
use raworc_core::ids::{AgentName, MessageId};
use raworc_core::labels::Selector;
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_http::api::{
    BASE, IDEMPOTENCY_KEY, KeepAwake, LoginReply, Page, ReadyReply, VersionReply, WAIT_LIMIT, WhoAmI,
};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use self::wire::Wire;
use crate::args::GlobalArgs;
use crate::exit::{Exit, Failure};
use crate::session::Session;

/// Rows that are asked for at a time.
const PAGE: usize = 500;

/// Messages among which the answer to one that has just ended is found.
const NEWEST: usize = 20;

/// A server, as a user.
#[derive(Debug, Clone)]
pub struct Remote {
    wire: Wire,
    base: String,
}

impl Remote {
    /// The server of the command line, as the user who is logged in there.
    ///
    /// # Errors
    /// Where nobody is logged in.
    pub fn open(global: &GlobalArgs) -> anyhow::Result<Self> {
        let token = std::env::var("RAWORC_TOKEN").ok().filter(|token| !token.is_empty());
        let session = Session::load()?;
        let server = session.server(global.server.as_deref());
        let token = match token.or_else(|| session.login(&server).map(|login| login.token.clone())) {
            Some(token) => token,
            None => return Err(not_logged_in(&server).into()),
        };
        let base = match &global.tenant {
            Some(tenant) => format!("{BASE}/tenants/{tenant}"),
            None => BASE.to_owned(),
        };
        Ok(Self { wire: Wire::new(&server, Some(SecretString::from(token))), base })
    }

    /// A server, as nobody.
    #[must_use]
    pub fn stranger(server: &str) -> Self {
        Self { wire: Wire::new(server, None), base: BASE.to_owned() }
    }

    /// A server, as whoever the token belongs to.
    #[must_use]
    pub fn with_token(server: &str, token: &str) -> Self {
        Self { wire: Wire::new(server, Some(SecretString::from(token.to_owned()))), base: BASE.to_owned() }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.wire.server()
    }

    pub(crate) async fn login(&self, user: &str, password: SecretString) -> anyhow::Result<LoginReply> {
        let body = serde_json::json!({ "name": user, "password": password.expose_secret() });
        self.wire.json(Method::POST, &format!("{BASE}/auth/login"), |request| request.json(&body)).await
    }

    pub(crate) async fn logout(&self) -> anyhow::Result<()> {
        self.wire.send(Method::POST, &format!("{BASE}/auth/logout"), |request| request).await.map(drop)
    }

    pub(crate) async fn who_am_i(&self) -> anyhow::Result<WhoAmI> {
        self.wire.json(Method::GET, &format!("{BASE}/auth"), |request| request).await
    }

    pub(crate) async fn version(&self) -> anyhow::Result<VersionReply> {
        self.wire.json(Method::GET, "/version", |request| request).await
    }

    pub(crate) async fn ready(&self) -> anyhow::Result<ReadyReply> {
        self.wire.json_of_any_status("/readyz").await
    }

    fn agent_path(&self, name: &AgentName) -> String {
        format!("{}/agents/{name}", self.base)
    }

    /// All agents that the user can see, by name.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub async fn agents(&self, state: Option<State>, selector: Selector) -> anyhow::Result<Vec<Agent>> {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(state.map(|state| ("state", state.as_str().to_owned())));
        query.extend((!selector.is_empty()).then(|| ("selector", selector.to_string())));
        let (path, mut all, mut after) = (format!("{}/agents", self.base), Vec::new(), None::<String>);
        loop {
            let mut query = query.clone();
            query.extend(after.map(|after| ("after", after)));
            let page: Page<Agent> = self.wire.json(Method::GET, &path, |request| request.query(&query)).await?;
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// An agent.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn agent(&self, name: &AgentName) -> anyhow::Result<Agent> {
        self.wire.json(Method::GET, &self.agent_path(name), |request| request).await
    }

    /// Makes an agent, and waits until it is up or its start has failed.
    ///
    /// # Errors
    /// Where it cannot be had.
    pub async fn create(&self, request: &CreateAgent, limit: Duration) -> anyhow::Result<Agent> {
        let path = format!("{}/agents", self.base);
        self.wire.json(Method::POST, &path, |call| call.query(&wait(limit)).json(request)).await
    }

    /// Changes an agent's spec, if its generation is still the given one.
    ///
    /// # Errors
    /// Where the result cannot be had, or somebody else changed it meanwhile.
    pub async fn edit(&self, name: &AgentName, change: &EditAgent, generation: Option<u64>) -> anyhow::Result<Agent> {
        let shape = |request: reqwest::RequestBuilder| match generation {
            Some(generation) => request.header("if-match", format!("\"{generation}\"")),
            None => request,
        };
        self.wire.json(Method::PATCH, &self.agent_path(name), |request| shape(request).json(change)).await
    }

    /// Wakes an agent, and waits until it is up or its start has failed.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn wake(&self, name: &AgentName, retry: bool, limit: Duration) -> anyhow::Result<Agent> {
        let path = format!("{}/wake", self.agent_path(name));
        let retry = [("retry", retry)];
        self.wire.json(Method::POST, &path, |request| request.query(&retry).query(&wait(limit))).await
    }

    /// Puts an agent to sleep, and waits until its computer has stopped.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn sleep(&self, name: &AgentName, now: bool, limit: Duration) -> anyhow::Result<Agent> {
        let path = format!("{}/sleep", self.agent_path(name));
        let now = [("now", now)];
        self.wire.json(Method::POST, &path, |request| request.query(&now).query(&wait(limit))).await
    }

    pub(crate) async fn cancel(&self, name: &AgentName) -> anyhow::Result<Agent> {
        self.wire.json(Method::POST, &format!("{}/cancel", self.agent_path(name)), |request| request).await
    }

    pub(crate) async fn cancel_message(&self, name: &AgentName, id: MessageId) -> anyhow::Result<Message> {
        let path = format!("{}/messages/{id}/cancel", self.agent_path(name));
        self.wire.json(Method::POST, &path, |request| request).await
    }

    /// Deletes an agent.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn delete(&self, name: &AgentName) -> anyhow::Result<Agent> {
        self.wire.json(Method::DELETE, &self.agent_path(name), |request| request).await
    }

    pub(crate) async fn explain(&self, name: &AgentName) -> anyhow::Result<Explanation> {
        self.wire.json(Method::GET, &format!("{}/explain", self.agent_path(name)), |request| request).await
    }

    pub(crate) async fn keep_awake(&self, name: &AgentName, time: Option<Duration>) -> anyhow::Result<Agent> {
        let path = format!("{}/keep-awake", self.agent_path(name));
        match time {
            Some(time) => {
                let body = KeepAwake { seconds: time.as_secs() };
                self.wire.json(Method::PUT, &path, |request| request.json(&body)).await
            }
            None => self.wire.json(Method::DELETE, &path, |request| request).await,
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Where it is not accepted.
    pub async fn send(&self, name: &AgentName, request: &SendMessage, key: Option<&str>) -> anyhow::Result<Message> {
        let path = format!("{}/messages", self.agent_path(name));
        let shape = |call: reqwest::RequestBuilder| match key {
            Some(key) => call.header(IDEMPOTENCY_KEY, key),
            None => call,
        };
        self.wire.json(Method::POST, &path, |call| shape(call).json(request)).await
    }

    pub(crate) async fn message(&self, name: &AgentName, id: MessageId) -> anyhow::Result<Message> {
        self.wire.json(Method::GET, &format!("{}/messages/{id}", self.agent_path(name)), |request| request).await
    }

    /// The newest `limit` messages, the oldest of them first.
    pub(crate) async fn history(&self, name: &AgentName, limit: usize) -> anyhow::Result<Vec<Message>> {
        let path = format!("{}/messages", self.agent_path(name));
        let (mut all, mut after) = (Vec::new(), None::<String>);
        while all.len() < limit {
            let rows = PAGE.min(limit - all.len()).to_string();
            let mut query = vec![("newest_first", "true".to_owned()), ("limit", rows)];
            query.extend(after.map(|after| ("after", after)));
            let page: Page<Message> = self.wire.json(Method::GET, &path, |request| request.query(&query)).await?;
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        all.reverse();
        Ok(all)
    }

    /// The answer to a message. It was written when the message ended, and is most often among the newest.
    pub(crate) async fn reply_to(&self, name: &AgentName, id: MessageId) -> anyhow::Result<Option<Message>> {
        for limit in [NEWEST, usize::MAX] {
            let messages = self.history(name, limit).await?;
            let found = messages.iter().position(|message| message.reply_to == Some(id));
            if let Some(at) = found {
                return Ok(messages.into_iter().nth(at));
            }
            if messages.iter().any(|message| message.id == id) {
                break;
            }
        }
        Ok(None)
    }

    /// Steps after a number: those for a message, or all.
    pub(crate) async fn steps(
        &self,
        name: &AgentName,
        message: Option<MessageId>,
        after: u64,
    ) -> anyhow::Result<Vec<Step>> {
        let path = match message {
            Some(id) => format!("{}/messages/{id}/steps", self.agent_path(name)),
            None => format!("{}/steps", self.agent_path(name)),
        };
        let (mut all, mut after) = (Vec::new(), after.to_string());
        loop {
            let query = [("after", after), ("limit", PAGE.to_string())];
            let page: Page<Step> = self.wire.json(Method::GET, &path, |request| request.query(&query)).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// Waits until the server answers at all, or the time is over.
    ///
    /// # Errors
    /// Where it does not answer in time.
    pub async fn wait_until_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ready().await {
                Ok(ready) if ready.ready => return Ok(()),
                Ok(_) | Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(ready) => {
                    let checks: Vec<_> = ready.checks.iter().map(|(name, state)| format!("{name}: {state}")).collect();
                    let message = format!("{} is not ready: {}", self.address(), checks.join(", "));
                    return Err(Failure::new(Exit::TimedOut, message).into());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn wait(limit: Duration) -> Vec<(&'static str, String)> {
    if limit.is_zero() { Vec::new() } else { vec![("wait", format!("{}ms", limit.min(WAIT_LIMIT).as_millis()))] }
}

fn not_logged_in(server: &str) -> Failure {
    Failure::new(Exit::Denied, format!("you are not logged in to {server}"))
        .hint("log in with `raworc login`")
        .hint("or start a server on this machine with `raworc up`, which logs you in")
}
