//! [`MeteredStore`]: a store whose commits are counted.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use raworc_core::agent::Agent;
use raworc_core::computer::Computer;
use raworc_core::event::Event;
use raworc_core::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{
    AgentQuery, AuditQuery, AuditRow, Commit, Committed, ComputerQuery, Due, DueQuery, EventFilter, Lease, LeaseClaim,
    MessageQuery, Page, Purge, Purged, QuotaKind, Record, RecordKey, RecordKind, Stamped, StepQuery, Store, StoreError,
    Touch,
};
use raworc_core::trace;
use tokio::time::Instant;
use tracing::Instrument;

use super::waits::Waits;
use crate::server::acts;

/// A store whose commits are counted, and which is otherwise the one within.
#[derive(Debug, Clone)]
pub struct MeteredStore(Arc<dyn Store>);

impl MeteredStore {
    /// Counts the commits of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self(inner)
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (began, _waits) = (Instant::now(), Waits::begin("raworc_store_commits_waiting"));
        let span = trace::within("commit");
        if !span.is_disabled() {
            span.record("raworc.acts", acts::of(&commit).join(","));
        }
        #[cfg(feature = "failpoints")]
        let acts = acts::of(&commit);
        #[cfg(feature = "failpoints")]
        crate::server::failpoints::before(&acts);
        let committed = self.0.commit(commit).instrument(span.clone()).await;
        #[cfg(feature = "failpoints")]
        if committed.is_ok() {
            crate::server::failpoints::after(&acts);
        }
        let outcome = match &committed {
            Ok(committed) if committed.replayed => "replayed",
            Ok(_) => "done",
            Err(StoreError::Conflict(_)) => "conflict",
            Err(_) => "failed",
        };
        match outcome {
            "failed" => trace::failed(&span, outcome),
            outcome => _ = span.record("raworc.outcome", outcome),
        }
        metrics::counter!("raworc_store_commits_total", "outcome" => outcome).increment(1);
        metrics::histogram!("raworc_store_commit_seconds").record(began.elapsed().as_secs_f64());
        committed
    }

    async fn touch(&self, touches: &[Touch]) -> Result<Vec<AgentId>, StoreError> {
        self.0.touch(touches).await
    }

    async fn claim(&self, claim: &LeaseClaim) -> Result<Stamped<Lease>, StoreError> {
        self.0.claim(claim).await
    }

    async fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        let began = Instant::now();
        let purged = self.0.purge(purge).await?;
        for (kind, rows) in purged.rows.each().into_iter().filter(|(_, rows)| *rows > 0) {
            metrics::counter!("raworc_store_purged_rows_total", "kind" => kind).increment(rows);
        }
        metrics::histogram!("raworc_store_purge_seconds").record(began.elapsed().as_secs_f64());
        Ok(purged)
    }

    async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, StoreError> {
        self.0.leases(prefix).await
    }

    async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.0.agent(tenant, name).await
    }

    async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, StoreError> {
        self.0.agent_by_id(id).await
    }

    async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, StoreError> {
        self.0.agents(query).await
    }

    async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, StoreError> {
        self.0.due(query).await
    }

    async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.0.message(agent, id).await
    }

    async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, StoreError> {
        self.0.messages(query).await
    }

    async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, StoreError> {
        self.0.steps(query).await
    }

    async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, StoreError> {
        self.0.computer(id).await
    }

    async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, StoreError> {
        self.0.computers(query).await
    }

    async fn record(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.0.record(key).await
    }

    async fn records(&self, kind: RecordKind, tenant: Option<&TenantName>) -> Result<Vec<Record>, StoreError> {
        self.0.records(kind, tenant).await
    }

    async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, StoreError> {
        self.0.usage(tenant, kind).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, StoreError> {
        self.0.audit(query).await
    }

    async fn head(&self) -> Result<Stamped<Revision>, StoreError> {
        self.0.head().await
    }

    async fn watch(
        &self,
        since: Revision,
        filter: EventFilter,
    ) -> Result<BoxStream<'static, Result<Vec<Event>, StoreError>>, StoreError> {
        self.0.watch(since, filter).await
    }
}
