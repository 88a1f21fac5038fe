//! Serving a router on a listener.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use raworc_core::ids::UserName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::alive;
use super::places::{self, PlaceLimits, Places};

/// How long calls in progress have once the server shuts down.
const GRACE: Duration = Duration::from_secs(10);

/// Requests that are under way on one connection of HTTP/2.
const STREAMS: u32 = 64;

/// Where no connection can be accepted for want of something, the next try comes after this.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection's place among those of the API; a user's once a request on it bore a good token.
pub(super) type Place = places::Place<UserName>;

/// Limits of the connections that a router is served on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections at one time.
    pub connections: usize,
    /// Connections that one user may have of them, those left out that another user calls on too.
    pub connections_per_user: usize,
    /// Connections of them on which nobody has shown a good token yet: no user takes their places. The oldest gives way
    /// to the next.
    pub strangers: usize,
    /// How long a connection may go without one.
    pub introduction: Duration,
    /// How long a connection may be open without a request that is under way, from its first moment on.
    pub idle: Duration,
    /// After so long a silence on a connection of HTTP/2 its client is asked whether it is still there, and has as long
    /// to answer.
    pub silence: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 32 << 10,
            connections_per_user: 4 << 10,
            strangers: 1 << 10,
            introduction: Duration::from_secs(300),
            idle: Duration::from_secs(30),
            silence: alive::SILENCE,
        }
    }
}

impl ConnectionLimits {
    /// With another limit of connections at one time: an eighth of them may be one user's, and a quarter strangers'.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self.connections_per_user = self.connections_per_user.min(connections.div_ceil(8));
        self.strangers = self.strangers.min(connections.div_ceil(4));
        self
    }
}

/// Answers on `listener` with `router` until `shutdown` is done, then gives calls in progress ten seconds.
///
/// Streams do not end by themselves: cancel [`Options::closing`](super::Options::closing) along with
/// `shutdown`.
///
/// # Errors
/// Where the listener is broken.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    serve_within(listener, router, ConnectionLimits::default(), shutdown).await
}

/// The same within other limits of connections.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
    let places = Places::new(PlaceLimits {
        connections: limits.connections,
        per_owner: limits.connections_per_user,
        strangers: limits.strangers,
        introduction: limits.introduction,
    });
    loop {
        let accept = async {
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, places.enter().await))
        };
        tokio::select! {
            accepted = accept => match accepted {
                Ok((stream, place)) => {
                    let serving = connection(stream, router.clone(), place.clone(), limits.clone(), closing.clone());
                    tracker.spawn(async move {
                        tokio::select! {
                            () = serving => {}
                            () = place.gives_way() => tracing::debug!("a connection gave way to a newcomer"),
                        }
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    closing.cancel();
    tracker.close();
    if tokio::time::timeout(GRACE, tracker.wait()).await.is_err() {
        tracing::warn!(open = tracker.len(), "connections were still open at the end");
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    router: Router,
    place: Place,
    limits: ConnectionLimits,
    closing: CancellationToken,
) {
    let idle = limits.idle;
    // Small answers must not wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true).and_then(|()| alive::ask(&stream)) {
        tracing::debug!(%error, "a connection whose socket cannot be set up");
    }
    let under_way = Arc::new(watch::Sender::new(0));
    let rests = rests_for(idle, under_way.subscribe());
    let own = place.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let call = UnderWay::begin(&under_way);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(own.clone());
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(|answer| answer.map(|body| Answer { body, _call: call })) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(64 << 10).max_concurrent_streams(STREAMS);
    builder.http2().keep_alive_interval(limits.silence).keep_alive_timeout(limits.silence);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ends = tokio::select! {
        done = connection.as_mut() => return log(done),
        () = rests => false,
        () = place.overdue() => {
            tracing::debug!("a connection did not say in time whose it is");
            false
        }
        () = closing.cancelled() => true,
    };
    connection.as_mut().graceful_shutdown();
    // Whoever is known may still be taking the last of an answer.
    if ends || place.owner().is_some() {
        log(connection.await);
    } else if let Ok(done) = tokio::time::timeout(idle.min(GRACE), connection).await {
        log(done);
    }
}

/// Is done once no request was under way for a time.
async fn rests_for(idle: Duration, mut under_way: watch::Receiver<usize>) {
    // Without its sender there is no connection to rest.
    while under_way.wait_for(|calls| *calls == 0).await.is_ok() {
        if tokio::time::timeout(idle, under_way.changed()).await.is_err() {
            return;
        }
    }
}

/// A request, from its head to the end of its answer.
struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    fn begin(calls: &Arc<watch::Sender<usize>>) -> Self {
        calls.send_modify(|calls| *calls += 1);
        Self(Arc::clone(calls))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

/// The body of an answer, whose request is under way until its end.
struct Answer {
    body: Body,
    _call: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn log(done: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = done {
        tracing::debug!(error, "a connection broke");
    }
}
