//! Calls into an agent's computer: commands, files, its log.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use raworc_core::ids::AgentName;
use raworc_core::program::{ExecRequest, ExecStarted, ExecStatus, TerminalSize};
use reqwest::{Body, Method};

use super::Remote;

/// Bytes as they come.
pub(crate) type ByteStream = BoxStream<'static, anyhow::Result<Bytes>>;

/// A command that runs in an agent's computer.
#[derive(Debug, Clone)]
pub struct ExecStreams {
    remote: Remote,
    path: String,
}

impl Remote {
    pub(crate) async fn logs(&self, name: &AgentName, follow: bool, tail: Option<u64>) -> anyhow::Result<ByteStream> {
        let mut query = vec![("follow", follow.to_string())];
        query.extend(tail.map(|tail| ("tail", tail.to_string())));
        self.bytes(&format!("{}/logs", self.agent_path(name)), &query).await
    }

    async fn bytes(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<ByteStream> {
        let response = self.wire.send(Method::GET, path, |request| request.query(query)).await?;
        let wire = self.wire.clone();
        Ok(response.bytes_stream().map_err(move |error| wire.lost(error).into()).boxed())
    }

    async fn put(&self, path: &str, query: &[(&str, String)], body: Body) -> anyhow::Result<()> {
        self.wire.send(Method::PUT, path, |request| request.query(query).body(body)).await.map(drop)
    }

    /// Starts a command.
    pub(crate) async fn exec(
        &self,
        name: &AgentName,
        request: &ExecRequest,
        wake: bool,
    ) -> anyhow::Result<ExecStreams> {
        let path = format!("{}/exec", self.agent_path(name));
        let wake = [("wake", wake)];
        let started: ExecStarted = self.wire.json(Method::POST, &path, |call| call.query(&wake).json(request)).await?;
        Ok(ExecStreams { remote: self.clone(), path: format!("{path}/{}", started.id) })
    }

    /// A file's bytes.
    pub(crate) async fn read_file(&self, name: &AgentName, path: &str) -> anyhow::Result<ByteStream> {
        self.bytes(&format!("{}/files", self.agent_path(name)), &[("path", path.to_owned())]).await
    }

    /// Writes a file.
    pub(crate) async fn write_file(&self, name: &AgentName, path: &str, body: Body) -> anyhow::Result<()> {
        self.put(&format!("{}/files", self.agent_path(name)), &[("path", path.to_owned())], body).await
    }

    /// A whole tree, as tar.
    pub(crate) async fn read_archive(&self, name: &AgentName, path: &str) -> anyhow::Result<ByteStream> {
        self.bytes(&format!("{}/archive", self.agent_path(name)), &[("path", path.to_owned())]).await
    }

    /// Writes a whole tree into a directory, from tar.
    pub(crate) async fn write_archive(&self, name: &AgentName, path: &str, body: Body) -> anyhow::Result<()> {
        self.put(&format!("{}/archive", self.agent_path(name)), &[("path", path.to_owned())], body).await
    }
}

impl ExecStreams {
    pub(crate) async fn stdout(&self) -> anyhow::Result<ByteStream> {
        self.remote.bytes(&format!("{}/stdout", self.path), &[]).await
    }

    pub(crate) async fn stderr(&self) -> anyhow::Result<ByteStream> {
        self.remote.bytes(&format!("{}/stderr", self.path), &[]).await
    }

    /// Passes bytes on until the stream ends, which closes the command's standard input.
    pub(crate) async fn stdin(&self, body: Body) -> anyhow::Result<()> {
        self.remote.put(&format!("{}/stdin", self.path), &[], body).await
    }

    pub(crate) async fn resize(&self, size: TerminalSize) -> anyhow::Result<()> {
        let path = format!("{}/resize", self.path);
        self.remote.wire.send(Method::POST, &path, |request| request.json(&size)).await.map(drop)
    }

    pub(crate) async fn wait(&self) -> anyhow::Result<ExecStatus> {
        self.remote.wire.json(Method::GET, &format!("{}/wait", self.path), |request| request).await
    }

    pub(crate) async fn end(&self) -> anyhow::Result<()> {
        self.remote.wire.send(Method::DELETE, &self.path, |request| request).await.map(drop)
    }
}
