//! Reads, each one statement on a connection of the pool.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use raworc_core::agent::Agent;
use raworc_core::computer::Computer;
use raworc_core::ids::{AgentId, AgentName, ComputerId, MessageId, Revision, TenantName};
use raworc_core::message::Message;
use raworc_core::step::Step as Taken;
use raworc_core::store::{
    AgentQuery, AuditQuery, AuditRow, ComputerQuery, Due, DueQuery, Lease, MessageQuery, Page, PageRows, QuotaKind,
    Record, RecordKey, RecordKind, Stamped, StepQuery,
};
use serde::de::DeserializeOwned;
use sqlx::Connection;
use sqlx::pool::PoolConnection;

use super::Shared;
use super::batch::Head;
use super::convert::{
    agent, broken, count, doc, int, lease, micros, number, quota_word, record, tenant_key, text, time,
};
use super::dialect::{Columns, Dialect};
use super::fault::FaultKind;
use super::script::{Cell, Script, Step};
use super::statements as sql;

/// Bytes of the document in column `at`.
fn size(row: &impl Columns, at: usize) -> Result<usize, sqlx::Error> {
    Ok(text(row, at)?.len())
}

pub(crate) fn plain<const N: usize>(statement: &'static str, cells: [Cell; N]) -> Step {
    Step::Plain(statement.into(), cells.into())
}

/// What a cursor says, for those that are numbers. A cursor that nobody gave out begins anew.
fn place(cursor: Option<&str>) -> i64 {
    cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0)
}

/// How long a read may take. A server that is gone without a word is not heard of for much longer.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(15);

/// How often a transaction is tried that others are in the way of.
const ATTEMPTS: usize = 3;

/// The outcome of a read, where it comes in time.
pub(crate) async fn within<T>(read: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", READ_LIMIT.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason)))
    })
}

/// A connection that goes back to the pool once what was asked is answered. One whose answer nobody waits for any more is
/// closed: the pool would wait for it, and nobody else could have its place.
pub(crate) struct Reader<D: Dialect>(Option<PoolConnection<D::Db>>);

impl<D: Dialect> Reader<D> {
    pub(crate) fn get(&mut self) -> Result<&mut D::Connection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    pub(crate) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl<D: Dialect> Drop for Reader<D> {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.0 {
            conn.close_on_drop();
        }
    }
}

impl<D: Dialect> Shared<D> {
    /// A connection, which may have been lost since it answered last.
    async fn reader(&self) -> Result<Reader<D>, sqlx::Error> {
        Ok(Reader(Some(self.readers.acquire().await?)))
    }

    /// A connection that answers, for what is not asked again.
    pub(crate) async fn answering(&self) -> Result<Reader<D>, sqlx::Error> {
        // All that the pool has may be lost.
        for _ in 0..self.readers.options().get_max_connections() {
            let mut conn = self.reader().await?;
            // One to a file is there.
            if !D::BESIDE || within(conn.get()?.ping()).await.is_ok() {
                return Ok(conn);
            }
        }
        self.reader().await
    }

    /// Does once more what others were in the way of, a few times. It has to be a transaction of its own that may be made again.
    pub(crate) async fn insist<F>(&self, once: impl Fn() -> F) -> Result<(), sqlx::Error>
    where
        F: Future<Output = Result<(), sqlx::Error>>,
    {
        for _ in 1..ATTEMPTS {
            match once().await {
                Err(error) if D::fault(&error, &self.place).kind == FaultKind::Contended => {
                    tracing::debug!(%error, place = %self.place, "tried again");
                }
                done => return done,
            }
        }
        once().await
    }

    /// Runs statements that only read. Where the connection turns out to be lost, they go over another one: after a restart of
    /// the database all of them are, which is found out by using them.
    pub(crate) async fn run(&self, script: Script) -> Result<Vec<D::Row>, sqlx::Error> {
        let mut conn = self.reader().await?;
        within(async {
            let rows = match self.run_on(conn.get()?, script.clone()).await {
                Err(error) if self.may_be_lost(&error) => {
                    tracing::debug!(%error, place = %self.place, "read again over another connection");
                    // It has a place in the pool that another one may need.
                    drop(conn);
                    conn = self.answering().await?;
                    self.run_on(conn.get()?, script).await?
                }
                rows => rows?,
            };
            conn.give_back();
            Ok(rows)
        })
        .await
    }

    /// Whether another connection may answer, at once.
    pub(crate) fn may_be_lost(&self, error: &sqlx::Error) -> bool {
        let is_late = matches!(error, sqlx::Error::Io(io) if io.kind() == io::ErrorKind::TimedOut);
        !is_late && D::fault(error, &self.place).kind == FaultKind::Unavailable
    }

    /// The same on a connection of one's own.
    pub(crate) async fn run_on(&self, conn: &mut D::Connection, script: Script) -> Result<Vec<D::Row>, sqlx::Error> {
        if !self.pooled {
            return D::run(conn, script).await;
        }
        let mut transaction = conn.begin().await?;
        let rows = D::run(&mut transaction, script).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    pub(crate) async fn all<T>(
        &self,
        step: Step,
        convert: impl Fn(&D::Row) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, sqlx::Error> {
        self.run(Script(vec![step])).await?.iter().map(convert).collect()
    }

    async fn one<T>(
        &self,
        step: Step,
        convert: impl Fn(&D::Row) -> Result<T, sqlx::Error>,
    ) -> Result<Option<T>, sqlx::Error> {
        Ok(self.all(step, convert).await?.into_iter().next())
    }

    /// A page of what `convert` makes of rows, each with the bytes of its document. SQLite reads nothing of what stands after
    /// the end of the page; a server sends it all the same, within the number of rows that was asked for.
    pub(crate) async fn rows<T>(
        &self,
        step: Step,
        mut page: PageRows<T>,
        convert: impl Fn(&D::Row) -> Result<(T, usize), sqlx::Error>,
    ) -> Result<PageRows<T>, sqlx::Error> {
        let mut conn = self.answering().await?;
        let read = async |conn: &mut D::Connection| {
            let mut rows = D::stream(conn, step);
            while let Some(row) = rows.try_next().await? {
                let (row, bytes) = convert(&row)?;
                if !page.take(row, bytes) {
                    break;
                }
            }
            Ok(page)
        };
        let read = async {
            if !self.pooled {
                return read(conn.get()?).await;
            }
            let mut transaction = conn.get()?.begin().await?;
            let page = read(&mut transaction).await?;
            transaction.commit().await?;
            Ok(page)
        };
        let page = within(read).await?;
        conn.give_back();
        Ok(page)
    }

    /// A page of the documents that a statement gives, to which the number of rows is bound last.
    async fn page<T: DeserializeOwned, const N: usize>(
        &self,
        statement: &'static str,
        cells: [Cell; N],
        asked: usize,
        cursor: impl Fn(&T) -> String,
    ) -> Result<Page<T>, sqlx::Error> {
        let page = PageRows::new(asked);
        let cells = cells.into_iter().chain([int(page.wanted() as u64).into()]).collect();
        let step = Step::Plain(statement.into(), cells);
        Ok(self.rows(step, page, |row| Ok((doc(row, 0)?, size(row, 0)?))).await?.page(cursor))
    }

    /// What a row shows, with the time that the database gave along with it.
    fn told(&self, row: &impl Columns, at: usize) -> Result<Timestamp, sqlx::Error> {
        // Both: the database's may have been set back, which rows are not stamped by for a while.
        let now = self.time.now();
        row.int(at)?.map_or(Ok(now), |told| Ok(time(told)?.max(now)))
    }

    /// A value with the store's time, which is taken after the rows, so that it is not before theirs.
    fn stamp<T: Default>(&self, found: Option<(T, Timestamp)>) -> Stamped<T> {
        let (value, now) = found.unwrap_or_else(|| (T::default(), self.time.now()));
        Stamped { value, now }
    }

    pub(crate) async fn agent(
        &self,
        tenant: &TenantName,
        name: &AgentName,
    ) -> Result<Stamped<Option<Agent>>, sqlx::Error> {
        if let Some(recent) = self.recent.by_name(tenant, name) {
            return Ok(Stamped { value: Some(recent), now: self.time.now() });
        }
        self.one_agent(plain(sql::AGENT, [tenant.to_string().into(), name.to_string().into()])).await
    }

    pub(crate) async fn agent_by_id(&self, id: AgentId) -> Result<Stamped<Option<Agent>>, sqlx::Error> {
        if let Some(recent) = self.recent.by_id(id) {
            return Ok(Stamped { value: Some(recent), now: self.time.now() });
        }
        self.one_agent(plain(sql::AGENT_BY_ID, [id.to_string().into()])).await
    }

    async fn one_agent(&self, step: Step) -> Result<Stamped<Option<Agent>>, sqlx::Error> {
        let found = self.one(step, |row| Ok((Some(agent(row, 0)?), self.told(row, 3)?))).await?;
        Ok(self.stamp(found))
    }

    pub(crate) async fn agents(&self, query: &AgentQuery) -> Result<Page<Agent>, sqlx::Error> {
        let page = PageRows::new(query.limit);
        let step = sql::agents(query, int(page.wanted() as u64));
        let page = self.rows(step, page, |row| Ok((agent(row, 0)?, size(row, 2)?))).await?;
        Ok(page.page(|agent| agent.name.to_string()))
    }

    /// The earliest of each runtime, merged.
    pub(crate) async fn due(&self, query: &DueQuery) -> Result<Stamped<Vec<Due>>, sqlx::Error> {
        let now = self.time.now();
        let before = micros(query.before.unwrap_or(now));
        let due = |row: &D::Row| Ok(Due { agent: text(row, 0)?.parse().map_err(broken)?, at: time(number(row, 1)?)? });
        let mut all = Vec::new();
        for runtime in &query.runtimes {
            let cells = [runtime.to_string().into(), before.into(), int(query.limit as u64).into()];
            all.extend(self.all(plain(sql::DUE, cells), due).await?);
        }
        all.sort_by_key(|due| (due.at, due.agent));
        all.truncate(query.limit);
        Ok(Stamped { value: all, now: now.max(self.time.now()) })
    }

    pub(crate) async fn message(&self, agent: AgentId, id: MessageId) -> Result<Option<Message>, sqlx::Error> {
        self.one(plain(sql::MESSAGE, [id.to_string().into(), agent.to_string().into()]), |row| doc(row, 0)).await
    }

    pub(crate) async fn messages(&self, query: &MessageQuery) -> Result<Page<Message>, sqlx::Error> {
        let (statement, default) = match (query.open, query.newest_first) {
            (false, false) => (sql::MESSAGES_UP, 0),
            (false, true) => (sql::MESSAGES_DOWN, i64::MAX),
            (true, false) => (sql::OPEN_UP, 0),
            (true, true) => (sql::OPEN_DOWN, i64::MAX),
        };
        let cells = [query.agent.to_string().into(), query.after.map_or(default, int).into()];
        self.page(statement, cells, query.limit, |message: &Message| message.seq.to_string()).await
    }

    pub(crate) async fn steps(&self, query: &StepQuery) -> Result<Page<Taken>, sqlx::Error> {
        let cursor = |step: &Taken| step.seq.to_string();
        let (agent, after) = (query.agent.to_string().into(), int(query.after).into());
        match query.message {
            Some(message) => {
                let cells = [agent, message.to_string().into(), after];
                self.page(sql::STEPS_OF_MESSAGE, cells, query.limit, cursor).await
            }
            None => self.page(sql::STEPS, [agent, after], query.limit, cursor).await,
        }
    }

    pub(crate) async fn computer(&self, id: ComputerId) -> Result<Option<Computer>, sqlx::Error> {
        self.one(plain(sql::COMPUTER, [id.to_string().into()]), |row| doc(row, 0)).await
    }

    pub(crate) async fn computers(&self, query: &ComputerQuery) -> Result<Page<Computer>, sqlx::Error> {
        let statement = if query.reclaim { sql::COMPUTERS_TO_RECLAIM } else { sql::COMPUTERS };
        let after = query.after.map(|after| after.to_string()).unwrap_or_default();
        let cells = [query.runtime.to_string().into(), after.into()];
        self.page(statement, cells, query.limit, |computer: &Computer| computer.id().to_string()).await
    }

    pub(crate) async fn record(&self, key: &RecordKey) -> Result<Option<Record>, sqlx::Error> {
        let (kind, tenant) = (key.kind.as_str().into(), tenant_key(key.tenant.as_ref()).into());
        let cells = [kind, tenant, key.name.clone().into(), micros(self.time.now()).into()];
        self.one(plain(sql::RECORD, cells), record).await
    }

    pub(crate) async fn records(
        &self,
        kind: RecordKind,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Record>, sqlx::Error> {
        let cells = [kind.as_str().into(), tenant_key(tenant).into(), micros(self.time.now()).into()];
        self.all(plain(sql::RECORDS, cells), record).await
    }

    pub(crate) async fn usage(&self, tenant: &TenantName, kind: QuotaKind) -> Result<u64, sqlx::Error> {
        let step = plain(sql::USAGE, [tenant.to_string().into(), quota_word(kind)?.into()]);
        Ok(self.one(step, |row| count(row, 0)).await?.unwrap_or(0))
    }

    pub(crate) async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditRow>, sqlx::Error> {
        let page = PageRows::new(query.limit);
        let (after, rows) = (place(query.after.as_deref()).into(), int(page.wanted() as u64).into());
        let step = match &query.tenant {
            Some(tenant) => plain(sql::AUDIT_OF_TENANT, [tenant.to_string().into(), after, rows]),
            None => plain(sql::AUDIT, [after, rows]),
        };
        let row = |row: &D::Row| Ok(((number(row, 0)?, doc::<AuditRow>(row, 1)?), size(row, 1)?));
        let Page { items, next } = self.rows(step, page, row).await?.page(|(seq, _)| seq.to_string());
        Ok(Page { items: items.into_iter().map(|(_, row)| row).collect(), next })
    }

    /// The head, as the database has it.
    pub(crate) async fn head(&self) -> Result<Stamped<Head>, sqlx::Error> {
        let rows = self.run(Script(vec![plain(sql::HEAD, [])])).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Stamped { value: Head::of(row)?, now: self.told(row, 3)? })
    }

    pub(crate) async fn leases(&self, prefix: &str) -> Result<Stamped<Vec<Lease>>, sqlx::Error> {
        // No text begins with a prefix and stands after the prefix with the last character behind it.
        let end = format!("{prefix}{}", char::MAX);
        let step = plain(sql::LEASES, [prefix.into(), end.into(), micros(self.time.now()).into()]);
        let found = self.all(step, |row| Ok((lease(row)?, self.told(row, 5)?))).await?;
        let now = found.last().map_or_else(|| self.time.now(), |(_, now)| *now);
        Ok(Stamped { value: found.into_iter().map(|(lease, _)| lease).collect(), now })
    }

    /// Some rows of the log after a revision, with their tenant, agent and document.
    pub(crate) async fn log(&self, since: Revision, most: usize) -> Result<Vec<D::Row>, sqlx::Error> {
        self.run(log(since, most)).await
    }
}

/// Asks for what [`Shared::log`] gives.
pub(crate) fn log(since: Revision, most: usize) -> Script {
    Script(vec![plain(sql::LOG, [int(since.0).into(), int(most as u64).into()])])
}
