//! The write-ahead log is carried over beside the writer, and begins anew.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use raworc_core::store::Store;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{accept, create, directory, message_id, open};

/// How often the log has begun anew, as its header says.
fn turns(directory: &tempfile::TempDir) -> u32 {
    let mut count = [0; 4];
    let log = File::open(directory.path().join("raworc.db-wal"));
    // Before the first commit there is no header.
    match log.and_then(|log| log.read_exact_at(&mut count, 12)) {
        Ok(()) => u32::from_be_bytes(count),
        Err(_) => 0,
    }
}

#[tokio::test]
async fn the_log_begins_anew_while_commits_go_on() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("is new");
    let (text, before) = ("x".repeat(100_000), turns(&directory));
    let commits = async {
        while turns(&directory) == before {
            store.commit(accept(agent, message_id(), &text)).await.expect("is taken");
        }
    };
    tokio::time::timeout(Duration::from_mins(1), commits).await.expect("the log does not grow for ever");
    store.close().await;
    assert!(!directory.path().join("raworc.db-wal").exists(), "the last to close takes the log away");
}

#[tokio::test]
async fn what_was_written_is_carried_over_when_nobody_writes_any_more() {
    let directory = directory();
    let store = open(&directory).await;
    let (agent, made) = create("one");
    store.commit(made).await.expect("is new");
    store.commit(accept(agent, message_id(), &"mark ".repeat(1000))).await.expect("is taken");
    let place = directory.path().join("raworc.db");
    let written = inotify::init(inotify::CreateFlags::CLOEXEC).expect("a watch");
    inotify::add_watch(&written, &place, inotify::WatchFlags::MODIFY).expect("watched");
    // The kernel tells of each write, which a thread of its own waits for.
    let carried = tokio::task::spawn_blocking(move || {
        let mark = "mark ".repeat(10);
        let is_there = || {
            let database = std::fs::read(&place).expect("is there");
            database.windows(mark.len()).any(|here| here == mark.as_bytes())
        };
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        while !is_there() {
            let told = poll(&mut [PollFd::new(&written, PollFlags::IN)], Some(&limit)).expect("a watch");
            assert_eq!(told, 1, "nothing is carried over");
            rustix::io::read(&written, &mut [0; 4096]).expect("a write");
        }
    });
    carried.await.expect("it is in the database");
    store.close().await;
}
