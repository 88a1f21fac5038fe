//! An engine whose disk is full in the middle: what cannot be done says why and how to get out of it, what was accepted stays,
//! and everything goes on by itself once there is room.

use std::io::Write;

use crate::dockerd::{self, Dockerd};
use crate::home::{Home, Ran};
use crate::up::{self, Up, until};

/// Room for the image, once as it is sent and once unpacked, and little more.
const SIZE: &str = "768m";

pub(crate) fn a_full_disk_of_the_engine_is_told_and_heals() {
    if dockerd::is_untested("a Docker engine whose disk is full", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start_within(SIZE).expect("an engine");
    let home = Home::new();
    let on_engine = |args: &[&str]| crate::on_engine(&engine, &home, args);
    let run = |args: &[&str]| Ran::of(on_engine(args).output().expect("raworc runs"));
    let _up = Up::of(on_engine(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    run(&["agent", "create", "ada", "--wait"]).ok();
    run(&["send", "ada", "!echo kept > kept"]).ok();
    run(&["agent", "sleep", "ada"]).ok();

    let ballast = engine.data().join("ballast");
    fill(&ballast);
    run(&["agent", "create", "bob"]).ok();
    run(&["send", "ada", "--no-wait", "!cat kept"]).ok();
    run(&["send", "bob", "--no-wait", "!echo here"]).ok();
    for name in ["ada", "bob"] {
        let ready = || up::condition(&home, name, "Ready").unwrap_or_default();
        until("a full disk is told", || ready()["reason"] == "EngineFull");
        let message = ready()["message"].to_string();
        assert!(message.contains("no space left on device") && message.contains("docker system df"), "{message}");
        assert!(run(&["agent", "explain", name]).ok().contains("disk is full"), "{name}");
        let agent = up::agent(&home, name);
        assert_eq!(agent["inbox"]["queued"], 1, "what was accepted waits: {agent:#}");
    }

    std::fs::remove_file(&ballast).expect("there is room again");
    until("ada's message has ended", || run(&["history", "ada"]).ok().contains("\nkept\n"));
    until("bob's message has ended", || run(&["history", "bob"]).ok().contains("\nhere\n"));
    for name in ["ada", "bob"] {
        run(&["agent", "delete", name]).ok();
    }
    let label = crate::label(&home);
    let left = || engine.labelled(label.trim_start_matches("label=")).expect("listed");
    until("nothing is left", || left().is_empty());
}

/// Writes until there is no room at all.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).expect("made");
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}
