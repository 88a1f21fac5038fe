//! Volumes: made, owned, copied, taken away.

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use bollard::{Docker, body_full, body_try_stream};
use futures::TryStreamExt;
use raworc_core::ids::VolumeId;
use raworc_core::runtime::{RuntimeError, VOLUME_PATH};

use super::config::DockerOptions;
use super::container::{AGENT_UID, INSTALLATION, is_own, labels, owner, volume_mount, volume_name};
use super::error::{self, CONFLICT, if_there, status};

/// Whether the installation has this volume on the engine.
pub(super) async fn is_there(docker: &Docker, installation: &str, id: VolumeId) -> Result<bool, RuntimeError> {
    let what = "look at a volume";
    match if_there(docker.inspect_volume(&volume_name(id)).await).map_err(error::of(what))? {
        Some(volume) if !is_own(Some(&volume.labels), installation) => Err(strangers(what, installation, id)),
        found => Ok(found.is_some()),
    }
}

/// Makes the volume where it is not there. Whether it was not.
pub(super) async fn ensure(docker: &Docker, installation: &str, id: VolumeId) -> Result<bool, RuntimeError> {
    let name = volume_name(id);
    let is_new = if_there(docker.inspect_volume(&name).await).map_err(error::of("look at a volume"))?.is_none();
    let request =
        VolumeCreateRequest { name: Some(name.clone()), labels: Some(owner(installation)), ..Default::default() };
    let what = "make a volume";
    if is_made(docker, request, installation).await.map_err(error::of(what))? {
        return Ok(is_new);
    }
    Err(strangers(what, installation, id))
}

/// What has the volume's name is somebody else's.
fn strangers(what: &'static str, installation: &str, id: VolumeId) -> RuntimeError {
    let name = volume_name(id);
    let label = format!("{INSTALLATION}={installation}");
    let reason =
        format!("the volume {name} is there and not this installation's, for it has no label {label}; remove it");
    RuntimeError::Refused { what, reason }
}

/// Makes a volume where there is none of its name. Whether there is one of the installation's then.
pub(super) async fn is_made(docker: &Docker, request: VolumeCreateRequest, installation: &str) -> Result<bool, Error> {
    let own = |volume: &Volume| is_own(Some(&volume.labels), installation);
    let name = request.name.clone().unwrap_or_default();
    if own(&docker.create_volume(request).await?) {
        return Ok(true);
    }
    // Of one that was there before the engine was started it tells no labels here.
    Ok(if_there(docker.inspect_volume(&name).await)?.as_ref().is_some_and(own))
}

/// Gives the root of a container's volume to the agent's user, whatever image it has.
pub(super) async fn give_to_agent(docker: &Docker, container: &str) -> Result<(), RuntimeError> {
    let failed = |error: std::io::Error| RuntimeError::Unavailable(error.to_string());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_uid(AGENT_UID);
    header.set_gid(AGENT_UID);
    header.set_size(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, VOLUME_PATH.trim_start_matches('/'), std::io::empty()).map_err(failed)?;
    let archive = archive.into_inner().map_err(failed)?;
    let options = UploadToContainerOptionsBuilder::new().path("/").build();
    let given = docker.upload_to_container(container, Some(options), body_full(archive.into())).await;
    given.map_err(error::of("give a volume to its agent"))
}

/// Copies all files of a volume to a new one, by two containers that never run.
pub(super) async fn copy(
    docker: &Docker,
    options: &DockerOptions,
    from: VolumeId,
    to: VolumeId,
) -> Result<(), RuntimeError> {
    let what = "copy a volume";
    let source = if_there(docker.inspect_volume(&volume_name(from)).await).map_err(error::of(what))?;
    if !source.is_some_and(|volume| is_own(Some(&volume.labels), &options.installation)) {
        return Err(RuntimeError::Refused { what, reason: format!("volume {from} is not there") });
    }
    ensure(docker, &options.installation, to).await?;
    // What an earlier copy left when it was cut short.
    remove_holders(docker, &options.installation, to).await.map_err(error::of(what))?;
    let copied = copy_between(docker, options, from, to).await;
    let removed = remove_holders(docker, &options.installation, to).await;
    copied.and(removed).map_err(error::of(what))
}

async fn copy_between(docker: &Docker, options: &DockerOptions, from: VolumeId, to: VolumeId) -> Result<(), Error> {
    let [source, target] = holders(to);
    hold(docker, options, &source, from).await?;
    hold(docker, options, &target, to).await?;
    // With the dot it is what is in the directory, and not the directory.
    let query = DownloadFromContainerOptionsBuilder::new().path(&format!("{VOLUME_PATH}/.")).build();
    let files = docker.download_from_container(&source, Some(query)).map_err(std::io::Error::other);
    let query = UploadToContainerOptionsBuilder::new().path(VOLUME_PATH).build();
    docker.upload_to_container(&target, Some(query), body_try_stream(files)).await
}

/// The two containers that hold a copy's volumes, by the volume that is new.
fn holders(to: VolumeId) -> [String; 2] {
    ["from", "to"].map(|side| format!("raworc-copy-{to}-{side}"))
}

async fn hold(docker: &Docker, options: &DockerOptions, name: &str, volume: VolumeId) -> Result<(), Error> {
    let body = ContainerCreateBody {
        image: Some(options.default_image.clone()),
        entrypoint: Some(options.program.clone()),
        labels: Some(owner(&options.installation)),
        host_config: Some(HostConfig {
            mounts: Some(vec![volume_mount(volume, VOLUME_PATH)]),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let query = CreateContainerOptionsBuilder::new().name(name).build();
    docker.create_container(Some(query), body).await.map(drop)
}

async fn remove_holders(docker: &Docker, installation: &str, to: VolumeId) -> Result<(), Error> {
    for name in holders(to) {
        let found = if_there(docker.inspect_container(&name, None).await)?;
        if !found.is_some_and(|found| is_own(labels(&found), installation)) {
            continue;
        }
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        if_there(docker.remove_container(&name, Some(force)).await)?;
    }
    Ok(())
}

/// Takes a volume away with all its files.
pub(super) async fn remove(docker: &Docker, installation: &str, id: VolumeId) -> Result<(), RuntimeError> {
    let (what, name) = ("remove a volume", volume_name(id));
    let found = if_there(docker.inspect_volume(&name).await).map_err(error::of(what))?;
    if !found.is_some_and(|volume| is_own(Some(&volume.labels), installation)) {
        return Ok(());
    }
    remove_holders(docker, installation, id).await.map_err(error::of(what))?;
    match if_there(docker.remove_volume(&name, None::<RemoveVolumeOptions>).await) {
        Err(error) if status(&error) == Some(CONFLICT) => {
            Err(RuntimeError::Refused { what, reason: format!("volume {id} is in use: {error}") })
        }
        answer => answer.map(drop).map_err(error::of(what)),
    }
}
