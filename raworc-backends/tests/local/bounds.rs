//! How much a program can take, and what is left of it.

use std::io::Write;

use libtest_mimic::Trial;
use raworc_core::agent::Resources;
use raworc_core::quantity::Bytes;
use raworc_core::runtime::{Phase, Runtime};

use crate::machine::{LIMIT, Machine, Made, processes_of, spec, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("limits_are_enforced_or_said_to_be_missing", limits_are_enforced_or_said_to_be_missing),
        trial("a_fork_bomb_meets_its_limit_and_others_live", a_fork_bomb_meets_its_limit_and_others_live),
        trial("a_memory_hog_ends_out_of_memory", a_memory_hog_ends_out_of_memory),
        trial("tmp_is_bounded", tmp_is_bounded),
        trial("what_was_double_forked_does_not_outlive_a_stop", what_was_double_forked_does_not_outlive_a_stop),
    ]
}

/// Whether this limit is not enforced on this machine. That it is said then is shown here, and that it was not tested
/// is told where nothing captures it.
async fn is_missing(machine: &Machine, limit: &str) -> bool {
    let report = machine.runtime.probe().await.unwrap_or_else(|error| panic!("{error}"));
    let Some(why) = report.limits_missing.filter(|why| why.contains(limit)) else { return false };
    let capabilities = machine.runtime.capabilities();
    assert!(!capabilities.limits && !capabilities.tells_limits, "what is missing is declared: {why}");
    let spec = spec(&Made::new(), Resources::default());
    let ensured = machine.runtime.ensure(&spec).await.expect("made");
    assert_eq!(ensured.limits_missing.as_deref(), Some(why.as_str()), "whoever makes a computer is told");
    writeln!(std::io::stderr(), "NOT TESTED on this machine: the local runtime's limit on {limit}: {why}")
        .expect("told");
    true
}

async fn limits_are_enforced_or_said_to_be_missing() {
    let machine = Machine::new("").await;
    let report = machine.runtime.probe().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(machine.runtime.capabilities().limits, report.limits_missing.is_none());
    if let Some(why) = report.limits_missing {
        assert!(["cpu", "memory", "pids"].iter().any(|limit| why.contains(limit)) && why.contains("as root"), "{why}");
        for limit in ["cpu", "memory", "pids"] {
            is_missing(&machine, limit).await;
        }
    }
    machine.close().await;
}

async fn a_fork_bomb_meets_its_limit_and_others_live() {
    let neighbour = Machine::hostile(&["tick".to_owned()], |options| options).await;
    let ticking = neighbour.make().await;
    neighbour.start(&ticking).await;
    let machine = Machine::hostile(&["fork-bomb".to_owned()], |options| options).await;
    // Processes are bounded in any case: where no control group does it, by a limit of the user's.
    let is_missing = is_missing(&machine, "pids").await;
    let resources = Resources { pids: Some(32), ..Resources::default() };
    let made = machine.make_with(resources).await;
    let start = machine.start(&made).await;
    let log = machine.wrote(&made, "bombed").await;
    assert!(log.contains("refused one more process") && !log.contains("BROKE OUT"), "{log}");
    let before = neighbour.log(&ticking).await.len();
    wait_for("the neighbour goes on", async || (neighbour.log(&ticking).await.len() > before).then_some(())).await;
    machine.runtime.stop(made.id, &start, std::time::Duration::from_millis(100)).await.expect("stopped");
    match machine.phase(&made).await {
        Some(Phase::Stopped { reason: Some(reason) }) => {
            assert!(is_missing || reason.contains("limit on processes was reached"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    machine.close().await;
    neighbour.close().await;
}

async fn a_memory_hog_ends_out_of_memory() {
    let machine = Machine::hostile(&["memory-hog".to_owned()], |options| options).await;
    if is_missing(&machine, "memory").await {
        // Without a limit it would take all of the machine's.
        return machine.close().await;
    }
    let resources = Resources { memory: Some(Bytes::new(96 << 20)), ..Resources::default() };
    let made = machine.make_with(resources).await;
    let (reason, log) = machine.run(&made).await;
    assert!(reason.contains("out of memory"), "{reason}: {log}");
    assert!(!log.contains("BROKE OUT"), "{log}");
    machine.close().await;
}

async fn tmp_is_bounded() {
    let arguments = ["fill", "/tmp", "/dev/shm", "/run/raworc"].map(str::to_owned);
    let machine = Machine::hostile(&arguments, |mut options| {
        options.tmp_size = Bytes::new(16 << 20);
        options
    })
    .await;
    let made = machine.make().await;
    let (_, log) = machine.run(&made).await;
    assert_eq!(log.matches("refused fill").count(), 3, "{log}");
    machine.close().await;
}

async fn what_was_double_forked_does_not_outlive_a_stop() {
    let machine = Machine::hostile(&["double-fork".to_owned()], |options| options).await;
    let made = machine.make().await;
    let start = machine.start(&made).await;
    machine.wrote(&made, "forked").await;
    assert!(processes_of(&machine.installation).len() >= 5, "the test's own processes cannot be seen");
    machine.runtime.stop(made.id, &start, LIMIT / 100).await.expect("stopped");
    assert_eq!(processes_of(&machine.installation), Vec::<String>::new());
    machine.close().await;
}
