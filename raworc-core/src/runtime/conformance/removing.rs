//! `remove`, `remove_volume` and `has_volume`: R12, R18, R25.

use std::sync::Arc;

use super::Needs::Nothing;
use super::scope::Scope;
use super::script::Op;
use super::{Listed, case};

pub(super) fn cases() -> Vec<Listed> {
    vec![
        case!(Nothing, ["R12"], remove_takes_a_stopped_computer_and_leaves_its_volume),
        case!(Nothing, ["R12"], remove_takes_a_running_computer_with_every_process),
        case!(Nothing, ["R12"], remove_of_what_is_not_there_succeeds),
        case!(Nothing, ["R18"], remove_volume_takes_the_files_away),
        case!(Nothing, ["R18"], remove_volume_of_what_is_not_there_succeeds),
        case!(Nothing, ["R25"], a_volume_is_told_to_be_there_until_it_is_removed),
    ]
}

async fn remove_takes_a_stopped_computer_and_leaves_its_volume(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let file = scope.on_volume(&spec, "kept");
    scope.told(&spec, vec![Op::Write(file.clone(), "one".into())]).await;
    scope.done("R12: remove", scope.runtime.remove(spec.id)).await;
    assert_eq!(scope.observe(spec.id).await, None, "R12: `remove` takes the computer away");
    // The same computer may be made again, on the volume that was left.
    scope.make(&spec).await;
    let log = scope.told(&spec, vec![Op::Read(file.clone())]).await;
    assert!(log.contains(&format!("read {file} one\n")), "R12: `remove` leaves the volume: {log}");
}

async fn remove_takes_a_running_computer_with_every_process(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let ticks = scope.on_volume(&spec, "ticks");
    let ops = vec![Op::IgnoreStop, Op::Linger(ticks.clone()), Op::Pause(1), Op::Log("ready".into()), Op::Wait];
    scope.start(&spec, ops).await;
    scope.log_with(&spec, "ready\n").await;
    scope.done("R12: remove of what runs", scope.runtime.remove(spec.id)).await;
    assert_eq!(scope.observe(spec.id).await, None, "R12: `remove` takes a running computer away");
    let next = scope.spec_on(spec.volume);
    scope.make(&next).await;
    scope.assert_quiet("R12: a process outlived the removal of its computer", &next, &ticks).await;
}

async fn remove_of_what_is_not_there_succeeds(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    scope.done("R12: remove", scope.runtime.remove(spec.id)).await;
    scope.done("R12: remove, again", scope.runtime.remove(spec.id)).await;
    scope.done("R12: remove of what never was", scope.runtime.remove(scope.new_computer())).await;
}

async fn remove_volume_takes_the_files_away(scope: Arc<Scope>) {
    let spec = scope.made_computer().await;
    let file = scope.on_volume(&spec, "secret");
    scope.told(&spec, vec![Op::Write(file.clone(), "one".into())]).await;
    scope.done("remove", scope.runtime.remove(spec.id)).await;
    scope.done("R18: remove_volume", scope.runtime.remove_volume(spec.volume)).await;
    let next = scope.spec_on(spec.volume);
    scope.make(&next).await;
    let log = scope.told(&next, vec![Op::Read(file.clone())]).await;
    assert!(log.contains(&format!("read {file} absent\n")), "R18: the files are gone with their volume: {log}");
}

async fn remove_volume_of_what_is_not_there_succeeds(scope: Arc<Scope>) {
    let volume = scope.new_volume();
    scope.done("R18: remove_volume of what never was", scope.runtime.remove_volume(volume)).await;
    scope.done("R18: remove_volume, again", scope.runtime.remove_volume(volume)).await;
}

async fn a_volume_is_told_to_be_there_until_it_is_removed(scope: Arc<Scope>) {
    let absent = scope.new_volume();
    for _ in 0..2 {
        let is_there = scope.done("R25: has_volume of what never was", scope.runtime.has_volume(absent)).await;
        assert!(!is_there, "R25: a volume that nobody made is told, or was made by the question");
    }
    let spec = scope.made_computer().await;
    assert!(scope.done("R25: has_volume", scope.runtime.has_volume(spec.volume)).await, "R25: it was made");
    scope.done("remove", scope.runtime.remove(spec.id)).await;
    assert!(
        scope.done("R25: has_volume", scope.runtime.has_volume(spec.volume)).await,
        "R25: it outlives its computer"
    );
    scope.done("remove_volume", scope.runtime.remove_volume(spec.volume)).await;
    assert!(!scope.done("R25: has_volume", scope.runtime.has_volume(spec.volume)).await, "R25: it was removed");
}
