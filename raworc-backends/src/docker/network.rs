//! The network of an installation's open computers: made where it is not there, their containers put on it, and taken away
//! with the last of them. An engine has addresses for some thirty networks.
//!
//! An engine may take two networks of one name, and then neither can be named. It never takes two with one bridge: so the
//! bridge has a name that follows from the installation's, and of several processes that make the network one succeeds.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use raworc_core::runtime::RuntimeError;
use sha2::{Digest, Sha256};

use super::AGAIN;
use super::container::{is_own, network_name, owner};
use super::error::{self, CONFLICT, if_there, status};

/// What the engine answers where something that runs is on a network, and where another network has the same bridge.
const FORBIDDEN: u16 = 403;

/// How often it is looked for what another process has begun to make.
const LOOKS: usize = 100;

/// Sees to it that the network is there, once, and gives its id.
pub(super) async fn ensure(docker: &Docker, installation: &str) -> Result<String, RuntimeError> {
    let (what, name) = ("make a network", network_name(installation));
    let mut refused = None;
    for _ in 0..LOOKS {
        let mut found = named(docker, &name).await.map_err(error::of(what))?;
        if found.iter().any(|network| !is_own(network.labels.as_ref(), installation)) {
            let reason = format!("the network {name} is there and not this installation's; remove it");
            return Err(RuntimeError::Refused { what, reason });
        }
        if found.len() > 1 {
            found = only_one(docker, found).await.map_err(error::of(what))?;
        }
        if let Some(id) = found.into_iter().next().and_then(|network| network.id) {
            return Ok(id);
        }
        if refused.is_some() {
            tokio::time::sleep(AGAIN).await;
        }
        // Where another process makes it at this moment, the bridge is taken before the network is listed.
        match docker.create_network(asked(installation)).await {
            Ok(made) => return Ok(made.id),
            Err(error) if matches!(status(&error), Some(FORBIDDEN | CONFLICT)) => refused = Some(error),
            Err(error) => return Err(error::of(what)(error)),
        }
    }
    let reason = refused.map_or_else(|| "it does not stay".into(), |error| error::root(&error));
    Err(RuntimeError::Refused { what, reason })
}

/// Puts a container that does not run on the network, where it was made for it and is not on it: the network that it knows
/// may have been taken away, and another one of the name made.
pub(super) async fn join(
    docker: &Docker,
    installation: &str,
    container: &ContainerInspectResponse,
) -> Result<(), RuntimeError> {
    let (what, name) = ("put a computer on its network", network_name(installation));
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    let (Some(id), true) = (container.id.as_deref(), mode == Some(name.as_str())) else { return Ok(()) };
    let network = ensure(docker, installation).await?;
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let known = networks.and_then(|networks| networks.get(&name)).map(|known| known.network_id.as_deref());
    match known {
        // Without an id it is found by the name as it starts.
        Some(None | Some("")) => return Ok(()),
        Some(Some(known)) if known == network => return Ok(()),
        Some(Some(_)) => {
            let request = NetworkDisconnectRequest { container: id.into(), force: Some(true) };
            docker.disconnect_network(&name, request).await.map_err(error::of(what))?;
        }
        None => {}
    }
    let request = NetworkConnectRequest { container: id.into(), endpoint_config: None };
    // By its name: the engine puts a container that does not run also on an id that has gone in this moment, and then it can
    // never be started again.
    match docker.connect_network(&name, request).await {
        Err(error) if error::is_missing(&error) => {
            Err(RuntimeError::Unavailable(format!("its network went in this moment: {}", error::root(&error))))
        }
        joined => joined.map_err(error::of(what)),
    }
}

/// Takes the network away where no container is on it. The next one has it made again. Where the engine keeps it all the same,
/// this is the reason that it gives.
///
/// An engine counts what is on a network beside knowing it by name. Up to moby/moby#49736 the count can be too high for good
/// where containers left at the same moment: it refuses then, and names nothing. Its next start counts anew.
pub(super) async fn remove_unused(docker: &Docker, installation: &str) -> Result<Option<String>, RuntimeError> {
    let name = network_name(installation);
    let removed = async {
        let mut kept = None;
        for network in named(docker, &name).await? {
            let (true, Some(id)) = (is_own(network.labels.as_ref(), installation), &network.id) else { continue };
            // Asked after the network was seen: whatever is made from now on finds that it is gone, or is on another one, of
            // another id.
            if is_used(docker, &name).await? || remove(docker, id).await?.is_none() {
                continue;
            }
            forget_dead(docker, id).await?;
            if let Some(reason) = remove(docker, id).await?
                && !is_used(docker, &name).await?
            {
                kept = Some(reason);
            }
        }
        Ok(kept)
    };
    removed.await.map_err(error::of("remove a network"))
}

/// Whether there is a container of the network. The engine itself keeps it for those that run alone.
async fn is_used(docker: &Docker, name: &str) -> Result<bool, Error> {
    let filters = HashMap::from([("network", vec![name])]);
    let query = ListContainersOptionsBuilder::new().all(true).limit(1).filters(&filters).build();
    Ok(!docker.list_containers(Some(query)).await?.is_empty())
}

/// Takes a network away, unless something that runs is on it: then this is what the engine says.
async fn remove(docker: &Docker, id: &str) -> Result<Option<String>, Error> {
    match if_there(docker.remove_network(id).await) {
        Err(error) if matches!(status(&error), Some(FORBIDDEN | CONFLICT)) => Ok(Some(error::root(&error))),
        answer => answer.map(|_| None),
    }
}

/// Takes off a network what an engine that was killed still has on it of containers that are gone. It names these by itself,
/// and not by a container.
async fn forget_dead(docker: &Docker, id: &str) -> Result<(), Error> {
    let Some(seen) = if_there(docker.inspect_network(id, None).await)? else { return Ok(()) };
    for (key, endpoint) in seen.containers.unwrap_or_default() {
        if let (true, Some(name)) = (key.starts_with("ep-"), endpoint.name) {
            let request = NetworkDisconnectRequest { container: name, force: Some(true) };
            if_there(docker.disconnect_network(id, request).await)?;
        }
    }
    Ok(())
}

fn asked(installation: &str) -> NetworkCreateRequest {
    let apart = ("com.docker.network.bridge.enable_icc".into(), "false".into());
    let bridge = ("com.docker.network.bridge.name".into(), bridge_name(installation));
    NetworkCreateRequest {
        name: network_name(installation),
        driver: Some("bridge".into()),
        options: Some(HashMap::from([apart, bridge])),
        labels: Some(owner(installation)),
        ..NetworkCreateRequest::default()
    }
}

/// As long as an interface's name may be: 15 bytes.
fn bridge_name(installation: &str) -> String {
    format!("rw-{}", hex::encode(&Sha256::digest(installation.as_bytes())[..6]))
}

/// All networks of this name, whoever's they are.
async fn named(docker: &Docker, name: &str) -> Result<Vec<Network>, Error> {
    // The engine's filter takes a part of a name too.
    let filters = HashMap::from([("name", vec![name])]);
    let listed = docker.list_networks(Some(ListNetworksOptionsBuilder::new().filters(&filters).build())).await?;
    Ok(listed.into_iter().filter(|network| network.name.as_deref() == Some(name)).collect())
}

/// Of several, the one stays that computers run on, else the oldest: whatever process looks, it chooses the same.
async fn only_one(docker: &Docker, found: Vec<Network>) -> Result<Vec<Network>, Error> {
    let mut ranked = Vec::new();
    for network in found {
        let Some(id) = &network.id else { continue };
        let Some(seen) = if_there(docker.inspect_network(id, None).await)? else { continue };
        let is_empty = seen.containers.is_none_or(|containers| containers.is_empty());
        ranked.push((is_empty, network.created.clone(), id.clone(), network));
    }
    ranked.sort_by(|(a_empty, a_made, a_id, _), (b_empty, b_made, b_id, _)| {
        (a_empty, a_made, a_id).cmp(&(b_empty, b_made, b_id))
    });
    let mut ranked = ranked.into_iter().map(|(.., network)| network);
    let first = ranked.next();
    for other in ranked {
        if let Some(id) = &other.id {
            // Where computers run on it, it goes once they have stopped.
            remove(docker, id).await?;
        }
    }
    Ok(first.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_name_follows_from_the_installation_and_is_short_enough_for_an_interface() {
        let name = bridge_name("a-rather-long-name-of-an-installation");
        assert_eq!(name, bridge_name("a-rather-long-name-of-an-installation"));
        assert_ne!(name, bridge_name("another"));
        assert_eq!(name.len(), 15);
    }
}
