//! The network of open computers, which others take away, or make at the same moment.

use bollard::models::{NetworkCreateRequest, NetworkDisconnectRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use futures::future::join_all;
use libtest_mimic::Trial;
use raworc_core::agent::NetworkMode;
use raworc_core::runtime::{ComputerSpec, Runtime, RuntimeError};

use crate::machine::{Machine, container, docker, name, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_network_that_was_pruned_under_sleeping_computers_is_made_again", a_pruned_network_is_made_again),
        trial("a_computer_that_was_taken_off_its_network_is_put_on_it_again", a_computer_without_its_network),
        trial("processes_that_make_the_network_at_once_end_with_one_and_their_computers_on_it", made_at_once),
        trial("two_networks_of_the_installations_name_end_as_one", two_of_one_name),
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
        first.runtime.remove_shared().await.expect("removed");
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

async fn a_strangers_network_is_left_alone() {
    let machine = Machine::new(SCRIPT);
    let labels = [("raworc.installation".to_owned(), name())].into();
    let request = NetworkCreateRequest { name: network_of(&machine), labels: Some(labels), ..Default::default() };
    let stranger = docker().create_network(request).await.expect("made").id;
    let spec = open();
    let made = machine.runtime.ensure(&spec).await;
    let named = network_of(&machine);
    assert!(matches!(&made, Err(RuntimeError::Refused { reason, .. }) if reason.contains(&named)), "{made:?}");
    machine.runtime.remove_shared().await.expect("nothing of ours");
    assert_eq!(networks(&machine).await, std::slice::from_ref(&stranger), "it was left alone");
    docker().remove_network(&stranger).await.expect("removed");
    machine.close(&[spec]).await;
}
