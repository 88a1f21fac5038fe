//! The log as it grows, through lost connections.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use raworc_core::event::Event;
use raworc_core::ids::{AgentName, Revision};
use raworc_http::api::{DeltaData, ErrorBody};
use reqwest::Method;
use sse_stream::{Sse, SseStream};

use super::Remote;
use crate::exit::{Exit, Failure, code_of};

/// How long to wait before each time that a lost stream is opened again; after the last it is given up.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// What a follower of the log is told.
#[derive(Debug, Clone)]
pub enum Told {
    /// Something changed.
    Event(Box<Event>),
    /// A model writes.
    Delta(DeltaData),
}

type Events = BoxStream<'static, Result<Sse, sse_stream::Error>>;

struct Follower {
    remote: Remote,
    path: String,
    last: Option<String>,
    events: Option<Events>,
    failures: usize,
}

impl Remote {
    /// Follows the log after a revision, or from now on: the tenant's, or an agent's with its model's words.
    ///
    /// A connection that is lost is made again, and nothing but words is missed.
    ///
    /// # Errors
    /// Where the server cannot be reached or refuses.
    pub async fn follow(
        &self,
        agent: Option<&AgentName>,
        since: Option<Revision>,
    ) -> anyhow::Result<BoxStream<'static, anyhow::Result<Told>>> {
        let path = match agent {
            Some(name) => format!("{}/events", self.agent_path(name)),
            None => format!("{}/events", self.base),
        };
        let last = since.map(|since| since.to_string());
        let mut follower = Follower { remote: self.clone(), path, last, events: None, failures: 0 };
        follower.open().await?;
        let told = stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(told) => Some((Ok(told), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(told.boxed())
    }
}

impl Follower {
    async fn open(&mut self) -> anyhow::Result<()> {
        let last = self.last.clone();
        let shape = |request: reqwest::RequestBuilder| match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        let response = self.remote.wire.send(Method::GET, &self.path, shape).await?;
        self.events = Some(SseStream::from_bytes_stream(response.bytes_stream()).boxed());
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Told> {
        loop {
            let Some(events) = &mut self.events else {
                self.open_again().await?;
                continue;
            };
            let Some(Ok(sse)) = events.next().await else {
                self.events = None;
                continue;
            };
            self.failures = 0;
            self.last = sse.id.or(self.last.take());
            let Some(data) = sse.data else {
                continue;
            };
            match sse.event.as_deref() {
                Some("delta") => return Ok(Told::Delta(serde_json::from_str(&data)?)),
                Some("error") => {
                    let ErrorBody { error } = serde_json::from_str(&data)?;
                    return Err(Failure::new(Exit::Failed, error.message).into());
                }
                Some(_) => return Ok(Told::Event(Box::new(serde_json::from_str(&data)?))),
                None => {}
            }
        }
    }

    async fn open_again(&mut self) -> anyhow::Result<()> {
        loop {
            let pause = PAUSES.get(self.failures).copied();
            self.failures += 1;
            tokio::time::sleep(pause.unwrap_or_default()).await;
            match self.open().await {
                Err(error) if pause.is_some() && code_of(&error) == Exit::Unreachable.code() => {}
                other => return other,
            }
        }
    }
}
