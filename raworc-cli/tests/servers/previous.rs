//! The release before this one, on a database whose tables this one has brought up to date.
//!
//! `RAWORC_PREVIOUS` names its binary, and `RAWORC_PREVIOUS_REFUSES` says that it cannot know which migrations leave it at work;
//! `scripts/storm previous` builds it and knows.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::home::{Home, Ran};
use crate::up::{Up, until};
use crate::{At, Installation, PASSWORD};

const PREVIOUS: &str = "RAWORC_PREVIOUS";

/// Messages that are sent at most while the tables are brought up to date.
const MOST: usize = 1000;

/// Where it is not there, the test is shown as ignored.
pub(crate) fn where_it_is_there(trial: Trial) -> Trial {
    let is_ignored = trial.has_ignored_flag() || std::env::var_os(PREVIOUS).is_none();
    trial.with_ignored_flag(is_ignored)
}

pub(crate) fn sqlite() -> Trial {
    where_it_is_there(Trial::test("sqlite::the_release_before_refuses_new_tables_or_works_on_them", || {
        on_sqlite();
        Ok(())
    }))
}

/// The binary of the release before.
fn previous(home: &Home) -> Command {
    let path = std::env::var_os(PREVIOUS).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{PREVIOUS} is not set; `scripts/storm previous` runs this with it"));
    home.program(&path.display().to_string())
}

/// Whether it cannot know of tables that leave it at work, and so has to refuse any that are newer.
fn refuses() -> bool {
    std::env::var_os("RAWORC_PREVIOUS_REFUSES").is_some()
}

/// For the summary of storm, which shows which of both it was.
fn say(what: &str) {
    writeln!(std::io::stderr(), "{what}").expect("is written");
}

/// Brings the tables up to date, by this release.
#[track_caller]
fn migrate(mut command: Command) {
    let migrated = Ran::of(command.args(["store", "migrate", "-o", "json"]).output().expect("raworc runs")).ok();
    let migrated: Value = serde_json::from_str(&migrated).expect("JSON");
    let (from, to) = (migrated["from"].as_i64().expect("there are tables"), migrated["to"].as_i64().expect("a schema"));
    assert!(from < to || !refuses(), "there is nothing to bring up to date: {migrated}");
    say(&format!("the schema of the release before is {from}, this one's is {to}"));
}

/// It says why it does not start, and what to do.
#[track_caller]
fn is_refused(mut command: Command) {
    let refused = Ran::of(command.output().expect("raworc runs"));
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(
        refused.err.contains("written by a newer release") && refused.err.contains("use the newer release"),
        "{refused:#?}"
    );
}

/// A process of the release before, as this one's are run.
fn command(installation: &Installation, role: &str, data: &str) -> Command {
    installation.dressed(previous(&installation.home), role, data)
}

/// Servers and operators of both releases on one database.
pub(crate) fn goes_on_beside(installation: &Installation) {
    let old = Up::of(command(installation, "server", "old"));
    let operator = Up::of(command(installation, "operator", "operator"));
    let at_old = installation.at(&old);
    until("the runtime is known", || at_old.run(&["agent", "create", "ada", "--wait"]).code == 0);
    at_old.ok(&["send", "ada", "--no-steps", "!echo before >> lines"]);

    // Under load, of which each piece is done once.
    let sent = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Of a test that has failed, this is not to be the end.
            while !is_over.load(Ordering::SeqCst) && sent.load(Ordering::SeqCst) < MOST {
                let key = format!("load-{}", sent.load(Ordering::SeqCst));
                at_old.ok(&["send", "ada", "--no-wait", "--idempotency-key", &key, "!echo once >> load"]);
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        let goes_on = |from: usize| until("it is called", || sent.load(Ordering::SeqCst) > from);
        goes_on(0);
        migrate(installation.with_store(&[]));
        goes_on(sent.load(Ordering::SeqCst));
        is_over.store(true, Ordering::SeqCst);
    });
    let load = at_old.ok(&["send", "ada", "--no-steps", "!wc -l < load"]);
    assert_eq!(load.trim(), sent.into_inner().to_string());

    // All that was there goes on: its server, its operator, its computers.
    at_old.ok(&["send", "ada", "--no-steps", "!echo after >> lines"]);
    at_old.ok(&["agent", "create", "bob", "--wait"]);
    assert_eq!(at_old.ok(&["send", "bob", "--no-steps", "!pwd"]), "/agent\n");
    at_old.ok(&["agent", "sleep", "ada"]);

    // A server of this release beside it: what is written by one is read by the other, and done once.
    let new = installation.server("new");
    let at_new = installation.at(&new);
    assert_eq!(at_new.ok(&["send", "ada", "--no-steps", "!cat lines"]), "before\nafter\n");
    let once = ["send", "bob", "--no-wait", "--idempotency-key", "the-key", "!echo once >> lines"];
    assert_eq!(at_old.json(&once)["id"], at_new.json(&once)["id"]);
    for (at, name) in [(&at_new, "cy"), (&at_old, "dan")] {
        at.ok(&["agent", "create", name, "--wait"]);
    }
    for at in [&at_old, &at_new] {
        assert_eq!(at.ok(&["send", "bob", "--no-steps", "!cat lines"]), "once\n");
        assert_eq!(at.ok(&["agent", "exec", "cy", "--", "pwd"]), "/agent\n");
        assert_eq!(at.ok(&["agent", "exec", "dan", "--", "pwd"]), "/agent\n");
    }
    both_tell_the_same(&at_old, &at_new);

    // One that begins anew goes on too, or says why not and has changed nothing.
    let old = if refuses() {
        is_refused(command(installation, "server", "again"));
        is_refused(command(installation, "operator", "another"));
        say("a process of it that begins anew refuses these tables, and says so");
        old
    } else {
        assert_eq!(old.end(), Some(0));
        let old = Up::of(command(installation, "server", "old"));
        say("a process of it that begins anew works on these tables");
        old
    };
    let at_old = installation.at(&old);

    // The computers go to an operator of this release; they are the release before's, and those of both work.
    assert_eq!(operator.end(), Some(0));
    let operator = installation.operator("operator");
    for at in [&at_old, &at_new] {
        until("the operator is known", || at.run(&["agent", "wake", "ada"]).code == 0);
        assert_eq!(at.ok(&["send", "ada", "--no-steps", "!cat lines"]), "before\nafter\n");
    }
    at_old.ok(&["agent", "create", "eve", "--wait"]);
    assert_eq!(at_new.ok(&["send", "eve", "--no-steps", "!pwd"]), "/agent\n");
    at_old.ok(&["agent", "delete", "dan"]);
    assert_eq!(at_new.run(&["agent", "get", "dan"]).code, 3, "it is gone at both");
    both_tell_the_same(&at_old, &at_new);

    for process in [old, new, operator] {
        assert_eq!(process.end(), Some(0));
    }
    let verified = Ran::of(installation.with_store(&["store", "verify"]).output().expect("raworc runs"));
    assert_eq!(verified.code, 0, "what both have written is not sound: {verified:#?}");
}

/// Agents, messages, and the whole log.
#[track_caller]
fn both_tell_the_same(one: &At<'_>, other: &At<'_>) {
    for asked in [&["agent", "list"][..], &["history", "ada"], &["history", "bob"], &["events", "--since", "0"]] {
        // Whether an agent has just become idle is seen a moment later by one than by the other.
        let mut told = Vec::new();
        until("both tell the same", || {
            told = [one, other].map(|at| at.ok(&[asked, &["-o", "json"]].concat())).to_vec();
            told[0] == told[1]
        });
        assert!(!told[0].trim().is_empty(), "{asked:?}");
    }
}

/// SQLite is one process's, so that one release follows the other.
fn on_sqlite() {
    let home = Home::new();
    std::fs::write(home.path().join("password"), PASSWORD).expect("written");
    let up = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn", "--admin-password-file", "password"];
    let before = || {
        let mut command = previous(&home);
        command.args(up);
        command
    };
    let old = Up::of(before());
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "--no-steps", "!echo before >> lines"]).ok();
    assert_eq!(old.end(), Some(0));

    migrate(home.raworc(&[]));

    let mut lines = "before\n".to_owned();
    if refuses() {
        is_refused(before());
    } else {
        let old = Up::of(before());
        home.run(&["send", "ada", "--no-steps", "!echo after >> lines"]).ok();
        lines.push_str("after\n");
        assert_eq!(old.end(), Some(0));
    }
    let new = Up::of(home.raworc(&up));
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat lines"]).ok(), lines);
    assert_eq!(new.end(), Some(0));
    home.run(&["store", "verify"]).ok();
}
