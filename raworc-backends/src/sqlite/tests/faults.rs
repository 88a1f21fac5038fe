//! Each thing that can be wrong with a data directory is said, with the way out.

use std::io::{Seek, Write};

use bytes::Bytes;
use raworc_core::blob::BlobStore;
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::TenantName;
use raworc_core::store::{AuditQuery, Store, StoreError};
use sqlx::{Connection, SqliteConnection};

use super::{SqliteOptions, SqliteStore, accept, create, directory, message_id, open};
use crate::sql::schema::migrator;
use crate::sqlite::schema::MIGRATIONS;

async fn refusal(options: SqliteOptions) -> String {
    match SqliteStore::open(options).await.expect_err("cannot be opened") {
        StoreError::Unusable { reason } => reason,
        other => panic!("{other:?} is not Unusable"),
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_with_the_process_that_uses_it() {
    let directory = directory();
    let store = open(&directory).await;
    let reason = refusal(SqliteOptions::new(directory.path())).await;
    for part in [directory.path().to_str().expect("a plain path"), &std::process::id().to_string(), "stop that process"]
    {
        assert!(reason.contains(part), "{reason}");
    }
    store.close().await;
    open(&directory).await.close().await;
}

#[tokio::test]
async fn a_directory_that_is_held_for_a_moment_more_is_waited_for() {
    let directory = directory();
    let held = std::fs::File::create(directory.path().join("raworc.lock")).expect("can be made");
    held.lock().expect("is free");
    let opening = SqliteStore::open(SqliteOptions::new(directory.path()));
    // It has looked once when the other lets go.
    let (store, ()) = tokio::join!(opening, async { drop(held) });
    store.expect("opens").close().await;
}

#[tokio::test]
async fn a_path_that_can_hold_no_database_is_refused() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").expect("can be written");
    for path in [file.clone(), file.join("below"), "/proc/raworc".into()] {
        let reason = refusal(SqliteOptions::new(&path)).await;
        assert!(reason.contains(path.to_str().expect("a plain path")), "{reason}");
        assert!(reason.contains("choose another directory"), "{reason}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_for_writing_is_refused() {
    let directory = directory();
    let options = SqliteOptions::new(directory.path());
    std::fs::create_dir(options.database()).expect("can be made");
    let reason = refusal(options).await;
    assert!(reason.contains("raworc.db") && reason.contains("writable"), "{reason}");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let directory = directory();
    open(&directory).await.close().await;
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (99, 'from the future', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut conn).await.expect("is written");
    conn.close().await.expect("closes");
    let reason = refusal(options).await;
    assert!(reason.contains("newer release") && reason.contains("99"), "{reason}");
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_to_date_with_all_that_it_holds() {
    let directory = directory();
    let options = SqliteOptions::new(directory.path());
    let mut conn = SqliteConnection::connect_with(&options.writer()).await.expect("is made");
    migrator(&MIGRATIONS[..1]).run_direct(None, &mut conn, false).await.expect("the first schema");
    let row = serde_json::json!({
        "commit": SystemEntropy.commit_id(SystemClock.now()),
        "revision": 0,
        "at": SystemClock.now(),
        "tenant": "default",
        "principal": "user:ada",
        "verb": "agents.create",
        "resource": "one",
        "allowed": true,
        "request": null,
    });
    let insert = "INSERT INTO audit (seq, id, tenant, revision, at, doc) VALUES (7, 'commit', 'default', 0, 0, ?)";
    sqlx::query(insert).bind(row.to_string()).execute(&mut conn).await.expect("is written");
    conn.close().await.expect("closes");

    let store = open(&directory).await;
    let audit = store.audit(&AuditQuery { tenant: None, after: None, limit: 10 }).await.expect("answers");
    assert_eq!(audit.items.iter().map(|row| row.entry.verb.as_str()).collect::<Vec<_>>(), ["agents.create"]);
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    store.commit(accept(agent, message_id(), "hello")).await.expect("goes through");
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = directory();
    let options = SqliteOptions::new(directory.path());
    std::fs::write(options.database(), vec![b'x'; 8192]).expect("can be written");
    let reason = refusal(options).await;
    assert!(reason.contains("damaged") && reason.contains("restore a backup"), "{reason}");
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    for _ in 0..50 {
        store.commit(accept(agent, message_id(), &"text ".repeat(200))).await.expect("goes through");
    }
    store.close().await;
    let options = SqliteOptions::new(directory.path());
    let mut file = std::fs::OpenOptions::new().write(true).open(options.database()).expect("is there");
    let size = file.metadata().expect("is there").len();
    // Everything but the header's page.
    file.seek(std::io::SeekFrom::Start(4096)).expect("is that long");
    file.write_all(&vec![0xa5; usize::try_from(size - 4096).expect("small")]).expect("can be written");
    drop(file);
    let reason = refusal(options).await;
    assert!(reason.contains("damaged") && reason.contains("restore a backup"), "{reason}");
}

#[tokio::test]
async fn without_room_nothing_is_half_written_and_with_room_it_goes_on() {
    let directory = directory();
    let store = SqliteStore::open(SqliteOptions::new(directory.path()).with_max_size(1 << 20)).await.expect("opens");
    let tenant = TenantName::default_tenant();
    let (agent, made) = create("one");
    store.commit(made).await.expect("goes through");
    let ballast = store.put(&tenant, Bytes::from(vec![7; 300 << 10])).await.expect("there is room");

    let text = "x".repeat(100 << 10);
    let mut accepted = 0;
    let (commit, error) = loop {
        let commit = accept(agent, message_id(), &text);
        match store.commit(commit.clone()).await {
            Ok(_) => accepted += 1,
            Err(error) => break (commit, error),
        }
    };
    assert!(matches!(&error, StoreError::Full { reason } if reason.contains("raworc.db")), "{error}");
    assert!(error.is_retryable());
    let seen = store.agent_by_id(agent).await.expect("answers").value.expect("is there");
    assert_eq!(seen.inbox.last_seq, accepted, "a commit without room left something of itself");
    let head = store.head().await.expect("answers").value;

    store.unlink(&tenant, ballast).await.expect("takes no room");
    let committed = store.commit(commit).await.expect("there is room again");
    assert_eq!(committed.messages[0].seq, accepted + 1);
    assert_eq!(committed.revision, head.next());
    store.close().await;
}

#[tokio::test]
async fn a_database_that_another_program_holds_locked_is_unavailable_until_it_lets_go() {
    let directory = directory();
    let store = open(&directory).await;
    let options = SqliteOptions::new(directory.path());
    let mut other = SqliteConnection::connect_with(&options.writer()).await.expect("is there");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("is free");
    let (_, commit) = create("one");
    let error = store.commit(commit.clone()).await.expect_err("is locked");
    assert!(error.is_retryable() && error.to_string().contains("another program"), "{error}");
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("ends");
    other.close().await.expect("closes");
    store.commit(commit).await.expect("goes through");
    store.close().await;
}
