//! The network of open computers, which others take away, or make at the same moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bollard::models::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{ListNetworksOptionsBuilder, StopContainerOptionsBuilder};
use futures::future::join_all;
use libtest_mimic::Trial;
use raworc_core::agent::NetworkMode;
use raworc_core::runtime::{ComputerSpec, Runtime, RuntimeError};

use crate::between::{Between, Fate};
use crate::engine::socket;
use crate::machine::{Machine, container, docker, name, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_network_that_was_pruned_under_sleeping_computers_is_made_again", a_pruned_network_is_made_again),
        trial("a_computer_that_was_taken_off_its_network_is_put_on_it_again", a_computer_without_its_network),
        trial("processes_that_make_the_network_at_once_end_with_one_and_their_computers_on_it", made_at_once),
        trial("two_networks_of_the_installations_name_end_as_one", two_of_one_name),
        trial("the_network_goes_with_the_last_computer_and_comes_with_the_next", it_goes_with_the_last),
        trial("a_network_that_a_stranger_uses_stays_and_goes_with_a_later_removal", a_stranger_keeps_it),
        trial("a_computer_whose_network_goes_as_it_starts_starts_on_another", gone_as_it_starts),
        trial("a_computer_whose_network_goes_as_it_is_put_on_it_starts_on_another", gone_as_it_joins),
        trial("a_network_that_its_engine_does_not_remove_keeps_no_computer_from_being_removed", it_is_not_removed),
        trial("a_network_that_its_engine_keeps_for_nobody_is_used_again_and_goes_once_it_may", it_is_kept_for_nobody),
        trial("a_strangers_network_with_our_name_is_left_alone", a_strangers_network_is_left_alone),
    ]
}

/// Tells its interfaces, and what its last start left outside of the volume.
const SCRIPT: &str =
    "ls /kept 2>/dev/null; touch /kept; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '; echo";

/// It owns its system, so that it can leave something there.
fn open() -> ComputerSpec {
    let mut spec = ComputerSpec { root: true, ..spec() };
    spec.network.mode = NetworkMode::Open;
    spec
}

fn network_of(machine: &Machine) -> String {
    format!("raworc-{}", machine.installation)
}

/// The ids of all networks of the installation's name.
async fn networks(machine: &Machine) -> Vec<String> {
    let query = ListNetworksOptionsBuilder::new().build();
    let listed = docker().list_networks(Some(query)).await.expect("listed");
    let own = listed.into_iter().filter(|network| network.name == Some(network_of(machine)));
    own.filter_map(|network| network.id).collect()
}

async fn a_pruned_network_is_made_again() {
    let machine = Machine::new(SCRIPT);
    let computers = [open(), open()];
    for spec in &computers {
        assert_eq!(machine.run(spec).await, "eth0 lo \n");
    }
    docker().remove_network(&network_of(&machine)).await.expect("pruned");
    // The second one finds a network of the name, and is still on the one that is gone.
    for spec in &computers {
        assert_eq!(machine.run(spec).await, "/kept\neth0 lo \n", "the same container, on the network");
    }
    machine.close(&computers).await;
}

async fn a_computer_without_its_network() {
    let machine = Machine::new(SCRIPT);
    let spec = open();
    machine.run(&spec).await;
    let request = NetworkDisconnectRequest { container: container(spec.id), force: Some(true) };
    docker().disconnect_network(&network_of(&machine), request).await.expect("taken off");
    assert_eq!(machine.run(&spec).await, "/kept\neth0 lo \n");
    machine.close(&[spec]).await;
}

async fn made_at_once() {
    let first = Machine::new(SCRIPT);
    let another = || {
        Machine::with(SCRIPT, |mut options| {
            options.installation.clone_from(&first.installation);
            options
        })
    };
    let others: Vec<_> = (0..6).map(|_| another()).collect();
    for round in 0..5 {
        let computers: Vec<_> = others.iter().map(|_| open()).collect();
        let runs = others.iter().zip(&computers).map(|(machine, spec)| machine.run(spec));
        for told in join_all(runs).await {
            assert_eq!(told, "eth0 lo \n", "round {round}");
        }
        assert_eq!(networks(&first).await.len(), 1, "round {round}");
        for spec in &computers {
            first.runtime.remove(spec.id).await.expect("removed");
            first.runtime.remove_volume(spec.volume).await.expect("removed");
        }
        assert_eq!(networks(&first).await, Vec::<String>::new(), "round {round}");
    }
    first.close(&[]).await;
}

#[expect(clippy::print_stdout, reason = "scripts/test looks for it")]
async fn two_of_one_name() {
    let machine = Machine::new(SCRIPT);
    let computers = [open(), open()];
    machine.run(&computers[0]).await;
    let request = || NetworkCreateRequest {
        name: network_of(&machine),
        labels: Some([("raworc.installation".to_owned(), machine.installation.clone())].into()),
        ..NetworkCreateRequest::default()
    };
    if docker().create_network(request()).await.is_err() {
        println!("NOT TESTED on this machine: two networks of one name, since this engine allows only one");
    }
    for spec in &computers {
        let told = machine.run(spec).await;
        assert!(told.ends_with("eth0 lo \n"), "{told}");
        assert_eq!(networks(&machine).await.len(), 1);
    }
    machine.close(&computers).await;
}

async fn it_goes_with_the_last() {
    let machine = Machine::new(SCRIPT);
    let computers = [open(), open(), spec()];
    for spec in &computers {
        machine.run(spec).await;
    }
    let made = networks(&machine).await;
    machine.runtime.remove(computers[0].id).await.expect("removed");
    assert_eq!(networks(&machine).await, made, "another one that sleeps is on it");
    assert_eq!(machine.run(&computers[1]).await, "/kept\neth0 lo \n", "and starts again");
    machine.runtime.remove(computers[1].id).await.expect("removed");
    assert_eq!(networks(&machine).await, Vec::<String>::new(), "a closed one is not on it");
    assert_eq!(machine.run(&computers[0]).await, "eth0 lo \n");
    // As if whoever removed it had been cut short.
    crate::strangers::remove(&container(computers[0].id)).await;
    assert_eq!(networks(&machine).await.len(), 1);
    machine.close(&computers).await;
}

async fn a_stranger_keeps_it() {
    let machine = Machine::new(SCRIPT);
    let spec = open();
    machine.run(&spec).await;
    let stranger = crate::strangers::run_by_a_stranger(&name(), HashMap::new(), Vec::new()).await;
    for is_running in [true, false] {
        if is_running {
            // The engine lets no container without a network on one.
            let request = NetworkDisconnectRequest { container: stranger.clone(), force: Some(true) };
            docker().disconnect_network("none", request).await.expect("taken off");
            let request = NetworkConnectRequest { container: stranger.clone(), endpoint_config: None };
            docker().connect_network(&network_of(&machine), request).await.expect("put on");
        } else {
            docker()
                .stop_container(&stranger, Some(StopContainerOptionsBuilder::new().t(0).build()))
                .await
                .expect("ended");
        }
        machine.runtime.remove(spec.id).await.expect("removed");
        assert_eq!(networks(&machine).await.len(), 1, "the stranger runs: {is_running}");
    }
    crate::strangers::remove(&stranger).await;
    machine.close(&[spec]).await;
}

/// Stands before the engine, and takes the network away before the first call of this end is passed on.
fn taking_it(socket: &str, installation: &str, end: &'static str) -> Between {
    let (network, taken) = (format!("raworc-{installation}"), AtomicBool::default());
    Between::deciding(socket, move |line| {
        let is_now = line.split(' ').nth(1).is_some_and(|path| path.ends_with(end)) && !taken.swap(true, SeqCst);
        let network = network.clone();
        async move {
            if is_now {
                docker().remove_network(&network).await.expect("taken away");
            }
            Fate::Passed
        }
    })
}

async fn gone_as_it_starts() {
    let Some(socket) = socket("a network that goes as a computer starts") else { return };
    let mut between = None;
    let machine = Machine::with(SCRIPT, |mut options| {
        options.host = between.insert(taking_it(&socket, &options.installation, "/start")).host();
        options
    });
    let spec = open();
    assert_eq!(machine.run(&spec).await, "eth0 lo \n");
    machine.close(&[spec]).await;
}

async fn gone_as_it_joins() {
    let Some(socket) = socket("a network that goes as a computer is put on it") else { return };
    let mut between = None;
    let machine = Machine::with(SCRIPT, |mut options| {
        options.host = between.insert(taking_it(&socket, &options.installation, "/connect")).host();
        options
    });
    let spec = open();
    machine.run(&spec).await;
    docker().remove_network(&network_of(&machine)).await.expect("pruned");
    assert_eq!(machine.run(&spec).await, "/kept\neth0 lo \n");
    machine.close(&[spec]).await;
}

async fn it_is_not_removed() {
    let Some(socket) = socket("a network that its engine does not remove") else { return };
    let count = AtomicUsize::default();
    let between = Between::deciding(&socket, move |line| {
        let is_meant = line.starts_with("DELETE") && line.contains("/networks/");
        let fate = match is_meant.then(|| count.fetch_add(1, SeqCst)) {
            Some(0) => Fate::Answered(500, r#"{"message":"error while removing network: it is so"}"#.into()),
            Some(1) => Fate::Cut,
            _ => Fate::Passed,
        };
        std::future::ready(fate)
    });
    let machine = Machine::with(SCRIPT, |mut options| {
        options.host = between.host();
        options
    });
    let spec = open();
    machine.run(&spec).await;
    machine.runtime.remove(spec.id).await.expect("removed");
    assert_eq!(machine.phase(spec.id).await, None);
    assert_eq!(networks(&machine).await.len(), 1, "it stays for now");
    // Nobody knows what became of a call that was not answered.
    let removed = machine.runtime.remove(spec.id).await;
    assert!(removed.as_ref().is_err_and(RuntimeError::is_retryable), "{removed:?}");
    machine.runtime.remove(spec.id).await.expect("removed");
    assert_eq!(networks(&machine).await, Vec::<String>::new());
    machine.close(&[spec]).await;
}

/// Engines miscount what is on a network, until they are started anew.
async fn it_is_kept_for_nobody() {
    let Some(socket) = socket("a network that its engine keeps for nobody") else { return };
    let is_off = Arc::new(AtomicBool::new(true));
    let between = Between::deciding(&socket, {
        let is_off = Arc::clone(&is_off);
        move |line| {
            let is_kept = line.starts_with("DELETE") && line.contains("/networks/") && is_off.load(SeqCst);
            let refused = r#"{"message":"error while removing network: it has active endpoints"}"#;
            std::future::ready(if is_kept { Fate::Answered(403, refused.into()) } else { Fate::Passed })
        }
    });
    let machine = Machine::with(SCRIPT, |mut options| {
        options.host = between.host();
        options
    });
    let [first, second] = [open(), open()];
    machine.run(&first).await;
    let kept = networks(&machine).await;
    machine.runtime.remove(first.id).await.expect("removed");
    assert_eq!(machine.phase(first.id).await, None);
    assert_eq!(networks(&machine).await, kept);
    assert_eq!(machine.run(&second).await, "eth0 lo \n");
    assert_eq!(networks(&machine).await, kept, "it is the one that was there");
    is_off.store(false, SeqCst);
    machine.runtime.remove(second.id).await.expect("removed");
    assert_eq!(networks(&machine).await, Vec::<String>::new());
    machine.close(&[first, second]).await;
}

async fn a_strangers_network_is_left_alone() {
    let machine = Machine::new(SCRIPT);
    let labels = [("raworc.installation".to_owned(), name())].into();
    let request = NetworkCreateRequest { name: network_of(&machine), labels: Some(labels), ..Default::default() };
    let stranger = docker().create_network(request).await.expect("made").id;
    let spec = open();
    let made = machine.runtime.ensure(&spec).await;
    let named = network_of(&machine);
    assert!(matches!(&made, Err(RuntimeError::Refused { reason, .. }) if reason.contains(&named)), "{made:?}");
    machine.runtime.remove(spec.id).await.expect("nothing of ours");
    assert_eq!(networks(&machine).await, std::slice::from_ref(&stranger), "it was left alone");
    docker().remove_network(&stranger).await.expect("removed");
    machine.close(&[spec]).await;
}
