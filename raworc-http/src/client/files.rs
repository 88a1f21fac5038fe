//! Files in an agent's computer, its program's log, and what it uses.

use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use raworc_core::ids::AgentName;
use raworc_core::program::{ComputerStats, FileEntry};
use reqwest::RequestBuilder;

use super::exec::START_LIMIT;
use super::{Body, ByteStream, Client, ClientError};

/// What is at a path.
pub enum Found {
    /// A file.
    File {
        /// What is in it.
        bytes: ByteStream,
        /// How much that is, where it is known.
        size: Option<u64>,
    },
    /// A directory, and what is in it.
    Directory(Vec<FileEntry>),
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { size, .. } => f.debug_struct("File").field("size", size).finish_non_exhaustive(),
            Self::Directory(entries) => f.debug_tuple("Directory").field(entries).finish(),
        }
    }
}

impl Client {
    fn on_path(&self, method: Method, name: &AgentName, what: &str, path: &str) -> RequestBuilder {
        self.request(method, self.of_agent(name, &[what])).query(&[("path", path)])
    }

    /// Reads a file, or lists a directory. Paths are relative to the agent's home, or absolute. A slept agent is woken.
    ///
    /// # Errors
    /// Where there is nothing at the path, or the computer cannot be reached.
    pub async fn read_file(&self, name: &AgentName, path: &str) -> Result<Found, ClientError> {
        let answer = self.open(self.on_path(Method::GET, name, "files", path)).await?;
        if answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
            return Ok(Found::Directory(self.read(answer).await?));
        }
        let size = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Found::File { bytes: self.stream(answer), size })
    }

    /// Writes a file. `mode` is its permission bits, where it is new.
    ///
    /// # Errors
    /// Where it cannot be written, or the computer cannot be reached.
    pub async fn write_file(
        &self,
        name: &AgentName,
        path: &str,
        mode: Option<u32>,
        body: impl Into<Body>,
    ) -> Result<(), ClientError> {
        let mut request = self.on_path(Method::PUT, name, "files", path);
        if let Some(mode) = mode {
            request = request.query(&[("mode", format!("{:o}", mode & 0o777))]);
        }
        self.send_once(request.body(body.into().into_inner())).await.map(drop)
    }

    /// Removes a file, or with `recursive` a directory and all that is in it.
    ///
    /// # Errors
    /// Where there is nothing at the path, or it cannot be removed.
    pub async fn remove_file(&self, name: &AgentName, path: &str, recursive: bool) -> Result<(), ClientError> {
        let request = self.on_path(Method::DELETE, name, "files", path).query(&[("recursive", recursive)]);
        self.send_once(request.timeout(START_LIMIT)).await.map(drop)
    }

    /// A whole tree, as tar.
    ///
    /// # Errors
    /// Where there is nothing at the path, or the computer cannot be reached.
    pub async fn read_archive(&self, name: &AgentName, path: &str) -> Result<ByteStream, ClientError> {
        Ok(self.stream(self.open(self.on_path(Method::GET, name, "archive", path)).await?))
    }

    /// Unpacks tar into a directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where it cannot be written, or the computer cannot be reached.
    pub async fn write_archive(&self, name: &AgentName, path: &str, tar: impl Into<Body>) -> Result<(), ClientError> {
        let request = self.on_path(Method::PUT, name, "archive", path).header(CONTENT_TYPE, "application/x-tar");
        self.send_once(request.body(tar.into().into_inner())).await.map(drop)
    }

    /// The log of an agent's program: the last `tail` bytes, or all that is kept; with `follow` what comes from then
    /// on. A slept agent is not woken: its log is that of its last start.
    ///
    /// # Errors
    /// Where nothing of it is there, or the computer cannot be reached.
    pub async fn logs(&self, name: &AgentName, tail: Option<u64>, follow: bool) -> Result<ByteStream, ClientError> {
        let mut request = self.request(Method::GET, self.of_agent(name, &["logs"])).query(&[("follow", follow)]);
        if let Some(tail) = tail {
            request = request.query(&[("tail", tail)]);
        }
        Ok(self.stream(self.open(request).await?))
    }

    /// What is kept of the log of the start before the present one, at most the last 64 KiB.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn previous_logs(&self, name: &AgentName, tail: Option<u64>) -> Result<ByteStream, ClientError> {
        let mut request = self.request(Method::GET, self.of_agent(name, &["logs"])).query(&[("previous", true)]);
        if let Some(tail) = tail {
            request = request.query(&[("tail", tail)]);
        }
        Ok(self.stream(self.open(request).await?))
    }

    /// What an agent's computer uses. A slept agent is not woken.
    ///
    /// # Errors
    /// Where the agent sleeps, or the computer cannot be reached.
    pub async fn stats(&self, name: &AgentName) -> Result<ComputerStats, ClientError> {
        self.fetch(self.request(Method::GET, self.of_agent(name, &["stats"]))).await
    }
}
