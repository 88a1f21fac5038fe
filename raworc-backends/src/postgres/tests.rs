//! What is tested of PostgreSQL alone, and how.

use std::str::FromStr;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use raworc_core::entropy::{Clock, SystemClock};
use raworc_core::store::Store;
use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::Postgres;
use super::dialect::text_and_values;
use crate::sql::commits::{accept, create, message_id};
use crate::sql::dialect::Columns;
use crate::sql::script::Step;
use crate::sql::server::DatabaseOptions;
use crate::sql::server::tests::database::Database;
use crate::sql::server::tests::own::Own;
use crate::sql::server::tests::{Plan, Tested, apart, failover, on};
use crate::sql::store::SqlStore;

crate::sql::server::tests::tests!(Postgres, "postgres");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_has_the_databases_time_before_it_writes_however_far_the_machine_is_ahead() {
    on("postgres", async |database: Database| {
        // Its own function for the time is found after this one.
        let name = database.url().rsplit('/').next().unwrap_or_default().to_owned();
        let path = format!("ALTER DATABASE {name} SET search_path = public, pg_catalog");
        database.run(path).await.expect("may be set");
        for seconds in [7, 20 * 60] {
            let behind = format!(
                "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE \
                    AS 'SELECT pg_catalog.clock_timestamp() - make_interval(secs => {seconds})'"
            );
            database.run(behind).await.expect("is made");
            let store = SqlStore::<Postgres>::open(DatabaseOptions::new(database.url())).await.expect("can be used");
            let is_behind = |now: Timestamp| {
                let ahead = SystemClock.now().duration_since(now).as_secs();
                assert!((seconds..seconds + 4).contains(&ahead), "{ahead} s, and not {seconds}");
            };
            is_behind(store.clock().now());
            is_behind(store.head().await.expect("answers").now);
            is_behind(store.clock().now());
            store.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_away_beside_a_long_snapshot_is_not_gone_through_again() {
    const ROUNDS: i64 = 40;
    const EACH: i64 = 130;
    on("postgres", async |database: Database| {
        let mut options = DatabaseOptions::new(database.url());
        (options.keep_events, options.keep_commits) = (100, Duration::ZERO);
        let store = SqlStore::<Postgres>::open(options).await.expect("can be used");
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");
        // As an export has one.
        let mut conn =
            PgConnectOptions::from_str(&database.url()).expect("an address").connect().await.expect("answers");
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT revision FROM head";
        sqlx::raw_sql(snapshot).execute(&mut conn).await.expect("begins");
        for _ in 0..ROUNDS {
            let commits = (0..EACH).map(|_| store.commit(accept(agent, message_id(), "hello")));
            for committed in join_all(commits).await {
                committed.expect("goes through");
            }
        }
        store.close().await;
        let mut asks =
            PgConnectOptions::from_str(&database.url()).expect("an address").connect().await.expect("answers");
        // What a session has read is counted once it has ended.
        failover::until("all sessions have ended", || async {
            let mut conn = PgConnectOptions::from_str(&database.url())?.connect().await?;
            let ask = "SELECT COUNT(*) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'raworc'";
            Ok(sqlx::query_scalar::<_, i64>(ask).fetch_one(&mut conn).await? == 0)
        })
        .await;
        for index in ["log_pkey", "commits_pkey"] {
            let ask = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = $1";
            let read: i64 = sqlx::query_scalar(ask).bind(index).fetch_one(&mut asks).await.expect("is told");
            assert!((EACH..10 * ROUNDS * EACH).contains(&read), "{read} rows by {index}");
        }
        conn.close().await.expect("closes");
    })
    .await;
}

/// What a session's own statements, settings and locks are not needed for.
mod pgbouncer {
    crate::sql::server::tests::tests!(super::Postgres, "pgbouncer":
        commits_whose_connections_are_cut_are_made_once_each,
        who_holds_the_head_and_is_silent_holds_up_the_others_for_seconds_only,
        many_open_an_empty_database_at_once,
        a_database_of_a_newer_release_is_refused,
        a_watcher_hears_of_what_another_process_commits,
        who_watches_a_log_that_went_back_is_told,
        who_watches_a_log_that_went_back_and_has_grown_since_is_told,
        a_time_that_was_ahead_is_the_databases_again_though_nothing_is_written,
        agents_of_any_number_are_looked_up_at_once,
        many_rows_go_a_few_at_a_time_while_others_write,
        a_deadlock_with_somebody_else_costs_no_commit,
        commits_whose_answers_are_lost_are_made_once_each,
        what_may_have_been_done_is_not_told_as_refused,
        what_comes_while_a_batch_is_tried_again_is_another_batch,
        the_largest_messages_go_through_together,
        a_row_that_cannot_be_read_fails_those_alone_who_need_it,
        who_watches_is_told_of_an_event_that_cannot_be_read_and_hears_what_follows,
        a_pooler_is_noticed,
    );
    crate::sql::server::tests::tests!(processes super::Postgres, "pgbouncer");
}

impl Tested for Postgres {
    async fn plan(conn: &mut PgConnection, step: Step) -> Result<Plan, sqlx::Error> {
        // As a session of a store plans it, whatever the values are.
        let (text, values) = text_and_values(step);
        let values = vec!["NULL"; values].join(", ");
        let values = if values.is_empty() { values } else { format!("({values})") };
        let ask = format!("PREPARE asked AS {text}; EXPLAIN EXECUTE asked{values}; DEALLOCATE asked");
        let rows = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(conn).await?;
        let mut plan = Plan::default();
        for row in &rows {
            let line = row.text(0)?.unwrap_or_default();
            if line.contains("Seq Scan") || line.contains("Sort") {
                plan.faults.push(line.trim().to_owned());
            }
            let index = line.split_once("Scan using ").and_then(|(_, scan)| scan.split(' ').next());
            plan.indexes.extend(index.map(str::to_owned));
        }
        Ok(plan)
    }

    fn analyze(_tables: &[&str]) -> String {
        "ANALYZE".to_owned()
    }

    async fn cut(database: &Database) -> Result<(), sqlx::Error> {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.run(cut).await
    }

    const TLS: apart::Words = apart::Words {
        none: "?sslmode=disable",
        encrypted: "sslmode=require",
        signed: "sslmode=verify-ca",
        named: "sslmode=verify-full",
        authority: "sslrootcert",
        own: ["sslcert", "sslkey"],
    };
    const COMMITS: &'static [u8] = b"NOTIFY raworc_log";
    /// Whoever has waited longer looks first, and is ended.
    const SPARED: &'static str = "SELECT 1";
    const OTHERWISE: (&'static str, &'static str) = (
        "ALTER ROLE CURRENT_USER SET standard_conforming_strings = off; \
            ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'serializable'; \
            ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Tokyo'",
        "ALTER ROLE CURRENT_USER RESET ALL",
    );
    const AGENTS_LOCKED: (&'static str, &'static str) =
        ("SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE", "ROLLBACK");

    const TWENTY_SECONDS: &'static str = "SELECT 1 FROM pg_sleep(20)";
    const LIMITS: (&'static str, &'static str) = (
        "ALTER ROLE CURRENT_USER SET statement_timeout = '1s'; ALTER ROLE CURRENT_USER SET lock_timeout = '1s'; \
            ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '1s'",
        "ALTER ROLE CURRENT_USER RESET ALL",
    );
    const LIMITS_LEFT: &'static str = "SELECT COUNT(*) FROM pg_settings WHERE setting <> '0' AND name IN \
        ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')";
    const TWO_SECONDS: &'static str = "SELECT CAST(0 AS bigint) FROM pg_sleep(2)";

    async fn is_encrypted(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        sqlx::query_scalar(ask).fetch_one(conn).await
    }

    async fn url_of_a_plain_user(database: &Database) -> Result<String, sqlx::Error> {
        Ok(database.url())
    }

    async fn url_of_a_certified_user(database: &Database) -> Result<String, sqlx::Error> {
        Ok(database.url().replace("//raworc:", "//certified:"))
    }

    /// As it is for sessions that begin after it.
    async fn read_only(database: &Database, is: bool) -> Result<(), sqlx::Error> {
        let url = database.url();
        let name = url.rsplit('/').next().unwrap_or_default();
        // Whoever says so may have begun as it is.
        let set = format!("BEGIN READ WRITE; ALTER DATABASE {name} SET default_transaction_read_only = {is}; COMMIT");
        database.at_server(set).await?;
        Self::cut(database).await
    }

    async fn standby(kind: &'static str, primary: &Own) -> Own {
        let followed = primary.file("").display().to_string();
        let follow = move || Own::start(kind, &["--follows", &followed]);
        let standby = tokio::task::spawn_blocking(follow).await.expect("it comes up");
        let settings = primary.file("data/postgresql.auto.conf");
        let before = std::fs::read_to_string(&settings).expect("is read");
        std::fs::write(settings, format!("{before}synchronous_standby_names = '*'\n")).expect("is written");
        primary.signal(Signal::HUP);
        failover::until("commits wait for the standby", || async {
            let mut conn = PgConnectOptions::from_str(primary.url())?.connect().await?;
            let names: String = sqlx::query_scalar("SHOW synchronous_standby_names").fetch_one(&mut conn).await?;
            Ok(names == "*")
        })
        .await;
        standby
    }

    async fn promote(standby: &Own) {
        std::fs::write(standby.file("data/promote"), "").expect("is written");
        standby.signal(Signal::USR1);
    }
}
