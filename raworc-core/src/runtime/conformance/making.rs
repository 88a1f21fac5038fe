//! `prepare` and `ensure`: R1, R2, R3, R21, R26.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::Feature::{ClosedNetwork, DiskLimit, Images, KeepsRoot, Limits, OpenNetwork, Root};
use super::Needs::{Nothing, With, Without};
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::agent::NetworkMode;
use crate::quantity::{Bytes, Cpu};
use crate::runtime::{ComputerSpec, RuntimeError};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R1"], prepare_of_an_image_that_is_there_does_nothing),
        case!(With(Images), ["R1"], an_image_that_cannot_be_had_is_missing),
        case!(Without(Images), ["R21"], an_image_is_unsupported_where_there_are_none),
        case!(Nothing, ["R2"], ensure_makes_a_computer_and_again_changes_nothing),
        case!(Nothing, ["R2"], many_ensures_at_once_make_one_computer),
        case!(With(KeepsRoot), ["R26"], a_computer_is_new_until_its_first_start_and_after_its_removal),
        case!(Nothing, ["R3"], ensure_leaves_a_running_computer_alone),
        case!(With(Root), ["R21"], a_program_is_root_where_its_spec_asks_for_it),
        case!(Without(Root), ["R21"], root_is_unsupported_where_it_is_not_given),
        case!(With(OpenNetwork), ["R21"], a_computer_with_an_open_network_is_made),
        case!(Without(OpenNetwork), ["R21"], an_open_network_is_unsupported_where_there_is_none),
        case!(With(ClosedNetwork), ["R21"], a_computer_with_a_closed_network_is_made),
        case!(Without(ClosedNetwork), ["R21"], a_closed_network_is_unsupported_where_there_is_none),
        case!(With(DiskLimit), ["R21"], a_computer_with_a_disk_limit_is_made),
        case!(Without(DiskLimit), ["R21"], a_disk_limit_is_unsupported_where_there_is_none),
        case!(With(Limits), ["R21"], a_computer_with_limits_runs),
        case!(Without(Limits), ["R21"], limits_that_are_not_enforced_are_told),
    ]
}

async fn prepare_of_an_image_that_is_there_does_nothing(scope: Arc<Scope>) {
    let image = scope.subject.image();
    scope.done("R1: prepare", scope.runtime.prepare(image.as_deref(), &|_| ())).await;
    let told = AtomicUsize::new(0);
    let count = |_| {
        told.fetch_add(1, Ordering::Relaxed);
    };
    scope.done("R1: prepare, again", scope.runtime.prepare(image.as_deref(), &count)).await;
    assert_eq!(told.into_inner(), 0, "R1: `prepare` of an image that is there tells no progress, as it does nothing");
}

async fn an_image_that_cannot_be_had_is_missing(scope: Arc<Scope>) {
    let image = scope.subject.missing_image();
    let outcome = scope.tried("R1: prepare", scope.runtime.prepare(Some(&image), &|_| ())).await;
    assert!(
        matches!(&outcome, Err(RuntimeError::ImageMissing { image: named, .. }) if *named == image),
        "R1: `prepare` of {image:?} is `ImageMissing`, not {outcome:?}"
    );
}

async fn an_image_is_unsupported_where_there_are_none(scope: Arc<Scope>) {
    let outcome = scope.tried("R21: prepare", scope.runtime.prepare(Some("some-image"), &|_| ())).await;
    assert!(matches!(outcome, Err(RuntimeError::Unsupported(_))), "R21: `prepare` of an image: {outcome:?}");
    let spec = ComputerSpec { image: Some("some-image".into()), ..scope.spec() };
    assert_unsupported(&scope, &spec).await;
}

async fn ensure_makes_a_computer_and_again_changes_nothing(scope: Arc<Scope>) {
    let spec = scope.spec();
    let file = scope.on_volume(&spec, "kept");
    assert_eq!(scope.observe(spec.id).await, None, "R2: nothing is there before `ensure`");
    scope.make(&spec).await;
    scope.assert_stopped("R2: `ensure` makes the computer and starts nothing", spec.id).await;
    scope.told(&spec, vec![Op::Write(file.clone(), "one".into())]).await;
    scope.make(&spec).await;
    scope.assert_stopped("R2: a second `ensure` changes nothing", spec.id).await;
    let listed = scope.done("R2: list", scope.runtime.list()).await;
    let ours = listed.iter().filter(|observed| observed.computer == spec.id).count();
    assert_eq!(ours, 1, "R2: a second `ensure` makes no second computer");
    let log = scope.told(&spec, vec![Op::Read(file.clone())]).await;
    assert!(log.contains(&format!("read {file} one\n")), "R2: a second `ensure` leaves the volume alone: {log}");
}

async fn many_ensures_at_once_make_one_computer(scope: Arc<Scope>) {
    let spec = scope.spec();
    scope.prepare(&spec).await;
    let other = scope.subject.another_handle().await;
    let calls = (0..8).map(|n| {
        let runtime = if n % 2 == 0 { &scope.runtime } else { &other };
        scope.done("R2: one `ensure` of many at once", runtime.ensure(&spec))
    });
    join_all(calls).await;
    let listed = scope.done("R2: list", scope.runtime.list()).await;
    let ours = listed.iter().filter(|observed| observed.computer == spec.id).count();
    assert_eq!(ours, 1, "R2: many `ensure` at once make one computer");
}

async fn ensure_leaves_a_running_computer_alone(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let start = scope.start(&spec, vec![Op::Log("begun".into()), Op::Wait]).await;
    scope.log_with(&spec, "begun\n").await;
    scope.done("R3: ensure", scope.runtime.ensure(&spec)).await;
    scope.assert_running("R3: `ensure` does not disturb a computer that runs", spec.id, &start).await;
    let log = scope.log_with(&spec, "begun\n").await;
    assert_eq!(log, "begun\n", "R3: the program goes on as before");
}

async fn a_program_is_root_where_its_spec_asks_for_it(scope: Arc<Scope>) {
    let spec = ComputerSpec { root: true, ..scope.spec() };
    scope.make(&spec).await;
    let log = scope.told(&spec, vec![Op::Uid]).await;
    assert!(log.contains("uid 0\n"), "R21: `root` is declared, so a program may be root: {log}");
}

async fn root_is_unsupported_where_it_is_not_given(scope: Arc<Scope>) {
    let spec = ComputerSpec { root: true, ..scope.spec() };
    assert_unsupported(&scope, &spec).await;
}

async fn a_computer_with_an_open_network_is_made(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.network.mode = NetworkMode::Open;
    scope.prepare(&spec).await;
    scope.done("R21: `open_network` is declared: ensure", scope.runtime.ensure(&spec)).await;
    scope.told(&spec, vec![]).await;
}

async fn an_open_network_is_unsupported_where_there_is_none(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.network.mode = NetworkMode::Open;
    assert_unsupported(&scope, &spec).await;
}

async fn a_computer_with_a_closed_network_is_made(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.network.mode = NetworkMode::Closed;
    scope.prepare(&spec).await;
    scope.done("R21: `closed_network` is declared: ensure", scope.runtime.ensure(&spec)).await;
    scope.told(&spec, vec![]).await;
}

async fn a_closed_network_is_unsupported_where_there_is_none(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.network.mode = NetworkMode::Closed;
    assert_unsupported(&scope, &spec).await;
}

async fn a_computer_with_a_disk_limit_is_made(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.resources.disk = Some(Bytes::new(1 << 30));
    scope.prepare(&spec).await;
    scope.done("R21: `disk_limit` is declared: ensure", scope.runtime.ensure(&spec)).await;
    scope.told(&spec, vec![]).await;
}

async fn a_disk_limit_is_unsupported_where_there_is_none(scope: Arc<Scope>) {
    let mut spec = scope.spec();
    spec.resources.disk = Some(Bytes::new(1 << 30));
    assert_unsupported(&scope, &spec).await;
}

fn limited(scope: &Scope) -> ComputerSpec {
    let mut spec = scope.spec();
    spec.resources.cpu = Some(Cpu::from_millis(500));
    spec.resources.memory = Some(Bytes::new(256 << 20));
    spec.resources.pids = Some(128);
    spec
}

async fn a_computer_with_limits_runs(scope: Arc<Scope>) {
    let spec = limited(&scope);
    scope.prepare(&spec).await;
    let ensured = scope.done("R21: ensure", scope.runtime.ensure(&spec)).await;
    assert_eq!(ensured.limits_missing, None, "R21: `limits` is declared, so none is missing");
    scope.told(&spec, vec![]).await;
}

async fn limits_that_are_not_enforced_are_told(scope: Arc<Scope>) {
    let spec = limited(&scope);
    scope.prepare(&spec).await;
    let ensured = scope.done("R21: ensure", scope.runtime.ensure(&spec)).await;
    assert!(
        ensured.limits_missing.is_some_and(|reason| !reason.is_empty()),
        "R21: `ensure` says why limits that were asked for are not enforced"
    );
}

async fn assert_unsupported(scope: &Scope, spec: &ComputerSpec) {
    let outcome = scope.tried("R21: ensure", scope.runtime.ensure(spec)).await;
    assert!(matches!(outcome, Err(RuntimeError::Unsupported(_))), "R21: `ensure`: {outcome:?}");
    assert_eq!(scope.observe(spec.id).await, None, "R21: what is `Unsupported` is not made");
}

async fn a_computer_is_new_until_its_first_start_and_after_its_removal(scope: Arc<Scope>) {
    let spec = scope.spec();
    let is_new =
        async |when: &str| scope.done(&format!("R26: ensure, {when}"), scope.runtime.ensure(&spec)).await.is_new;
    assert!(is_new("first").await && is_new("again").await, "R26: it was never started");
    scope.told(&spec, vec![]).await;
    assert!(!is_new("once it was started").await, "R26: it was started");
    scope.done("remove", scope.runtime.remove(spec.id)).await;
    assert!(is_new("after its removal").await, "R26: it is another one");
}
