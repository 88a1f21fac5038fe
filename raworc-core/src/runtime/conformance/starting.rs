//! `start`: R4, R5, R6, R19.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Needs::Nothing;
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::runtime::{Boot, Phase, RuntimeError};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R4"], the_boot_line_reaches_the_program_on_its_standard_input),
        case!(Nothing, ["R4"], each_start_has_its_own_boot_line),
        case!(Nothing, ["R5"], start_of_what_is_not_there_is_not_found),
        case!(Nothing, ["R5"], start_of_what_runs_is_refused_and_changes_nothing),
        case!(Nothing, ["R5"], start_of_what_is_stopping_is_refused),
        case!(Nothing, ["R5"], of_many_starts_at_once_one_succeeds),
        case!(Nothing, ["R6"], observe_tells_the_start_until_the_program_ends),
        case!(Nothing, ["R19"], no_two_starts_have_the_same_identity),
    ]
}

async fn the_boot_line_reaches_the_program_on_its_standard_input(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let boot = Boot {
        ca: Some("-----BEGIN CERTIFICATE-----\n\"quoted\" \\ back\n-----END CERTIFICATE-----\n".into()),
        ..scope.boot(&spec, vec![Op::Boot, Op::Log("end".into()), Op::Wait])
    };
    scope.done("R4: start", scope.runtime.start(spec.id, &boot)).await;
    let log = scope.log_with(&spec, "end\n").await;
    assert_eq!(log, boot.to_line() + "end\n", "R4: the boot line reaches the program as it is");
}

async fn each_start_has_its_own_boot_line(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    for _ in 0..2 {
        let boot = scope.boot(&spec, vec![Op::Boot, Op::Log("end".into()), Op::Wait]);
        let start = scope.done("R4: start", scope.runtime.start(spec.id, &boot)).await;
        let log = scope.log_with(&spec, "end\n").await;
        assert!(log.contains(&boot.to_line()), "R4: incarnation {} reads its own line: {log}", boot.incarnation);
        scope.stop(&spec, &start).await;
    }
}

async fn start_of_what_is_not_there_is_not_found(scope: Arc<Scope>) {
    let spec = scope.spec();
    let boot = scope.boot(&spec, vec![Op::Wait]);
    let outcome = scope.tried("R5: start", scope.runtime.start(spec.id, &boot)).await;
    assert!(matches!(outcome, Err(RuntimeError::NotFound(id)) if id == spec.id), "R5: {outcome:?}");
    assert_eq!(scope.observe(spec.id).await, None, "R5: a refused `start` makes nothing");
}

async fn start_of_what_runs_is_refused_and_changes_nothing(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::Log("first".into()), Op::Wait]).await;
    scope.log_with(&spec, "first\n").await;
    let boot = scope.boot(&spec, vec![Op::Log("second".into()), Op::Wait]);
    let outcome = scope.tried("R5: start", scope.runtime.start(spec.id, &boot)).await;
    assert!(matches!(outcome, Err(RuntimeError::Refused { .. })), "R5: a second `start` is `Refused`: {outcome:?}");
    scope.assert_running("R5: a refused `start` changes nothing", spec.id, &start).await;
    assert_eq!(scope.log_with(&spec, "first\n").await, "first\n", "R5: the first program goes on as before");
}

async fn start_of_what_is_stopping_is_refused(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    // It ends by itself before its grace is over, and long after a start could come.
    let ops = vec![Op::IgnoreStop, Op::Log("deaf".into()), Op::Pause(8), Op::Exit(0)];
    let start = scope.start(&spec, ops).await;
    scope.log_with(&spec, "deaf\n").await;
    let stop = scope.done("stop", scope.runtime.stop(spec.id, &start, Duration::from_secs(15)));
    let start_meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let boot = scope.boot(&spec, vec![Op::Wait]);
        scope.tried("R5: start", scope.runtime.start(spec.id, &boot)).await
    };
    let ((), outcome) = tokio::join!(stop, start_meanwhile);
    assert!(matches!(outcome, Err(RuntimeError::Refused { .. })), "R5: `start` of what is stopping: {outcome:?}");
    scope.assert_stopped("R5: a refused `start` changes nothing", spec.id).await;
}

async fn of_many_starts_at_once_one_succeeds(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let other = scope.subject.another_handle().await;
    let boots: Vec<Boot> = (0..6).map(|_| scope.boot(&spec, vec![Op::Boot, Op::Wait])).collect();
    let calls = boots.iter().enumerate().map(|(n, boot)| {
        let runtime = if n % 2 == 0 { &scope.runtime } else { &other };
        scope.tried("R5: one `start` of many at once", runtime.start(spec.id, boot))
    });
    let outcomes = join_all(calls).await;
    let mut winners = boots.iter().zip(&outcomes).filter_map(|(boot, outcome)| Some((boot, outcome.as_ref().ok()?)));
    let (Some((boot, start)), None) = (winners.next(), winners.next()) else {
        panic!("R5: of many `start` at once one succeeds: {outcomes:?}");
    };
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(RuntimeError::Refused { .. }))).count();
    assert_eq!(refused, boots.len() - 1, "R5: the others are `Refused`: {outcomes:?}");
    scope.assert_running("R5: the one that succeeded runs", spec.id, start).await;
    let line = boot.to_line();
    assert_eq!(scope.log_with(&spec, &line).await, line, "R5: the program has the boot line of the one that succeeded");
}

async fn observe_tells_the_start_until_the_program_ends(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::Pause(5), Op::Exit(0)]).await;
    scope.assert_running("R6: `observe` says `Running` right after `start`", spec.id, &start).await;
    let look = || async {
        match scope.phase(spec.id).await {
            Some(Phase::Running(told)) => {
                assert_eq!(told, start, "R6: the identity stays the same");
                None
            }
            Some(Phase::Stopping(_)) => None,
            other => Some(other),
        }
    };
    let end = scope.found("R6: the program's end", look).await;
    assert!(matches!(end, Some(Phase::Stopped { .. })), "R6: a program that ended is `Stopped`, not {end:?}");
}

async fn no_two_starts_have_the_same_identity(scope: Arc<Scope>) {
    let (one, other) = (scope.made_computer().await, scope.made_computer().await);
    let mut starts = Vec::new();
    for _ in 0..3 {
        for spec in [&one, &other] {
            let start = scope.start(spec, vec![Op::Wait]).await;
            scope.stop(spec, &start).await;
            starts.push(start.0);
        }
    }
    let distinct: BTreeSet<&String> = starts.iter().collect();
    assert_eq!(distinct.len(), starts.len(), "R19: {starts:?}");
}
