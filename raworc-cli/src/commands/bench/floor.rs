//! The floor: a durable insert of one row, as long as a message, into a database of its own on the same disk.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::Instant;

use super::figures::Times;

const SINGLE: usize = 1000;
const BATCHES: usize = 200;
const BATCH: usize = 64;

/// What one round of the floor took.
#[derive(Debug)]
pub(super) struct Base {
    /// One row a transaction.
    pub(super) single: Times,
    /// Rows a second, 64 a transaction.
    pub(super) batched_rate: f64,
}

#[derive(Debug)]
pub(super) struct Floor(SqliteConnection);

impl Floor {
    pub(super) async fn open(dir: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("floor.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let mut conn = SqliteConnection::connect_with(&options).await?;
        sqlx::query("CREATE TABLE floor (id INTEGER PRIMARY KEY, doc TEXT NOT NULL)").execute(&mut conn).await?;
        Ok(Self(conn))
    }

    pub(super) async fn measure(&mut self) -> anyhow::Result<Base> {
        let mut times = Vec::with_capacity(SINGLE);
        for _ in 0..SINGLE {
            let began = Instant::now();
            self.insert().await?;
            times.push(began.elapsed());
        }
        let began = Instant::now();
        for _ in 0..BATCHES {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.0).await?;
            for _ in 0..BATCH {
                self.insert().await?;
            }
            sqlx::query("COMMIT").execute(&mut self.0).await?;
        }
        let batched_rate = (BATCH * BATCHES) as f64 / began.elapsed().as_secs_f64();
        Ok(Base { single: Times::new(times), batched_rate })
    }

    async fn insert(&mut self) -> anyhow::Result<()> {
        // With its ids and times, a message's document is about five times its text.
        sqlx::query("INSERT INTO floor (doc) VALUES (?)").bind(super::TEXT.repeat(5)).execute(&mut self.0).await?;
        Ok(())
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.0.close().await?)
    }
}
