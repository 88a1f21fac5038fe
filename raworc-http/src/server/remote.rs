//! A runtime whose engine is another process, for crash tests alone: operators come and go, and the engine stays.
//!
//! Each call has a connection of its own: one line of JSON asks, one answers. What was asked goes on in the engine where
//! whoever asked is gone. All of it is behind the feature `failpoints`.

mod serve;
mod wire;

pub use serve::serve;
pub use wire::Ask;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use raworc_core::ids::{ComputerId, RuntimeName, VolumeId};
use raworc_core::runtime::{
    Boot, Capabilities, ComputerSpec, Ensured, LogsOptions, Observed, Progress, Runtime, RuntimeError, RuntimeEvent,
    StartId,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use self::wire::{Answer, Seen};

/// The variable that tells an operator where the engine is.
pub const VARIABLE: &str = "FAILPOINT_ENGINE";

/// An engine says this often on a stream of events that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// A stream of events is over where nothing came for so long.
const SILENCE: Duration = Duration::from_secs(4);

/// A connection that does not come about by then is none.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// An engine in another process.
#[derive(Debug)]
pub struct RemoteRuntime {
    name: RuntimeName,
    address: SocketAddr,
}

impl RemoteRuntime {
    /// The engine at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { name: RuntimeName::simulated(), address }
    }

    /// The engine that [`VARIABLE`] names.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        Some(Self::new(std::env::var(VARIABLE).ok()?.parse().ok()?))
    }

    /// What tells it from other engines.
    #[must_use]
    pub fn engine(&self) -> String {
        self.address.to_string()
    }

    async fn dial(&self, ask: &Ask) -> Result<BufReader<TcpStream>, RuntimeError> {
        let dialled = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let mut line = serde_json::to_vec(ask)?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            Ok(BufReader::new(stream))
        };
        let dialled = tokio::time::timeout(CONNECT_LIMIT, dialled).await;
        let dialled = dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        dialled.map_err(|error: std::io::Error| RuntimeError::Unavailable(error.to_string()))
    }

    async fn ask<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, RuntimeError> {
        let mut stream = self.dial(&ask).await?;
        let answer: Answer = next(&mut stream).await?;
        let value = Result::from(answer)?;
        serde_json::from_value(value).map_err(|error| RuntimeError::Unavailable(error.to_string()))
    }
}

/// The next line, as what it says.
async fn next<T: DeserializeOwned>(stream: &mut BufReader<TcpStream>) -> Result<T, RuntimeError> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await;
    read.map_err(|error| RuntimeError::Unavailable(error.to_string()))?;
    serde_json::from_str(&line).map_err(|_| RuntimeError::Unavailable("it hung up".into()))
}

#[async_trait]
impl Runtime for RemoteRuntime {
    fn name(&self) -> &RuntimeName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn prepare(&self, image: Option<&str>, _: &(dyn Fn(Progress) + Send + Sync)) -> Result<(), RuntimeError> {
        match image {
            None => Ok(()),
            Some(_) => Err(RuntimeError::Unsupported("use images")),
        }
    }

    async fn ensure(&self, spec: &ComputerSpec) -> Result<Ensured, RuntimeError> {
        self.capabilities().check(spec)?;
        let limits_missing = self.ask(Ask::Ensure(spec.clone())).await?;
        let mut ensured = Ensured::default();
        ensured.limits_missing = limits_missing;
        Ok(ensured)
    }

    async fn start(&self, id: ComputerId, boot: &Boot) -> Result<StartId, RuntimeError> {
        self.ask(Ask::Start { id, line: boot.to_line() }).await
    }

    async fn stop(&self, id: ComputerId, start: &StartId, grace: Duration) -> Result<(), RuntimeError> {
        self.ask(Ask::Stop { id, start: start.clone(), grace }).await
    }

    async fn remove(&self, id: ComputerId) -> Result<(), RuntimeError> {
        self.ask(Ask::Remove { id }).await
    }

    async fn observe(&self, id: ComputerId) -> Result<Option<Observed>, RuntimeError> {
        let seen: Option<Seen> = self.ask(Ask::Observe { id }).await?;
        Ok(seen.map(Observed::from))
    }

    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let seen: Vec<Seen> = self.ask(Ask::List).await?;
        Ok(seen.into_iter().map(Observed::from).collect())
    }

    async fn watch(&self) -> Result<BoxStream<'static, RuntimeEvent>, RuntimeError> {
        let mut stream = self.dial(&Ask::Watch).await?;
        // The first one says that nothing is missed from now on.
        let _: Option<ComputerId> = next(&mut stream).await?;
        let events = stream::unfold(stream, |mut stream| async move {
            let told = tokio::time::timeout(SILENCE, next::<Option<ComputerId>>(&mut stream)).await;
            Some((told.ok()?.ok()?, stream))
        });
        Ok(events.filter_map(|told| async move { told.map(RuntimeEvent::Changed) }).boxed())
    }

    async fn logs(
        &self,
        id: ComputerId,
        options: LogsOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, RuntimeError>>, RuntimeError> {
        if options.follow {
            return Err(RuntimeError::Unsupported("follow a log"));
        }
        let text: String = self.ask(Ask::Logs { id, tail: options.tail }).await?;
        Ok(stream::iter([Ok(Bytes::from(text))]).boxed())
    }

    async fn has_volume(&self, id: VolumeId) -> Result<bool, RuntimeError> {
        self.ask(Ask::HasVolume { id }).await
    }

    async fn copy_volume(&self, _: VolumeId, _: VolumeId) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported("copy volumes"))
    }

    async fn remove_volume(&self, id: VolumeId) -> Result<(), RuntimeError> {
        self.ask(Ask::RemoveVolume { id }).await
    }
}
