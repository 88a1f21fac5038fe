use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::walk::{Pace, Walked, walk};
use super::*;

/// Walks as fast as it can.
struct Brisk;

impl Pace for Brisk {
    fn step(&mut self, _: u64) -> bool {
        true
    }
}

/// Does something after each entry.
struct Meanwhile<F>(F);

impl<F: FnMut(u64) -> bool> Pace for Meanwhile<F> {
    fn step(&mut self, entries: u64) -> bool {
        (self.0)(entries)
    }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A file whose bytes are written to the disk, so that what it takes there does not change any more.
    fn write(&self, path: &str, bytes: usize) {
        fs::write(self.path(path), vec![7; bytes]).expect("written");
        fs::File::open(self.path(path)).and_then(|file| file.sync_all()).expect("on the disk");
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.path(path)).expect("made");
    }

    /// What these take on the disk, each by itself.
    fn take(&self, paths: &[&str]) -> u64 {
        paths.iter().map(|path| fs::symlink_metadata(self.path(path)).expect("there").blocks() * 512).sum()
    }

    fn walked(&self) -> Walked {
        walk(self.0.path(), &mut Brisk).expect("a directory")
    }
}

fn all(bytes: u64) -> Walked {
    Walked { bytes, unseen: 0 }
}

#[test]
fn all_files_and_directories_count_by_what_they_take_on_the_disk() {
    let home = Home::new();
    home.make("a/b");
    home.write("one", 100_000);
    home.write("a/b/two", 1);
    let expected = home.take(&["", "one", "a", "a/b", "a/b/two"]);
    assert!(expected >= 100_000);
    assert_eq!(home.walked(), all(expected));
}

#[test]
fn a_file_with_several_names_counts_once() {
    let home = Home::new();
    home.make("a");
    home.write("one", 300_000);
    for name in ["two", "a/three"] {
        fs::hard_link(home.path("one"), home.path(name)).expect("linked");
    }
    assert_eq!(home.walked(), all(home.take(&["", "a", "one"])));
}

#[test]
fn holes_in_a_file_take_nothing() {
    let home = Home::new();
    let file = fs::File::create(home.path("sparse")).expect("made");
    file.set_len(1 << 40).expect("a length");
    assert_eq!(home.walked(), all(home.take(&["", "sparse"])));
    assert!(home.walked().bytes < 1 << 20, "{:?}", home.walked());
}

#[test]
fn links_are_not_followed_out_of_the_volume_nor_in_circles() {
    let (home, other) = (Home::new(), Home::new());
    other.write("large", 1 << 20);
    symlink(other.0.path(), home.path("out")).expect("linked");
    symlink(other.path("large"), home.path("file")).expect("linked");
    symlink(".", home.path("circle")).expect("linked");
    symlink("/nowhere", home.path("broken")).expect("linked");
    assert_eq!(home.walked(), all(home.take(&["", "out", "file", "circle", "broken"])));
}

#[test]
fn a_volume_that_is_reached_by_a_link_is_measured() {
    let home = Home::new();
    home.make("volume");
    home.write("volume/one", 50_000);
    symlink("volume", home.path("link")).expect("linked");
    let walked = walk(&home.path("link"), &mut Brisk).expect("a directory");
    assert_eq!(walked, all(home.take(&["volume", "volume/one"])));
}

#[test]
fn another_file_system_below_the_volume_is_left_alone() {
    // This machine's own: a directory of files that has another below it.
    let (above, below) = (Path::new("/dev"), Path::new("/dev/shm"));
    let device = |path: &Path| fs::metadata(path).expect("there").dev();
    assert_ne!(device(above), device(below), "this machine has no file system at /dev/shm");
    let bytes = || walk(above, &mut Brisk).expect("a directory").bytes;
    let before = bytes();
    let mut large = tempfile::NamedTempFile::new_in(below).expect("a file");
    std::io::Write::write_all(&mut large, &vec![7; 8 << 20]).expect("written");
    assert!(bytes() < before + (4 << 20));
}

/// Looks as somebody who may not read everything.
fn as_nobody<T: Send>(look: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::fs::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("nobody from here on");
            }
            look()
        });
        thread.join().expect("no panic")
    })
}

#[test]
fn a_directory_that_may_not_be_read_is_left_out_and_the_rest_counts() {
    let home = Home::new();
    home.make("closed/inner");
    home.write("closed/inner/one", 200_000);
    home.write("two", 20_000);
    fs::set_permissions(home.path("closed"), fs::Permissions::from_mode(0o000)).expect("closed");
    fs::set_permissions(home.0.path(), fs::Permissions::from_mode(0o755)).expect("opened to all");
    let walked = as_nobody(|| home.walked());
    fs::set_permissions(home.path("closed"), fs::Permissions::from_mode(0o700)).expect("opened");
    assert_eq!(walked, Walked { bytes: home.take(&["", "closed", "two"]), unseen: 1 });
}

#[test]
fn what_goes_and_comes_under_the_walk_does_not_end_it() {
    let home = Home::new();
    for n in 0..20 {
        home.make(&format!("d{n}/inner"));
        home.write(&format!("d{n}/inner/file"), 10_000);
        home.write(&format!("f{n}"), 10_000);
    }
    home.write("last", 50_000);
    let keeps = home.take(&["last"]);
    let mut step = 0u32;
    let walked = walk(
        home.0.path(),
        &mut Meanwhile(|_| {
            let n = step % 20;
            step += 1;
            // One is gone, one is a link to all of it, and one has become a file.
            let _ = fs::remove_file(home.path(&format!("f{n}")));
            let _ = fs::remove_dir_all(home.path(&format!("d{n}")));
            match n % 3 {
                0 => drop(symlink(home.0.path(), home.path(&format!("d{n}")))),
                1 => drop(fs::write(home.path(&format!("d{n}")), "a file")),
                _ => {}
            }
            true
        }),
    );
    let walked = walked.expect("a directory");
    assert!(walked.bytes >= keeps, "{walked:?}");
    assert!(walked.bytes < 20 * 60_000 + 200_000, "nothing is counted by way of a link: {walked:?}");
    assert_eq!(walked.unseen, 0);
}

#[test]
fn a_directory_that_becomes_something_else_between_a_look_and_its_opening_is_not_entered() {
    let (home, other) = (Home::new(), Home::new());
    home.write("file", 1);
    home.make("directory");
    symlink(other.0.path(), home.path("link")).expect("linked");
    let at = fs::File::open(home.0.path()).expect("a directory");
    let opened = |name: &std::ffi::CStr| walk::open(std::os::fd::AsFd::as_fd(&at), name).map(drop);
    assert_eq!(opened(c"directory"), Ok(()));
    assert_eq!(opened(c"file"), Err(rustix::io::Errno::NOTDIR));
    assert!(opened(c"link").is_err(), "it leads out of the volume");
}

#[test]
fn it_ends_when_it_is_told_to_and_says_what_it_has_found() {
    let home = Home::new();
    for n in 0..100 {
        home.write(&format!("f{n}"), 5_000);
    }
    let whole = home.walked().bytes;
    let mut seen = 0;
    let part = walk(
        home.0.path(),
        &mut Meanwhile(|entries| {
            seen = entries;
            entries < 10
        }),
    );
    assert_eq!(seen, 10);
    assert!(part.expect("a directory").bytes < whole);
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(!walk::Gentle::until(stop).step(1));
    assert!(walk::Gentle::until(CancellationToken::new()).step(1));
    assert!(!walk::Gentle::until(CancellationToken::new()).step(20_000_000));
}

#[test]
fn a_tree_without_a_bottom_takes_no_more_than_so_many_descriptors() {
    let home = Home::new();
    let mut at = fs::File::open(home.0.path()).expect("a directory");
    for _ in 0..200 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).expect("made");
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).expect("opened").into();
    }
    let walked = home.walked();
    assert_eq!(walked.unseen, 1, "{walked:?}");
}

#[test]
fn what_is_no_directory_or_is_not_there_cannot_be_measured() {
    let home = Home::new();
    home.write("file", 1);
    assert!(walk(&home.path("file"), &mut Brisk).is_err());
    assert!(walk(&home.path("nowhere"), &mut Brisk).is_err());
}

#[test]
fn the_servers_marks_are_above_the_limit_and_a_little_below_it() {
    let sides = [(0, Side::Room), (95, Side::Room), (96, Side::Between), (100, Side::Between), (101, Side::Full)];
    for (bytes, side) in sides {
        assert_eq!(Side::of(bytes, 100), side, "{bytes}");
    }
    assert_eq!(Side::of(u64::MAX, u64::MAX), Side::Between);
}

/// Runs a meter of this home beside `test`.
async fn metered(home: &Home, test: impl AsyncFnOnce(&Meter)) {
    let meter = Meter::default();
    tokio::select! {
        biased;
        () = test(&meter) => {}
        never = meter.run(home.0.path()) => match never {},
    }
}

/// Waits until this much was seen.
async fn sees(meter: &Meter, holds: impl Fn(u64) -> bool) -> u64 {
    let seen = |state: &State| state.held.is_some_and(&holds);
    let mut state = meter.0.subscribe();
    let found = tokio::time::timeout(Duration::from_secs(20), state.wait_for(seen)).await;
    found.expect("in time").expect("a meter").held.expect("seen")
}

#[tokio::test]
async fn nothing_is_measured_before_somebody_wants_to_know_and_then_at_once_and_after_each_write() {
    let home = Home::new();
    metered(&home, async |meter| {
        meter.written();
        meter.caught_up().await;
        assert_eq!(meter.report().disk_used, None);
        meter.limit(Some(1 << 20));
        let empty = sees(meter, |_| true).await;
        assert_eq!(meter.report().disk_used, Some(empty));
        home.write("large", 2 << 20);
        meter.written();
        let full = sees(meter, |bytes| bytes > 1 << 20).await;
        assert!(full >= empty + (2 << 20));
        meter.limit(None);
        assert_eq!(meter.report().disk_used, None, "it is old by the time that somebody asks again");
    })
    .await;
}

#[tokio::test]
async fn a_change_of_side_is_news_until_it_was_told_and_a_message_waits_for_that() {
    let home = Home::new();
    metered(&home, async |meter| {
        meter.limit(Some(1 << 20));
        meter.news().await;
        assert!(!meter.0.borrow().is_caught_up(), "what is not told yet is waited for");
        meter.told(meter.report());
        meter.caught_up().await;
        home.write("small", 10_000);
        meter.written();
        sees(meter, |bytes| bytes > 10_000).await;
        assert!(!meter.0.borrow().is_news(), "it has room as before");
        home.write("large", 2 << 20);
        meter.written();
        meter.news().await;
        assert!(meter.report().disk_used.is_some_and(|bytes| bytes > 2 << 20));
        meter.told(meter.report());
        meter.caught_up().await;
        fs::remove_file(home.path("large")).expect("removed");
        meter.written();
        meter.news().await;
        assert!(meter.report().disk_used.is_some_and(|bytes| bytes < 1 << 20));
    })
    .await;
}

#[tokio::test]
async fn a_volume_on_a_file_system_that_holds_less_than_the_limit_need_not_be_walked() {
    let home = Home::new();
    home.write("one", 10_000);
    metered(&home, async |meter| {
        meter.limit(Some(u64::MAX));
        let bound = sees(meter, |_| true).await;
        let all = Space::of(home.0.path()).expect("told").used;
        assert!(bound > home.walked().bytes && bound.abs_diff(all) < all / 2, "{bound} of {all}");
    })
    .await;
}

/// While there is far more room than the file system holds, that is told and nothing is walked.
#[tokio::test]
async fn a_lower_limit_is_held_against_what_the_volume_holds_and_not_its_file_system() {
    let home = Home::new();
    home.write("file", 64 << 10);
    metered(&home, async |meter| {
        meter.limit(Some(u64::MAX));
        meter.news().await;
        let whole = meter.report().disk_used.expect("a figure");
        meter.told(meter.report());
        meter.limit(Some(whole / 2));
        assert_eq!(meter.report().disk_used, None, "nothing is known by the new limit");
        meter.news().await;
        assert_eq!(meter.report().disk_used, Some(home.walked().bytes));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_home_that_cannot_be_measured_is_tried_again_though_its_file_system_stays_as_it_was() {
    // Where nobody else writes.
    let home = Home(tempfile::tempdir_in("/dev/shm").expect("a directory"));
    let volume = home.path("volume");
    fs::write(&volume, "").expect("what is no directory");
    home.write("file", 64 << 10);
    let meter = Meter::default();
    meter.limit(Some(1));
    let test = async {
        sees(&meter, |_| true).await;
        meter.told(meter.report());
        fs::remove_file(&volume).expect("removed");
        fs::create_dir(&volume).expect("made");
        fs::rename(home.path("file"), volume.join("file")).expect("moved");
        let mut state = meter.0.subscribe();
        let again = tokio::time::timeout(SLOW * 2, state.wait_for(|state| state.held > Some(0)));
        again.await.expect("by the clock").expect("a meter");
    };
    tokio::select! {
        biased;
        () = test => {}
        never = meter.run(&volume) => match never {},
    }
}

#[tokio::test]
async fn a_home_that_cannot_be_measured_keeps_nobody_waiting_for_ever() {
    let home = Home::new();
    fs::remove_dir(home.0.path()).expect("removed");
    metered(&home, async |meter| {
        meter.limit(Some(1 << 20));
        meter.news().await;
        assert_eq!(meter.report().disk_used, Some(0), "what was said before of it counts no more");
        meter.told(meter.report());
        meter.0.subscribe().wait_for(State::is_caught_up).await.expect("a meter");
        assert!(!meter.0.borrow().is_due(), "it is tried again by the clock, not at once");
    })
    .await;
}
