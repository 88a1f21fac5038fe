//! [`Links`]: the connections over which programs serve their server.
//!
//! A program dials and upgrades one connection (`POST /agent/v0/link`); from then on this side is the HTTP/2 client on
//! it. Windows are small for a stream and large for the connection, so that one stream that nobody reads does not
//! hold up the others, and what is buffered for it stays bounded.
//!
//! A program is linked to one server. A request that begins at another one goes there over the
//! [internal listener](crate::server::internal).

use std::collections::HashMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use raworc_core::agent::Agent;
use raworc_core::control::{ControlPlane, Subscription};
use raworc_core::error::Error;
use raworc_core::event::EventKind;
use raworc_core::ids::{AgentId, Incarnation, MessageId};
use raworc_core::message::MessageState;
use raworc_core::program::CancelRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::server::internal::{Holder, Peers};

/// How long a request waits for a program that dials anew; programs do so within 2 s.
const REDIAL: Duration = Duration::from_secs(3);

/// Bytes of one stream that a program may send before somebody reads them.
const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes of all streams of a link together that a program may send before somebody reads them.
const LINK_WINDOW: u32 = 16 << 20;

/// Streams that calls may have open on a link: of those that a program allows, some are left for cancels.
const STREAMS: usize = 1000;

/// How often a silent link is asked whether it is still there, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long a program has to answer to a cancel before it is asked again.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// The programs that are linked to this process, and the way to those that are linked to others.
#[derive(Debug, Clone)]
pub struct Links {
    inner: Arc<Inner>,
    peers: Option<Peers>,
}

/// What a program answers, as it comes. It takes its place on the link for so long.
#[derive(Debug)]
pub struct LinkBody {
    body: Incoming,
    _place: Option<OwnedSemaphorePermit>,
}

impl HttpBody for LinkBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Inner {
    table: Mutex<HashMap<AgentId, Link>>,
    /// Changes with each link that comes.
    came: watch::Sender<u64>,
    redial: Duration,
    closed: CancellationToken,
    _stop: DropGuard,
}

struct Link {
    number: u64,
    incarnation: Incarnation,
    sender: SendRequest<Body>,
    streams: Arc<Semaphore>,
    replaced: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("linked", &self.table().len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, HashMap<AgentId, Link>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    /// No links yet. Cancels that are committed anywhere are told to the programs that will be linked here.
    #[must_use]
    pub fn start(control: &ControlPlane) -> Self {
        Self::with_redial(control, REDIAL)
    }

    /// As [`start`](Self::start), with another time that a request waits for a program that dials anew.
    #[must_use]
    pub fn with_redial(control: &ControlPlane, redial: Duration) -> Self {
        let closed = CancellationToken::new();
        let inner = Arc::new(Inner {
            table: Mutex::default(),
            came: watch::Sender::new(0),
            redial,
            closed: closed.clone(),
            _stop: closed.clone().drop_guard(),
        });
        let (events, follower) = (control.system().feed().subscribe(), Arc::downgrade(&inner));
        tokio::spawn(async move {
            tokio::select! {
                () = follow_cancels(events, follower) => {}
                () = closed.cancelled() => {}
            }
        });
        Self { inner, peers: None }
    }

    /// With the other servers of the installation, to which programs may be linked as well.
    #[must_use]
    pub fn with_peers(mut self, peers: Peers) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Ends all links, and those that come from now on.
    pub fn close(&self) {
        self.inner.closed.cancel();
    }

    /// How many programs are linked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.table().len()
    }

    /// Whether no program is linked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the present program of this agent is linked.
    #[must_use]
    pub fn is_linked(&self, agent: &Agent) -> bool {
        let table = self.inner.table();
        table.get(&agent.id).is_some_and(|link| link.incarnation == agent.status.incarnation)
    }

    /// Speaks HTTP/2 as the client on a connection that a program dialled, until it ends or another takes its place.
    pub(crate) async fn serve<T>(&self, control: &ControlPlane, agent: &Agent, stream: T)
    where
        T: Read + Write + Unpin + Send + 'static,
    {
        let shaken = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(LINK_WINDOW)
            .handshake::<_, Body>(stream)
            .await;
        let (sender, connection) = match shaken {
            Ok(shaken) => shaken,
            Err(error) => {
                tracing::warn!(agent = %agent.id, %error, "a program's link could not begin");
                return;
            }
        };
        let Some((number, replaced)) = self.insert(agent, sender) else {
            return;
        };
        tracing::debug!(agent = %agent.id, incarnation = %agent.status.incarnation, "linked");
        let told = tell_missed_cancel(control, self, agent.id);
        let ended = async {
            tokio::select! {
                ended = connection => ended,
                () = replaced.cancelled() => Ok(()),
                () = self.inner.closed.cancelled() => Ok(()),
            }
        };
        let ((), ended) = futures::join!(
            async {
                tokio::select! {
                    () = told => {}
                    () = replaced.cancelled() => {}
                }
            },
            async {
                let ended = ended.await;
                replaced.cancel();
                ended
            }
        );
        self.remove(agent.id, number);
        match ended {
            Ok(()) => tracing::debug!(agent = %agent.id, "a link ended"),
            Err(error) => tracing::debug!(agent = %agent.id, %error, "a link was lost"),
        }
    }

    /// Takes up a link unless one of a later start is there already.
    fn insert(&self, agent: &Agent, sender: SendRequest<Body>) -> Option<(u64, CancellationToken)> {
        let incarnation = agent.status.incarnation;
        let mut table = self.inner.table();
        if table.get(&agent.id).is_some_and(|link| link.incarnation > incarnation) || self.inner.closed.is_cancelled() {
            return None;
        }
        let number = *self.inner.came.borrow() + 1;
        let replaced = CancellationToken::new();
        let streams = Arc::new(Semaphore::new(STREAMS));
        let link = Link { number, incarnation, sender, streams, replaced: replaced.clone() };
        if let Some(older) = table.insert(agent.id, link) {
            older.replaced.cancel();
        }
        show(&table);
        // Under the table's lock, so that numbers are given once.
        self.inner.came.send_replace(number);
        Some((number, replaced))
    }

    fn remove(&self, agent: AgentId, number: u64) {
        let mut table = self.inner.table();
        if table.get(&agent).is_some_and(|link| link.number == number) {
            table.remove(&agent);
            show(&table);
        }
    }

    fn find(&self, agent: AgentId, incarnation: Incarnation) -> Found {
        let table = self.inner.table();
        match table.get(&agent) {
            Some(link) if link.incarnation > incarnation => Found::Later,
            Some(link) if link.incarnation == incarnation && !link.sender.is_closed() => {
                Found::Now(link.sender.clone(), Arc::clone(&link.streams))
            }
            Some(_) | None => Found::Absent,
        }
    }

    /// Whether this start's program is linked here, now or before `until`.
    pub(crate) async fn comes(&self, agent: AgentId, incarnation: Incarnation, until: Instant) -> bool {
        let mut came = self.inner.came.subscribe();
        loop {
            came.borrow_and_update();
            match self.find(agent, incarnation) {
                Found::Now(..) => return true,
                Found::Later => return false,
                Found::Absent => {}
            }
            if tokio::time::timeout_at(until, came.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Asks a program that is linked here. None where it is not, or the link is lost before it answers.
    pub(crate) async fn request_here(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        request: Request<Body>,
    ) -> Option<Response<LinkBody>> {
        let Found::Now(sender, streams) = self.find(agent, incarnation) else { return None };
        ask(agent, (sender, streams), request).await.ok()
    }

    /// Asks the program of an agent, wherever it is linked, waiting a moment for one that dials anew. The answer's body is
    /// a stream: nothing is read ahead beyond the windows of the link.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it is linked nowhere, or the link is lost before it answers.
    pub async fn request(&self, agent: &Agent, request: Request<Body>) -> Result<Response<LinkBody>, Error> {
        let unreachable = |reason: &str| Error::Unreachable { name: agent.name.clone(), reason: reason.to_owned() };
        let (id, incarnation) = (agent.id, agent.status.incarnation);
        let deadline = Instant::now() + self.inner.redial;
        let mut came = self.inner.came.subscribe();
        let mut request = request;
        // Asked once: the others wait by themselves, whoever is linked here meanwhile.
        let mut elsewhere = pin!(self.elsewhere(id, incarnation, deadline));
        loop {
            came.borrow_and_update();
            match self.find(id, incarnation) {
                Found::Now(sender, streams) => match ask(id, (sender, streams), request).await {
                    Ok(answer) => return Ok(answer),
                    // It was never sent: the next link takes it.
                    Err(Some(unsent)) => request = unsent,
                    Err(None) => return Err(unreachable(LOST)),
                },
                Found::Later => return Err(unreachable("it was started anew meanwhile")),
                Found::Absent => {}
            }
            tokio::select! {
                biased;
                _ = came.changed() => {}
                holder = &mut elsewhere => {
                    return holder_answers(&holder, request).await.ok_or_else(|| unreachable(LOST));
                }
                () = tokio::time::sleep_until(deadline) => {
                    let who = if self.peers.is_some() { "any server" } else { "this server" };
                    return Err(unreachable(&format!("its program is not connected to {who}; try again in a moment")));
                }
            }
        }
    }

    /// The other server to which this start's program is linked, for as long as it takes.
    async fn elsewhere(&self, agent: AgentId, incarnation: Incarnation, until: Instant) -> Holder {
        if let Some(peers) = &self.peers
            && let Some(holder) = peers.holder(agent, incarnation, until).await
        {
            return holder;
        }
        std::future::pending().await
    }

    async fn cancel(&self, agent: AgentId, message: MessageId) {
        let Some(mut sender) = self.inner.table().get(&agent).map(|link| link.sender.clone()) else {
            return;
        };
        for _ in 0..2 {
            let body = serde_json::to_vec(&CancelRequest { message }).unwrap_or_default();
            let Ok(request) = Request::post("http://computer/cancel")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
            else {
                return;
            };
            match tokio::time::timeout(CANCEL_LIMIT, sender.send_request(request)).await {
                Ok(Ok(answer)) if !answer.status().is_server_error() => return,
                // The next heartbeat tells it too.
                Ok(Ok(answer)) => {
                    tracing::debug!(%agent, message_id = %message, status = %answer.status(), "a cancel failed")
                }
                Ok(Err(error)) => tracing::debug!(%agent, message_id = %message, %error, "a cancel was not delivered"),
                Err(_) => tracing::debug!(%agent, message_id = %message, "a cancel was not answered"),
            }
        }
    }
}

/// Tells how many are linked.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn show(table: &HashMap<AgentId, Link>) {
    metrics::gauge!("raworc_links").set(table.len() as f64);
}

enum Found {
    Now(SendRequest<Body>, Arc<Semaphore>),
    Later,
    Absent,
}

const LOST: &str = "the connection to its program was lost during the call";

/// Asks over a link. Gives the request back where it was never sent.
async fn ask(
    agent: AgentId,
    (mut sender, streams): (SendRequest<Body>, Arc<Semaphore>),
    request: Request<Body>,
) -> Result<Response<LinkBody>, Option<Request<Body>>> {
    // It is never closed.
    let place = streams.acquire_owned().await.ok();
    match sender.try_send_request(request).await {
        Ok(answer) => Ok(answer.map(|body| LinkBody { body, _place: place })),
        Err(mut error) => {
            let unsent = error.take_message();
            if unsent.is_none() {
                tracing::debug!(%agent, error = %error.error(), "a call over the link failed");
            }
            Err(unsent)
        }
    }
}

async fn holder_answers(holder: &Holder, request: Request<Body>) -> Option<Response<LinkBody>> {
    match holder.request(request).await {
        Ok(answer) => Some(answer?.map(|body| LinkBody { body, _place: None })),
        Err(error) => {
            tracing::debug!(%error, "a call by way of another server failed");
            None
        }
    }
}

/// What was cancelled while no link was there is told as soon as there is one.
async fn tell_missed_cancel(control: &ControlPlane, links: &Links, id: AgentId) {
    let held = match control.system().store().agent_by_id(id).await {
        Ok(agent) => agent.value.and_then(|agent| agent.status.message),
        Err(_) => None,
    };
    let Some(held) = held else { return };
    if let Ok(Some(message)) = control.system().store().message(id, held).await
        && message.cancel_requested
        && message.state == MessageState::Leased
    {
        links.cancel(id, held).await;
    }
}

async fn follow_cancels(mut events: Subscription, links: Weak<Inner>) {
    loop {
        match events.recv().await {
            Ok(event) if event.kind == EventKind::MessageCancel => {
                let (Some(agent), Some(message)) = (event.agent, event.message) else { continue };
                let Some(inner) = links.upgrade() else { break };
                // One program that does not answer must not hold up the others' cancels.
                tokio::spawn(async move { Links { inner, peers: None }.cancel(agent, message).await });
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "cancels may have been missed; programs learn of them with their heartbeats");
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
}
