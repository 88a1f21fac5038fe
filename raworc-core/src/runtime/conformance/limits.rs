//! Limits that are run into: R24.

use std::sync::Arc;

use super::Feature::TellsLimits;
use super::Needs::With;
use super::looking::assert_told;
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::agent::Resources;
use crate::quantity::Bytes;
use crate::runtime::{ComputerSpec, LimitsReached};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(With(TellsLimits), ["R24"], memory_that_ran_out_is_told_while_the_program_lives_on),
        case!(With(TellsLimits), ["R24"], too_many_processes_are_told_while_the_program_lives_on),
        case!(With(TellsLimits), ["R24"], limits_that_were_reached_are_told_until_the_next_start),
    ]
}

/// Room for the suite's program, and no more.
fn limited(scope: &Scope) -> ComputerSpec {
    let resources = Resources { memory: Some(Bytes::new(96 << 20)), pids: Some(24), ..Resources::default() };
    ComputerSpec { resources, ..scope.spec() }
}

async fn reached(scope: &Scope, spec: &ComputerSpec) -> LimitsReached {
    scope.observe(spec.id).await.expect("R24: it is there").reached
}

async fn memory_that_ran_out_is_told_while_the_program_lives_on(scope: Arc<Scope>) {
    let spec = limited(&scope);
    scope.make(&spec).await;
    let start = scope.start(&spec, vec![Op::Pause(3), Op::Hog, Op::Wait]).await;
    let mut events = scope.done("watch", scope.runtime.watch()).await;
    assert!(!reached(&scope, &spec).await.memory, "R24: nothing was reached yet, or the suite was too slow");
    assert_told(&scope, "R24: `watch` tells that memory ran out", &mut events, spec.id).await;
    let is_told = || async { reached(&scope, &spec).await.memory.then_some(()) };
    scope.found("R24: `observe` tells that memory ran out", is_told).await;
    assert!(!reached(&scope, &spec).await.pids, "R24: the limit on processes was not reached");
    scope.assert_running("R24: the program lives on", spec.id, &start).await;
}

async fn too_many_processes_are_told_while_the_program_lives_on(scope: Arc<Scope>) {
    let spec = limited(&scope);
    scope.make(&spec).await;
    let start = scope.start(&spec, vec![Op::Pause(3), Op::Crowd(40), Op::Wait]).await;
    let mut events = scope.done("watch", scope.runtime.watch()).await;
    assert!(!reached(&scope, &spec).await.pids, "R24: nothing was reached yet, or the suite was too slow");
    assert_told(&scope, "R24: `watch` tells that there were too many processes", &mut events, spec.id).await;
    let is_told = || async { reached(&scope, &spec).await.pids.then_some(()) };
    scope.found("R24: `observe` tells that there were too many processes", is_told).await;
    scope.assert_running("R24: the program lives on", spec.id, &start).await;
}

async fn limits_that_were_reached_are_told_until_the_next_start(scope: Arc<Scope>) {
    let spec = limited(&scope);
    scope.make(&spec).await;
    scope.start(&spec, vec![Op::Hog, Op::Exit(0)]).await;
    scope.stopped(spec.id).await;
    assert!(reached(&scope, &spec).await.memory, "R24: `observe` tells it also when the start is over");
    scope.start(&spec, vec![Op::Wait]).await;
    assert_eq!(reached(&scope, &spec).await, LimitsReached::default(), "R24: the next start has reached nothing");
}
