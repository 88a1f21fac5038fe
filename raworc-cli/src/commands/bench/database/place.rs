//! Databases of the bench's own on somebody's server.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::exit::{Exit, Failure};

/// A server, and what was made there.
pub(super) struct Place {
    address: String,
    kind: Kind,
    port: u16,
    prefix: String,
    made: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "mysql")]
    Mysql,
}

impl Place {
    /// The server at an address that names a database there.
    pub(super) fn find(address: &str) -> anyhow::Result<Self> {
        let (kind, port) = match address.split_once("://") {
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => {
                (Kind::Postgres, sqlx::postgres::PgConnectOptions::from_str(address)?.get_port())
            }
            #[cfg(feature = "mysql")]
            Some(("mysql" | "mariadb", _)) => {
                (Kind::Mysql, sqlx::mysql::MySqlConnectOptions::from_str(address)?.get_port())
            }
            // What is no address may still hold a password.
            _ => {
                return Err(Failure::new(
                    Exit::Usage,
                    "--database: it is no address of a database that this raworc has a driver for",
                )
                .hint("write postgres://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE")
                .into());
            }
        };
        let id: [u8; 8] = SystemEntropy.bytes();
        let prefix = format!("raworc_bench_{:016x}", u64::from_le_bytes(id));
        Ok(Self { address: address.to_owned(), kind, port, prefix, made: Vec::new() })
    }

    /// The server's port.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The longest that a process is not told of what others committed.
    pub(super) const fn poll(&self) -> Duration {
        match self.kind {
            #[cfg(feature = "postgres")]
            Kind::Postgres => Duration::ZERO,
            // As it is asked where nothing happens.
            #[cfg(feature = "mysql")]
            Kind::Mysql => Duration::from_millis(100),
        }
    }

    /// Which server it is, and how durable what it commits.
    pub(super) async fn described(&self) -> anyhow::Result<String> {
        let found = match self.kind {
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let mut conn = sqlx::postgres::PgConnectOptions::from_str(&self.address)?.connect().await?;
                let asked = "SELECT 'PostgreSQL ' || current_setting('server_version') || ': fsync=' || current_setting('fsync') \
                    || ', synchronous_commit=' || current_setting('synchronous_commit')";
                let found: String = sqlx::query_scalar(asked).fetch_one(&mut conn).await?;
                conn.close().await?;
                found
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql => {
                let mut conn = sqlx::mysql::MySqlConnectOptions::from_str(&self.address)?.connect().await?;
                let asked = "SELECT CONCAT(IF(VERSION() LIKE '%MariaDB%', '', 'MySQL '), VERSION(), \
                    ': innodb_flush_log_at_trx_commit=', @@innodb_flush_log_at_trx_commit, \
                    ', log_bin=', @@log_bin, ', sync_binlog=', @@sync_binlog)";
                let found: String = sqlx::query_scalar(asked).fetch_one(&mut conn).await?;
                conn.close().await?;
                found
            }
        };
        Ok(found)
    }

    /// Makes an empty database, and gives its address.
    pub(super) async fn database(&mut self, what: &str) -> anyhow::Result<String> {
        let name = format!("{}_{what}", self.prefix);
        let address = beside(&self.address, &name).context("the address names no database")?;
        // Noted before it is there: it is taken away also where this is interrupted.
        self.made.push(name.clone());
        self.run(format!("CREATE DATABASE {name}")).await.map_err(|error| {
            Failure::new(Exit::Failed, "no database can be made to measure in")
                .because(error)
                .hint("name a user by --database who may make databases, and a database that is there")
        })?;
        Ok(address)
    }

    /// Takes away what was made.
    pub(super) async fn remove(&mut self) -> anyhow::Result<()> {
        let mut removed = Ok(());
        while let Some(name) = self.made.pop() {
            let statement = match self.kind {
                #[cfg(feature = "postgres")]
                Kind::Postgres => format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                #[cfg(feature = "mysql")]
                Kind::Mysql => format!("DROP DATABASE IF EXISTS {name}"),
            };
            let done = self.run(statement).await;
            removed = removed.and(done.with_context(|| format!("the database {name} cannot be taken away again")));
        }
        removed
    }

    async fn run(&self, statement: String) -> anyhow::Result<()> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        match self.kind {
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let options = sqlx::postgres::PgConnectOptions::from_str(&self.address)?.disable_statement_logging();
                let mut conn = options.connect().await?;
                statement.execute(&mut conn).await?;
                conn.close().await?;
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql => {
                let options = sqlx::mysql::MySqlConnectOptions::from_str(&self.address)?.disable_statement_logging();
                let mut conn = options.connect().await?;
                statement.execute(&mut conn).await?;
                conn.close().await?;
            }
        }
        Ok(())
    }
}

/// The address of another database of the same server.
fn beside(address: &str, name: &str) -> Option<String> {
    let (place, options) = match address.split_once('?') {
        Some((place, options)) => (place, format!("?{options}")),
        None => (address, String::new()),
    };
    let (scheme, place) = place.split_once("://")?;
    let (host, _) = place.split_once('/')?;
    Some(format!("{scheme}://{host}/{name}{options}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_another_database_of_a_server_keeps_all_but_the_name() {
        let other = |address| beside(address, "other");
        assert_eq!(other("postgres://u:p@h:1/db").as_deref(), Some("postgres://u:p@h:1/other"));
        assert_eq!(other("mysql://u@h/db?ssl-ca=/etc/ca.pem").as_deref(), Some("mysql://u@h/other?ssl-ca=/etc/ca.pem"));
        assert_eq!(other("postgres://u@h"), None);
    }
}
