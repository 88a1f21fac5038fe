//! An engine whose users of containers are unprivileged ones outside, and a data directory that nobody else may enter.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::dockerd::{self, Dockerd, MAPPED_ROOT};
use crate::home::{Home, Ran};
use crate::up::{self, Up, until};

pub(crate) fn an_agent_lives() {
    if dockerd::is_untested("an agent on an engine that maps users", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start_mapped().expect("an engine");
    let home = Home::new();
    let data = home.path().join(".local/share/raworc");
    std::fs::create_dir_all(&data).expect("made");
    std::fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("closed");
    let on_engine = |args: &[&str]| crate::on_engine(&engine, &home, args);
    let run = |args: &[&str]| Ran::of(on_engine(args).output().expect("raworc runs")).ok();
    let _up = Up::of(on_engine(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    for (name, root, user) in [("ada", "false", 1000), ("rita", "true", 0)] {
        run(&["agent", "create", name, "--root", root, "--setup", "echo set up > set", "--wait"]);
        assert_eq!(up::condition(&home, name, "RootMapped"), None);
        assert!(run(&["send", name, "!id -u; cat set /proc/self/uid_map"]).contains(&format!("{user}\nset up\n")));
        assert!(run(&["agent", "exec", name, "--", "cat", "/proc/self/uid_map"]).contains(&MAPPED_ROOT.to_string()));
        run(&["agent", "sleep", name]);
        assert!(run(&["send", name, "!cat set; stat -c %u set"]).contains(&format!("set up\n{user}\n")));
        run(&["agent", "delete", name, "--yes"]);
    }
    let mode = std::fs::metadata(&data).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is as closed as it was");
    let label = crate::label(&home);
    let left = || engine.labelled(label.trim_start_matches("label=")).expect("listed");
    until("nothing is left", || left().is_empty());
}
