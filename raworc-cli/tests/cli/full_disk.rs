//! A data directory that has no room left.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::home::Home;
use crate::up::Up;

/// Messages that are sent while there is no room.
const SENT: usize = 120;

/// `raworc up` on a small file system of its own, which nobody else sees.
///
/// Root has a mount namespace for that; an ordinary user first has to be root of a user namespace, in which computers
/// cannot have users of their own.
fn up_on_a_small_disk(home: &Home, data: &Path) -> Up {
    std::fs::create_dir(data).expect("made");
    let is_root = rustix::process::geteuid().is_root();
    let raworc = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]);
    let mut command = Command::new("unshare");
    command.arg("--mount").args((!is_root).then_some("--map-root-user"));
    command.args(["sh", "-c", "mount -t tmpfs -o size=16m,mode=700 none \"$RAWORC_DATA\" && exec \"$@\"", "sh"]);
    command.arg(raworc.get_program()).args(raworc.get_args()).args((!is_root).then_some("--no-isolation"));
    for (key, value) in raworc.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.env("RAWORC_DATA", data).current_dir(home.path()).stdin(Stdio::null());
    Up::of(command)
}

/// Fills a file until nothing more fits, and leaves so much room all the same.
fn fill_but(path: &Path, room: u64) {
    let mut file = File::create(path).expect("made");
    let mut written = 0;
    for size in [1 << 20, 4 << 10, 1] {
        let piece = vec![7; size];
        loop {
            match file.write(&piece) {
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(written > 1 << 20, "there was room before");
    file.set_len(written - room).expect("shortened");
}

#[test]
fn what_is_sent_while_the_disk_is_full_is_done_later_or_refused_by_name_and_it_goes_on_with_room() {
    let home = Home::new();
    let data = home.path().join("data");
    let up = up_on_a_small_disk(&home, &data);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo before"]).ok(), "before\n");

    // The file system as the server sees it.
    let seen = PathBuf::from(format!("/proc/{}/root{}", up.id(), data.display()));
    let ballast = seen.join("ballast");
    fill_but(&ballast, 256 << 10);

    let words = "x".repeat(2000);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for n in 0..SENT {
        let sent = home.run(&["send", "ada", "--no-wait", &format!("!echo {n} # {words}")]);
        if sent.code == 0 {
            accepted.push(sent.out.trim().to_owned());
        } else {
            assert!(sent.err.contains("the disk of the server is full"), "{sent:#?}");
            refused += 1;
        }
    }
    assert!(refused > 0 && !accepted.is_empty(), "{} accepted, {refused} refused", accepted.len());
    home.run(&["agent", "list"]).ok();
    home.run(&["history", "ada"]).ok();

    std::fs::remove_file(&ballast).expect("removed");
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo after"]).ok(), "after\n");
    let history = home.run(&["history", "ada", "--limit", "0", "-o", "json"]).ok();
    let history: serde_json::Value = serde_json::from_str(&history).expect("JSON");
    let history = history.as_array().expect("a list");
    for id in &accepted {
        let message = history.iter().find(|message| message["id"] == id.as_str());
        assert_eq!(message.map(|message| &message["state"]), Some(&"done".into()), "{id}: {message:#?}");
    }
    // What was refused is not there, so that nothing was accepted in silence either.
    let asked = history.iter().filter(|message| message["role"] == "user").count();
    assert_eq!(asked, accepted.len() + 2);
    assert_eq!(up.end(), Some(0), "the same process goes on to its end");
}
