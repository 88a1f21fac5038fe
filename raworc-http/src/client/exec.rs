//! Commands in an agent's computer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::Method;
use raworc_core::ids::AgentName;
use raworc_core::program::{ExecRequest, ExecStarted, ExecStatus, TerminalSize};
use reqwest::Response;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{ANSWER_LIMIT, Body, Client, ClientError, json};
use crate::api::{ExecResult, Wait};

/// How long a computer may take to start, where it has to, and its program to answer: longer than the server waits for
/// both, even where the computer falls asleep in between, so that its error is the one that is told.
pub(super) const START_LIMIT: Duration = Duration::from_secs(390);

/// Bytes as they come. An error says that there would have been more.
pub type ByteStream = BoxStream<'static, Result<Bytes, ClientError>>;

impl Client {
    /// Starts a command in an agent's computer. `wake` says whether a slept agent is woken for it.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command cannot be started.
    pub async fn exec(&self, name: &AgentName, request: &ExecRequest, wake: bool) -> Result<Exec, ClientError> {
        let call = self.request(Method::POST, self.of_agent(name, &["exec"])).query(&[("wake", wake)]);
        let answer = self.send_once(json(call, request)?.timeout(START_LIMIT)).await?;
        let started: ExecStarted = self.read(answer).await?;
        Ok(Exec { client: self.clone(), name: name.clone(), id: started.id, terminal: request.terminal.is_some() })
    }

    /// Runs a command to its end, for `limit` at most, and returns what it wrote.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command cannot be started.
    pub async fn run(
        &self,
        name: &AgentName,
        request: &ExecRequest,
        limit: Duration,
    ) -> Result<ExecResult, ClientError> {
        let wait = Wait(limit).to_string();
        let call = self.request(Method::POST, self.of_agent(name, &["exec"])).query(&[("wait", wait)]);
        let answer = self.send_once(json(call, request)?.timeout(START_LIMIT + limit)).await?;
        self.read(answer).await
    }

    /// A body as it comes.
    pub(super) fn stream(&self, response: Response) -> ByteStream {
        let client = self.clone();
        let broken = move |error| ClientError::transport(&client.server, error);
        response.bytes_stream().map(move |chunk| chunk.map_err(&broken)).boxed()
    }
}

/// A command that was started. It goes on when this is dropped; [`end`](Self::end) ends it.
#[derive(Debug, Clone)]
pub struct Exec {
    client: Client,
    name: AgentName,
    id: String,
    terminal: bool,
}

impl Exec {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn request(&self, method: Method, rest: &[&str]) -> reqwest::RequestBuilder {
        let path = [&["exec", self.id.as_str()], rest].concat();
        self.client.request(method, self.client.of_agent(&self.name, &path))
    }

    /// What it writes to its standard output.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command is not there any more.
    pub async fn stdout(&self) -> Result<ByteStream, ClientError> {
        Ok(self.client.stream(self.client.send_once(self.request(Method::GET, &["stdout"])).await?))
    }

    /// What it writes to its standard error. Nothing where it has a terminal: all is standard output then.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command is not there any more.
    pub async fn stderr(&self) -> Result<ByteStream, ClientError> {
        if self.terminal {
            return Ok(stream::empty().boxed());
        }
        Ok(self.client.stream(self.client.send_once(self.request(Method::GET, &["stderr"])).await?))
    }

    /// Writes to its standard input until `bytes` end, which closes it.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command is not there any more.
    pub async fn stdin(&self, bytes: impl Into<Body>) -> Result<(), ClientError> {
        let request = self.request(Method::PUT, &["stdin"]).body(bytes.into().into_inner());
        self.client.send_once(request).await.map(drop)
    }

    /// Tells it the size of its terminal.
    ///
    /// # Errors
    /// Where the computer cannot be reached, or the command has no terminal.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), ClientError> {
        let request = json(self.request(Method::POST, &["resize"]), &size)?;
        self.client.send_once(request.timeout(ANSWER_LIMIT)).await.map(drop)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where the connection is lost, or the command is not there any more.
    pub async fn wait(&self) -> Result<ExecStatus, ClientError> {
        self.client.fetch_late(self.request(Method::GET, &["wait"])).await
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where the computer cannot be reached.
    pub async fn end(&self) -> Result<(), ClientError> {
        self.client.send_once(self.request(Method::DELETE, &[]).timeout(ANSWER_LIMIT)).await.map(drop)
    }

    /// Connects it to the caller's own streams until it ends: what `input` gives is written to it, what it writes goes
    /// to `output` and `errors`, and its terminal follows `sizes`. Returns how it ended.
    ///
    /// Give no input where the command was started without.
    ///
    /// # Errors
    /// Where the connection is lost, or what it wrote cannot be written (`output`).
    pub async fn attach(
        &self,
        input: Option<impl AsyncRead + Send + 'static>,
        output: impl AsyncWrite + Unpin,
        errors: impl AsyncWrite + Unpin,
        sizes: impl Stream<Item = TerminalSize> + Unpin,
    ) -> Result<ExecStatus, ClientError> {
        let mut sizes = sizes.fuse();
        let feed = async {
            if let Some(input) = input
                && let Err(error) = self.stdin(Body::read(input)).await
            {
                // A command may close its input, or end, while there is more of it.
                tracing::debug!(%error, "the rest of the input was not taken");
            }
            std::future::pending::<()>().await;
        };
        let follow = async {
            while let Some(size) = sizes.next().await {
                if let Err(error) = self.resize(size).await {
                    tracing::debug!(%error, "the terminal's new size was not taken");
                }
            }
            std::future::pending::<()>().await;
        };
        let work = async {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            let (stdout, stderr) = futures::try_join!(stdout, stderr)?;
            let ((), (), status) = futures::try_join!(copy(stdout, output), copy(stderr, errors), self.wait())?;
            Ok(status)
        };
        tokio::select! {
            ended = work => ended,
            () = feed => unreachable_end(),
            () = follow => unreachable_end(),
        }
    }
}

/// Neither feeding nor following ends before the work does.
fn unreachable_end() -> Result<ExecStatus, ClientError> {
    Err(ClientError::local("internal", "the streams of a command ended before it".into()))
}

async fn copy(mut from: ByteStream, mut to: impl AsyncWrite + Unpin) -> Result<(), ClientError> {
    let failed = |error: io::Error| ClientError::because("output", "the output cannot be written".into(), error);
    while let Some(chunk) = from.next().await {
        to.write_all(&chunk?).await.map_err(failed)?;
        to.flush().await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(all(test, feature = "server"))]
mod tests;
