//! No statement reads a whole table that grows.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::{SqliteOptions, directory, open};
use crate::sql::commits::agent_lists;
use crate::sql::dialect::Dialect;
use crate::sql::script::Step;
use crate::sql::statements as sql;
use crate::sqlite::dialect::{Sqlite, insertion, plain, text_over};

async fn plan(conn: &mut SqliteConnection, text: &str) -> Vec<String> {
    let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"))).fetch_all(conn).await;
    rows.unwrap_or_else(|error| panic!("{text}: {error}")).iter().map(|row| row.get("detail")).collect()
}

/// What in a plan takes longer the more rows there are, however few are asked for.
fn faults(plan: &[String]) -> Vec<&String> {
    // What is bound is to be read whole: the keys in one JSON array, the rows of an INSERT.
    let bound = |line: &str| {
        ["SCAN k VIRTUAL TABLE", "SCAN json_each VIRTUAL TABLE"].iter().any(|keys| line.starts_with(keys))
            || line.ends_with("-ROW VALUES CLAUSE")
            // Those of a day's processes: what ended before is forgotten by the very statement that reads them all.
            || line == "SCAN leases"
    };
    let line = |line: &&String| (line.starts_with("SCAN") && !bound(line)) || line.contains("TEMP B-TREE");
    plan.iter().filter(line).collect()
}

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let directory = directory();
    open(&directory).await.close().await;
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    let mut statements: Vec<_> = sql::ALL.iter().map(|(name, text)| ((*name).to_owned(), plain(text))).collect();
    statements.extend(sql::KEYED.iter().chain(sql::LOADS).map(|(name, keyed)| ((*name).to_owned(), text_over(keyed))));
    let own = [Sqlite::TOUCH_AGENTS, Sqlite::DELETE_LABELS, Sqlite::DELETE_COMPUTERS];
    statements.extend(own.map(|keyed| ("own".to_owned(), text_over(keyed))));
    statements.extend(Sqlite::FORGET_EXPIRED.map(|text| ("forget".to_owned(), text.to_owned())));
    for (name, list) in agent_lists() {
        let Step::Plain(text, _) = list else { panic!("{name} is no list of keys") };
        statements.push((name, text.into_owned()));
    }
    for (name, insert) in sql::INSERTS {
        statements.extend([1, 64].map(|rows| ((*name).to_owned(), insertion(insert, rows))));
    }
    let mut found = Vec::new();
    for (name, text) in &statements {
        let plan = plan(&mut conn, text).await;
        found.extend(faults(&plan).into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(found.is_empty(), "{found:#?}");
    conn.close().await.expect("closes");
}

#[tokio::test]
async fn a_statement_without_an_index_would_be_found() {
    let directory = directory();
    open(&directory).await.close().await;
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    for text in [
        "SELECT doc FROM messages WHERE doc = ?",
        "SELECT doc FROM agents ORDER BY live_name",
        "SELECT doc FROM agents WHERE tenant = ? ORDER BY doc",
        "SELECT COUNT(*) FROM log",
        "DELETE FROM commits WHERE at < ?",
    ] {
        let plan = plan(&mut conn, text).await;
        assert!(!faults(&plan).is_empty(), "{text}: {plan:?}");
    }
    conn.close().await.expect("closes");
}
