//! The proxy of a closed computer, as far as it is inside: each connection to it becomes one to the server, which knows
//! what the agent may reach and speaks for the rest.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::calls::{CallError, Calls};

/// Where programs that are told of no proxy by their environment are told of one by hand. Another port is taken where
/// somebody has this one.
const PORT: u16 = 3128;

/// Connections that are about to be opened. The server counts them as ordinary ones until they are.
const OPENING: usize = 8;

/// Bytes that are under way in each direction of a connection.
const BUFFER: usize = 64 << 10;

/// How often a connection is tried to be opened while the server is away or says that there are enough.
const TRIES: u32 = 5;

/// What the environment calls a proxy. Some programs read one spelling alone.
const VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];

/// What is inside and needs none.
const INSIDE: &str = "localhost,127.0.0.1,::1";

/// Whether the program has a network of its own, by which it goes out: on this machine itself, a computer without walls. What
/// is listed for one agent would be everybody's there.
pub(crate) fn has_network() -> bool {
    // The first line says what the others are.
    std::fs::read_to_string("/proc/net/route").is_ok_and(|routes| routes.lines().count() > 1)
}

/// The proxy, which listens.
#[derive(Debug)]
pub(crate) struct Proxy {
    listener: TcpListener,
}

impl Proxy {
    /// Listens on the computer's loopback.
    pub(crate) async fn bind() -> io::Result<Self> {
        let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match at(PORT).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => at(0).await?,
            Err(error) => return Err(error),
        };
        Ok(Self { listener })
    }

    /// The environment of what has to go by it.
    pub(crate) fn environment(&self) -> io::Result<BTreeMap<String, String>> {
        let url = format!("http://{}", self.listener.local_addr()?);
        let proxies = VARIABLES.map(|name| (name.to_owned(), url.clone()));
        let inside = ["no_proxy", "NO_PROXY"].map(|name| (name.to_owned(), INSIDE.to_owned()));
        Ok(proxies.into_iter().chain(inside).collect())
    }

    /// Passes connections on, for as long as the program runs.
    pub(crate) async fn serve(self, calls: Arc<Calls>) -> Infallible {
        let opening = Arc::new(Semaphore::new(OPENING));
        loop {
            // Whoever comes in greater numbers waits outside, and takes no descriptors. The semaphore is never closed.
            let turn = Arc::clone(&opening).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let calls = Arc::clone(&calls);
                    tokio::spawn(async move { pass_on(stream, from, &calls, turn).await });
                }
                Err(error) => {
                    tracing::warn!("a connection to the proxy could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn pass_on<T>(mut stream: TcpStream, from: SocketAddr, calls: &Calls, turn: T) {
    let _ = stream.set_nodelay(true);
    let opened = open(calls).await;
    drop(turn);
    let copied = match opened {
        Ok(upgraded) => {
            copy_bidirectional_with_sizes(&mut stream, &mut TokioIo::new(upgraded), BUFFER, BUFFER).await.map(drop)
        }
        Err(error) => refuse(&mut stream, &error).await,
    };
    if let Err(error) = copied {
        tracing::debug!(%from, "a connection by the proxy ended: {error}");
    }
}

async fn open(calls: &Calls) -> Result<hyper::upgrade::Upgraded, CallError> {
    let mut pauses = crate::calls::pauses();
    let mut tries = 1;
    loop {
        match calls.upgrade("egress").await {
            Err(CallError::Away(_)) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
            opened => return opened,
        }
    }
}

/// Answers where no server does.
async fn refuse(stream: &mut TcpStream, error: &CallError) -> io::Result<()> {
    let page = format!("there is no way out of this computer now: {error}\n");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    stream.shutdown().await
}
