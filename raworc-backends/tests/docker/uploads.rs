//! Computers on another machine: the program comes by upload. The engine of this machine stands in for one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveImageOptions, RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use futures::StreamExt;
use libtest_mimic::Trial;
use raworc_backends::docker::DockerOptions;
use raworc_core::agent::NetworkMode;
use raworc_core::runtime::{ComputerSpec, Runtime, RuntimeError};
use tokio::sync::Notify;

use crate::between::{Between, Fate};
use crate::engine::socket;
use crate::machine::{IMAGE, Machine, container, docker, spec, trial, trial_with_time};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_program_is_uploaded_once_and_shown_to_computers_read_only", uploaded_once),
        trial("an_upload_that_was_cut_short_is_made_good", cut_short),
        trial("of_two_uploads_at_once_one_waits_for_the_other_and_finds_the_program", two_at_once),
        trial_with_time("an_upload_that_does_not_end_is_taken_for_abandoned_and_begun_again", abandoned),
        trial("an_agents_own_image_is_all_that_an_upload_needs", its_own_image),
        trial(
            "a_computer_gets_the_next_program_at_its_next_start_and_the_old_one_goes_with_its_last_user",
            the_next_program,
        ),
        trial("a_closed_network_cannot_be_had_on_another_machine", a_closed_network_cannot_be_had),
        trial("a_computer_whose_image_has_the_label_of_an_upload_is_no_upload", an_images_label),
        trial("a_program_that_a_person_took_away_is_uploaded_again", taken_away),
    ]
}

fn program(directory: &Path, text: &str) -> std::path::PathBuf {
    let path = directory.join("program");
    std::fs::write(&path, format!("#!/bin/sh\ncat > /dev/null\n{text}\n")).expect("written");
    path
}

/// An installation whose program is this file, on another machine.
fn remote(installation: Option<&str>, file: &Path) -> Machine {
    remote_with(installation, file, |options| options)
}

/// The same with other options.
fn remote_with(installation: Option<&str>, file: &Path, more: impl FnOnce(DockerOptions) -> DockerOptions) -> Machine {
    let mut machine = Machine::with("", |mut options| {
        options.program = vec!["/opt/raworc/raworc-agentd".into()];
        options.installation = installation.map_or(options.installation, str::to_owned);
        more(options.on_another_machine().with_program_file(file).with_link_dir("/nowhere/link"))
    });
    if let Some(installation) = installation {
        machine.installation = installation.to_owned();
    }
    machine
}

fn open() -> ComputerSpec {
    let mut spec = spec();
    spec.network.mode = NetworkMode::Open;
    spec
}

/// The volumes of programs.
async fn programs(machine: &Machine) -> Vec<String> {
    let label = format!("raworc.installation={}", machine.installation);
    let filters = [("label", vec![label, "raworc.program".to_owned()])].into();
    let query = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let listed = docker().list_volumes(Some(query)).await.expect("listed").volumes.unwrap_or_default();
    listed.into_iter().map(|volume| volume.name).collect()
}

async fn uploaded_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "ls -A /opt/raworc; stat -c '%u %a' $0; touch /opt/raworc/x 2>&1 | grep -o 'Read-only'; ls /run/raworc";
    let machine = remote(None, &program(directory.path(), text));
    let computers = [open(), open()];
    for spec in &computers {
        let log = machine.run(spec).await;
        assert_eq!(log, ".complete\nraworc-agentd\n0 755\nRead-only\n");
    }
    let uploaded = programs(&machine).await;
    assert_eq!(uploaded.len(), 1, "{uploaded:?}");
    let before = docker().inspect_volume(&uploaded[0]).await.expect("there");
    let another = remote(Some(&machine.installation), &directory.path().join("program"));
    another.run(&computers[0]).await;
    assert_eq!(programs(&machine).await, uploaded);
    assert_eq!(docker().inspect_volume(&uploaded[0]).await.expect("there"), before, "nobody wrote to it again");
    let label = [("label", vec![format!("raworc.installation={}", machine.installation)])].into();
    let query = ListContainersOptionsBuilder::new().all(true).filters(&label).build();
    assert_eq!(docker().list_containers(Some(query)).await.expect("listed").len(), 2, "what filled it is gone");
    machine.close(&computers).await;
}

async fn cut_short() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = program(directory.path(), "echo all of it");
    let machine = remote(None, &file);
    let spec = open();
    machine.run(&spec).await;
    let uploaded = programs(&machine).await.remove(0);
    // As if the upload had ended in the middle of the file: the mark is not there, or that of an earlier one, and the rest is
    // wrong.
    for marked in [false, true] {
        machine.runtime.remove(spec.id).await.expect("removed");
        docker().remove_volume(&uploaded, None::<RemoveVolumeOptions>).await.expect("removed");
        let request = bollard::models::VolumeCreateRequest {
            name: Some(uploaded.clone()),
            labels: Some(labels(&machine)),
            ..Default::default()
        };
        docker().create_volume(request).await.expect("made");
        let holder = half_a_program(&uploaded, marked).await;
        crate::strangers::remove(&holder).await;
        let another = remote(Some(&machine.installation), &file);
        assert_eq!(another.run(&spec).await, "all of it\n", "with a mark: {marked}");
    }
    machine.close(&[spec]).await;
}

/// Those of what an upload makes.
fn labels(machine: &Machine) -> HashMap<String, String> {
    let installation = machine.installation.clone();
    [("raworc.installation".to_owned(), installation), ("raworc.program".to_owned(), "half".to_owned())].into()
}

/// Writes the beginning of a program into this volume, and the mark that all of it is there where that is wanted.
async fn half_a_program(volume: &str, marked: bool) -> String {
    let binds = vec![format!("{volume}:/opt/raworc")];
    let holder = crate::strangers::run_by_a_stranger(&crate::machine::name(), HashMap::new(), binds).await;
    let mut archive = tar::Builder::new(Vec::new());
    let half = [("raworc-agentd", "#!/bin/sh\n"), (".complete", "")];
    for (name, text) in &half[..1 + usize::from(marked)] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).expect("packed");
    }
    let archive = bollard::body_full(archive.into_inner().expect("packed").into());
    let options = UploadToContainerOptionsBuilder::new().path("/opt/raworc").build();
    docker().upload_to_container(&holder, Some(options), archive).await.expect("written");
    holder
}

fn is_upload(line: &str) -> bool {
    line.starts_with("PUT") && line.contains("/archive?") && line.contains("raworc")
}

async fn two_at_once() {
    let Some(socket) = socket("two uploads at once") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = program(directory.path(), "echo all of it");
    let (uploads, begun, looked) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
    // The first one's is held up until the second one has done what it does about that.
    let (counted, begins, waited) = (uploads.clone(), begun.clone(), looked.clone());
    let before_first = Between::deciding(&socket, move |line| {
        let (counted, begins, waited) = (counted.clone(), begins.clone(), waited.clone());
        async move {
            if is_upload(&line) {
                counted.fetch_add(1, SeqCst);
                begins.notify_one();
                waited.notified().await;
            }
            Fate::Passed
        }
    });
    let counted = uploads.clone();
    let before_second = Between::deciding(&socket, move |line| {
        counted.fetch_add(usize::from(is_upload(&line)), SeqCst);
        if is_upload(&line) || line.contains("/containers/json?") {
            looked.notify_one();
        }
        std::future::ready(Fate::Passed)
    });
    let by = |installation: Option<&str>, between: &Between| {
        remote_with(installation, &file, |mut options| {
            options.host = between.host();
            options
        })
    };
    let first = by(None, &before_first);
    let second = by(Some(&first.installation), &before_second);
    let computers = [open(), open()];
    let after = async {
        begun.notified().await;
        second.run(&computers[1]).await
    };
    let logs = tokio::join!(first.run(&computers[0]), after);
    assert_eq!(logs, ("all of it\n".into(), "all of it\n".into()));
    assert_eq!(uploads.load(SeqCst), 1, "the second one found it there");
    assert_eq!(programs(&first).await.len(), 1);
    first.close(&computers).await;
}

async fn abandoned() {
    let Some(socket) = socket("an upload that does not end") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = program(directory.path(), "echo all of it");
    let machine = remote(None, &file);
    let computers = [open(), open()];
    machine.run(&computers[0]).await;
    let holder = format!("{}-upload", programs(&machine).await.remove(0));
    let body = ContainerCreateBody {
        image: Some(IMAGE.into()),
        entrypoint: Some(vec!["/opt/raworc/raworc-agentd".into()]),
        labels: Some(labels(&machine)),
        ..ContainerCreateBody::default()
    };
    let query = CreateContainerOptionsBuilder::new().name(&holder).build();
    let left = docker().create_container(Some(query), body).await.expect("made").id;
    let (tries, tried_again) = (AtomicUsize::default(), Arc::<Notify>::default());
    let (named, notes) = (holder.clone(), tried_again.clone());
    let between = Between::deciding(&socket, move |line| {
        let is_try = line.starts_with("POST") && line.contains(&named);
        if is_try && tries.fetch_add(1, SeqCst) == 1 {
            notes.notify_one();
        }
        std::future::ready(Fate::Passed)
    });
    let another = remote_with(Some(&machine.installation), &file, |mut options| {
        options.host = between.host();
        options
    });
    let later = async {
        tried_again.notified().await;
        let found = docker().inspect_container(&holder, None).await.expect("it is left alone");
        assert_eq!(found.id.as_ref(), Some(&left));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(120)).await;
        tokio::time::resume();
    };
    let (log, ()) = tokio::join!(another.run(&computers[1]), later);
    assert_eq!(log, "all of it\n");
    docker().inspect_container(&left, None).await.expect_err("it is gone");
    machine.close(&computers).await;
}

async fn its_own_image() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = program(directory.path(), "echo it runs");
    let absent = format!("localhost/{}:none", crate::machine::name());
    let machine = remote_with(None, &file, |mut options| {
        options.default_image.clone_from(&absent);
        options
    });
    // What its own says of itself makes no computer of an upload.
    let image = format!("localhost/{}:own", crate::machine::name());
    let (spec, other) = (ComputerSpec { image: Some(image.clone()), ..open() }, open());
    let dockerfile = format!("FROM {IMAGE}\nLABEL raworc.computer={}\nVOLUME /of/the/image\n", other.id);
    machine.runtime.build_image(&image, &dockerfile, &|_| ()).await.expect("built");
    assert_eq!(machine.run(&spec).await, "it runs\n");
    machine.runtime.remove(spec.id).await.expect("removed");
    machine.runtime.remove_programs().await.expect("removed");
    let made = machine.runtime.ensure(&other).await;
    assert!(matches!(&made, Err(RuntimeError::ImageMissing { image, .. }) if *image == absent), "{made:?}");
    docker().remove_image(&image, None::<RemoveImageOptions>, None).await.expect("removed");
    machine.close(&[spec, other]).await;
}

async fn the_next_program() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = remote(None, &program(directory.path(), "touch kept; echo old"));
    let computers = [open(), open(), open()];
    for spec in &computers {
        assert_eq!(old.run(spec).await, "old\n");
    }
    let [before] = programs(&old).await.try_into().expect("one");
    // The engine tells whole seconds: its own clock has to come to the next one.
    let made = docker().inspect_volume(&before).await.expect("there").created_at.expect("a time");
    let made: jiff::Timestamp = made.parse().expect("a time");
    let until = EventsOptionsBuilder::new().until(&(made.as_second() + 1).to_string()).build();
    docker().events(Some(until)).for_each(|_| std::future::ready(())).await;
    let new = remote(Some(&old.installation), &program(directory.path(), "ls; echo new"));
    assert_eq!(new.run(&computers[0]).await, "kept\nnew\n", "on the same volume");
    let both = programs(&old).await;
    assert!(both.len() == 2 && both.contains(&before), "other computers still have it: {both:?}");
    // One that follows the old program leaves the newer one alone, though no computer has it.
    new.runtime.remove(computers[0].id).await.expect("removed");
    old.runtime.remove(computers[2].id).await.expect("removed");
    assert_eq!(programs(&old).await.len(), 2);
    assert_eq!(new.run(&computers[1]).await, "kept\nnew\n");
    let left = programs(&old).await;
    assert!(left.len() == 1 && left[0] != before, "{left:?}");
    new.close(&computers).await;
}

async fn a_closed_network_cannot_be_had() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = remote(None, &program(directory.path(), "echo it runs"));
    assert!(!machine.runtime.capabilities().closed_network);
    let closed = spec();
    let made = machine.runtime.ensure(&closed).await;
    assert!(matches!(made, Err(RuntimeError::Unsupported(_))), "{made:?}");
    docker().inspect_container(&container(closed.id), None).await.expect_err("nothing was made");
    machine.close(&[closed]).await;
}

/// A container has the labels of its image.
async fn an_images_label() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = remote(None, &program(directory.path(), "echo it runs"));
    let image = format!("localhost/{}:labelled", crate::machine::name());
    let dockerfile = format!("FROM {IMAGE}\nLABEL raworc.program=x of=its-own\n");
    machine.runtime.build_image(&image, &dockerfile, &|_| ()).await.expect("built");
    let spec = ComputerSpec { image: Some(image.clone()), ..open() };
    machine.run(&spec).await;
    let removed = machine.runtime.remove_programs().await;
    let found = docker().inspect_container(&container(spec.id), None).await.expect("it is still there");
    assert!(removed.is_err(), "a computer has the program: {removed:?}");
    let labels = found.config.and_then(|config| config.labels).expect("labels");
    let labels: BTreeMap<_, _> = labels.into_iter().collect();
    let own = [
        ("of", "its-own".to_owned()),
        ("raworc.computer", spec.id.to_string()),
        ("raworc.installation", machine.installation.clone()),
        ("raworc.program", "x".to_owned()),
    ];
    let own: BTreeMap<_, _> = own.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
    assert_eq!(labels, own, "two of its own, and its image's");
    machine.runtime.remove(spec.id).await.expect("removed");
    docker().remove_image(&image, None::<RemoveImageOptions>, None).await.expect("removed");
    machine.close(&[spec]).await;
}

async fn taken_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let machine = remote(None, &program(directory.path(), "echo it runs"));
    let (one, other) = (open(), open());
    machine.run(&one).await;
    machine.runtime.remove(one.id).await.expect("removed");
    for volume in programs(&machine).await {
        docker().remove_volume(&volume, None::<RemoveVolumeOptions>).await.expect("taken away");
    }
    assert_eq!(machine.run(&other).await, "it runs\n");
    machine.close(&[one, other]).await;
}
