//! An engine that is not there, or is there only later.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use futures::StreamExt;
use libtest_mimic::Trial;
use raworc_backends::docker::{DockerOptions, DockerRuntime};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{ComputerSpec, Runtime, RuntimeError};

use crate::between::{Between, Fate};
use crate::dockerd::is_untested;
use crate::machine::{Machine, boot, container, docker, host, spec, trial, write};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_engine_that_comes_later_is_used_from_then_on", an_engine_that_comes_later_is_used),
        trial(
            "a_container_that_its_engine_can_never_start_again_is_made_anew_on_its_volume",
            a_stuck_container_is_made_anew,
        ),
        trial(
            "calls_are_made_in_the_newest_version_that_both_sides_know",
            calls_are_made_in_the_version_that_both_know,
        ),
        trial("an_engine_that_is_followed_by_an_older_one_is_asked_which_version_it_knows", followed_by_an_older_one),
        trial("an_engine_that_was_lost_is_asked_again_what_it_can_do", lost_and_asked_again),
        trial("a_computer_of_which_its_engine_says_nothing_is_left_out_of_a_list", one_is_left_out),
        trial("an_address_that_is_none_is_refused_with_what_one_looks_like", an_address_that_is_none_is_refused),
    ]
}

/// The socket of the engine, unless there is none and `what` is not tested.
pub(crate) fn socket(what: &str) -> Option<String> {
    let host = host();
    let socket = host.strip_prefix("unix://").map(str::to_owned);
    if is_untested(what, socket.is_none().then_some("its engine has no socket")) {
        return None;
    }
    socket
}

async fn an_engine_that_comes_later_is_used() {
    let Some(socket) = socket("an engine that comes later") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("engine.sock");
    let machine = Machine::with("exit 0", |mut options| {
        options.host = format!("unix://{}", path.display());
        options
    });
    let spec = spec();
    let made = machine.runtime.ensure(&spec).await;
    let named = path.display().to_string();
    assert!(matches!(&made, Err(RuntimeError::Unavailable(reason)) if reason.contains(&named)), "{made:?}");
    assert!(made.is_err_and(|error| error.is_retryable()), "it is tried again");
    let listed = machine.runtime.list().await;
    assert!(
        matches!(listed, Err(RuntimeError::Unavailable(_))),
        "an engine that is not there lists nothing: {listed:?}"
    );
    symlink(&socket, &path).expect("linked");
    machine.run(&spec).await;
    std::fs::remove_file(&path).expect("gone again");
    let observed = machine.runtime.observe(spec.id).await;
    assert!(matches!(observed, Err(RuntimeError::Unavailable(_))), "nobody takes it for gone: {observed:?}");
    symlink(&socket, &path).expect("linked");
    machine.close(&[spec]).await;
}

async fn calls_are_made_in_the_version_that_both_know() {
    let Some(socket) = socket("the version of calls") else { return };
    let mut told = docker().version().await.expect("told");
    let own = told.api_version.as_deref().and_then(|version| version.strip_prefix("1.")?.parse().ok());
    let own: usize = own.expect("a version");
    let newest = own.min(API_DEFAULT_VERSION.minor_version);
    for claimed in [own, newest - 1] {
        let agreed = claimed.min(newest);
        told.api_version = Some(format!("1.{claimed}"));
        let version = serde_json::to_string(&told).expect("serialises");
        let (asked, others) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (asks, other) = (asked.clone(), others.clone());
        let between = Between::deciding(&socket, move |line| {
            let fate = if line.contains(" /version") {
                asks.fetch_add(1, Ordering::SeqCst);
                Fate::Answered(200, version.clone())
            } else {
                let is_agreed = line.contains(&format!(" /v1.{agreed}/"));
                other.fetch_add(usize::from(!is_agreed), Ordering::SeqCst);
                Fate::Passed
            };
            std::future::ready(fate)
        });
        let machine = Machine::with("echo it runs", |mut options| {
            options.host = between.host();
            options
        });
        let spec = spec();
        assert_eq!(machine.run(&spec).await, "it runs\n");
        let counted = (asked.load(Ordering::SeqCst), others.load(Ordering::SeqCst));
        assert_eq!(counted, (1, 0), "an engine of 1.{claimed}: how often it was asked, and calls in another version");
        machine.close(&[spec]).await;
    }
}

async fn followed_by_an_older_one() {
    let Some(socket) = socket("an engine that is followed by an older one") else { return };
    let is_older = Arc::<AtomicBool>::default();
    let told = docker().negotiate_version().await.expect("an engine").client_version();
    let older = format!("{}.{}", told.major_version, told.minor_version - 1);
    let (now_older, knows) = (is_older.clone(), older.clone());
    let between = Between::deciding(&socket, move |line| {
        let fate = match now_older.load(Ordering::SeqCst) {
            true if line.contains(" /version ") => Fate::Answered(200, format!(r#"{{"ApiVersion":"{knows}"}}"#)),
            true if !line.contains(&format!(" /v{knows}/")) => {
                let message = format!("client version 1.99 is too new. Maximum supported API version is {knows}");
                Fate::Answered(400, format!(r#"{{"message":"{message}"}}"#))
            }
            _ => Fate::Passed,
        };
        std::future::ready(fate)
    });
    let machine = Machine::with("echo it runs", |mut options| {
        options.host = between.host();
        options
    });
    let spec = spec();
    assert_eq!(machine.run(&spec).await, "it runs\n");
    is_older.store(true, Ordering::SeqCst);
    let observed = machine.runtime.observe(spec.id).await;
    let is_told = |error: &RuntimeError| error.is_retryable() && error.to_string().contains(&older);
    assert!(observed.as_ref().is_err_and(is_told), "{observed:?}");
    assert_eq!(machine.run(&spec).await, "it runs\n", "by the version that it knows");
    machine.close(&[spec]).await;
}

async fn lost_and_asked_again() {
    let Some(socket) = socket("an engine that was lost") else { return };
    let is_mapped = Arc::<AtomicBool>::default();
    let now_mapped = is_mapped.clone();
    let between = Between::deciding(&socket, move |line| {
        let options = if now_mapped.load(Ordering::SeqCst) { r#""name=userns""# } else { "" };
        let fate = match line.split(' ').nth(1).unwrap_or_default() {
            path if path.ends_with("/info") => Fate::Answered(200, format!(r#"{{"SecurityOptions":[{options}]}}"#)),
            path if path.contains("/events") => Fate::Answered(200, String::new()),
            path if path.contains("/volumes/") => Fate::Cut,
            _ => Fate::Passed,
        };
        std::future::ready(fate)
    });
    let here = Machine::new("");
    let machine = Machine::with("", |mut options| {
        options.installation.clone_from(&here.installation);
        options.host = between.host();
        options
    });
    let spec = ComputerSpec { root: true, ..spec() };
    here.runtime.ensure(&spec).await.expect("made");
    let is_root = async || machine.runtime.ensure(&spec).await.expect("there").root_unmapped.is_some();
    assert!(is_root().await);
    is_mapped.store(true, Ordering::SeqCst);
    assert!(is_root().await, "nothing says that it is another one");
    assert_eq!(machine.runtime.watch().await.expect("followed").next().await, None, "it is lost");
    assert!(!is_root().await, "when its events end");
    is_mapped.store(false, Ordering::SeqCst);
    machine.runtime.has_volume(spec.volume).await.expect_err("cut off");
    assert!(is_root().await, "when a call is not answered");
    here.close(&[spec]).await;
}

/// What an engine says that was killed in the middle of a start, whenever it is asked for that container again.
async fn a_stuck_container_is_made_anew() {
    let Some(socket) = socket("an engine that lost track of a container") else { return };
    let is_start = |line: &str| line.starts_with("POST") && line.contains("/start");
    let (between, meant) = Between::refusing(&socket, 1, is_start, "task 30cb93d36bfd: already exists");
    let machine = Machine::with("cat kept", |mut options| {
        options.host = between.host();
        options
    });
    let spec = machine.made().await;
    write(&spec, "kept", "by the volume").await;
    let started = machine.runtime.start(spec.id, &boot(spec.id)).await;
    assert!(started.as_ref().is_err_and(RuntimeError::is_retryable), "it is tried again: {started:?}");
    assert_eq!(machine.phase(spec.id).await, None, "the container is gone");
    assert_eq!(machine.run(&spec).await, "by the volume", "and the next start has another one");
    assert_eq!(meant.load(Ordering::SeqCst), 2);
    machine.close(&[spec]).await;
}

async fn one_is_left_out() {
    let Some(socket) = socket("a computer of which its engine says nothing") else { return };
    let silent = Arc::<OnceLock<String>>::default();
    let of = silent.clone();
    let between = Between::deciding(&socket, move |line| {
        let path = line.split(' ').nth(1).unwrap_or_default();
        let fate = match of.get() {
            Some(silent) if path.ends_with(&format!("/containers/{silent}/json")) => Fate::Unanswered,
            _ => Fate::Passed,
        };
        std::future::ready(fate)
    });
    let machine = Machine::with("", |mut options| {
        options.host = between.host();
        options
    });
    let (one, other) = (machine.made().await, machine.made().await);
    let here = Machine::with("", |mut options| {
        options.installation.clone_from(&machine.installation);
        options
    });
    silent.set(container(one.id)).expect("once");
    let listed = tokio::time::timeout(Duration::from_secs(60), machine.runtime.list()).await;
    let listed = listed.expect("one is not waited for").expect("listed");
    assert_eq!(listed.iter().map(|observed| observed.computer).collect::<Vec<_>>(), [other.id]);
    here.runtime.remove(one.id).await.expect("removed");
    here.runtime.remove_volume(one.volume).await.expect("removed");
    machine.close(&[other]).await;
}

async fn an_address_that_is_none_is_refused() {
    for host in ["", "/var/run/docker.sock", "ftp://host"] {
        let options = DockerOptions::new(RuntimeName::new("docker").expect("a name"), "any", host, "any");
        let error = DockerRuntime::open(options).expect_err("no address").to_string();
        assert!(error.contains("unix:///") && error.contains("tcp://"), "{host}: {error}");
    }
}
