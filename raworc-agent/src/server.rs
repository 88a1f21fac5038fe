//! The agents' listener as an HTTP client sees it: a Unix socket, or TLS to an address. No name is ever resolved.

mod pool;
mod target;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use pool::Pool;
pub(crate) use target::{BadAddress, Target};

/// What is wrong with an address, in words.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(url: &str, ca: Option<&str>) -> Result<(), String> {
    Target::parse(url, ca).map(drop).map_err(|error| error.to_string())
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Away {
    /// No connection could be made.
    #[error("the agents' listener cannot be reached")]
    Dial(#[from] std::io::Error),
    /// The connection was lost.
    #[error("the connection to the agents' listener was lost")]
    Lost(#[from] hyper::Error),
}

/// A client of the agents' listener.
#[derive(Debug)]
pub(crate) struct Server {
    target: Target,
    pool: Pool,
}

impl Server {
    /// A client of the listener at `url`, `unix:/path` or `https://ip:port` with a certificate signed by `ca`.
    pub(crate) fn new(url: &str, ca: Option<&str>) -> Result<Self, BadAddress> {
        Ok(Self { target: Target::parse(url, ca)?, pool: Pool::default() })
    }

    /// Sends a request and waits for the head of its answer. A connection from the pool that turns out to be dead
    /// counts for nothing: all requests may be sent twice.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, Away> {
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(http::header::HOST, http::HeaderValue::from_static("raworc"));
        let again = || Request::from_parts(parts.clone(), Full::new(body.clone()));
        if let Some(mut sender) = self.pool.take() {
            match sender.send_request(again()).await {
                Ok(response) => {
                    self.pool.put(sender);
                    return Ok(response);
                }
                Err(error) => tracing::debug!(%error, "a connection from the pool was dead"),
            }
        }
        let io = TokioIo::new(self.target.dial().await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the agents' listener ended");
            }
        });
        let response = sender.send_request(again()).await?;
        self.pool.put(sender);
        Ok(response)
    }

    /// What answers now does not serve, as a server does that has lost its database: others are asked first from now on.
    pub(crate) fn turn(&self) {
        self.pool.clear();
        self.target.turn();
    }

    /// Sends a request on a connection of its own, which the answer may upgrade.
    pub(crate) async fn send_for_upgrade(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Away> {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("raworc"));
        let io = TokioIo::new(self.target.dial().await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection for the link ended");
            }
        });
        Ok(sender.send_request(request).await?)
    }
}
