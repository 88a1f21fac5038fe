//! `logs`: R16.

use std::sync::Arc;

use futures::StreamExt;

use super::Needs::Nothing;
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::runtime::{LogsOptions, RuntimeError};

/// Enough to fill every buffer on the way.
const LINES: u32 = 20_000;

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R16"], logs_begin_with_the_last_starts_first_byte),
        case!(Nothing, ["R16"], logs_are_there_after_a_program_ended_by_itself),
        case!(Nothing, ["R16"], a_tail_of_the_log_is_its_last_bytes),
        case!(Nothing, ["R16"], logs_that_are_followed_go_on_until_the_program_ends),
        case!(Nothing, ["R16"], logs_of_what_is_not_there_are_not_found),
    ]
}

fn lines(last: u32) -> String {
    (1..=last).map(|n| format!("line {n}\n")).collect()
}

async fn logs_begin_with_the_last_starts_first_byte(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let empty = scope.log(spec.id, LogsOptions::default()).await;
    assert_eq!(empty, "", "R16: nothing was ever written");
    scope.told(&spec, vec![Op::Log("of the first start".into())]).await;
    scope.start(&spec, vec![Op::Flood(LINES), Op::Log("end".into()), Op::Wait]).await;
    let log = scope.log_with(&spec, "end\n").await;
    let (lengths, expected) = ((log.len(), lines(LINES).len() + 4), lines(LINES) + "end\n");
    assert!(log == expected, "R16: all of the last start and nothing before it: {lengths:?} bytes");
}

async fn logs_are_there_after_a_program_ended_by_itself(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    scope.start(&spec, vec![Op::Log("last words".into()), Op::Exit(1)]).await;
    scope.stopped(spec.id).await;
    let log = scope.log(spec.id, LogsOptions::default()).await;
    assert_eq!(log, "last words\n", "R16: what a program wrote before it ended is there");
}

async fn a_tail_of_the_log_is_its_last_bytes(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    scope.start(&spec, vec![Op::Flood(LINES), Op::Wait]).await;
    let whole = scope.log_with(&spec, &format!("line {LINES}\n")).await;
    // In the middle of a line, and more than there is.
    for bytes in [0, 3, 1000, 70_001, whole.len() as u64 + 1] {
        let tail = scope.log(spec.id, LogsOptions::default().with_tail(bytes)).await;
        let kept = whole.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        let (length, expected) = (tail.len(), &whole[whole.len() - kept..]);
        assert!(tail == expected, "R16: the last {bytes} bytes of {}, not {length} others", whole.len());
    }
}

async fn logs_that_are_followed_go_on_until_the_program_ends(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let ops = vec![Op::Log("before".into()), Op::Pause(3), Op::Log("after".into()), Op::Exit(0)];
    scope.start(&spec, ops).await;
    scope.log_with(&spec, "before\n").await;
    let follow = LogsOptions::default().with_follow(true);
    let mut stream = scope.done("R16: logs", scope.runtime.logs(spec.id, follow.with_tail(4))).await;
    let log = scope.log(spec.id, follow).await;
    assert_eq!(log, "before\nafter\n", "R16: what is followed begins with what was there and goes on");
    let mut tail = Vec::new();
    let collected = async {
        while let Some(chunk) = stream.next().await {
            tail.extend_from_slice(&chunk?);
        }
        Ok(())
    };
    scope.done("R16: the followed log ends with its program", collected).await;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    assert_eq!(tail, "ore\nafter\n", "R16: a tail that is followed goes on too");
}

async fn logs_of_what_is_not_there_are_not_found(scope: Arc<Scope>) {
    let id = scope.new_computer();
    let outcome = scope.tried("R16: logs", scope.runtime.logs(id, LogsOptions::default())).await.map(|_| ());
    assert!(matches!(outcome, Err(RuntimeError::NotFound(found)) if found == id), "R16: {outcome:?}");
}
