//! Programs and strangers that take too much, in an installation with limits.

use std::io::Write;
use std::net::TcpStream;

use crate::home::Home;
use crate::up::{Up, condition, until};

#[test]
fn a_memory_hog_and_a_fork_bomb_end_in_a_condition_and_other_agents_go_on() {
    let home = Home::new();
    // Half a core, so that the bomb leaves the machine to other tests.
    let limits = "[local]\ncpu = '500m'\nmemory = '256Mi'\npids = 64\n";
    std::fs::write(home.path().join("raworc.toml"), limits).expect("written");
    let up = Up::start(&home);
    for name in ["hog", "bomb", "other"] {
        home.run(&["agent", "create", name, "--wait"]).ok();
    }
    if let Some(told) = condition(&home, "other", "LimitsEnforced") {
        assert_eq!(told["status"], false, "{told}");
        let why = told["message"].as_str().expect("a reason");
        assert!(why.contains("cpu") || why.contains("memory") || why.contains("pids"), "{told}");
        // Past what captures the output of tests, so that whoever runs them sees it.
        writeln!(std::io::stderr(), "NOT TESTED on this machine: limits of an installation: {why}").expect("told");
        return;
    }
    let hog = "!sh -c 'x=0123456789abcdef; while :; do x=$x$x; done'; echo \"hog: $?\"";
    assert!(home.run(&["send", "hog", "--no-steps", hog]).ok().contains("hog: 137"));
    // Each makes more of itself, until it cannot.
    let bomb = "!f() { f 2>/dev/null & f 2>/dev/null; }; (f) 2>/dev/null; echo over";
    home.run(&["send", "bomb", "--no-wait", bomb]).ok();
    for (name, reason, remedy) in
        [("hog", "OutOfMemory", "resources.memory"), ("bomb", "TooManyProcesses", "resources.pids")]
    {
        until(reason, || condition(&home, name, "LimitReached").is_some_and(|told| told["reason"] == reason));
        for command in ["get", "explain"] {
            let shown = home.run(&["agent", command, name]).ok();
            assert!(shown.contains(reason) && shown.contains(remedy), "{shown}");
        }
    }
    assert!(home.run(&["agent", "list"]).ok().contains("OutOfMemory"));
    assert_eq!(home.run(&["send", "other", "--no-steps", "!echo goes on"]).ok(), "goes on\n");
    assert_eq!(condition(&home, "other", "LimitReached"), None);
    assert_eq!(home.run(&["send", "hog", "--no-steps", "!echo goes on"]).ok(), "goes on\n");
    assert_eq!(up.end(), Some(0));
}

#[test]
fn strangers_whose_connections_say_nothing_keep_nobody_out() {
    let home = Home::new();
    let args = ["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "error"];
    let up = Up::of(home.raworc_in("ulimit -n 300; exec \"$@\"", &args));
    let address = up.url.trim_start_matches("http://");
    let silent: Vec<_> = (0..400).map(|_| TcpStream::connect(address).expect("accepted by the kernel")).collect();
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    assert_eq!(home.run(&["send", "ada", "--no-steps", "!echo heard"]).ok(), "heard\n");
    drop(silent);
    assert_eq!(up.end(), Some(0));
}
