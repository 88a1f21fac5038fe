//! `observe`, `list` and `watch`: R13, R14, R15.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::Needs::Nothing;
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::ids::ComputerId;
use crate::runtime::{Phase, RuntimeEvent};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R13"], observe_of_what_is_not_there_is_none),
        case!(Nothing, ["R13"], a_program_that_ended_is_stopped),
        case!(Nothing, ["R14"], list_tells_all_computers_of_this_installation_and_no_others),
        case!(Nothing, ["R15"], watch_tells_a_start),
        case!(Nothing, ["R15"], watch_tells_an_end),
        case!(Nothing, ["R15"], watch_tells_a_removal),
    ]
}

async fn observe_of_what_is_not_there_is_none(scope: Arc<Scope>) {
    assert_eq!(scope.observe(scope.new_computer()).await, None, "R13: nothing was ever made");
}

async fn a_program_that_ended_is_stopped(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    scope.start(&spec, vec![Op::Exit(7)]).await;
    if let Some(reason) = scope.stopped(spec.id).await {
        assert!(reason.contains('7'), "R13: the reason, where the engine remembers it, has the exit code: {reason}");
    }
    let start = scope.start(&spec, vec![Op::Wait]).await;
    scope.assert_running("R13: what ended can be started again", spec.id, &start).await;
}

async fn list_tells_all_computers_of_this_installation_and_no_others(scope: Arc<Scope>) {
    let (fresh, running, ended) =
        (scope.made_computer().await, scope.made_computer().await, scope.made_computer().await);
    let start = scope.start(&running, vec![Op::Wait]).await;
    scope.start(&ended, vec![Op::Exit(0)]).await;
    scope.stopped(ended.id).await;
    let neighbour = scope.subject.another_installation().await;
    let foreign = scope.spec();
    scope.done("prepare", neighbour.prepare(foreign.image.as_deref(), &|_| ())).await;
    scope.done("ensure", neighbour.ensure(&foreign)).await;

    let listed = scope.done("R14: list", scope.runtime.list()).await;
    let phase = |id: ComputerId| listed.iter().find(|observed| observed.computer == id).map(|found| &found.phase);
    assert!(matches!(phase(fresh.id), Some(Phase::Stopped { .. })), "R14: one that was never started: {listed:?}");
    assert!(matches!(phase(ended.id), Some(Phase::Stopped { .. })), "R14: one that ended: {listed:?}");
    assert_eq!(phase(running.id), Some(&Phase::Running(start)), "R14: one that runs: {listed:?}");
    assert_eq!(phase(foreign.id), None, "R14: a computer of another installation is not told: {listed:?}");
    assert_eq!(listed.len(), 3, "R14: each is told once, and no other: {listed:?}");

    let listed = scope.done("R14: list", neighbour.list()).await;
    let ids: Vec<ComputerId> = listed.into_iter().map(|observed| observed.computer).collect();
    assert_eq!(ids, [foreign.id], "R14: the other installation is told its own");
}

async fn watch_tells_a_start(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let mut events = scope.done("R15: watch", scope.runtime.watch()).await;
    scope.start(&spec, vec![Op::Wait]).await;
    assert_told(&scope, "R15: `watch` tells a start", &mut events, spec.id).await;
}

async fn watch_tells_an_end(scope: Arc<Scope>) {
    let (quits, stops) = (scope.made_computer().await, scope.made_computer().await);
    let start = scope.start(&stops, vec![Op::Wait]).await;
    let quitting = scope.start(&quits, vec![Op::Pause(3), Op::Exit(0)]).await;
    let mut events = scope.done("R15: watch", scope.runtime.watch()).await;
    scope.assert_running("the suite was too slow to watch before the end", quits.id, &quitting).await;
    assert_told(&scope, "R15: `watch` tells that a program ended", &mut events, quits.id).await;
    scope.stop(&stops, &start).await;
    assert_told(&scope, "R15: `watch` tells a stop", &mut events, stops.id).await;
}

async fn watch_tells_a_removal(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let mut events = scope.done("R15: watch", scope.runtime.watch()).await;
    scope.done("remove", scope.runtime.remove(spec.id)).await;
    assert_told(&scope, "R15: `watch` tells a removal", &mut events, spec.id).await;
}

pub(super) async fn assert_told(
    scope: &Scope,
    rule: &str,
    events: &mut BoxStream<'static, RuntimeEvent>,
    id: ComputerId,
) {
    let wanted = async {
        while let Some(event) = events.next().await {
            if event == RuntimeEvent::Changed(id) {
                return Ok(());
            }
        }
        panic!("{rule}: the stream ended");
    };
    scope.done(rule, wanted).await;
}
