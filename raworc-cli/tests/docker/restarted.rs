//! An engine that is killed and started again says less of what it had before.

use crate::dockerd::{self, Dockerd};
use crate::home::{Home, Ran};
use crate::up::{self, Up, until};

pub(crate) fn an_agent_gets_another_computer_on_its_volume() {
    if dockerd::is_untested("a Docker engine that is started anew", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start().expect("an engine");
    let home = Home::new();
    let on_engine = |args: &[&str]| crate::on_engine(&engine, &home, args);
    let run = |args: &[&str]| Ran::of(on_engine(args).output().expect("raworc runs"));
    let _up = Up::of(on_engine(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    run(&["agent", "create", "ada", "--wait"]).ok();
    run(&["send", "ada", "!echo kept > kept"]).ok();
    run(&["agent", "sleep", "ada"]).ok();
    // A volume that no container has is one of which the engine, started anew, tells no labels where it is made once more.
    let container = engine.docker(["ps", "-aq"]).expect("listed");
    engine.docker(["rm", "-v", &container]).expect("removed by hand");
    assert!(engine.kill(), "it ran");
    engine.resume().expect("started anew");
    run(&["send", "ada", "--no-wait", "!cat kept"]).ok();
    until("the message has ended", || {
        let ready = up::condition(&home, "ada", "Ready").unwrap_or_default();
        assert_ne!(ready["reason"], "EngineRefused", "{ready:#}");
        run(&["history", "ada"]).ok().contains("\nkept\n")
    });
    run(&["agent", "delete", "ada"]).ok();
    let label = crate::label(&home);
    until("nothing is left", || engine.labelled(label.trim_start_matches("label=")).expect("listed").is_empty());
}
