//! What is old is taken away by a process as people run it.

use crate::clock;
use crate::home::Home;
use crate::up::{Up, until};

#[test]
fn what_is_older_than_it_is_to_be_kept_goes_and_what_is_not_done_yet_stays() {
    clock::library().expect("a process's clock can be set");
    let home = Home::new();
    let start = |ahead| {
        let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]);
        for what in ["MESSAGES", "STEPS", "EVENTS", "AUDIT", "DELETED_AGENTS", "BLOBS"] {
            command.env(format!("RAWORC_RETENTION__{what}"), "1m");
        }
        command.envs(clock::off_by(ahead));
        Up::of(command)
    };
    let up = start(0);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "!echo an old one"]).ok();
    home.run(&["send", "ada", "--no-wait", "!until [ -e go ]; do sleep 0.1; done; echo held >> done"]).ok();
    home.run(&["send", "ada", "--no-wait", "!echo waited >> done"]).ok();
    assert_eq!(up.end(), Some(0));

    let up = start(3600);
    let history = || home.run(&["history", "ada", "-o", "json"]).ok();
    until("what is old is taken away", || !history().contains("an old one"));
    home.run(&["agent", "exec", "ada", "--", "touch", "go"]).ok();
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!cat done"]).ok(), "held\nwaited\n");
    assert_eq!(up.end(), Some(0));
    clock::sweep();
}
