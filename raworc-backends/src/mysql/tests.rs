//! What is tested of MySQL and MariaDB alone, and how.

use std::str::FromStr;

use raworc_core::store::{Store, StoreError};
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};
use tokio::sync::MutexGuard;

use super::Mysql;
use super::dialect::Packets;
use crate::sql::commits::create;
use crate::sql::dialect::Columns;
use crate::sql::script::{Cell, Step};
use crate::sql::server::DatabaseOptions;
use crate::sql::server::tests::apart::Secure;
use crate::sql::server::tests::database::Database;
use crate::sql::server::tests::own::Own;
use crate::sql::server::tests::{Plan, Tested, apart, failover};
use crate::sql::store::SqlStore;

mod mysql {
    crate::sql::server::tests::tests!(super::Mysql, "mysql");
    super::tests!("mysql");
}

mod mariadb {
    crate::sql::server::tests::tests!(super::Mysql, "mariadb");
    super::tests!("mariadb");
}

/// What is tested of these two alone, some of it with a server of its own.
macro_rules! tests {
    ($kind:literal: $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            crate::sql::server::tests::apart::on($kind, super::$name).await;
        }
    )+};
    ($kind:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn tables_whose_change_was_cut_short_are_finished_as_is_told() {
            let test = super::tables_whose_change_was_cut_short_are_finished_as_is_told;
            crate::sql::server::tests::on($kind, test).await;
        }

        super::tests!($kind:
            a_server_that_takes_smaller_packets_than_are_written_is_refused,
            who_reads_leaves_no_transaction_open_where_a_server_is_set_up_otherwise,
        );
    };
}
use tests;

async fn tables_whose_change_was_cut_short_are_finished_as_is_told(database: Database) {
    let open = async || SqlStore::<Mysql>::open(DatabaseOptions::new(database.url())).await;
    let store = open().await.expect("makes them");
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    store.close().await;
    // As they are where the last of its statements was not run.
    let cut = "DROP INDEX blobs_idle ON blobs; UPDATE _sqlx_migrations SET success = FALSE WHERE version = 2";
    database.run(cut).await.expect("is done");
    let error = open().await.expect_err("nobody knows what is there");
    let told = error.to_string();
    let note = "UPDATE _sqlx_migrations SET success = TRUE WHERE version = 2";
    assert!(matches!(error, StoreError::Unusable { .. }) && told.contains("schema 2 was cut short"), "{error:?}");
    assert!(told.contains("migrations/0002_*.sql") && told.contains(note), "{told}");
    database.run(format!("CREATE INDEX blobs_idle ON blobs (idle_since); {note}")).await.expect("is done");
    let store = open().await.expect("can be used");
    assert!(store.agent_by_id(agent).await.expect("answers").value.is_some(), "with all that was there");
    store.close().await;
}

async fn a_server_that_takes_smaller_packets_than_are_written_is_refused(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    Database::with(own.server.url(), async |database| {
        let opened_with = async |bytes: &str| {
            database.at_server(format!("SET GLOBAL max_allowed_packet = {bytes}")).await.expect("the user may set it");
            let opened = SqlStore::<Mysql>::open(DatabaseOptions::new(database.url())).await;
            database.at_server("SET GLOBAL max_allowed_packet = DEFAULT").await.expect("and takes it back");
            opened
        };
        let error = opened_with("16776192").await.expect_err("is refused");
        let told = error.to_string();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        for part in ["max_allowed_packet", "16776192", "16777216"] {
            assert!(told.contains(part), "{told}");
        }
        opened_with("16777216").await.expect("will do").close().await;
    })
    .await;
}

async fn who_reads_leaves_no_transaction_open_where_a_server_is_set_up_otherwise(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    Database::with(own.server.url(), async |database| {
        database.at_server(Mysql::OTHERWISE.0).await.expect("the user may set it up");
        let store = SqlStore::<Mysql>::open(DatabaseOptions::new(database.url())).await.expect("can be used");
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");
        store.agent_by_id(agent).await.expect("answers").value.expect("is there");
        // What follows the log reads now and then.
        let open = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.innodb_trx \
            WHERE trx_mysql_thread_id <> CONNECTION_ID()";
        failover::until("nobody has a transaction open", || async {
            let rows = rows(&own.server, open).await?;
            Ok(rows.first().is_some_and(|row| row.int(0).is_ok_and(|open| open == Some(0))))
        })
        .await;
        store.close().await;
        database.at_server(Mysql::OTHERWISE.1).await.expect("and takes it back");
    })
    .await;
}

impl Tested for Mysql {
    async fn plan(conn: &mut MySqlConnection, step: Step) -> Result<Plan, sqlx::Error> {
        let statement = Packets::one(as_written(step));
        // MySQL has another form unless it is asked for this one, and MariaDB no other.
        let ask = format!("EXPLAIN FORMAT=TRADITIONAL {statement}");
        let rows = match sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *conn).await {
            Err(_) => sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {statement}"))).fetch_all(conn).await?,
            rows => rows?,
        };
        let mut plan = Plan::default();
        for row in &rows {
            let column = |name| row.try_get_unchecked::<Option<String>, _>(name).map(Option::unwrap_or_default);
            let (table, how, extra) = (column("table")?, column("type")?, column("Extra")?);
            // Keys that are bound, and what was made of them, are to be read whole.
            let bound = table.is_empty() || table == "k" || table.starts_with('<');
            if (how == "ALL" || how == "index") && !bound || extra.contains("filesort") {
                plan.faults.push(format!("{table}: {how} {extra}"));
            }
            plan.indexes.extend(Some(column("key")?).filter(|key| !key.is_empty()));
        }
        Ok(plan)
    }

    fn analyze(tables: &[&str]) -> String {
        format!("ANALYZE TABLE {}", tables.join(", "))
    }

    async fn cut(database: &Database) -> Result<(), sqlx::Error> {
        database.end_connections().await
    }

    const TLS: apart::Words = apart::Words {
        none: "?ssl-mode=DISABLED",
        encrypted: "ssl-mode=REQUIRED",
        signed: "ssl-mode=VERIFY_CA",
        named: "ssl-mode=VERIFY_IDENTITY",
        authority: "ssl-ca",
        own: ["ssl-cert", "ssl-key"],
    };
    const COMMITS: &'static [u8] = b"COMMIT; SET SESSION";
    /// Whoever has changed less is ended.
    const SPARED: &'static str = "INSERT INTO of_others WITH RECURSIVE some AS \
        (SELECT 1 AS n UNION ALL SELECT n + 1 FROM some WHERE n < 500) SELECT n FROM some";
    const OTHERWISE: (&'static str, &'static str) = (
        "SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'; \
            SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET GLOBAL time_zone = '+09:00'; SET GLOBAL autocommit = 0",
        "SET GLOBAL sql_mode = DEFAULT; SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
            SET GLOBAL time_zone = DEFAULT; SET GLOBAL autocommit = DEFAULT",
    );
    const AGENTS_LOCKED: (&'static str, &'static str) = ("LOCK TABLES agents WRITE", "UNLOCK TABLES");

    const TWENTY_SECONDS: &'static str = "DO SLEEP(20)";
    const LIMITS: (&'static str, &'static str) = (
        "/*M! SET GLOBAL max_statement_time = 1, GLOBAL idle_transaction_timeout = 1, \
            GLOBAL idle_readonly_transaction_timeout = 1, GLOBAL idle_write_transaction_timeout = 1 */ \
            /*!80000 SET GLOBAL max_execution_time = 1000 */",
        "/*M! SET GLOBAL max_statement_time = DEFAULT, GLOBAL idle_transaction_timeout = DEFAULT, \
            GLOBAL idle_readonly_transaction_timeout = DEFAULT, GLOBAL idle_write_transaction_timeout = DEFAULT */ \
            /*!80000 SET GLOBAL max_execution_time = DEFAULT */",
    );
    const LIMITS_LEFT: &'static str = "SELECT CAST(0 /*M! + (@@max_statement_time > 0) + (@@idle_transaction_timeout > 0) \
        + (@@idle_readonly_transaction_timeout > 0) + (@@idle_write_transaction_timeout > 0) */ \
        /*!80000 + (@@max_execution_time > 0) */ AS SIGNED)";
    const TWO_SECONDS: &'static str = "SELECT CAST(SLEEP(2) AS SIGNED)";

    async fn is_encrypted(conn: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
        let row = sqlx::raw_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_one(conn).await?;
        Ok(row.text(1)?.is_some_and(|cipher| !cipher.is_empty()))
    }

    async fn url_of_a_plain_user(database: &Database) -> Result<String, sqlx::Error> {
        user(database, "plain", "").await
    }

    async fn url_of_a_certified_user(database: &Database) -> Result<String, sqlx::Error> {
        user(database, "certified", "REQUIRE X509").await
    }

    async fn read_only(database: &Database, is: bool) -> Result<(), sqlx::Error> {
        database.at_server(format!("SET GLOBAL read_only = {is}")).await
    }

    async fn standby(kind: &'static str, primary: &Own) -> Own {
        let start = move || Own::start(kind, &["--followed"]);
        let standby = tokio::task::spawn_blocking(start).await.expect("it comes up");
        let (user, at) = primary.url().split_once('@').expect("an address");
        let password = user.rsplit(':').next().expect("a password");
        let port = at.split([':', '/']).nth(1).expect("a port");
        let [source, words] = match kind {
            "mariadb" => [
                format!(
                    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='raworc', \
                        MASTER_PASSWORD='{password}'; SET GLOBAL rpl_semi_sync_slave_enabled = 1"
                ),
                "SET GLOBAL rpl_semi_sync_master_timeout = 600000; SET GLOBAL rpl_semi_sync_master_enabled = 1"
                    .to_owned(),
            ],
            _ => [
                format!(
                    "INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'; \
                        SET GLOBAL rpl_semi_sync_replica_enabled = 1; \
                        CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='raworc', \
                        SOURCE_PASSWORD='{password}', GET_SOURCE_PUBLIC_KEY=1"
                ),
                "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; \
                    SET GLOBAL rpl_semi_sync_source_timeout = 600000; SET GLOBAL rpl_semi_sync_source_enabled = 1"
                    .to_owned(),
            ],
        };
        let [at_primary, at_standby] = [primary, &standby].map(|own| Database::at(own.url()));
        at_primary.run(words).await.expect("others may follow it");
        let follow = format!("SET GLOBAL server_id = 2; {source}; SET GLOBAL read_only = 1; START REPLICA");
        at_standby.run(follow).await.expect("it may follow another");
        failover::until("commits wait for the standby", || async {
            let rows = rows(primary, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%_clients'").await?;
            Ok(rows.first().is_some_and(|row| row.text(1).ok().flatten().as_deref() == Some("1")))
        })
        .await;
        standby
    }

    async fn promote(standby: &Own) {
        let at_standby = Database::at(standby.url());
        at_standby.run("STOP REPLICA IO_THREAD").await.expect("it follows nobody any more");
        failover::until("it has all that it was sent", || async {
            let rows = rows(standby, "SHOW REPLICA STATUS").await?;
            let state = ["Replica_SQL_Running_State", "Slave_SQL_Running_State"].into_iter().find_map(|name| {
                rows.first().and_then(|row| row.try_get_unchecked::<Option<String>, _>(name).ok().flatten())
            });
            Ok(state.is_some_and(|state| state.contains("has read all relay log")))
        })
        .await;
        at_standby.run("STOP REPLICA; SET GLOBAL read_only = 0").await.expect("it may be written to");
    }
}

/// The address of a user who has all rights in the database, and is named as its password is.
async fn user(database: &Database, name: &str, required: &str) -> Result<String, sqlx::Error> {
    let url = database.url();
    let (_, rest) = url.split_once('@').unwrap_or_default();
    let own = rest.rsplit('/').next().unwrap_or_default();
    let make = format!(
        "CREATE USER IF NOT EXISTS {name}@'%' IDENTIFIED BY '{name}' {required}; GRANT ALL ON {own}.* TO {name}@'%'"
    );
    database.at_server(make).await?;
    Ok(format!("mysql://{name}:{name}@{rest}"))
}

/// What a server answers.
async fn rows(own: &Own, ask: &'static str) -> Result<Vec<MySqlRow>, sqlx::Error> {
    let mut conn = MySqlConnectOptions::from_str(own.url())?.connect().await?;
    sqlx::raw_sql(ask).fetch_all(&mut conn).await
}

/// As statements of the product are: a text stands where a column holds one, as most do; what limits a page is a number.
fn as_written(step: Step) -> Step {
    let Step::Plain(text, mut cells) = step else { return step };
    let limit = text.ends_with("LIMIT ?").then(|| cells.pop()).flatten();
    let as_text = |cell| match cell {
        Cell::Int(value) => Cell::Text(value.map(|value| value.to_string())),
        cell => cell,
    };
    Step::Plain(text, cells.into_iter().map(as_text).chain(limit).collect())
}
