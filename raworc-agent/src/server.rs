//! The agents' listener as an HTTP client sees it: a Unix socket, or TLS to an address. No name is ever resolved.

mod pool;
mod target;

use std::sync::atomic::{AtomicU64, Ordering};

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
    turns: AtomicU64,
}

impl Server {
    /// A client of the listener at `url`, `unix:/path` or `https://ip:port` with a certificate signed by `ca`.
    pub(crate) fn new(url: &str, ca: Option<&str>) -> Result<Self, BadAddress> {
        Ok(Self { target: Target::parse(url, ca)?, pool: Pool::default(), turns: AtomicU64::new(0) })
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

    /// How often it has turned, for a call that may find that who is asked does not serve.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// What was asked after so many turns does not serve, as a server does that has lost its database: others are asked first
    /// from now on. Of many calls that found the same, one turns: the next would turn away from the one that was turned to.
    pub(crate) fn turn(&self, turns: u64) {
        if self.turns.compare_exchange(turns, turns + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.pool.clear();
            self.target.turn();
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that answers everything with its name.
    fn answering(path: &std::path::Path, name: &'static str) {
        let listener = tokio::net::UnixListener::bind(path).expect("a socket");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 1024];
                    while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                        stream.write_all(answer.as_bytes()).await.expect("written");
                    }
                });
            }
        });
    }

    async fn who(server: &Server) -> String {
        let answer = server.send(Request::new(Bytes::new())).await.expect("an answer");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn of_many_calls_that_find_the_same_server_out_of_order_one_turns_to_the_other() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["a", "b"] {
            answering(&directory.path().join(format!("{name}.sock")), name);
        }
        let server = Server::new(&format!("unix:{}", directory.path().display()), None).expect("an address");
        let (first, asked) = (who(&server).await, server.turns());
        // Three were under way to it; the last is as late as a long poll is.
        server.turn(asked);
        server.turn(asked);
        let second = who(&server).await;
        assert_ne!(first, second, "the other one is asked");
        server.turn(asked);
        assert_eq!(who(&server).await, second, "and stays so");
        server.turn(server.turns());
        assert_eq!(who(&server).await, first, "until that one does not serve");
    }
}
