//! Several handles, and calls that were cut short: R22, R23.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Needs::Nothing;
use super::scope::{GRACE, Scope};
use super::script::Op;
use super::{Listed, case};
use crate::runtime::{ComputerSpec, Phase, RuntimeError};

/// So many awaits a call is followed through; an engine's client has fewer before its answer.
const AWAITS: u32 = 12;

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R22"], another_handle_sees_and_stops_what_the_first_one_started),
        case!(Nothing, ["R22"], another_handle_removes_what_the_first_one_made),
        case!(Nothing, ["R23"], an_ensure_that_was_cut_short_is_finished_by_another),
        case!(Nothing, ["R23"], a_start_that_was_cut_short_can_be_stopped_and_started_again),
        case!(Nothing, ["R23"], a_stop_that_was_cut_short_is_finished_by_another),
        case!(Nothing, ["R23"], a_removal_that_was_cut_short_is_finished_by_another),
    ]
}

/// Polls a call as it is woken, and drops it after so many times.
struct CutShort<F> {
    call: Pin<Box<F>>,
    polls: u32,
}

impl<F: Future> Future for CutShort<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.call.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls == 0 => Poll::Ready(None),
            Poll::Pending => {
                self.polls -= 1;
                Poll::Pending
            }
        }
    }
}

fn cut_short<F: Future>(call: F, polls: u32) -> CutShort<F> {
    CutShort { call: Box::pin(call), polls }
}

async fn another_handle_sees_and_stops_what_the_first_one_started(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::Log("here".into()), Op::Wait]).await;
    scope.log_with(&spec, "here\n").await;
    let other = scope.subject.another_handle().await;
    let phase = scope.done("R22: observe", other.observe(spec.id)).await.map(|observed| observed.phase);
    assert_eq!(phase, Some(Phase::Running(start.clone())), "R22: another handle sees the same start");
    let listed = scope.done("R22: list", other.list()).await;
    assert!(listed.iter().any(|observed| observed.computer == spec.id), "R22: another handle lists it: {listed:?}");
    scope.done("R22: ensure", other.ensure(&spec)).await;
    scope.assert_running("R22: another handle adopts what it finds", spec.id, &start).await;
    scope.done("R22: stop", other.stop(spec.id, &start, GRACE)).await;
    scope.assert_stopped("R22: another handle stops it", spec.id).await;
}

async fn another_handle_removes_what_the_first_one_made(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    scope.start(&spec, vec![Op::Wait]).await;
    let other = scope.subject.another_handle().await;
    scope.done("R22: remove", other.remove(spec.id)).await;
    assert_eq!(scope.observe(spec.id).await, None, "R22: another handle removes it");
}

async fn an_ensure_that_was_cut_short_is_finished_by_another(scope: Arc<Scope>) {
    for polls in 0..AWAITS {
        let spec = scope.spec();
        scope.prepare(&spec).await;
        let answer = cut_short(scope.runtime.ensure(&spec), polls).await;
        scope.done("R23: `ensure` after one that was cut short", scope.runtime.ensure(&spec)).await;
        scope.told(&spec, vec![]).await;
        if answer.is_some() {
            return;
        }
    }
}

async fn a_start_that_was_cut_short_can_be_stopped_and_started_again(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    for polls in 0..AWAITS {
        let boot = scope.boot(&spec, vec![Op::Wait]);
        let answer = cut_short(scope.runtime.start(spec.id, &boot), polls).await;
        started_again(&scope, &spec).await;
        if answer.is_some() {
            return;
        }
    }
}

/// Ends what `observe` tells until nothing runs, and has the computer work once more. As the engine may still be at
/// work on the start that was cut short, that may show itself late; then it is ended again.
async fn started_again(scope: &Scope, spec: &ComputerSpec) {
    let look = || async {
        match scope.phase(spec.id).await {
            Some(Phase::Running(start) | Phase::Stopping(start)) => {
                scope.done("R23: stop of what was begun", scope.runtime.stop(spec.id, &start, GRACE)).await;
                None
            }
            Some(Phase::Stopped { .. } | Phase::Unfit { .. }) => {
                let boot = scope.boot(spec, vec![Op::Log("again".into()), Op::Wait]);
                match scope.tried("R23: start, again", scope.runtime.start(spec.id, &boot)).await {
                    Ok(start) => Some(start),
                    Err(RuntimeError::Refused { .. }) => None,
                    Err(error) => panic!("R23: `start` after one that was cut short: {error}"),
                }
            }
            None => panic!("R23: a `start` that was cut short took the computer away"),
        }
    };
    let start = scope.found("R23: a start after one that was cut short", look).await;
    scope.log_with(spec, "again\n").await;
    scope.stop(spec, &start).await;
}

async fn a_stop_that_was_cut_short_is_finished_by_another(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    for polls in 0..AWAITS {
        let start = scope.start(&spec, vec![Op::Wait]).await;
        let answer = cut_short(scope.runtime.stop(spec.id, &start, GRACE), polls).await;
        let again = scope.runtime.stop(spec.id, &start, GRACE);
        scope.done("R23: `stop` after one that was cut short", again).await;
        scope.assert_stopped("R23: `stop` after one that was cut short", spec.id).await;
        if answer.is_some() {
            return;
        }
    }
}

async fn a_removal_that_was_cut_short_is_finished_by_another(scope: Arc<Scope>) {
    for polls in 0..AWAITS {
        let spec = scope.made_computer().await;
        scope.start(&spec, vec![Op::Wait]).await;
        let answer = cut_short(scope.runtime.remove(spec.id), polls).await;
        scope.done("R23: `remove` after one that was cut short", scope.runtime.remove(spec.id)).await;
        assert_eq!(scope.observe(spec.id).await, None, "R23: it is gone");
        if answer.is_some() {
            return;
        }
    }
}
