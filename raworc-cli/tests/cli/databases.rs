//! `raworc store` with stores in database servers, as far as this machine has them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use self::database::Database;
use crate::home::{Home, Ran};
use crate::up::Up;

#[path = "../../../raworc-backends/src/sql/server/tests/database.rs"]
mod database;

/// Runs a test with a database of a kind of server, if there is one.
fn on(kind: &str, test: impl FnOnce(&Home, &str)) {
    at(kind, |server| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(Database::with(server, |database| async move { test(&Home::new(), &database.url()) }));
    });
}

/// Runs a test with the address of a kind of server, if there is one.
pub(crate) fn at(kind: &str, test: impl FnOnce(&str)) {
    match database::server(kind) {
        Ok(server) => test(&server),
        Err(lack) => {
            let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
            assert!(!required.split(',').any(|name| name == kind), "{lack}");
            // Past what the test harness keeps for failures.
            writeln!(std::io::stderr(), "NOT TESTED on this machine: {lack}").expect("is written");
        }
    }
}

/// The binary, with its store in a database.
fn with(home: &Home, store: &str, args: &[&str]) -> Command {
    let mut command = home.raworc(args);
    command.env("RAWORC_STORE", store);
    command
}

fn run(home: &Home, store: &str, args: &[&str]) -> Ran {
    Ran::of(with(home, store, args).output().expect("raworc runs"))
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.ok()).expect("JSON")
}

fn an_installation_moves_there_and_back_and_serves(home: &Home, store: &str) {
    let up = Up::start(home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "--no-steps", "!echo hello > note"]).ok();
    assert_eq!(up.end(), Some(0));
    let exported = json(home.run(&["store", "export", "all.jsonl", "-o", "json"]));
    let imported = json(run(home, store, &["store", "import", "all.jsonl", "-o", "json"]));
    assert_eq!(imported, exported);
    run(home, store, &["store", "verify", "all.jsonl"]).ok();
    let again = run(home, store, &["store", "import", "all.jsonl"]);
    assert!(again.code == 5 && again.err.contains("is not empty"), "{again:#?}");

    // The data directory is the same, so that the agent has its files.
    let up = Up::of(with(home, store, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat note", "--server", &up.url]).ok(), "hello\n");
    run(home, store, &["store", "export", "later.jsonl"]).ok();
    assert_eq!(up.end(), Some(0));
    home.run(&["store", "import", "later.jsonl", "--data", "back"]).ok();
    home.run(&["store", "verify", "later.jsonl", "--data", "back"]).ok();
}

fn several_processes_bring_it_up_to_date_at_once(home: &Home, store: &str) {
    let begin = |_| {
        let mut command = with(home, store, &["store", "migrate"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs")
    };
    let begun: Vec<_> = (0..6).map(begin).collect();
    for child in begun {
        Ran::of(child.wait_with_output().expect("it ends")).ok();
    }
    let status = json(run(home, store, &["store", "status", "-o", "json"]));
    assert_eq!((&status["schema"], &status["log"]["head"]), (&status["newest"], &0.into()), "{status}");
}

fn what_is_secret_in_an_address_is_not_told(home: &Home, store: &str) {
    let (_, rest) = store.split_once("://").expect("an address");
    let (user, _) = rest.split_once('@').expect("a user");
    let (_, password) = user.split_once(':').expect("a password");
    let migrated = run(home, store, &["store", "migrate"]);
    let status = run(home, store, &["store", "status"]);
    let missing = run(home, &format!("{store}_of_nobody"), &["store", "status"]);
    assert!(missing.code == 1 && missing.err.contains("does not exist"), "{missing:#?}");
    for ran in [migrated, status, missing] {
        assert!(!ran.out.contains(password) && !ran.err.contains(password), "{ran:#?}");
    }
}

macro_rules! tests {
    ($($kind:ident),+) => {$(
        mod $kind {
            #[test]
            fn an_installation_moves_there_and_back_and_serves() {
                super::on(stringify!($kind), super::an_installation_moves_there_and_back_and_serves);
            }

            #[test]
            fn several_processes_bring_it_up_to_date_at_once() {
                super::on(stringify!($kind), super::several_processes_bring_it_up_to_date_at_once);
            }

            #[test]
            fn what_is_secret_in_an_address_is_not_told() {
                super::on(stringify!($kind), super::what_is_secret_in_an_address_is_not_told);
            }
        }
    )+};
}

tests!(postgres, mariadb, mysql);
