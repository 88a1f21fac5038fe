//! `raworc events`, of a log that is long, and of one whose beginning is gone.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::home::{Home, Ran};
use crate::talking::signal;
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
    assert!(gone.err.contains(&format!("the log goes on at revision {oldest}")), "{gone:#?}");
    assert_eq!(up.end(), Some(0));
}

#[test]
fn who_follows_a_log_of_which_what_comes_next_was_taken_away_goes_on_with_what_is_there() {
    let home = Home::new();
    let up = Up::start(&home);
    let address = up.url.trim_start_matches("http://").to_owned();
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let mut command = home.raworc(&["events", "--follow", "--since", "0", "-o", "name"]);
    let mut follows = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs");
    let mut out = BufReader::new(follows.stdout.take().expect("a pipe"));
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("it goes on");
        line.trim_end().parse::<u64>().expect("a revision")
    };
    let seen = *revisions(&home, &[]).last().expect("some");
    while next() < seen {}
    // It looks again only once all is over.
    signal(&follows, Signal::STOP);
    assert_eq!(up.end(), Some(0));

    let up = Up::start(&home);
    let before = *revisions(&home, &[]).last().expect("some");
    for n in 0..10 {
        home.run(&["agent", "edit", "ada", "--description", &n.to_string()]).ok();
    }
    let oldest = before + 8;
    assert!(revisions(&home, &[]).contains(&oldest), "an edit is an event");
    assert_eq!(up.end(), Some(0));
    forget_before(&home, oldest);

    let up = Up::of(home.raworc(&["up", "--listen", &address, "-o", "json", "--log", "warn"]));
    signal(&follows, Signal::CONT);
    // What was on its way to it when it was stopped comes first.
    let told = std::iter::repeat_with(next).find(|revision| *revision > before);
    assert_eq!(told, Some(oldest));
    follows.kill().expect("killed");
    let told = Ran::of(follows.wait_with_output().expect("it is gone")).err;
    assert!(told.contains(&format!("Events up to revision {} are no longer there", oldest - 1)), "{told}");
    assert_eq!(up.end(), Some(0));
}
