//! `raworc store`: what an installation keeps, looked at, moved, and refused.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use insta::assert_snapshot;
use serde_json::Value;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use crate::home::{Home, Ran};
use crate::talking::shown_on_a_terminal;
use crate::up::{Up, until};

/// An installation with an agent that was given work, which is not served any more.
fn used() -> Home {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "--no-steps", "!echo hello"]).ok();
    assert_eq!(up.end(), Some(0));
    home
}

fn json(ran: Ran) -> Value {
    let out = ran.ok();
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// The sums of each table, as `verify` and `export` tell them.
fn tables(ran: Ran) -> Value {
    json(ran)["tables"].clone()
}

/// The binary once more, with standard input and output as pipes.
fn begin(home: &Home, args: &[&str]) -> Child {
    let mut command = home.raworc(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs")
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn an_installation_is_exported_while_it_serves_and_goes_on_from_the_import() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "--no-steps", "!echo hello"]).ok();
    let exported = tables(home.run(&["store", "export", "all.jsonl", "-o", "json"]));
    assert_eq!(fs::metadata(home.path().join("all.jsonl")).expect("is there").permissions().mode() & 0o777, 0o600);
    // It was of one moment, and the server went on.
    home.run(&["send", "ada", "--no-steps", "!echo later"]).ok();
    home.run(&["agent", "sleep", "ada"]).ok();
    assert_eq!(up.end(), Some(0));

    let there = ["--data", "there"];
    let with = |args: &[&str]| home.run(&[args, &there].concat());
    let imported = with(&["store", "import", "all.jsonl", "-o", "json"]);
    assert!(imported.err.contains("bring the master key"), "{imported:#?}");
    assert_eq!(tables(imported), exported);
    let verified = with(&["store", "verify", "all.jsonl", "-o", "json"]);
    assert_eq!(tables(verified), exported);

    // It opens under the same master key alone.
    fs::copy(home.path().join(".local/share/raworc/master.key"), home.path().join("there/master.key")).expect("copied");
    let args = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn", "--data", "there"];
    let up = Up::of(home.raworc(&args));
    let history = json(home.run(&["history", "ada", "-o", "json", "--server", &up.url]));
    let texts = history.to_string();
    assert!(texts.contains("hello") && !texts.contains("later"), "{texts}");
    assert_eq!(up.end(), Some(0));
    // A store that was used since is another one.
    let other = with(&["store", "verify", "all.jsonl"]);
    assert!(
        other.code == 1 && other.out.contains("wrong: log has") && other.err.contains("not as the export"),
        "{other:#?}"
    );
    with(&["store", "verify"]).ok();
}

#[test]
fn an_export_goes_through_a_pipe_from_store_to_store() {
    let home = used();
    let raworc = env!("CARGO_BIN_EXE_raworc");
    let mut shell = home.program("sh");
    shell.args(["-c", &format!("set -e; '{raworc}' store export | '{raworc}' store import --data there")]);
    let ran = Ran::of(shell.output().expect("sh runs"));
    assert!(ran.out.contains("all are as in the export"), "{ran:#?}");
    assert_eq!(
        tables(home.run(&["store", "verify", "-o", "json"])),
        tables(home.run(&["store", "verify", "-o", "json", "--data", "there"]))
    );
}

#[test]
fn a_store_tells_its_state_whatever_it_is() {
    let home = Home::new();
    let none = json(home.run(&["store", "status", "-o", "json"]));
    assert_eq!((&none["schema"], &none["log"]), (&Value::Null, &Value::Null), "{none}");
    assert!(home.names().is_empty(), "looking made something: {:?}", home.names());
    assert!(home.run(&["store", "status"]).ok().contains("none: there is no store yet"));
    let made = home.run(&["store", "migrate"]).ok();
    assert!(made.contains("has tables now"), "{made}");
    let again = home.run(&["store", "migrate"]).ok();
    assert!(again.contains("is up to date: its schema is"), "{again}");
    drop(home);

    let home = used();
    let status = home.run(&["store", "status"]).ok();
    for part in ["raworc.db", "SQLite", "up to date", "log       revisions 1 to", "TABLE", "agents"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let status = json(home.run(&["store", "status", "-o", "json"]));
    let rows = |table: &str| {
        let tables = status["tables"].as_array().expect("a list");
        tables.iter().find(|rows| rows["table"] == table).map(|rows| rows["rows"].clone())
    };
    assert_eq!(rows("agents"), Some(1.into()), "{status}");
    assert!(status["bytes"].as_u64().is_some_and(|bytes| bytes > 4096), "{status}");
}

#[test]
fn a_store_of_a_newer_release_is_told_and_neither_exported_nor_touched() {
    let home = used();
    let database = home.path().join(".local/share/raworc/raworc.db");
    on_a_runtime(async {
        let options = SqliteConnectOptions::new().filename(&database);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES (99, 'from the future', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&mut connection).await.expect("written");
        connection.close().await.expect("closed");
    });
    let status = home.run(&["store", "status"]).ok();
    assert!(status.contains("99, of a newer release"), "{status}");
    for args in [&["store", "migrate"][..], &["store", "export", "all.jsonl"], &["store", "verify"]] {
        let refused = home.run(args);
        assert!(refused.code == 1 && refused.err.contains("use the newer release"), "{refused:#?}");
    }
    assert!(!home.names().iter().any(|name| name.contains("jsonl")), "{:?}", home.names());
}

/// A database as the first release made it.
fn of_the_first_release(data: &Path) {
    fs::create_dir_all(data).expect("made");
    on_a_runtime(async {
        let options = SqliteConnectOptions::new().filename(data.join("raworc.db")).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
        let text = include_str!("../../../raworc-backends/src/sqlite/migrations/0001_tables.sql");
        let first = Migration::new(1, "tables".into(), MigrationType::Simple, text.into_sql_str(), false);
        connection.ensure_migrations_table("_sqlx_migrations").await.expect("made");
        Migrator::with_migrations(vec![first]).run_direct(None, &mut connection, false).await.expect("made");
        connection.close().await.expect("closed");
    });
}

#[test]
fn an_old_store_is_told_and_brought_up_to_date_by_one_of_several_processes() {
    let home = Home::new();
    of_the_first_release(&home.path().join("data"));
    let with = |args: &[&str]| home.run(&[args, &["--data", "data"]].concat());
    let status = with(&["store", "status"]).ok();
    assert!(status.contains("1, and this release has 3: `raworc store migrate`"), "{status}");
    let refused = with(&["store", "export", "all.jsonl"]);
    assert!(refused.code == 5 && refused.err.contains("raworc store migrate"), "{refused:#?}");
    let at_once: Vec<_> = (0..6).map(|_| begin(&home, &["store", "migrate", "--data", "data"])).collect();
    let mut changed = 0;
    for child in at_once {
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        match ran.code {
            0 => changed += usize::from(ran.out.contains("its schema was 1, and is 3")),
            _ => assert!(ran.err.contains("uses the data directory"), "{ran:#?}"),
        }
    }
    assert_eq!(changed, 1);
    assert!(with(&["store", "status"]).ok().contains("3, up to date"));
}

#[test]
fn what_is_no_file_to_write_or_read_is_refused_by_name() {
    let home = used();
    fs::create_dir(home.path().join("dir")).expect("made");
    fs::write(home.path().join("there.jsonl"), "mine").expect("written");
    assert_snapshot!(home.run(&["store", "export", "there.jsonl"]).shown(&home), @r"
    exit: 5
    -- out
    -- err
    error: there.jsonl is there already
    hint: choose another name, or replace it with --force
    ");
    assert_eq!(fs::read_to_string(home.path().join("there.jsonl")).expect("is there"), "mine");
    assert_snapshot!(home.run(&["store", "export", "dir"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: dir is there, and is no file
    hint: name a file, or write to a pipe with -
    ");
    let nowhere = home.run(&["store", "export", "nowhere/all.jsonl"]);
    assert!(nowhere.code == 1 && nowhere.err.contains("cannot write nowhere/all.jsonl"), "{nowhere:#?}");
    assert_snapshot!(home.run(&["store", "import", "missing.jsonl", "--data", "there"]).shown(&home), @r"
    exit: 3
    -- out
    -- err
    error: cannot read missing.jsonl
      because: No such file or directory (os error 2)
    ");
    assert_snapshot!(home.run(&["store", "import", "there.jsonl", "--data", "there"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: there.jsonl is no export that can be taken: it is empty or cut off in its first line
    hint: export anew, or take another backup; nothing was changed
    ");
    home.run(&["store", "export", "there.jsonl", "--force"]).ok();
    assert_eq!(fs::metadata(home.path().join("there.jsonl")).expect("is there").permissions().mode() & 0o777, 0o600);
    let filled = home.run(&["store", "import", "there.jsonl"]);
    assert!(filled.code == 5 && filled.err.contains("is not empty"), "{filled:#?}");
    home.run(&["store", "verify", "there.jsonl"]).ok();
}

#[test]
fn an_export_that_was_cut_or_changed_is_refused_and_the_store_stays_empty() {
    let home = used();
    home.run(&["store", "export", "all.jsonl"]).ok();
    let whole = fs::read_to_string(home.path().join("all.jsonl")).expect("is there");
    let wrong = [
        (whole[..whole.len() - 10].to_owned(), "cut off"),
        (whole.replacen("hello", "hullo", 1), "has other rows"),
        (whole.replacen("\"version\":1", "\"version\":7", 1), "its form is 7"),
    ];
    for (text, told) in wrong {
        fs::write(home.path().join("wrong.jsonl"), text).expect("written");
        for verb in ["import", "verify"] {
            let refused = home.run(&["store", verb, "wrong.jsonl", "--data", "there"]);
            assert!(refused.code == 2 && refused.err.contains(told), "{refused:#?}");
        }
    }
    home.run(&["store", "import", "all.jsonl", "--data", "there"]).ok();
}

#[test]
fn an_import_that_is_interrupted_leaves_an_empty_store() {
    let home = used();
    home.run(&["store", "export", "all.jsonl"]).ok();
    let whole = fs::read(home.path().join("all.jsonl")).expect("is there");
    let mut importing = begin(&home, &["store", "import", "--data", "there"]);
    let mut stdin = importing.stdin.take().expect("a pipe");
    stdin.write_all(&whole[..whole.len() - 100]).expect("written");
    stdin.flush().expect("written");
    // It has begun once the tables are there.
    until("its tables are there", || {
        home.run(&["store", "status", "--data", "there", "-o", "json"]).out.contains("\"agents\"")
    });
    let pid = i32::try_from(importing.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is there");
    assert_eq!(importing.wait().expect("it ends").code(), Some(143));
    drop(stdin);
    home.run(&["store", "import", "all.jsonl", "--data", "there"]).ok();
}

#[test]
fn a_terminal_is_neither_given_an_export_nor_asked_for_one() {
    let home = used();
    for (verb, told) in [("export", "standard output is a terminal"), ("import", "standard input is a terminal")] {
        let shown = shown_on_a_terminal(&home, &["store", verb, "--data", "there"], told);
        assert!(shown.contains(told), "{verb}: {shown:?}");
    }
    assert!(!home.names().contains(&"there".to_owned()), "something was made");
}

#[test]
fn an_export_for_which_there_is_no_room_leaves_nothing_that_looks_whole() {
    let home = used();
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux");
    let output = home.raworc(&["store", "export"]).stdout(full).output().expect("raworc runs");
    let ran = Ran::of(output);
    assert!(ran.code == 1 && ran.err.contains("No space left") && ran.err.contains("free some room"), "{ran:#?}");

    let mut child = begin(&home, &["store", "export"]);
    let mut out = child.stdout.take().expect("a pipe");
    let mut first = [0; 1];
    out.read_exact(&mut first).expect("it begins");
    drop(out);
    // It may be small enough for the pipe.
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert!(ran.code == 0 || ran.err.contains("whoever read the pipe ended"), "{ran:#?}");

    if !rustix::process::geteuid().is_root() {
        return;
    }
    fs::create_dir(home.path().join("small")).expect("made");
    let script = "mount -t tmpfs -o size=8k none small && \"$@\"; echo \"$? [$(ls -A small)]\"";
    let ran = Ran::of(home.raworc_in(script, &["store", "export", "small/all.jsonl"]).output().expect("it runs"));
    assert!(ran.out.ends_with("1 []\n") && ran.err.contains("No space left"), "{ran:#?}");
}

#[test]
fn what_writes_is_refused_beside_a_server_and_what_reads_is_not() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["store", "status"]).ok();
    home.run(&["store", "verify"]).ok();
    for args in [&["store", "migrate"][..], &["store", "import", "all.jsonl"]] {
        fs::write(home.path().join("all.jsonl"), "{}").expect("written");
        let refused = home.run(args);
        let told = refused.err.contains(&up.id().to_string()) && refused.err.contains("uses the data directory");
        assert!(refused.code == 1 && told, "{refused:#?}");
    }
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_store_with_a_wrong_row_is_told_with_what_is_wrong() {
    let home = used();
    let database = home.path().join(".local/share/raworc/raworc.db");
    on_a_runtime(async {
        let options = SqliteConnectOptions::new().filename(&database);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
        sqlx::query("UPDATE agents SET owner = 'eve'").execute(&mut connection).await.expect("written");
        connection.close().await.expect("closed");
    });
    let ran = home.run(&["store", "verify"]);
    let told = ran.out.contains("column owner is not what its document says") && ran.err.contains("not sound");
    assert!(ran.code == 1 && told, "{ran:#?}");
    let ran = home.run(&["store", "verify", "-o", "json"]);
    let looked: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((ran.code, &looked["flawed"]), (1, &1.into()), "{ran:#?}");
}
