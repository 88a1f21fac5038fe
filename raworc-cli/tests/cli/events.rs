//! `raworc events`, of a log that is long, and of one whose beginning is gone.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::home::Home;
use crate::up::Up;

fn revisions(home: &Home, args: &[&str]) -> Vec<u64> {
    let told = home.run(&[&["events", "-o", "name"], args].concat()).ok();
    told.lines().map(|line| line.parse().expect("a revision")).collect()
}

/// Forgets the log before a revision, as the store itself does with what is old.
fn forget_before(home: &Home, oldest: u64) {
    let database = home.path().join(".local/share/raworc/raworc.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(&database);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
        let oldest = i64::try_from(oldest).expect("small");
        for statement in ["DELETE FROM log WHERE revision < ?", "UPDATE head SET oldest = ? WHERE id = 1"] {
            sqlx::query(statement).bind(oldest).execute(&mut connection).await.expect("written");
        }
        connection.close().await.expect("closed");
    });
}

#[test]
fn the_latest_hundred_events_are_printed_and_with_since_0_all_that_is_kept() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["agent", "sleep", "ada"]).ok();
    home.run(&["agent", "create", "bob"]).ok();
    for n in 0..110 {
        home.run(&["agent", "edit", "bob", "--description", &n.to_string()]).ok();
    }
    let all = revisions(&home, &["--since", "0"]);
    let latest = revisions(&home, &[]);
    assert!(all.len() > 110 && latest.len() == 100, "{} of {}", latest.len(), all.len());
    let adas = revisions(&home, &["--agent", "ada"]);
    assert!(!adas.is_empty() && adas.iter().all(|revision| *revision < latest[0]), "{adas:?}");
    assert_eq!(up.end(), Some(0));

    let oldest = *all.last().expect("some") - 10;
    forget_before(&home, oldest);
    let up = Up::start(&home);
    for args in [&["--since", "0"] as &[&str], &[]] {
        assert_eq!(revisions(&home, args).first(), Some(&oldest), "{args:?}");
    }
    let gone = home.run(&["events", "--since", "1"]);
    assert_eq!(gone.code, 3, "{gone:#?}");
    assert!(gone.err.contains(&format!("the log begins at revision {oldest}")), "{gone:#?}");
    assert_eq!(up.end(), Some(0));
}
