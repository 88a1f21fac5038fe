//! Volumes that an agent shaped to harm whoever walks them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use libtest_mimic::Trial;
use raworc_backends::local::Isolation;
use raworc_core::runtime::{Phase, Runtime, RuntimeExt};

use crate::machine::{Machine, Made, boot, open, spec, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("links_in_a_volume_lead_nowhere_on_the_machine", links_in_a_volume_lead_nowhere_on_the_machine),
        trial("a_volume_that_is_deep_and_locked_is_removed", a_volume_that_is_deep_and_locked_is_removed),
        trial(
            "what_an_agent_has_locked_against_itself_is_copied_and_stays_locked",
            what_an_agent_has_locked_against_itself_is_copied_and_stays_locked,
        ),
        trial("a_copy_keeps_links_holes_and_rights", a_copy_keeps_links_holes_and_rights),
        trial("each_volume_belongs_to_a_user_of_its_own", each_volume_belongs_to_a_user_of_its_own),
        trial("a_volume_goes_from_no_isolation_to_isolation_and_back_and_is_usable", a_volume_changes_sides),
    ]
}

async fn links_in_a_volume_lead_nowhere_on_the_machine() {
    let victim = tempfile::tempdir().expect("a directory");
    fs::write(victim.path().join("precious"), "kept").expect("written");
    let script = format!(
        "ln -s {0} /agent/directory; ln -s {0}/precious /agent/file; ln -s / /agent/root; mkdir -p /agent/a/b; \
         ln -s ../../../../../../../../../../../../../../../..{0} /agent/a/b/up; mkfifo /agent/pipe; echo own > /agent/own",
        victim.path().display()
    );
    let machine = Machine::new(&script).await;
    let made = machine.make().await;
    assert_eq!(machine.run(&made).await.0, "exit code 0");
    let copy = Made::new();
    machine.runtime.copy_volume(made.volume, copy.volume).await.expect("copied");
    let copied = machine.volume(&copy);
    assert!(fs::symlink_metadata(copied.join("directory")).expect("there").is_symlink());
    assert!(fs::symlink_metadata(copied.join("a/b/up")).expect("there").is_symlink());
    assert_eq!(fs::read_to_string(copied.join("own")).expect("read"), "own\n");
    for volume in [made.volume, copy.volume] {
        machine.runtime.remove_volume(volume).await.expect("removed");
    }
    machine.runtime.remove(made.id).await.expect("removed");
    assert_eq!(fs::read_to_string(victim.path().join("precious")).expect("there"), "kept");
    let owner = fs::metadata(victim.path()).expect("there").uid();
    assert_eq!(owner, rustix::process::geteuid().as_raw(), "the directory outside has another owner");
    machine.close().await;
}

async fn a_volume_that_is_deep_and_locked_is_removed() {
    let script = "mkdir -p /agent/locked/in; touch /agent/locked/in/file; chmod 000 /agent/locked/in /agent/locked; \
        cd /agent; p=.; i=0; while [ $i -lt 500 ]; do p=$p/deep; i=$((i + 1)); done; \
        for n in 1 2 3; do mkdir -p $p && cd -P $p || exit 1; done; touch bottom";
    let machine = Machine::new(script).await;
    let made = machine.make().await;
    let (reason, log) = machine.run(&made).await;
    assert_eq!(reason, "exit code 0", "{log}");
    let copy = Made::new();
    let error = machine.runtime.copy_volume(made.volume, copy.volume).await.expect_err("too deep").to_string();
    assert!(error.contains("nest deeper than"), "{error}");
    assert!(!machine.volume(&copy).exists(), "half a copy is left");
    machine.runtime.remove_volume(made.volume).await.expect("removed");
    assert!(!machine.volume(&made).exists());
    let state = machine.directory.path().join("state").join(&machine.installation);
    assert_eq!(fs::read_dir(state.join("trash")).expect("there").count(), 0, "something is left in the trash");
    machine.close().await;
}

async fn what_an_agent_has_locked_against_itself_is_copied_and_stays_locked() {
    let script = "cd /agent; mkdir -p d/in; echo one > d/in/file; chmod 000 d/in/file d/in d; chmod 500 .; exit 0";
    let machine = Machine::new(script).await;
    let made = machine.make().await;
    assert_eq!(machine.run(&made).await.0, "exit code 0");
    let copy = Made::new();
    machine.runtime.copy_volume(made.volume, copy.volume).await.expect("copied");
    for volume in [machine.volume(&made), machine.volume(&copy)] {
        let mode = |path: &Path| fs::symlink_metadata(path).expect("there").mode() & 0o777;
        let unlock = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("unlocked");
        for (path, wanted) in [("", 0o500), ("d", 0), ("d/in", 0), ("d/in/file", 0)] {
            let path = volume.join(path);
            assert_eq!(mode(&path), wanted, "{}", path.display());
            unlock(&path);
        }
        assert_eq!(fs::read_to_string(volume.join("d/in/file")).expect("read"), "one\n");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o500)).expect("locked");
    }
    for volume in [made.volume, copy.volume] {
        machine.runtime.remove_volume(volume).await.expect("removed");
    }
    machine.close().await;
}

async fn a_copy_keeps_links_holes_and_rights() {
    let script = "cd /agent; truncate -s 64M hole; echo end >> hole; echo one > a; ln a b; chmod 640 a; mkdir d; \
        echo two > d/c; chmod 710 d; touch -d @1000000000 d/c; exit 0";
    let machine = Machine::new(script).await;
    let made = machine.make().await;
    assert_eq!(machine.run(&made).await.0, "exit code 0");
    let copy = Made::new();
    // Once more over what is there, as after a call that was cut short.
    for _ in 0..2 {
        machine.runtime.copy_volume(made.volume, copy.volume).await.expect("copied");
    }
    let at = machine.volume(&copy);
    let data = |name: &str| fs::symlink_metadata(at.join(name)).expect(name);
    assert_eq!(data("hole").len(), (64 << 20) + 4);
    assert!(data("hole").blocks() * 512 < 1 << 20, "the hole was filled: {} blocks", data("hole").blocks());
    assert_eq!(data("a").ino(), data("b").ino(), "a file with two names became two");
    assert_eq!((data("a").mode() & 0o777, data("d").mode() & 0o777), (0o640, 0o710));
    assert_eq!(data("d/c").mtime(), 1_000_000_000);
    let owner = data(".").uid();
    for name in ["hole", "a", "d", "d/c"] {
        assert_eq!(data(name).uid(), owner, "{name}");
    }
    fs::write(at.join("a"), "changed").expect("written");
    assert_eq!(fs::read_to_string(machine.volume(&made).join("a")).expect("read"), "one\n");
    machine.runtime.ensure(&spec(&copy, Default::default())).await.expect("made on the copy");
    machine.close().await;
}

async fn each_volume_belongs_to_a_user_of_its_own() {
    let machine = Machine::new("").await;
    let (one, two) = (machine.make().await, machine.make().await);
    let owner = |made: &Made| fs::symlink_metadata(machine.volume(made)).expect("there").uid();
    if rustix::process::geteuid().is_root() {
        assert!(owner(&one) >= 1_900_000_000 && owner(&two) >= 1_900_000_000);
        assert_ne!(owner(&one), owner(&two));
    } else {
        assert_eq!(owner(&one), rustix::process::geteuid().as_raw());
    }
    machine.close().await;
}

async fn a_volume_changes_sides() {
    let directory = tempfile::tempdir().expect("a directory");
    let (installation, made) = (Machine::name(), Made::new());
    // Each start adds a line to what the one before wrote, and a file that only its owner reads.
    let script = "cd && echo line >> lines && mkdir -p private && chmod 700 private && n=$(wc -l < lines) && \
        echo $n > private/$n && chmod 600 private/* && cat private/* | wc -l; id -u";
    for (n, isolation) in
        [Isolation::None, Isolation::Required, Isolation::None, Isolation::Required].iter().enumerate()
    {
        let runtime = open(&directory, &installation, script, |options| options.with_isolation(*isolation)).await;
        runtime.ensure(&spec(&made, Default::default())).await.expect("made");
        runtime.start(made.id, &boot(made.id, n as u64 + 1)).await.expect("started");
        let log = wait_for("the program ends", async || {
            let observed = runtime.observe(made.id).await.expect("observed").expect("there");
            let ended = matches!(observed.phase, Phase::Stopped { reason: Some(_) });
            let log = runtime.log_tail(made.id, 1 << 20).await;
            ended.then_some(log)
        })
        .await;
        let uid = match isolation {
            Isolation::None => rustix::process::geteuid().as_raw(),
            Isolation::Required => 1000,
        };
        assert_eq!(log, format!("{}\n{uid}\n", n + 1), "{isolation:?}");
        runtime.close().await;
        if rustix::process::geteuid().is_root() {
            let volume = directory.path().join("state").join(&installation).join("volumes");
            let volume = volume.join(made.volume.to_string());
            let owner = |path: &str| fs::symlink_metadata(volume.join(path)).expect("there").uid();
            let mark = owner("");
            assert_eq!(mark >= 1_900_000_000, *isolation == Isolation::Required, "{mark}");
            for n in 1..=n + 1 {
                let file = owner(&format!("private/{n}"));
                assert!(*isolation == Isolation::None || file == mark, "private/{n}: {file}, not {mark}");
            }
        }
    }
}
