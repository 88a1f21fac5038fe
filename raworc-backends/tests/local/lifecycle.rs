//! Start, stop, and what is left in between.

use libtest_mimic::Trial;
use raworc_backends::local::Isolation;
use raworc_core::runtime::{Phase, Runtime};

use crate::machine::{LIMIT, Machine, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the_probe_starts_a_computer_that_is_cut_off", the_probe_starts_a_computer_that_is_cut_off),
        trial("a_program_reads_its_boot_line_and_runs_as_agent", a_program_reads_its_boot_line_and_runs_as_agent),
        trial("without_isolation_a_program_is_told_where_its_home_is", without_isolation_a_program_is_told_its_home),
        trial("a_shell_waits_for_what_it_started", a_shell_waits_for_what_it_started),
        trial("a_stop_asks_first_and_leaves_nothing", a_stop_asks_first_and_leaves_nothing),
        trial("what_loses_its_parent_is_reaped_and_leaves_no_zombie", what_loses_its_parent_is_reaped),
    ]
}

async fn the_probe_starts_a_computer_that_is_cut_off() {
    let machine = Machine::new("").await;
    let report = machine.runtime.probe().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.interfaces, ["lo"]);
    machine.close().await;
}

async fn a_program_reads_its_boot_line_and_runs_as_agent() {
    let script = r#"cat; id; pwd; env; hostname; echo "fds $(echo /proc/self/fd/*)""#;
    let machine = Machine::new(script).await;
    let made = machine.make().await;
    let (reason, log) = machine.run(&made).await;
    assert!(reason.starts_with("exit code"), "{reason}");
    assert!(log.contains(&made.id.to_string()) && log.contains("one-time-key"), "{log}");
    assert!(log.contains("uid=1000(agent)"), "{log}");
    assert!(log.contains("\n/agent\n") && log.contains("HOME=/agent"), "{log}");
    // Descriptor 3 is the shell's own look into the directory.
    assert!(log.contains("fds /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n"), "{log}");
    machine.close().await;
}

/// Whatever the machine itself may have at `/agent`.
async fn without_isolation_a_program_is_told_its_home() {
    let script = "echo home=$RAWORC_HOME=$HOME=$PWD=";
    let machine = Machine::with(script, |options| options.with_isolation(Isolation::None)).await;
    let made = machine.make().await;
    let (_, log) = machine.run(&made).await;
    let home = machine.volume(&made).canonicalize().expect("there");
    assert_eq!(log, format!("home={0}={0}={0}=\n", home.display()));
    machine.close().await;
}

async fn a_stop_asks_first_and_leaves_nothing() {
    let machine = Machine::new("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done").await;
    let made = machine.make().await;
    let start = machine.start(&made).await;
    assert_eq!(machine.phase(&made).await, Some(Phase::Running(start.clone())));
    machine.wrote(&made, "ready").await;
    machine.runtime.stop(made.id, &start, LIMIT).await.expect("stopped");
    assert_eq!(machine.phase(&made).await, Some(Phase::Stopped { reason: Some("exit code 3".into()) }));
    assert!(machine.log(&made).await.contains("bye"));
    machine.close().await;
}

async fn a_shell_waits_for_what_it_started() {
    let machine = Machine::new("sleep 0.01 & wait $!; echo waited; grep SigBlk /proc/self/status").await;
    let made = machine.make().await;
    let (_, log) = machine.run(&made).await;
    assert!(log.contains("waited\nSigBlk:\t0000000000000000\n"), "{log}");
    machine.close().await;
}

async fn what_loses_its_parent_is_reaped() {
    // Each inner shell ends before what it started; a zombie's state is Z.
    let script = "i=0; while [ $i -lt 50 ]; do (sleep 0.02 &) ; i=$((i + 1)); done; n=0; \
        while [ $n -lt 500 ]; do left=0; for s in /proc/[0-9]*/stat; do read -r line < $s || continue; \
        case $line in *') Z '*|*'(sleep)'*) left=1;; esac; done 2>/dev/null; \
        [ $left = 0 ] && break; n=$((n + 1)); sleep 0.02; done; echo left $left";
    let machine = Machine::new(script).await;
    let made = machine.make().await;
    let (reason, log) = machine.run(&made).await;
    assert!(reason == "exit code 0" && log.ends_with("left 0\n"), "{reason}: {log}");
    machine.close().await;
}
