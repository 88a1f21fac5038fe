//! The floor: a durable insert of one row, as long as a message, into a database of its own, on the same disk or the same
//! server as ours.

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

/// One connection, with a table of its own.
#[derive(Debug)]
pub(super) enum Floor {
    Sqlite(SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(sqlx::MySqlConnection),
}

/// Does the same with whichever connection it is.
macro_rules! with {
    ($floor:expr, $conn:ident => $work:expr) => {
        match $floor {
            Floor::Sqlite($conn) => $work,
            #[cfg(feature = "postgres")]
            Floor::Postgres($conn) => $work,
            #[cfg(feature = "mysql")]
            Floor::Mysql($conn) => $work,
        }
    };
}

impl Floor {
    /// In a file of this directory, as durable as ours is.
    pub(super) async fn in_file(dir: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(dir.join("floor.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        Self::Sqlite(SqliteConnection::connect_with(&options).await?).prepared().await
    }

    /// In an empty database of a server, as durable as that makes what is committed.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) async fn at_server(url: &str) -> anyhow::Result<Self> {
        use std::str::FromStr;

        let floor = match url.split_once("://") {
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => {
                let options = sqlx::postgres::PgConnectOptions::from_str(url)?.disable_statement_logging();
                Self::Postgres(options.connect().await?)
            }
            #[cfg(feature = "mysql")]
            Some(("mysql" | "mariadb", _)) => {
                let options = sqlx::mysql::MySqlConnectOptions::from_str(url)?.disable_statement_logging();
                Self::Mysql(options.connect().await?)
            }
            _ => anyhow::bail!("this raworc has no driver for a database at such an address"),
        };
        floor.prepared().await
    }

    async fn prepared(mut self) -> anyhow::Result<Self> {
        let id = match &self {
            Self::Sqlite(_) => "INTEGER PRIMARY KEY",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => "BIGINT AUTO_INCREMENT PRIMARY KEY",
        };
        self.run(format!("CREATE TABLE floor (id {id}, doc TEXT NOT NULL)")).await?;
        Ok(self)
    }

    pub(super) async fn measure(&mut self) -> anyhow::Result<Base> {
        let mut times = Vec::with_capacity(SINGLE);
        for _ in 0..SINGLE {
            let began = Instant::now();
            self.insert().await?;
            times.push(began.elapsed());
        }
        let begin = match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => "BEGIN",
        };
        let began = Instant::now();
        for _ in 0..BATCHES {
            self.run(begin).await?;
            for _ in 0..BATCH {
                self.insert().await?;
            }
            self.run("COMMIT").await?;
        }
        let batched_rate = (BATCH * BATCHES) as f64 / began.elapsed().as_secs_f64();
        Ok(Base { single: Times::new(times), batched_rate })
    }

    /// Rows a second, 64 in one statement.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) async fn measure_at_once(&mut self) -> anyhow::Result<f64> {
        let rows: Vec<_> = match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => (1..=BATCH).map(|n| format!("(${n})")).collect(),
            _ => vec!["(?)".to_owned(); BATCH],
        };
        let text = format!("INSERT INTO floor (doc) VALUES {}", rows.join(","));
        let doc = super::TEXT.repeat(5);
        let began = Instant::now();
        for _ in 0..BATCHES {
            let text = sqlx::AssertSqlSafe(text.clone());
            with!(self, conn => {
                let query = (0..BATCH).fold(sqlx::query(text), |query, _| query.bind(&doc));
                query.execute(conn).await.map(drop)
            })?;
        }
        Ok((BATCH * BATCHES) as f64 / began.elapsed().as_secs_f64())
    }

    async fn insert(&mut self) -> anyhow::Result<()> {
        let text = match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "INSERT INTO floor (doc) VALUES ($1)",
            _ => "INSERT INTO floor (doc) VALUES (?)",
        };
        // With its ids and times, a message's document is about five times its text.
        let doc = super::TEXT.repeat(5);
        with!(self, conn => sqlx::query(text).bind(doc).execute(conn).await.map(drop))?;
        Ok(())
    }

    async fn run(&mut self, text: impl Into<String>) -> anyhow::Result<()> {
        let text = sqlx::raw_sql(sqlx::AssertSqlSafe(text.into()));
        with!(self, conn => text.execute(conn).await.map(drop))?;
        Ok(())
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        with!(self, conn => conn.close().await)?;
        Ok(())
    }
}
