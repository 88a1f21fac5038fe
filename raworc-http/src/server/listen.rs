//! Serving a router on a listener.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long a client has to send its headers.
const HEADER_LIMIT: Duration = Duration::from_secs(30);

/// How long calls in progress have once the server shuts down.
const GRACE: Duration = Duration::from_secs(10);

/// Where no connection can be accepted for want of something, the next try comes after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` with `router` until `shutdown` is done, then gives calls in progress ten seconds.
///
/// Streams of events do not end by themselves: cancel [`Options::closing`](super::Options::closing) along with
/// `shutdown`.
///
/// # Errors
/// Where the listener is broken.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tracker.spawn(connection(stream, router.clone(), closing.clone()));
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

async fn connection(stream: TcpStream, router: Router, closing: CancellationToken) {
    // Small answers must not wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(64 << 10);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        done = connection.as_mut() => return log(done),
        () = closing.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    log(connection.await);
}

fn log(done: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = done {
        tracing::debug!(error, "a connection broke");
    }
}
