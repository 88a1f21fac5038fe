//! Reads, each one statement on a connection of the pool.

use futures::TryStreamExt;
use raworc_core::agent::Agent;
use raworc_core::computer::Computer;
use raworc_core::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step;
use raworc_core::store::{
    AgentQuery, AuditQuery, AuditRow, ComputerQuery, Due, DueQuery, Lease, MessageQuery, Page, PageRows, QuotaKind,
    Record, RecordKey, RecordKind, StepQuery,
};
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::convert::{agent, broken, count, doc, int, lease, micros, record, tenant_key, time};
use super::{Shared, sql};

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// Bytes of the document in column `at`.
fn size(row: &SqliteRow, at: usize) -> Result<usize, sqlx::Error> {
    Ok(row.try_get::<&str, _>(at)?.len())
}

/// What a cursor says, for those that are numbers. A cursor that nobody gave out begins anew.
fn number(cursor: Option<&str>) -> i64 {
    cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0)
}

impl Shared {
    async fn one<T>(
        &self,
        query: Query,
        convert: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Option<T>, sqlx::Error> {
        query.fetch_optional(&self.readers).await?.as_ref().map(convert).transpose()
    }

    async fn all<T>(
        &self,
        query: Query,
        convert: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, sqlx::Error> {
        query.fetch_all(&self.readers).await?.iter().map(convert).collect()
    }

    /// A page of what `convert` makes of rows, each with the bytes of its document. What stands after the end of the page
    /// is not read.
    async fn rows<T>(
        &self,
        query: Query,
        asked: usize,
        convert: impl Fn(&SqliteRow) -> Result<(T, usize), sqlx::Error>,
    ) -> Result<PageRows<T>, sqlx::Error> {
        let mut page = PageRows::new(asked);
        let mut rows = query.bind(int(page.wanted() as u64)).fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            let (row, bytes) = convert(&row)?;
            if !page.take(row, bytes) {
                break;
            }
        }
        Ok(page)
    }

    async fn page<T: DeserializeOwned>(
        &self,
        query: Query,
        asked: usize,
        cursor: impl Fn(&T) -> String,
    ) -> Result<Page<T>, sqlx::Error> {
        Ok(self.rows(query, asked, |row| Ok((doc(row, 0)?, size(row, 0)?))).await?.page(cursor))
    }

    pub(super) async fn agent(&self, tenant: &TenantName, name: &AgentName) -> Result<Option<Agent>, sqlx::Error> {
        if let Some(recent) = self.recent.by_name(tenant, name) {
            return Ok(Some(recent));
        }
        self.one(sqlx::query(sql::AGENT).bind(tenant.to_string()).bind(name.to_string()), agent).await
    }

    pub(super) async fn agent_by_id(&self, id: AgentId) -> Result<Option<Agent>, sqlx::Error> {
        if let Some(recent) = self.recent.by_id(id) {
            return Ok(Some(recent));
        }
        self.one(sqlx::query(sql::AGENT_BY_ID).bind(id.to_string()), agent).await
    }

    pub(super) async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, sqlx::Error> {
        let (text, binds) = sql::agents(query);
        let mut select = sqlx::query(AssertSqlSafe(text));
        select = select.bind(query.tenant.to_string()).bind(query.after.clone().unwrap_or_default());
        for text in binds {
            select = select.bind(text);
        }
        let page = self.rows(select, query.limit, |row| Ok((agent(row)?, size(row, 2)?))).await?;
        Ok(page.page(|agent| agent.name.to_string()))
    }

    /// The earliest of each runtime, merged.
    pub(super) async fn due(&self, query: &DueQuery) -> Result<Vec<Due>, sqlx::Error> {
        let before = micros(query.before.unwrap_or_else(|| self.clock.now()));
        let due = |row: &SqliteRow| {
            Ok(Due { agent: row.try_get::<&str, _>(0)?.parse().map_err(broken)?, at: time(row.try_get(1)?)? })
        };
        let mut all = Vec::new();
        for runtime in &query.runtimes {
            let select = sqlx::query(sql::DUE).bind(runtime.to_string()).bind(before).bind(int(query.limit as u64));
            all.extend(self.all(select, due).await?);
        }
        all.sort_by_key(|due| (due.at, due.agent));
        all.truncate(query.limit);
        Ok(all)
    }

    pub(super) async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, sqlx::Error> {
        let select = sqlx::query(sql::MESSAGE).bind(id.to_string()).bind(agent.to_string());
        self.one(select, |row| doc(row, 0)).await
    }

    pub(super) async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, sqlx::Error> {
        let (statement, default) = match (query.open, query.newest_first) {
            (false, false) => (sql::MESSAGES_UP, 0),
            (false, true) => (sql::MESSAGES_DOWN, i64::MAX),
            (true, false) => (sql::OPEN_UP, 0),
            (true, true) => (sql::OPEN_DOWN, i64::MAX),
        };
        let after = query.after.map_or(default, int);
        let select = sqlx::query(statement).bind(query.agent.to_string()).bind(after);
        self.page(select, query.limit, |message: &Message| message.seq.to_string()).await
    }

    pub(super) async fn steps(&self, query: &StepQuery) -> Result<Page<Step>, sqlx::Error> {
        let statement = if query.message.is_some() { sql::STEPS_OF_MESSAGE } else { sql::STEPS };
        let mut select = sqlx::query(statement).bind(query.agent.to_string());
        if let Some(message) = query.message {
            select = select.bind(message.to_string());
        }
        let select = select.bind(int(query.after));
        self.page(select, query.limit, |step: &Step| step.seq.to_string()).await
    }

    pub(super) async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, sqlx::Error> {
        self.one(sqlx::query(sql::COMPUTER).bind(id.to_string()), |row| doc(row, 0)).await
    }

    pub(super) async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, sqlx::Error> {
        let statement = if query.reclaim { sql::COMPUTERS_TO_RECLAIM } else { sql::COMPUTERS };
        let after = query.after.map(|after| after.to_string()).unwrap_or_default();
        let select = sqlx::query(statement).bind(query.runtime.to_string()).bind(after);
        self.page(select, query.limit, |computer: &Computer| computer.id().to_string()).await
    }

    pub(super) async fn record(&self, key: &RecordKey) -> Result<Option<Record>, sqlx::Error> {
        let select = sqlx::query(sql::RECORD)
            .bind(key.kind.as_str())
            .bind(tenant_key(key.tenant.as_ref()))
            .bind(key.name.clone())
            .bind(micros(self.clock.now()));
        self.one(select, record).await
    }

    pub(super) async fn records(
        &self,
        kind: RecordKind,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Record>, sqlx::Error> {
        let select =
            sqlx::query(sql::RECORDS).bind(kind.as_str()).bind(tenant_key(tenant)).bind(micros(self.clock.now()));
        self.all(select, record).await
    }

    pub(super) async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, sqlx::Error> {
        let kind = super::convert::quota_word(kind)?;
        let select = sqlx::query(sql::USAGE).bind(tenant.to_string()).bind(kind);
        Ok(self.one(select, |row| count(row, 0)).await?.unwrap_or(0))
    }

    pub(super) async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, sqlx::Error> {
        let after = number(query.after.as_deref());
        let select = match &query.tenant {
            Some(tenant) => sqlx::query(sql::AUDIT_OF_TENANT).bind(tenant.to_string()).bind(after),
            None => sqlx::query(sql::AUDIT).bind(after),
        };
        let row = |row: &SqliteRow| Ok(((row.try_get::<i64, _>(0)?, doc::<AuditRow>(row, 1)?), size(row, 1)?));
        let Page { items, next } = self.rows(select, query.limit, row).await?.page(|(seq, _)| seq.to_string());
        Ok(Page { items: items.into_iter().map(|(_, row)| row).collect(), next })
    }

    /// The last revision, as the database has it.
    pub(super) async fn head(&self) -> Result<Revision, sqlx::Error> {
        let row = sqlx::query(sql::HEAD).fetch_one(&self.readers).await?;
        Ok(Revision(count(&row, 0)?))
    }

    pub(super) async fn leases(&self, prefix: &str) -> Result<Vec<Lease>, sqlx::Error> {
        // No text begins with a prefix and stands after the prefix with the last character behind it.
        let end = format!("{prefix}{}", char::MAX);
        let select = sqlx::query(sql::LEASES).bind(prefix.to_owned()).bind(end).bind(micros(self.clock.now()));
        self.all(select, lease).await
    }
}
