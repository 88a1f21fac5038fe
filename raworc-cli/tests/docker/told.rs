//! What an engine does not see to for an agent is told as a condition of it.

use crate::home::Home;
use crate::up::{Up, condition, until};
use crate::{Cleared, on_slim, run_slim};

pub(crate) fn what_is_not_enforced() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    let _up = Up::of(on_slim(&home, &["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));
    let run = |args: &[&str]| run_slim(&home, args).ok();
    run(&["agent", "create", "plain", "--wait"]);
    run(&["agent", "create", "ada", "--network", "open", "--root", "--wait"]);
    let map = run(&["agent", "exec", "ada", "--", "cat", "/proc/self/uid_map"]);
    let is_mapped = map.split_whitespace().nth(1) != Some("0");
    let facts = [
        (
            "NetworkIsolated",
            "NotEnforced",
            "nothing shows that the engine's machine keeps computers from private",
            true,
        ),
        ("RootMapped", "NotMapped", "the engine runs without `userns-remap`", !is_mapped),
    ];
    let explained = run(&["agent", "explain", "ada"]);
    for (kind, reason, message, is_told) in facts {
        assert_eq!(condition(&home, "plain", kind), None);
        let Some(told) = condition(&home, "ada", kind) else {
            assert!(!is_told, "{kind} is not told");
            continue;
        };
        assert!(is_told && told["status"] == false && told["reason"] == reason, "{told}");
        let is_shown = explained.contains(reason) && explained.contains(message);
        assert!(is_shown && told["message"].to_string().contains(message), "{told}: {explained}");
    }
    // What is told of one start is not told of the next one that it is not so of.
    run(&["agent", "edit", "ada", "--network", "closed", "--root", "false"]);
    run(&["agent", "sleep", "ada"]);
    run(&["agent", "wake", "ada"]);
    until("nothing is left to tell", || facts.iter().all(|(kind, ..)| condition(&home, "ada", kind).is_none()));
}
