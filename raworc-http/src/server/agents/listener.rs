//! [`AgentsListener`]: serves programs on a Unix socket, or on TCP with TLS.

mod listening;
mod room;
#[cfg(test)]
mod tests;
mod tls;
mod unix;

pub use listening::Listening;
pub(super) use room::{Place, Room};
pub use tls::AgentsTls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tower::ServiceExt;

use self::room::Places;
use crate::server::alive;
use crate::server::extract::body::BODY_IDLE;

/// Limits of an [`AgentsListener`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// Connections at one time, links included.
    pub connections: usize,
    /// Connections that one computer may have of them, its link included.
    pub connections_per_computer: usize,
    /// Connections of them that have not said yet whose they are: no computer takes their places. The oldest gives way to
    /// the next.
    pub strangers: usize,
    /// How long a connection may take to say whose it is: to bear a good token.
    pub introduction: Duration,
    /// Bytes of requests, those up to 16 KiB left out, that are in memory at one time. More wait for room.
    pub bytes: usize,
    /// Bytes of them that may be one computer's.
    pub bytes_per_computer: usize,
    /// How long a request waits for room.
    pub room_wait: Duration,
    /// How long a body may make no progress.
    pub body_idle: Duration,
    /// How long a body that takes room may take in all.
    pub body_total: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's head may take to come.
    pub head: Duration,
    /// How long requests that are under way may take to end when the listener shuts down.
    pub drain: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 16 << 10,
            connections_per_computer: 32,
            strangers: 1 << 10,
            introduction: Duration::from_secs(30),
            bytes: 512 << 20,
            bytes_per_computer: 96 << 20,
            room_wait: Duration::from_secs(30),
            body_idle: BODY_IDLE,
            body_total: Duration::from_secs(300),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

impl ListenerLimits {
    /// With another limit of connections at one time, a quarter of which may be strangers'.
    #[must_use]
    pub const fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        if self.strangers > connections / 4 {
            self.strangers = if connections < 4 { 1 } else { connections / 4 };
        }
        self
    }

    /// With another time for requests that are under way at the end.
    #[must_use]
    pub const fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}

/// Why the agents' listener could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process listens there.
    #[error("another process serves agents at {0} already; stop it, or choose another path")]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("{0} exists and is no socket; move it away, or choose another path")]
    NotASocket(PathBuf),
    /// The path is longer than a socket's may be.
    #[error("{0} is longer than the path of a socket may be (107 bytes); choose a shorter data directory")]
    PathTooLong(PathBuf),
    /// The socket could not be made.
    #[error("cannot listen for agents at {address}")]
    Io {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make the agents' listener's certificate: {0}")]
    Certificate(String),
}

#[derive(Debug)]
enum Socket {
    Unix { listener: UnixListener, socket: Arc<unix::SocketFile> },
    Tls { listener: TcpListener, tls: AgentsTls },
}

/// Where programs dial. It listens from the moment it is made; [`serve`](Self::serve) answers them.
#[derive(Debug)]
pub struct AgentsListener {
    socket: Socket,
    limits: ListenerLimits,
    listening: Listening,
}

impl AgentsListener {
    /// Listens on a Unix socket. Its directory is made where it is not there; computers are given that directory.
    ///
    /// # Errors
    /// Where another process listens there, or the path cannot be used.
    pub async fn unix(path: impl AsRef<Path>, limits: ListenerLimits) -> Result<Self, ListenError> {
        let (listener, socket) = unix::bind(path.as_ref()).await?;
        let socket = Arc::new(socket);
        Ok(Self { listening: Listening::at(&socket), socket: Socket::Unix { listener, socket }, limits })
    }

    /// Makes the directory of servers' sockets, as [`unix`](Self::unix) does, for computers that are there before servers.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn make_directory(directory: &Path) -> io::Result<()> {
        unix::make_directory(directory)
    }

    /// Listens on TCP, with TLS.
    ///
    /// # Errors
    /// Where the address is in use or cannot be had.
    pub async fn tcp(address: SocketAddr, tls: AgentsTls, limits: ListenerLimits) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ListenError::Io { address: address.to_string(), source })?;
        Ok(Self { socket: Socket::Tls { listener, tls }, limits, listening: Listening::default() })
    }

    /// The port and address on TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Unix { .. } => None,
            Socket::Tls { listener, .. } => listener.local_addr().ok(),
        }
    }

    /// Whether it accepts programs, for as long as somebody asks.
    #[must_use]
    pub fn listening(&self) -> Listening {
        self.listening.clone()
    }

    /// The socket's path, where it is a Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.socket {
            Socket::Unix { socket, .. } => Some(socket.path()),
            Socket::Tls { .. } => None,
        }
    }

    /// Serves `router`, an [`agents_router`](super::agents_router), until `shutdown` is done and what is under way has
    /// ended or had its time. Links are connections that were handed over: close those with [`Links`](super::Links).
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()> + Send) {
        let Self { socket, limits, listening } = self;
        let (handshake, head, drain) = (limits.handshake, limits.head, limits.drain);
        let places = Places::new(limits);
        let serving = listening.begin(places.table());
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accept = async {
                let stream = socket.accept().await?;
                serving.accepts();
                Ok::<_, io::Error>((stream, places.enter().await))
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, place)) => {
                    let serving =
                        connection(stream, router.clone(), (handshake, head), graceful.watcher(), place.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = serving => {}
                            why = place.must_go() => tracing::debug!(why = why.as_str(), "an agent's connection is ended"),
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most often: some will be free in a moment.
                    serving.failed(&error);
                    tracing::warn!(%error, "an agent's connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop((socket, serving));
        if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
            tracing::info!("requests of agents that were under way are cut off");
        }
    }
}

enum Accepted {
    Unix(tokio::net::UnixStream),
    Tls(tokio::net::TcpStream, tokio_rustls::TlsAcceptor),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tls { listener, tls } => {
                let (stream, _) = listener.accept().await?;
                // A peer that is gone already shows at the handshake.
                let _ = stream.set_nodelay(true).and_then(|()| alive::ask(&stream));
                Ok(Accepted::Tls(stream, tls.acceptor.clone()))
            }
        }
    }
}

type Watcher = hyper_util::server::graceful::Watcher;

async fn connection(
    accepted: Accepted,
    router: Router,
    (handshake, head): (Duration, Duration),
    watcher: Watcher,
    place: Place,
) {
    match accepted {
        Accepted::Unix(stream) => http(stream, router, head, watcher, place).await,
        Accepted::Tls(stream, acceptor) => match tokio::time::timeout(handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, router, head, watcher, place).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn http<S>(stream: S, router: Router, head: Duration, watcher: Watcher, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        // A link counts as a connection for as long as it lasts: its place goes with the request that may become one.
        request.extensions_mut().insert(place.clone());
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(64 << 10);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "an agent's connection ended in an error");
    }
}
