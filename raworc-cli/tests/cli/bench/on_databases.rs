//! `raworc bench database`, as far as this machine has database servers.

use std::str::FromStr;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{bench, numbers};
use crate::databases::at;
use crate::home::Home;

/// The databases of the server that a bench made.
fn left(server: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(async {
        if server.starts_with("postgres") {
            let mut conn = PgConnectOptions::from_str(server)?.connect().await?;
            let asked = "SELECT datname::text FROM pg_database WHERE datname LIKE 'raworc_bench_%'";
            let found = sqlx::query_scalar(asked).fetch_all(&mut conn).await?;
            conn.close().await?;
            Ok::<_, sqlx::Error>(found)
        } else {
            let mut conn = MySqlConnectOptions::from_str(server)?.connect().await?;
            let asked = "SELECT CAST(schema_name AS CHAR) FROM information_schema.schemata \
                         WHERE schema_name LIKE 'raworc_bench_%'";
            let found = sqlx::query_scalar(asked).fetch_all(&mut conn).await?;
            conn.close().await?;
            Ok(found)
        }
    });
    found.expect("the server tells its databases")
}

fn each_figure_is_there_and_nothing_is_left(server: &str) {
    let home = Home::new();
    let small = ["--rounds", "2", "--seconds", "1", "--callers", "8", "--watchers", "100", "--agents", "50"];
    let figures = bench(&home, &[&["database", "--database", server], &small[..]].concat());
    for (what, compared) in [
        ("accept, offered: p99", true),
        ("accept beside watchers: p99, and without", true),
        ("accept, sustained", true),
        ("two servers, and one: sustained", true),
        ("two servers, and one: processor time", true),
        ("message to leased elsewhere: p50", true),
        ("75 created a second: p50", false),
        ("75 created a second: p99", false),
        ("all agents asleep: operator at its first work", false),
        ("all agents asleep: memory of a server", false),
    ] {
        let figure = figures.iter().find(|figure| figure["what"] == what).unwrap_or_else(|| panic!("no {what}"));
        assert!(
            numbers(figure, "ours").len() == 2 && numbers(figure, "ours").iter().all(|ours| *ours > 0.0),
            "{figure}"
        );
        let floor = numbers(figure, "floor");
        assert!(floor.len() == if compared { 2 } else { 0 } && floor.iter().all(|floor| *floor > 0.0), "{figure}");
        assert_ne!(figure["verdict"], "shown", "{figure}");
    }
    assert_eq!(left(server), Vec::<String>::new(), "databases were left behind");
    assert_eq!(home.names(), Vec::<String>::new(), "something was left behind");
}

#[test]
fn a_bench_of_servers_gives_each_figure_on_postgres() {
    at("postgres", each_figure_is_there_and_nothing_is_left);
}

#[test]
fn a_bench_of_servers_gives_each_figure_on_mariadb() {
    at("mariadb", each_figure_is_there_and_nothing_is_left);
}

#[test]
fn a_bench_of_servers_gives_each_figure_on_mysql() {
    at("mysql", each_figure_is_there_and_nothing_is_left);
}

#[test]
fn a_bench_that_cannot_reach_its_database_says_so_without_the_password() {
    let home = Home::new();
    let ran = home.run(&["bench", "database", "--database", "oracle://me:secret-word@nowhere/db"]);
    assert!(ran.code == 2 && ran.err.contains("--database") && !ran.err.contains("secret-word"), "{ran:#?}");
    let ran = home.run(&["bench", "database"]);
    assert!(ran.code == 2 && ran.err.contains("RAWORC_BENCH_DATABASE"), "{ran:#?}");
}
