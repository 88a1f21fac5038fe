//! The internal listener: where the processes of an installation ask each other for what only one of them has, which are the
//! links of programs and the engines of operators.
//!
//! Nothing of it is in the store but where it listens, in the process's sign of life: who looks for a link asks the servers
//! that live, and the one that has it says so. Both sides of a connection show a certificate of the installation's own
//! authority, which whoever has the master key and the store can make and nobody else.

mod deltas;
mod peers;
mod routes;
#[cfg(test)]
mod tests;
mod tls;

pub(super) use peers::Holder;
pub use peers::Peers;
pub use tls::InternalTls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use raworc_core::control::ControlPlane;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::agents::Links;
use super::alive;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long what is under way may take to end when the listener shuts down.
const DRAIN: Duration = Duration::from_secs(5);

/// How often a silent connection is asked whether somebody is there, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Bytes of one stream that may come before somebody reads them.
const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes of all streams of a connection: all that they may have together, or those whom nobody reads would hold up the others,
/// which are other tenants'.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// Streams that one other process may have open here.
const STREAMS: u32 = CONNECTION_WINDOW / STREAM_WINDOW;

/// Connections that have not shown a certificate yet.
const STRANGERS: usize = 64;

/// What the internal listener serves.
#[derive(Debug, Clone)]
pub struct InternalState {
    /// The use cases: their engines' logs are read here.
    pub control: ControlPlane,
    /// The programs that are linked to this process, where it serves any.
    pub links: Option<Links>,
}

/// Where other processes of the installation call.
#[derive(Debug)]
pub struct InternalListener(TcpListener);

impl InternalListener {
    /// Listens, for whoever is served later.
    ///
    /// # Errors
    /// Where the address is in use or cannot be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until `closing`, and what is under way to its end or for five seconds more.
    pub async fn serve(self, tls: InternalTls, state: InternalState, closing: CancellationToken) {
        let (router, graceful) = (routes::router(state, closing.clone()), GracefulShutdown::new());
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        loop {
            let accept = async {
                // It is never closed.
                let place = Arc::clone(&strangers).acquire_owned().await.ok();
                Ok::<_, io::Error>((self.0.accept().await?.0, place))
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                () = closing.cancelled() => break,
            };
            match accepted {
                Ok(stranger) => {
                    tokio::spawn(connection(stranger, tls.clone(), router.clone(), graceful.watcher()));
                }
                Err(error) => {
                    // Out of file descriptors, most often: some will be free in a moment.
                    tracing::warn!(%error, "a connection of another process could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // Who dials from now on is refused, and finds another.
        drop(self.0);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::info!("calls of other processes that were under way are cut off");
        }
    }
}

async fn connection(
    (stream, place): (TcpStream, Option<OwnedSemaphorePermit>),
    tls: InternalTls,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // A peer that is gone already shows at the handshake.
    let _ = stream.set_nodelay(true).and_then(|()| alive::ask(&stream));
    let stream = match tokio::time::timeout(HANDSHAKE, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(%error, "a stranger called at the internal listener, or a handshake broke off");
        }
        Err(_) => return tracing::debug!("a handshake at the internal listener took too long"),
    };
    drop(place);
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection of another process ended in an error");
    }
}
