//! Where the database lies and how it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use raworc_core::entropy::{Clock, SystemClock};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// How a [`SqliteStore`](super::SqliteStore) is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// The directory that holds the database, its lock and nothing of others. It is made if it is not there.
    pub directory: PathBuf,
    /// The store's time.
    pub clock: Arc<dyn Clock>,
    /// Commits that one transaction holds at most; 256 unless set.
    pub batch: usize,
    /// Whether leases that are there are void when the store is opened.
    pub void_leases: bool,
    /// Writes that wait at most before callers have to; 1,024 unless set. What has waited for 15 s when its turn comes, and
    /// texts of which 64 MiB wait already, are refused for now.
    pub queue: usize,
    /// Connections for reading; 3 unless set.
    pub readers: u32,
    /// Events that the log keeps by their number: those before them go however young they are, and those that are older than
    /// they are to be kept go before. 1,000,000 unless set.
    pub keep_events: u64,
    /// For how long a commit that is sent again is recognised at least; 10 minutes unless set.
    pub keep_commits: Duration,
    /// Bytes that the database takes at most; as many as the disk has unless set.
    pub max_size: Option<u64>,
}

impl SqliteOptions {
    /// A store in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            clock: Arc::new(SystemClock),
            batch: 256,
            void_leases: false,
            queue: 1024,
            readers: 3,
            keep_events: 1_000_000,
            keep_commits: Duration::from_mins(10),
            max_size: None,
        }
    }

    /// Without the leases that are there: the directory is one process's alone, and if that process ends before it closes
    /// the store, whoever held one is gone and need not be waited for.
    #[must_use]
    pub const fn without_leases(mut self) -> Self {
        self.void_leases = true;
        self
    }

    /// With this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// With so many commits in one transaction at most.
    #[must_use]
    pub const fn with_batch(mut self, commits: usize) -> Self {
        self.batch = commits;
        self
    }

    /// With a log that keeps so many events by their number.
    #[must_use]
    pub const fn with_keep_events(mut self, events: u64) -> Self {
        self.keep_events = events;
        self
    }

    /// With a database of so many bytes at most.
    #[must_use]
    pub const fn with_max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// The database's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.directory.join("raworc.db")
    }

    /// The database, as people are told of it.
    pub(super) fn place(&self) -> String {
        self.database().display().to_string()
    }

    pub(super) fn writer(&self) -> SqliteConnectOptions {
        let options = self
            .common()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", "67108864")
            // Done beside the writer.
            .pragma("wal_autocheckpoint", "0")
            .pragma("cache_size", "-8192")
            .thread_name(|_| "sqlite-writer".into());
        match self.max_size {
            Some(bytes) => options.pragma("max_page_count", (bytes / PAGE).max(1).to_string()),
            None => options,
        }
    }

    pub(super) fn checkpointer(&self) -> SqliteConnectOptions {
        self.common().synchronous(SqliteSynchronous::Full).thread_name(|_| "sqlite-checkpoint".into())
    }

    pub(super) fn reader(&self) -> SqliteConnectOptions {
        self.common().read_only(true).thread_name(|n| format!("sqlite-reader-{n}"))
    }

    /// For what is asked where nothing is: a database that nobody keeps.
    pub(super) fn nothing() -> SqliteConnectOptions {
        SqliteConnectOptions::new().in_memory(true).disable_statement_logging()
    }

    fn common(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.database())
            .foreign_keys(false)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(256)
            .pragma("temp_store", "memory")
            .disable_statement_logging()
    }
}

/// SQLite's page size, unless a database was made with another.
const PAGE: u64 = 4096;
