//! `stop`: R7, R8, R9.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::Needs::Nothing;
use super::scope::{GRACE, Scope, counts};
use super::script::Op;
use super::{Listed, case};
use crate::runtime::StartId;

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R7"], stop_leaves_no_process_not_even_a_double_forked_one),
        case!(Nothing, ["R7"], stop_asks_a_program_to_end_and_gives_it_its_grace),
        case!(Nothing, ["R7"], a_program_that_will_not_end_is_ended_after_its_grace),
        case!(Nothing, ["R7"], many_stops_at_once_all_wait_for_the_end),
        case!(Nothing, ["R8"], stop_of_an_earlier_start_leaves_the_present_one_alone),
        case!(Nothing, ["R9"], stop_of_what_does_not_run_succeeds),
    ]
}

async fn stop_leaves_no_process_not_even_a_double_forked_one(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let ticks = scope.on_volume(&spec, "ticks");
    let ops = vec![Op::Linger(ticks.clone()), Op::Pause(1), Op::Count(ticks.clone()), Op::Wait];
    let start = scope.start(&spec, ops).await;
    let log = scope.log_with(&spec, "count ").await;
    assert!(counts(&log).first().is_some_and(|&count| count > 0), "the suite's own process did not tick: {log}");
    scope.stop(&spec, &start).await;
    scope.assert_stopped("R7: `stop` returns when it is over", spec.id).await;
    scope.assert_quiet("R7: a process that was left behind outlived `stop`", &spec, &ticks).await;
}

async fn stop_asks_a_program_to_end_and_gives_it_its_grace(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let file = scope.on_volume(&spec, "farewell");
    let ops = vec![Op::OnStop(file.clone(), "asked".into()), Op::Log("ready".into()), Op::Wait];
    let start = scope.start(&spec, ops).await;
    scope.log_with(&spec, "ready\n").await;
    scope.stop(&spec, &start).await;
    let log = scope.told(&spec, vec![Op::Read(file.clone())]).await;
    assert!(log.contains(&format!("read {file} asked\n")), "R7: a program is asked before it is ended: {log}");
}

async fn a_program_that_will_not_end_is_ended_after_its_grace(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::IgnoreStop, Op::Log("deaf".into()), Op::Wait]).await;
    scope.log_with(&spec, "deaf\n").await;
    let (begin, grace) = (Instant::now(), Duration::from_secs(1));
    scope.done("R7: stop", scope.runtime.stop(spec.id, &start, grace)).await;
    let taken = begin.elapsed();
    assert!(taken >= grace, "R7: a program has its grace of {grace:?}, not {taken:?}");
    scope.assert_stopped("R7: a program that will not end is ended", spec.id).await;
}

async fn many_stops_at_once_all_wait_for_the_end(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::Log("ready".into()), Op::Wait]).await;
    scope.log_with(&spec, "ready\n").await;
    let other = scope.subject.another_handle().await;
    let calls = (0..4).map(|n| {
        let (scope, spec, start, other) = (&scope, &spec, &start, &other);
        async move {
            let runtime = if n % 2 == 0 { &scope.runtime } else { other };
            scope.done("R7: one `stop` of many at once", runtime.stop(spec.id, start, GRACE)).await;
            scope.assert_stopped("R7: each `stop` returns when it is over", spec.id).await;
        }
    });
    join_all(calls).await;
}

async fn stop_of_an_earlier_start_leaves_the_present_one_alone(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let earlier = scope.start(&spec, vec![Op::Wait]).await;
    scope.stop(&spec, &earlier).await;
    let present = scope.start(&spec, vec![Op::Log("ready".into()), Op::Wait]).await;
    scope.log_with(&spec, "ready\n").await;
    for start in [&earlier, &StartId("never-was".into())] {
        scope.done("R8: stop of another start", scope.runtime.stop(spec.id, start, GRACE)).await;
        scope.assert_running("R8: `stop` of another start leaves this one alone", spec.id, &present).await;
    }
}

async fn stop_of_what_does_not_run_succeeds(scope: Arc<Scope>) {
    let never_made = scope.spec();
    let start = StartId("never-was".into());
    scope.done("R9: stop of what is not there", scope.runtime.stop(never_made.id, &start, GRACE)).await;
    let spec = scope.made_computer().await;
    scope.done("R9: stop of what was never started", scope.runtime.stop(spec.id, &start, GRACE)).await;
    let start = scope.start(&spec, vec![Op::Exit(0)]).await;
    scope.stopped(spec.id).await;
    scope.done("R9: stop of what ended by itself", scope.runtime.stop(spec.id, &start, GRACE)).await;
    scope.done("R9: stop, again", scope.runtime.stop(spec.id, &start, GRACE)).await;
    scope.assert_stopped("R9: what does not run stays stopped", spec.id).await;
}
