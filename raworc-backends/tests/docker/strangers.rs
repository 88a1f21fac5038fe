//! What is not the installation's is left alone, and what a person took away by hand is told as gone.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
};
use libtest_mimic::Trial;
use raworc_core::ids::ComputerId;
use raworc_core::runtime::{ComputerSpec, Phase, Runtime, RuntimeError, StartId};

use crate::machine::{IMAGE, Machine, boot, container, docker, name, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_strangers_container_with_our_name_is_left_alone", a_strangers_container_is_left_alone),
        trial("a_container_with_a_forged_label_is_nobodys_computer", a_forged_label_makes_no_computer),
        trial("a_strangers_volume_with_our_name_is_left_alone", a_strangers_volume_is_left_alone),
        trial("a_container_that_was_removed_by_hand_is_made_again_on_its_volume", a_removed_container_is_made_again),
        trial("a_volume_in_use_by_a_stranger_is_kept", a_volume_in_use_is_kept),
        trial("a_computer_whose_mounts_have_moved_is_made_anew_on_its_volume", moved_mounts),
        trial("volumes_that_an_image_asks_for_go_with_the_computer", an_images_own_volumes_go),
        trial("an_images_own_check_of_health_is_not_run", an_images_check_is_not_run),
        trial("an_image_that_is_gone_is_missing", an_image_that_is_gone_is_missing),
    ]
}

pub(crate) async fn run_by_a_stranger(name: &str, labels: HashMap<String, String>, binds: Vec<String>) -> String {
    let docker = docker();
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        cmd: Some(["sleep", "1000"].map(Into::into).to_vec()),
        labels: Some(labels),
        host_config: Some(bollard::models::HostConfig {
            binds: Some(binds),
            network_mode: Some("none".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let query = CreateContainerOptionsBuilder::new().name(name).build();
    let made = docker.create_container(Some(query), body).await.expect("made");
    docker.start_container(&made.id, None::<StartContainerOptions>).await.expect("started");
    made.id
}

async fn is_running(id: &str) -> bool {
    let found = docker().inspect_container(id, None).await;
    found.is_ok_and(|found| found.state.is_some_and(|state| state.running == Some(true)))
}

pub(crate) async fn remove(id: &str) {
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker().remove_container(id, Some(force)).await.expect("removed");
}

/// Every call that names the computer.
async fn all_calls(machine: &Machine, spec: &ComputerSpec) {
    let runtime = &machine.runtime;
    let made = runtime.ensure(spec).await;
    assert!(matches!(&made, Err(RuntimeError::Refused { reason, .. }) if reason.contains("raworc-")), "{made:?}");
    let started = runtime.start(spec.id, &boot(spec.id)).await;
    assert!(matches!(started, Err(RuntimeError::NotFound(id)) if id == spec.id), "{started:?}");
    runtime.stop(spec.id, &StartId("any".into()), std::time::Duration::ZERO).await.expect("nothing to stop");
    runtime.remove(spec.id).await.expect("nothing to remove");
    assert_eq!(runtime.observe(spec.id).await.expect("observed"), None);
}

async fn a_strangers_container_is_left_alone() {
    let machine = Machine::new("sleep 1000");
    let spec = spec();
    let other = HashMap::from([
        ("raworc.installation".to_owned(), name()),
        ("raworc.computer".to_owned(), spec.id.to_string()),
    ]);
    for labels in [HashMap::new(), other] {
        let stranger = run_by_a_stranger(&container(spec.id), labels, Vec::new()).await;
        all_calls(&machine, &spec).await;
        assert!(is_running(&stranger).await, "it was left alone");
        remove(&stranger).await;
    }
    machine.close(&[spec]).await;
}

async fn a_forged_label_makes_no_computer() {
    let machine = Machine::new("sleep 1000");
    let made = machine.made().await;
    let absent = spec();
    let mut strangers = Vec::new();
    for computer in [made.id.to_string(), absent.id.to_string(), "no id".to_owned()] {
        let labels = HashMap::from([
            ("raworc.installation".to_owned(), machine.installation.clone()),
            ("raworc.computer".to_owned(), computer),
        ]);
        strangers.push(run_by_a_stranger(&name(), labels, Vec::new()).await);
    }
    let listed: Vec<ComputerId> =
        machine.runtime.list().await.expect("listed").into_iter().map(|observed| observed.computer).collect();
    assert!(listed.iter().all(|id| *id == made.id) && !listed.is_empty(), "{listed:?}");
    machine.runtime.remove(absent.id).await.expect("nothing to remove");
    for stranger in &strangers {
        assert!(is_running(stranger).await, "it was left alone");
        remove(stranger).await;
    }
    machine.close(&[made]).await;
}

async fn a_strangers_volume_is_left_alone() {
    let machine = Machine::new("sleep 1000");
    let spec = spec();
    let volume = format!("raworc-{}", spec.volume);
    let others = HashMap::from([("raworc.installation".to_owned(), name())]);
    let way_out = format!("docker volume create --label raworc.installation={} {volume}", machine.installation);
    // Without labels, it is theirs as long as something of theirs has it.
    for (labels, is_used) in [(others, false), (HashMap::new(), true)] {
        let request = VolumeCreateRequest { name: Some(volume.clone()), labels: Some(labels), ..Default::default() };
        docker().create_volume(request).await.expect("made");
        let bind = is_used.then(|| format!("{volume}:/theirs"));
        let stranger = run_by_a_stranger(&name(), HashMap::new(), bind.into_iter().collect()).await;
        let made = machine.runtime.ensure(&spec).await;
        assert!(matches!(&made, Err(RuntimeError::Refused { reason, .. }) if reason.contains(&way_out)), "{made:?}");
        machine.runtime.remove_volume(spec.volume).await.expect("nothing of ours");
        remove(&stranger).await;
        docker().inspect_volume(&volume).await.expect("it was left alone");
        docker().remove_volume(&volume, None::<RemoveVolumeOptions>).await.expect("removed");
    }
    machine.close(&[spec]).await;
}

async fn a_removed_container_is_made_again() {
    let machine = Machine::new("ls; touch kept; echo written; sleep 1000");
    let made = spec();
    assert!(machine.runtime.ensure(&made).await.expect("made").is_new);
    let start = machine.start(&made).await;
    machine.said(made.id, "written\n").await;
    assert!(!machine.runtime.ensure(&made).await.expect("there").is_new);
    remove(&container(made.id)).await;
    assert_eq!(machine.phase(made.id).await, None);
    machine.runtime.stop(made.id, &start, std::time::Duration::ZERO).await.expect("nothing to stop");
    let started = machine.runtime.start(made.id, &boot(made.id)).await;
    assert!(matches!(started, Err(RuntimeError::NotFound(_))), "{started:?}");
    assert!(machine.runtime.ensure(&made).await.expect("made again").is_new);
    machine.start(&made).await;
    machine.said(made.id, "kept\n").await;
    machine.close(&[made]).await;
}

async fn a_volume_in_use_is_kept() {
    let machine = Machine::new("sleep 1000");
    let made = machine.made().await;
    machine.runtime.remove(made.id).await.expect("removed");
    let bind = format!("raworc-{}:/theirs", made.volume);
    let stranger = run_by_a_stranger(&name(), HashMap::new(), vec![bind]).await;
    let removed = machine.runtime.remove_volume(made.volume).await;
    assert!(matches!(&removed, Err(RuntimeError::Refused { reason, .. }) if reason.contains("in use")), "{removed:?}");
    remove(&stranger).await;
    machine.close(&[made]).await;
}

async fn moved_mounts() {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let installation = name();
    let machine = |link: &std::path::Path| {
        Machine::with(
            "ls -A /run/raworc/link /agent; id -u; stat -c %a /run/raworc/link; touch /agent/kept",
            |mut options| {
                options.installation.clone_from(&installation);
                options.with_link_dir(link)
            },
        )
    };
    for directory in [&old, &new] {
        std::fs::write(directory.path().join(directory.path().file_name().expect("a name")), "").expect("written");
    }
    let (mut before, mut after) = (machine(old.path()), machine(new.path()));
    before.installation.clone_from(&installation);
    after.installation.clone_from(&installation);
    let spec = spec();
    before.run(&spec).await;
    let shown = new.path().file_name().expect("a name").to_string_lossy().into_owned();
    let log = after.run(&spec).await;
    assert!(log.contains(&shown) && log.contains("kept"), "{shown}: {log}");
    after.close(&[spec]).await;
}

async fn an_images_own_volumes_go() {
    let image = format!("localhost/{}:volume", name());
    let machine = Machine::new("echo it runs");
    let dockerfile = format!("FROM {IMAGE}\nVOLUME /of/the/image\n");
    machine.runtime.build_image(&image, &dockerfile, &|_| ()).await.expect("built");
    let spec = ComputerSpec { image: Some(image.clone()), ..spec() };
    machine.run(&spec).await;
    let found = docker().inspect_container(&container(spec.id), None).await.expect("there");
    let mounts = found.mounts.unwrap_or_default();
    let own = mounts.iter().find(|mount| mount.destination.as_deref() == Some("/of/the/image")).expect("mounted");
    let own = own.name.clone().expect("a volume");
    docker().inspect_volume(&own).await.expect("there");
    machine.runtime.remove(spec.id).await.expect("removed");
    docker().inspect_volume(&own).await.expect_err("gone");
    docker().remove_image(&image, None::<bollard::query_parameters::RemoveImageOptions>, None).await.expect("removed");
    machine.close(&[spec]).await;
}

async fn an_images_check_is_not_run() {
    let image = format!("localhost/{}:checked", name());
    let machine = Machine::new("echo it runs; sleep 1000");
    let dockerfile = format!("FROM {IMAGE}\nHEALTHCHECK --interval=1s CMD touch /agent/checked\n");
    machine.runtime.build_image(&image, &dockerfile, &|_| ()).await.expect("built");
    let spec = ComputerSpec { image: Some(image.clone()), ..spec() };
    machine.runtime.ensure(&spec).await.expect("made");
    machine.start(&spec).await;
    machine.said(spec.id, "it runs").await;
    let found = docker().inspect_container(&container(spec.id), None).await.expect("there");
    let health = found.state.and_then(|state| state.health);
    assert_eq!(health, None, "the engine checks nothing");
    machine.runtime.remove(spec.id).await.expect("removed");
    docker().remove_image(&image, None::<bollard::query_parameters::RemoveImageOptions>, None).await.expect("removed");
    machine.close(&[spec]).await;
}

async fn an_image_that_is_gone_is_missing() {
    let machine = Machine::new("sleep 1000");
    let image = format!("localhost/{}:none", name());
    let spec = ComputerSpec { image: Some(image.clone()), ..spec() };
    let made = machine.runtime.ensure(&spec).await;
    assert!(matches!(&made, Err(RuntimeError::ImageMissing { image: named, .. }) if *named == image), "{made:?}");
    assert_eq!(machine.runtime.observe(spec.id).await.expect("observed").map(|seen| seen.phase), None::<Phase>);
    machine.close(&[spec]).await;
}
