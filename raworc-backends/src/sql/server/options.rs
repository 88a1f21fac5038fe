//! Where a database server is, and how it is used.

use std::time::Duration;

/// How a store in a database server is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct DatabaseOptions {
    /// The database, such as `postgres://user@host:5432/raworc` or `mysql://user@host:3306/raworc`. What the driver
    /// documents may follow after a `?`, such as `sslmode=verify-full`.
    pub url: String,
    /// The password, whatever the address holds.
    pub password: Option<String>,
    /// Connections for reading; 8 unless set. One more writes, one follows the log, and on Postgres one listens.
    pub connections: u32,
    /// Commits that one transaction holds at most; 256 unless set.
    pub batch: usize,
    /// Writes that wait at most before callers have to; 1,024 unless set. What has waited for 15 s when its turn comes, and
    /// texts of which 64 MiB wait already, are refused for now.
    pub queue: usize,
    /// Events that the log keeps by their number: those before them go however young they are, and those that are older than
    /// they are to be kept go before. 1,000,000 unless set.
    pub keep_events: u64,
    /// For how long a commit that is sent again is recognised at least; 10 minutes unless set.
    pub keep_commits: Duration,
}

impl DatabaseOptions {
    /// A store in this database.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: None,
            connections: 8,
            batch: 256,
            queue: 1024,
            keep_events: 1_000_000,
            keep_commits: Duration::from_mins(10),
        }
    }

    /// With this password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// With a log that keeps so many events by their number.
    #[must_use]
    pub const fn with_keep_events(mut self, events: u64) -> Self {
        self.keep_events = events;
        self
    }

    /// With so many connections for reading.
    #[must_use]
    pub const fn with_connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }
}

/// Without what is secret: the address may hold a password.
impl std::fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}
