//! Databases for tests, each made for one and taken away after it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::str::FromStr;
use std::time::Duration;

use futures::FutureExt;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// The address of the server of this kind, `postgres`, `mariadb` or `mysql`.
///
/// # Errors
/// Says how to have one, where there is none.
pub(crate) fn server(kind: &str) -> Result<String, String> {
    let variable = format!("RAWORC_TEST_{}_URL", kind.to_uppercase());
    std::env::var(&variable).ok().filter(|url| !url.is_empty()).ok_or_else(|| {
        format!("{kind}: {variable} is not set; `scripts/database {kind} COMMAND` runs a command with it")
    })
}

/// An empty database.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    server: String,
    name: String,
    /// What its address ends with.
    parameters: &'static str,
}

impl Database {
    /// Runs `test` with databases of this server that are gone after it, also where it fails.
    pub(crate) async fn with<F: Future<Output = ()>>(server: &str, test: impl FnOnce(Self) -> F) {
        let id = SystemEntropy.commit_id(SystemClock.now()).to_string().replace('-', "");
        let database = Self { server: server.to_owned(), name: format!("raworc_test_{id}"), parameters: "" };
        database.at_server(format!("CREATE DATABASE {}", database.name)).await.expect("the user may make databases");
        let tested: Result<(), Box<dyn Any + Send>> = AssertUnwindSafe(test(database.clone())).catch_unwind().await;
        let force = if database.is_postgres() { " WITH (FORCE)" } else { "" };
        let drop = format!("DROP DATABASE {}{force}", database.name);
        let mut dropped = database.at_server(drop.clone()).await;
        // PostgreSQL may be cleaning it up by itself, which only a superuser may end.
        for _ in 0..100 {
            if dropped.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            dropped = database.at_server(drop.clone()).await;
        }
        if let Err(panic) = tested {
            resume_unwind(panic);
        }
        dropped.expect("the database goes");
    }

    /// The one at this address, which stays.
    #[allow(dead_code, reason = "not every test has a server of its own")]
    pub(crate) fn at(url: &str) -> Self {
        let (_, name) = url.rsplit_once('/').expect("the address names a database");
        Self { server: url.to_owned(), name: name.to_owned(), parameters: "" }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        let (host, _) = self.server.rsplit_once('/').expect("the address names a database");
        format!("{host}/{}{}", self.name, self.parameters)
    }

    /// Where its server listens.
    #[allow(dead_code, reason = "not every test has something stand between")]
    pub(crate) fn address(&self) -> String {
        let (_, rest) = self.server.rsplit_once('@').expect("the address names a user");
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    /// The same by way of what listens at another address.
    #[allow(dead_code, reason = "not every test has something stand between")]
    pub(crate) fn by_way_of(&self, address: &str, parameters: &'static str) -> Self {
        Self { server: self.server.replace(&self.address(), address), parameters, ..self.clone() }
    }

    /// Whether its server is PostgreSQL.
    pub(crate) fn is_postgres(&self) -> bool {
        self.server.starts_with("postgres")
    }

    /// Runs statements in it.
    ///
    /// # Errors
    /// As the database says.
    #[allow(dead_code, reason = "not every test that has a database asks it something")]
    pub(crate) async fn run(&self, statements: impl Into<String>) -> Result<(), sqlx::Error> {
        run(&self.url(), statements.into()).await
    }

    /// Ends all connections to it, on MySQL and MariaDB.
    ///
    /// # Errors
    /// As the server says.
    #[allow(dead_code, reason = "not every test that has a database cuts its connections")]
    pub(crate) async fn end_connections(&self) -> Result<(), sqlx::Error> {
        let mut conn = MySqlConnectOptions::from_str(&self.server)?.disable_statement_logging().connect().await?;
        let ids = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = ?";
        let ids: Vec<i64> = sqlx::query_scalar(ids).bind(&self.name).fetch_all(&mut conn).await?;
        for id in ids {
            // It may have ended by itself.
            drop(sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut conn).await);
        }
        conn.close().await
    }

    /// Runs statements elsewhere on its server.
    ///
    /// # Errors
    /// As the server says.
    pub(crate) async fn at_server(&self, statements: impl Into<String>) -> Result<(), sqlx::Error> {
        run(&self.server, statements.into()).await
    }
}

async fn run(url: &str, statements: String) -> Result<(), sqlx::Error> {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements));
    if url.starts_with("postgres") {
        // A pooler takes nothing else of a session.
        let to = PgConnectOptions::from_str(url)?.extra_float_digits(None);
        let mut conn = to.disable_statement_logging().connect().await?;
        statements.execute(&mut conn).await?;
        conn.close().await
    } else {
        let mut conn = MySqlConnectOptions::from_str(url)?.disable_statement_logging().connect().await?;
        statements.execute(&mut conn).await?;
        conn.close().await
    }
}
