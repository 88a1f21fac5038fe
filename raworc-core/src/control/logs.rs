//! What a program wrote, where it cannot be asked itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::{ControlPlane, System};
use crate::agent::Agent;
use crate::error::Error;
use crate::ids::{AgentId, AgentName, ComputerId, Incarnation, RuntimeName, TenantName};
use crate::principal::Action;
use crate::runtime::{LogsOptions, RuntimeError};
use crate::store::{RecordKey, RecordKind};

/// Bytes of its log that are kept of a start that is over.
pub(crate) const DEATH_LOG_LIMIT: usize = 64 << 10;

/// How long an engine may take to begin.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);

/// How long the first bytes of a log that is followed are waited for, to see whether there is one.
const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// A log as it comes.
pub type LogStream = BoxStream<'static, Result<Bytes, RuntimeError>>;

/// Reads the logs of engines that other processes of the installation reach.
#[async_trait]
pub trait EngineLogs: Send + Sync + fmt::Debug {
    /// What a computer's program wrote in its latest start; none where no engine has it, or none is reached now.
    async fn engine_log(&self, runtime: &RuntimeName, computer: ComputerId, options: LogsOptions) -> Option<LogStream>;
}

/// What is kept of the log of a start that is over: the body of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeathLog {
    /// Which start.
    pub(crate) incarnation: Incarnation,
    /// The end of its log.
    pub(crate) log: String,
}

impl DeathLog {
    pub(crate) fn key(tenant: &TenantName, agent: AgentId) -> RecordKey {
        RecordKey { kind: RecordKind::DeathLog, tenant: Some(tenant.clone()), name: agent.to_string() }
    }

    pub(crate) fn into_body(self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

/// The last `limit` bytes of a text, or a little less, so that no character is cut.
pub(crate) fn end_of(text: &str, limit: usize) -> &str {
    let from = text.len().saturating_sub(limit);
    let whole = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[whole..]
}

impl ControlPlane {
    /// The log of an agent whose program does not run or does not answer: the engine's own of its latest start where it
    /// keeps one and this process, or an operator that it can ask, reaches it, else what was kept of the start that died last. A slept agent is not woken.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the agent is not there, or nothing of its log.
    pub async fn stopped_log(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        options: LogsOptions,
    ) -> Result<LogStream, Error> {
        let agent = self.find(call, tenant, name, Action::Exec).await?;
        if let Some(log) = self.log_of_engine(&agent, options).await {
            return Ok(log);
        }
        let kept = self.kept_log(&agent).await?;
        kept.map(|kept| given(&kept, options)).ok_or_else(|| no_log("log of agent", name))
    }

    /// What was kept of the log of an earlier start than the present one: the last one that died or was put to sleep.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the agent is not there, or nothing of an earlier start's log.
    pub async fn previous_log(
        &self,
        call: &Call,
        tenant: &TenantName,
        name: &AgentName,
        options: LogsOptions,
    ) -> Result<LogStream, Error> {
        let agent = self.find(call, tenant, name, Action::Exec).await?;
        let kept = self.kept_log(&agent).await?.filter(|kept| kept.incarnation < agent.status.incarnation);
        kept.map(|kept| given(&kept, options)).ok_or_else(|| no_log("log of an earlier start of agent", name))
    }

    async fn log_of_engine(&self, agent: &Agent, options: LogsOptions) -> Option<LogStream> {
        let (runtime, computer) = (agent.spec.runtime.as_ref()?, agent.status.computer?);
        match (self.inner.engines.get(runtime), self.inner.elsewhere.get()) {
            (Some(_), _) => self.system().engine_log(runtime, computer, options).await,
            (None, Some(elsewhere)) => elsewhere.engine_log(runtime, computer, options).await,
            (None, None) => None,
        }
    }

    async fn kept_log(&self, agent: &Agent) -> Result<Option<DeathLog>, Error> {
        if agent.status.kept_log.is_none() {
            return Ok(None);
        }
        let record = self.inner.store.record(&DeathLog::key(&agent.tenant, agent.id)).await?;
        record
            .map(|record| serde_json::from_value(record.body))
            .transpose()
            .map_err(|error| Error::Internal(format!("the kept log of agent {}: {error}", agent.id)))
    }
}

impl System<'_> {
    /// The log of a computer, from an engine that this process reaches; none where that keeps none or does not answer.
    pub async fn engine_log(
        self,
        runtime: &RuntimeName,
        computer: ComputerId,
        options: LogsOptions,
    ) -> Option<LogStream> {
        let engine = self.control.inner.engines.get(runtime)?;
        let log = engine.runtime.logs(computer, options);
        let mut log = tokio::time::timeout(ENGINE_LIMIT, log).await.ok()?.ok()?;
        let limit = if options.follow { FIRST_LIMIT } else { ENGINE_LIMIT };
        match tokio::time::timeout(limit, log.next()).await {
            Ok(Some(Ok(first))) => Some(stream::iter([Ok(first)]).chain(log).boxed()),
            Ok(Some(Err(_)) | None) => None,
            Err(_) => options.follow.then_some(log),
        }
    }

    /// From now on the logs of engines that this process does not reach are read by this. The first one stays.
    pub fn read_logs_elsewhere(self, by: Arc<dyn EngineLogs>) {
        // Whoever assembles does so once.
        let _ = self.control.inner.elsewhere.set(by);
    }
}

fn no_log(what: &'static str, name: &AgentName) -> Error {
    Error::NotFound { what, name: name.to_string() }
}

fn given(kept: &DeathLog, options: LogsOptions) -> LogStream {
    let tail = options.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let log = Bytes::copy_from_slice(end_of(&kept.log, tail).as_bytes());
    stream::iter([Ok(log)]).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_cut_between_characters() {
        assert_eq!(end_of("one two", 3), "two");
        assert_eq!(end_of("one", 10), "one");
        assert_eq!(end_of("aäö", 3), "ö");
        assert_eq!(end_of("aäö", 4), "äö");
        assert_eq!(end_of("ä", 1), "");
        assert_eq!(end_of("ä", 0), "");
    }
}
