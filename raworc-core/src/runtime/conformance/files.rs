//! Files: R10, R11, R17, R20.

use std::sync::Arc;

use super::Feature::{CopyVolume, KeepsRoot};
use super::Needs::{Nothing, With, Without};
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};
use crate::runtime::{ComputerSpec, RuntimeError};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R10"], files_on_the_volume_survive_stop_start_and_remove),
        case!(With(KeepsRoot), ["R11"], files_outside_the_volume_survive_where_it_is_declared),
        case!(With(CopyVolume), ["R17"], a_copied_volume_lives_apart_from_its_source),
        case!(Without(CopyVolume), ["R17"], copying_a_volume_is_unsupported_where_it_is_not_declared),
        case!(Nothing, ["R20"], no_computer_sees_the_volume_of_another),
    ]
}

async fn write(scope: &Scope, spec: &ComputerSpec, path: &str, text: &str) {
    scope.told(spec, vec![Op::Write(path.into(), text.into())]).await;
}

async fn assert_file(scope: &Scope, rule: &str, spec: &ComputerSpec, path: &str, text: &str) {
    let log = scope.told(spec, vec![Op::Read(path.into())]).await;
    assert!(log.contains(&format!("read {path} {text}\n")), "{rule}: {log}");
}

async fn files_on_the_volume_survive_stop_start_and_remove(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let file = scope.on_volume(&spec, "deep/down/kept");
    write(&scope, &spec, &file, "one").await;
    assert_file(&scope, "R10: the volume survives stop and start", &spec, &file, "one").await;
    scope.done("remove", scope.runtime.remove(spec.id)).await;
    let next = scope.spec_on(spec.volume);
    scope.make(&next).await;
    let file = scope.on_volume(&next, "deep/down/kept");
    assert_file(&scope, "R10: the volume survives its computer", &next, &file, "one").await;
}

async fn files_outside_the_volume_survive_where_it_is_declared(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let file = scope.on_root(&spec, "kept");
    write(&scope, &spec, &file, "one").await;
    assert_file(&scope, "R11: `keeps_root` is declared", &spec, &file, "one").await;
}

async fn a_copied_volume_lives_apart_from_its_source(scope: Arc<Scope>) {
    let source = scope.made_computer().await;
    write(&scope, &source, &scope.on_volume(&source, "file"), "first").await;
    let copy = scope.spec();
    scope.done("R17: copy_volume", scope.runtime.copy_volume(source.volume, copy.volume)).await;
    scope.make(&copy).await;
    let (in_source, in_copy) = (scope.on_volume(&source, "file"), scope.on_volume(&copy, "file"));
    assert_file(&scope, "R17: the copy has the files of its source", &copy, &in_copy, "first").await;
    write(&scope, &copy, &in_copy, "of-the-copy").await;
    assert_file(&scope, "R17: the source does not follow its copy", &source, &in_source, "first").await;
    write(&scope, &source, &in_source, "of-the-source").await;
    assert_file(&scope, "R17: the copy does not follow its source", &copy, &in_copy, "of-the-copy").await;
    let absent = scope.new_volume();
    let outcome = scope.tried("R17: copy_volume", scope.runtime.copy_volume(absent, scope.new_volume())).await;
    assert!(matches!(outcome, Err(RuntimeError::Refused { .. })), "R17: a copy of what is not there: {outcome:?}");
}

async fn copying_a_volume_is_unsupported_where_it_is_not_declared(scope: Arc<Scope>) {
    let source = scope.made_computer().await;
    let outcome = scope.tried("R17: copy_volume", scope.runtime.copy_volume(source.volume, scope.new_volume())).await;
    assert!(matches!(outcome, Err(RuntimeError::Unsupported(_))), "R17: {outcome:?}");
}

async fn no_computer_sees_the_volume_of_another(scope: Arc<Scope>) {
    let (one, other) = (scope.made_computer().await, scope.made_computer().await);
    write(&scope, &one, &scope.on_volume(&one, "mine"), "one").await;
    let file = scope.on_volume(&other, "mine");
    assert_file(&scope, "R20: a file of one computer does not show in another's", &other, &file, "absent").await;
    write(&scope, &other, &file, "other").await;
    let file = scope.on_volume(&one, "mine");
    assert_file(&scope, "R20: one computer does not write to another's volume", &one, &file, "one").await;
}
