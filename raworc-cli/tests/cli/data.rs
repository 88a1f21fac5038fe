//! Each thing that can be wrong with a data directory, as `raworc up` tells of it.

use std::fs::{self, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::home::{Home, Ran};
use crate::up::Up;

fn data(home: &Home) -> PathBuf {
    home.path().join(".local/share/raworc")
}

fn up(home: &Home) -> Ran {
    home.run(&["up", "--listen", "127.0.0.1:0"])
}

/// Runs `up` where nobody can write to the data directory.
fn up_on_read_only(home: &Home) -> Ran {
    let data = data(home);
    if rustix::process::geteuid().is_root() {
        // Modes do not keep root from writing; a mount does, and only this process sees it.
        let script =
            format!("mount --bind {0} {0} && mount -o remount,ro,bind {0} && exec timeout 60 \"$@\"", data.display());
        return Ran::of(home.raworc_in(&script, &["up", "--listen", "127.0.0.1:0"]).output().expect("it runs"));
    }
    each(&data, 0o400, 0o500);
    let ran = up(home);
    each(&data, 0o600, 0o700);
    ran
}

/// Sets the mode of a directory and of the files in it.
fn each(directory: &Path, file: u32, own: u32) {
    fs::set_permissions(directory, Permissions::from_mode(own | 0o700)).expect("set");
    for entry in fs::read_dir(directory).expect("read").flatten().filter(|entry| entry.path().is_file()) {
        fs::set_permissions(entry.path(), Permissions::from_mode(file)).expect("set");
    }
    fs::set_permissions(directory, Permissions::from_mode(own)).expect("set");
}

#[track_caller]
fn assert_says(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, 1, "{ran:#?}");
    for word in words {
        assert!(ran.err.contains(word), "{word} is missing: {}", ran.err);
    }
}

/// An installation that has been used, and is not served any more.
fn used() -> Home {
    let home = Home::new();
    let served = Up::start(&home);
    for name in ["ada", "bea"] {
        home.run(&["agent", "create", name]).ok();
    }
    assert_eq!(served.end(), Some(0));
    home
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named_with_the_way_out_and_serves_again_when_it_can() {
    let home = used();
    let directory = data(&home).display().to_string();
    assert_says(&up_on_read_only(&home), &[&directory, "make it writable", "--data"]);
    let served = Up::start(&home);
    assert!(home.run(&["agent", "list", "-o", "name"]).ok().contains("ada"), "nothing is lost");
    assert_eq!(served.end(), Some(0));
}

#[test]
fn a_new_data_directory_that_cannot_be_written_is_named_with_the_way_out() {
    let home = Home::new();
    fs::create_dir_all(data(&home)).expect("made");
    let directory = data(&home).display().to_string();
    assert_says(&up_on_read_only(&home), &[&directory, "writable", "--data"]);
    assert_eq!(fs::read_dir(data(&home)).expect("read").count(), 0, "something was left there");
}

#[test]
fn a_data_directory_in_use_is_named_with_the_process_that_uses_it() {
    let home = Home::new();
    let served = Up::start(&home);
    let directory = data(&home).display().to_string();
    assert_says(&up(&home), &[&directory, &served.child.id().to_string(), "stop that process", "--data"]);
    home.run(&["agent", "list"]).ok();
    assert_eq!(served.end(), Some(0));
}

#[test]
fn a_database_of_a_newer_release_is_left_alone_and_named_with_the_way_out() {
    let home = used();
    let database = data(&home).join("raworc.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(&database);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("it opens");
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES (99, 'from the future', TRUE, x'00', 0)";
        sqlx::query(newer).execute(&mut connection).await.expect("written");
        connection.close().await.expect("closed");
    });
    let directory = data(&home).display().to_string();
    assert_says(&up(&home), &[&directory, "newer release", "99", "--data"]);
}

#[test]
fn a_damaged_database_is_named_with_the_way_out() {
    let home = used();
    let database = data(&home).join("raworc.db");
    let mut file = fs::File::options().write(true).open(&database).expect("there");
    let size = file.metadata().expect("there").len();
    // Everything but the page of the header.
    file.seek(SeekFrom::Start(4096)).expect("that long");
    file.write_all(&vec![0xa5; usize::try_from(size - 4096).expect("small")]).expect("written");
    drop(file);
    let directory = data(&home).display().to_string();
    assert_says(&up(&home), &[&directory, "damaged", "restore a backup"]);
}
