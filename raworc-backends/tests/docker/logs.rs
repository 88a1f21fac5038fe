//! Which of what the engine keeps is told as the log.

use libtest_mimic::Trial;
use raworc_core::runtime::Runtime;

use crate::machine::{Machine, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("each_start_has_its_own_log_from_its_boot_line_on", each_start_has_its_own_log),
        trial("what_a_program_says_that_cannot_begin_is_in_its_log", a_program_that_cannot_begin),
    ]
}

/// Each start writes its number once it has its boot line, and waits for its end on every second one.
async fn each_start_has_its_own_log() {
    // What it says is waited for, so it writes before.
    let script =
        "n=$(cat n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > n; echo start $n; [ $((n % 2)) = 0 ] || sleep 1000";
    let machine = Machine::new(script);
    let made = machine.made().await;
    for n in 1..=6 {
        let start = machine.start(&made).await;
        assert_eq!(machine.said(made.id, "\n").await, format!("start {n}\n"));
        machine.runtime.stop(made.id, &start, std::time::Duration::ZERO).await.expect("stopped");
        assert_eq!(machine.log(made.id).await, format!("start {n}\n"));
    }
    machine.close(&[made]).await;
}

async fn a_program_that_cannot_begin() {
    let machine = Machine::with("", |options| options.with_program(["/bin/sh", "/nowhere/program"]));
    let spec = spec();
    // Sometimes it says so before the engine notes its start, and sometimes after.
    for n in 1..=8 {
        let log = machine.run(&spec).await;
        assert!(log.contains("/nowhere/program"), "start {n}: {log:?}");
    }
    machine.close(&[spec]).await;
}
