//! Following the log, over connections that come and go.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use backon::BackoffBuilder;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use http::Method;
use raworc_core::event::Event;
use raworc_core::ids::{AgentName, Revision};
use reqwest::Url;
use sse_stream::{Sse, SseByteStream};

use super::{ANSWER_LIMIT, Client, ClientError, backoff};
use crate::api::{DeltaData, EVENT_STREAM, ErrorBody};

/// A stream that says nothing for so long, not even that it is alive, is broken.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);

/// How often in a row a connection is tried again before that is an error: for some 20 seconds.
const ATTEMPTS: usize = 8;

/// Events that are read where nothing is said about from where.
pub const LATEST: usize = 100;

/// Before a lost connection is made anew.
const PAUSE: Duration = Duration::from_millis(100);

/// What a stream tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Something changed.
    Event(Event),
    /// A model writes just now, best effort.
    Delta(DeltaData),
}

/// What happens, without a gap and without a repetition over lost connections. It ends after its first error.
pub struct EventStream {
    inner: BoxStream<'static, Result<Told, ClientError>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl Stream for EventStream {
    type Item = Result<Told, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl Client {
    /// Follows an agent, or all of the tenant that the caller may see, after the revision `since`; from now on where it
    /// is absent. Returns as soon as the server tells.
    ///
    /// # Errors
    /// `not_found`, `gone`, `too_many_requests`. Later ones end the stream. One that is `gone` has missed what the log no
    /// longer has: read anew what you know of, and follow after the revision before `oldest` of its details, or from now on.
    pub async fn follow(&self, agent: Option<&AgentName>, since: Option<Revision>) -> Result<EventStream, ClientError> {
        let url = self.of_events(agent);
        self.tell(url, since.map(|since| since.to_string())).await
    }

    /// Reads the log of an agent, or all of the tenant's that the caller may see, to where it ends now: after the
    /// revision `since`, or the latest [`LATEST`] events where it is absent.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub async fn read_events(
        &self,
        agent: Option<&AgentName>,
        since: Option<Revision>,
    ) -> Result<EventStream, ClientError> {
        let mut url = self.of_events(agent);
        url.query_pairs_mut().append_pair("follow", "false");
        if since.is_none() {
            url.query_pairs_mut().append_pair("last", &LATEST.to_string());
        }
        self.tell(url, since.map(|since| since.to_string())).await
    }

    fn of_events(&self, agent: Option<&AgentName>) -> Url {
        match agent {
            Some(name) => self.of_agent(name, &["events"]),
            None => self.of_tenant(&["events"]),
        }
    }

    async fn tell(&self, url: Url, last: Option<String>) -> Result<EventStream, ClientError> {
        let open = Some(self.again(|| connect(self, &url, last.as_deref())).await?);
        let mut follower = Follower { client: self.clone(), url, last, open, first: None };
        follower.begin().await?;
        let follower = Some(follower);
        let inner = stream::unfold(follower, |follower| async {
            let mut follower = follower?;
            let told = follower.next().await.transpose()?;
            let rest = told.is_ok().then_some(follower);
            Some((told, rest))
        });
        Ok(EventStream { inner: inner.boxed() })
    }
}

type Blocks = BoxStream<'static, Result<Sse, sse_stream::Error>>;

struct Follower {
    client: Client,
    url: Url,
    last: Option<String>,
    open: Option<Blocks>,
    /// What was told before it was known where this began.
    first: Option<Told>,
}

async fn connect(client: &Client, url: &Url, last: Option<&str>) -> Result<Blocks, ClientError> {
    let mut request = client.request(Method::GET, url.clone()).header(http::header::ACCEPT, EVENT_STREAM);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = tokio::time::timeout(ANSWER_LIMIT, client.send_once(request)).await;
    let response = response.unwrap_or_else(|_| Err(ClientError::late(&client.server)))?;
    Ok(SseByteStream::new(response.bytes_stream()).boxed())
}

impl Follower {
    /// Learns where it begins, so that it goes on from there though the connection is lost before anything is told. A server
    /// says so at once.
    async fn begin(&mut self) -> Result<(), ClientError> {
        for _ in 0..ATTEMPTS {
            if self.last.is_some() || self.first.is_some() {
                break;
            }
            let Some(open) = &mut self.open else {
                tokio::time::sleep(PAUSE).await;
                self.reconnect().await?;
                continue;
            };
            match tokio::time::timeout(ANSWER_LIMIT, open.next()).await {
                Ok(Some(Ok(block))) => self.first = self.take(block)?,
                Ok(Some(Err(_)) | None) | Err(_) => self.open = None,
            }
        }
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), ClientError> {
        let mut waits = backoff().with_max_times(ATTEMPTS).build();
        loop {
            let error = match connect(&self.client, &self.url, self.last.as_deref()).await {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(error) => error,
            };
            match waits.next().filter(|_| error.is_retryable()) {
                Some(wait) => tokio::time::sleep(error.pause(wait)).await,
                None => return Err(error),
            }
        }
    }

    /// What comes next; none at the end that was asked for.
    async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            let Some(open) = &mut self.open else {
                // A server that accepts and ends each connection at once is not asked without a pause.
                tokio::time::sleep(PAUSE).await;
                self.reconnect().await?;
                continue;
            };
            let Ok(Some(Ok(block))) = tokio::time::timeout(SILENCE_LIMIT, open.next()).await else {
                // Ended, broken or silent: in each case it goes on from the last id over a new connection.
                self.open = None;
                continue;
            };
            if block.event.as_deref() == Some("end") {
                return Ok(None);
            }
            if let Some(told) = self.take(block)? {
                return Ok(Some(told));
            }
        }
    }

    /// What a block tells, if it tells something that this client knows.
    fn take(&mut self, block: Sse) -> Result<Option<Told>, ClientError> {
        let data = block.data.as_deref().unwrap_or_default();
        let told = match block.event.as_deref() {
            None => None,
            Some("delta") => serde_json::from_str(data).ok().map(Told::Delta),
            Some("error") => {
                self.open = None;
                return match serde_json::from_str::<ErrorBody>(data) {
                    // A new connection gets it right, or gets its own error.
                    Ok(ErrorBody { error }) if error.code == "store_unavailable" => Ok(None),
                    Ok(ErrorBody { error }) => {
                        Err(ClientError::local(&error.code, error.message).with_details(error.details))
                    }
                    Err(_) => Ok(None),
                };
            }
            // A newer server may tell of kinds that are not known here.
            Some(_) => serde_json::from_str(data).ok().map(Told::Event),
        };
        if block.id.is_some() {
            self.last = block.id;
        }
        Ok(told)
    }
}
