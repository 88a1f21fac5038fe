//! A volume that holds more than it may.

use crate::home::Home;
use crate::up::{condition, until};

fn agent(home: &Home) -> serde_json::Value {
    serde_json::from_str(&home.run(&["agent", "get", "ada", "-o", "json"]).ok()).expect("JSON")
}

#[test]
fn messages_wait_while_the_volume_is_over_its_limit_also_asleep_and_run_once_files_are_gone() {
    let home = Home::new();
    let up = crate::up::Up::start(&home);
    messages_wait_for_room(&home);
    assert_eq!(up.end(), Some(0));
}

/// A life of an agent whose volume is too full twice, on whatever runtime is served.
pub(crate) fn messages_wait_for_room(home: &Home) {
    home.run(&["agent", "create", "ada", "--disk", "16Mi", "--idle-timeout", "8s", "--wait"]).ok();
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo before"]).ok(), "before\n");
    // What cannot be made smaller, so that it takes its room on whatever file system.
    let fill = "dd if=/dev/urandom of=large bs=1M count=20 2>/dev/null";
    home.run(&["agent", "exec", "ada", "--", "sh", "-c", fill]).ok();
    until("DiskFull", || condition(home, "ada", "DiskFull").is_some());
    let told = condition(home, "ada", "DiskFull").expect("told");
    let message = told["message"].as_str().expect("a message");
    assert_eq!((&told["status"], &told["reason"]), (&true.into(), &"VolumeFull".into()), "{told}");
    assert!(message.contains("16Mi") && message.contains("20.") && message.contains("resources.disk"), "{told}");

    let id = home.run(&["send", "ada", "--no-wait", "!echo after; ls"]).ok();
    for command in ["get", "explain"] {
        let shown = home.run(&["agent", command, "ada"]).ok();
        assert!(shown.contains("VolumeFull") && shown.contains("resources.disk"), "{shown}");
    }
    assert!(home.run(&["agent", "explain", "ada"]).ok().contains("messages wait for room on its volume"));
    until("its sleep by time", || agent(home)["status"]["state"] == "slept" && agent(home)["status"]["run"].is_null());
    let slept = agent(home);
    assert_eq!((&slept["inbox"]["queued"], &slept["status"]["incarnation"]), (&1.into(), &1.into()), "{slept:#}");

    home.run(&["agent", "exec", "ada", "--", "rm", "large"]).ok();
    let history = || home.run(&["history", "ada", "-o", "json"]).ok();
    let find = || {
        let all: serde_json::Value = serde_json::from_str(&history()).expect("JSON");
        all.as_array().expect("a list").iter().find(|message| message["id"] == id.trim()).cloned().expect("it is there")
    };
    until("the message to be done", || find()["state"] == "done");
    assert_eq!(find()["attempt"], 1);
    until("room", || condition(home, "ada", "DiskFull").is_none());

    // More of it takes effect on the computer that runs.
    home.run(&["agent", "exec", "ada", "--", "sh", "-c", fill]).ok();
    until("DiskFull", || condition(home, "ada", "DiskFull").is_some());
    let before = agent(home)["status"]["computer"].clone();
    home.run(&["agent", "edit", "ada", "--disk", "1Gi"]).ok();
    assert_eq!(condition(home, "ada", "RestartNeeded"), None);
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo more"]).ok(), "more\n");
    assert_eq!(agent(home)["status"]["computer"], before);
}
