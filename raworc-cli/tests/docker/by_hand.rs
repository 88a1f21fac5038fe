//! What a person does to an agent's things on the engine, past Raworc: it is told with the way out, and heals.

use serde_json::Value;

use crate::dockerd::{self, Dockerd, IMAGE};
use crate::home::{Home, Ran};
use crate::up::{Up, condition, until};
use crate::{Cleared, docker, label, on_slim, run_slim};

const UP: [&str; 7] = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "error"];

/// What the default image is called.
const DEFAULT_IMAGE: &str = "raworc/computer:latest";

/// The first of what the installation has of a kind.
fn first(home: &Home, list: &[&str]) -> String {
    let listed = docker(&[list, &["--filter", &label(home)]].concat());
    listed.lines().next().expect("there").to_owned()
}

/// Waits until its agent is not ready for this reason. What is said of it.
fn waits(home: &Home, reason: &str) -> String {
    let ready = || condition(home, "ada", "Ready").unwrap_or(Value::Null);
    until(reason, || ready()["reason"] == reason);
    ready()["message"].as_str().expect("a message").to_owned()
}

pub(crate) fn a_container_that_was_removed() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(on_slim(&home, &UP));
    let run = |args: &[&str]| run_slim(&home, args).ok();
    run(&["agent", "create", "ada", "--wait"]);
    // What is at work meanwhile is done again.
    run(&[
        "send",
        "ada",
        "--no-wait",
        "!echo begun >> begun; until [ $(wc -l < begun) = 2 ]; do sleep 0.1; done; cat begun",
    ]);
    until("it is at work", || run_slim(&home, &["agent", "exec", "ada", "--", "cat", "begun"]).code == 0);
    let container = first(&home, &["ps", "-q"]);
    docker(&["rm", "-f", &container]);
    until("the message has ended", || run(&["history", "ada"]).contains("\nbegun\nbegun\n"));
    assert_ne!(first(&home, &["ps", "-q", "--no-trunc"]).get(..container.len()), Some(&*container));
}

pub(crate) fn a_volume_that_was_removed() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(on_slim(&home, &UP));
    let run = |args: &[&str]| run_slim(&home, args).ok();
    run(&["agent", "create", "ada", "--wait", "--setup", "echo set up >> /agent/setups"]);
    run(&["send", "ada", "!echo kept > kept"]);
    run(&["agent", "sleep", "ada"]);
    let volume = first(&home, &["volume", "ls", "-q"]);
    docker(&["rm", &first(&home, &["ps", "-aq"])]);
    docker(&["volume", "rm", &volume]);
    run(&["send", "ada", "--no-wait", "!cat kept setups"]);
    waits(&home, "VolumeMissing");
    let why = run(&["agent", "explain", "ada"]);
    assert!(why.contains(volume.trim_start_matches("raworc-")), "{why}");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &label(&home)]), "", "none was made in its place");
    // The way out of docs/concepts/runtimes.md.
    docker(&["volume", "create", "--label", label(&home).trim_start_matches("label="), &volume]);
    until("it goes on with nothing", || run(&["history", "ada"]).contains("kept: No such file or directory\nset up\n"));
}

/// Of a volume and of a container: whoever has the name keeps it until a person decides.
pub(crate) fn a_stranger_with_our_name() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(on_slim(&home, &UP));
    let run = |args: &[&str]| run_slim(&home, args).ok();
    run(&["agent", "create", "ada", "--wait"]);
    run(&["agent", "sleep", "ada"]);
    let volume = first(&home, &["volume", "ls", "-q"]);
    let container = first(&home, &["ps", "-a", "--format", "{{.Names}}"]);
    docker(&["rm", &container]);

    docker(&["create", "--name", &container, IMAGE, "true"]);
    run(&["send", "ada", "--no-wait", "!echo here again"]);
    let told = waits(&home, "EngineRefused");
    assert!(told.contains(&container) && told.contains("not this installation's; remove it"), "{told}");
    docker(&["rm", &container]);
    until("the message has ended", || run(&["history", "ada"]).contains("\nhere again\n"));

    run(&["agent", "sleep", "ada"]);
    docker(&["rm", &container]);
    docker(&["volume", "rm", &volume]);
    docker(&["volume", "create", "--label", "of=another", &volume]);
    run(&["send", "ada", "--no-wait", "!ls"]);
    let told = waits(&home, "EngineRefused");
    let own = label(&home).trim_start_matches("label=").to_owned();
    let way_out = format!("`docker volume create --label {own} {volume}`; else remove it");
    assert!(told.contains(&format!("it has no label {own}; ")) && told.contains(&way_out), "{told}");
    assert_eq!(docker(&["volume", "inspect", "--format", "{{len .Labels}}", &volume]), "1", "it is as it was");
    docker(&["volume", "rm", &volume]);
    waits(&home, "VolumeMissing");
}

/// The default one and an agent's own, on an engine where nobody else misses them.
pub(crate) fn an_image_that_was_removed() {
    if dockerd::is_untested("an image that was removed from a Docker engine", dockerd::obstacle()) {
        return;
    }
    let engine = Dockerd::start().expect("an engine");
    let home = Home::new();
    let on_engine = |args: &[&str]| {
        let mut command = crate::on_engine(&engine, &home, args);
        command.env_remove("RAWORC_DOCKER__IMAGE");
        command
    };
    let run = |args: &[&str]| Ran::of(on_engine(args).output().expect("raworc runs")).ok();
    let own = "localhost/raworc-test:own";
    for image in [DEFAULT_IMAGE, own] {
        engine.docker(["tag", IMAGE, image]).expect("named");
    }
    let _up = Up::of(on_engine(&UP));
    run(&["agent", "create", "ada", "--wait"]);
    for (change, image, way_out) in
        [(["--pids", "100"].as_slice(), DEFAULT_IMAGE, "raworc image build"), (&["--image", own], own, own)]
    {
        run(&["agent", "sleep", "ada"]);
        // A changed spec has another computer, for which the image is needed once more.
        run(&[&["agent", "edit", "ada"], change].concat());
        engine.docker(["image", "rm", image]).expect("removed");
        run(&["send", "ada", "--no-wait", &format!("!echo by {image}")]);
        let told = waits(&home, "ImageMissing");
        assert!(told.contains(image) && told.contains(way_out), "{told}");
        assert!(run(&["agent", "explain", "ada"]).contains(way_out), "{image}");
        engine.docker(["tag", IMAGE, image]).expect("there again");
        until("the message has ended", || run(&["history", "ada"]).contains(&format!("\nby {image}\n")));
    }
}
