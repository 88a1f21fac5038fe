//! Volumes: made, owned, copied, taken away.

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, ListImagesOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use bollard::{Docker, body_full, body_try_stream};
use futures::TryStreamExt;
use raworc_core::ids::VolumeId;
use raworc_core::runtime::{RuntimeError, VOLUME_PATH};

use super::config::DockerOptions;
use super::container::{AGENT_UID, INSTALLATION, is_own, labels, owner, volume_called, volume_name};
use super::error::{self, CONFLICT, NOT_FOUND, if_there, status};

/// Of the archive of a volume, what tells whether there is a file in it, in bytes.
const ENOUGH: usize = 16 * 1024;

/// Whether the installation has this volume on the engine.
pub(super) async fn is_there(docker: &Docker, installation: &str, id: VolumeId) -> Result<bool, RuntimeError> {
    let what = "look at a volume";
    match if_there(docker.inspect_volume(&volume_name(id)).await).map_err(error::of(what))? {
        Some(volume) if !is_own(Some(&volume.labels), installation) => {
            match is_unfinished(docker, installation, &volume).await.map_err(passing(what))? {
                true => Ok(false),
                false => Err(strangers(what, installation, id)),
            }
        }
        found => Ok(found.is_some()),
    }
}

/// Makes the volume where it is not there. Whether it was not.
pub(super) async fn ensure(docker: &Docker, installation: &str, id: VolumeId) -> Result<bool, RuntimeError> {
    let is_new = !is_there(docker, installation, id).await?;
    let (name, labels) = (Some(volume_name(id)), Some(owner(installation)));
    let what = "make a volume";
    let request = VolumeCreateRequest { name, labels, ..VolumeCreateRequest::default() };
    if is_made(docker, request, installation, what).await? {
        return Ok(is_new);
    }
    Err(strangers(what, installation, id))
}

/// What has the volume's name is somebody else's.
fn strangers(what: &'static str, installation: &str, id: VolumeId) -> RuntimeError {
    let name = volume_name(id);
    let label = format!("{INSTALLATION}={installation}");
    // It may hold an agent's files, which somebody brought back.
    let way_out = format!(
        "if its files are the agent's, copy them into a volume made with `docker volume create --label {label} {name}`; else \
         remove it"
    );
    let reason =
        format!("the volume {name} is there and not this installation's, for it has no label {label}; {way_out}");
    RuntimeError::Refused { what, reason }
}

/// Makes a volume where there is none of its name. Whether there is one of the installation's then.
pub(super) async fn is_made(
    docker: &Docker,
    request: VolumeCreateRequest,
    installation: &str,
    what: &'static str,
) -> Result<bool, RuntimeError> {
    let own = |volume: &Volume| is_own(Some(&volume.labels), installation);
    if own(&docker.create_volume(request.clone()).await.map_err(error::of(what))?) {
        return Ok(true);
    }
    // Of one that was there before the engine was started it tells no labels here.
    let name = request.name.as_deref().unwrap_or_default();
    match if_there(docker.inspect_volume(name).await).map_err(error::of(what))? {
        Some(found) if own(&found) => Ok(true),
        Some(found) if clear(docker, installation, &found).await.map_err(passing(what))? => {
            Ok(own(&docker.create_volume(request).await.map_err(error::of(what))?))
        }
        _ => Ok(false),
    }
}

/// Takes a volume away that an engine did not come to the end of making. Whether it is away, or the installation's by now.
async fn clear(docker: &Docker, installation: &str, volume: &Volume) -> Result<bool, Error> {
    let name = &volume.name;
    if !is_unfinished(docker, installation, volume).await? {
        return Ok(false);
    }
    // Somebody else of the installation may have done the same meanwhile, and have made it anew.
    if if_there(docker.inspect_volume(name).await)?.is_some_and(|now| !now.labels.is_empty()) {
        return Ok(true);
    }
    match if_there(docker.remove_volume(name, None::<RemoveVolumeOptions>).await) {
        Err(error) if status(&error) == Some(CONFLICT) => {
            // For a moment, by somebody else of the installation who looks; else by a stranger, whose it is.
            let looked_at = if_there(docker.inspect_container(&look(name), None).await)?;
            if looked_at.is_some_and(|found| is_own(labels(&found), installation)) { Err(error) } else { Ok(false) }
        }
        answer => {
            answer?;
            tracing::warn!(
                volume = name,
                "its engine had not come to the end of making a volume, which was taken away"
            );
            Ok(true)
        }
    }
}

/// Whether an engine was killed while it made this volume: it is there without labels then, and without files.
async fn is_unfinished(docker: &Docker, installation: &str, volume: &Volume) -> Result<bool, Error> {
    Ok(volume.labels.is_empty() && volume.options.is_empty() && is_empty(docker, installation, &volume.name).await?)
}

/// The container that a look at a volume is by.
fn look(volume: &str) -> String {
    format!("{volume}-look")
}

/// Whether there is no file in a volume, as a container sees it that never runs.
async fn is_empty(docker: &Docker, installation: &str, volume: &str) -> Result<bool, Error> {
    let holder = look(volume);
    // What an earlier look left when it was cut short.
    remove_holder(docker, installation, &holder).await?;
    let mut is_held = false;
    // Whichever image: nothing of it is looked at. One may be gone by now, or not fit the engine's machine.
    for image in docker.list_images(None::<ListImagesOptions>).await? {
        is_held = match hold(docker, installation, &holder, &image.id, volume).await {
            Err(error) if status(&error).is_some_and(|status| status != CONFLICT) => false,
            held => held.map(|()| true)?,
        };
        if is_held {
            break;
        }
    }
    if !is_held {
        return Ok(false);
    }
    let looked = async {
        let query = DownloadFromContainerOptionsBuilder::new().path(VOLUME_PATH).build();
        let mut files = std::pin::pin!(docker.download_from_container(&holder, Some(query)));
        let mut begun = Vec::new();
        // Of one that has files, what comes after the first few does not matter.
        while begun.len() < ENOUGH
            && let Some(chunk) = files.try_next().await?
        {
            begun.extend_from_slice(&chunk);
        }
        // Its own directory, and nothing else.
        let mut archive = tar::Archive::new(&begun[..]);
        Ok(archive
            .entries()
            .is_ok_and(|mut found| found.next().is_some_and(|own| own.is_ok()) && found.next().is_none()))
    };
    let looked = looked.await;
    remove_holder(docker, installation, &holder).await?;
    looked
}

/// The error of a look: somebody else who looks at the same is in the way for a moment.
fn passing(what: &'static str) -> impl Fn(Error) -> RuntimeError {
    move |error| match status(&error) {
        Some(CONFLICT | NOT_FOUND) => RuntimeError::Unavailable(format!("somebody else looks at a volume: {error}")),
        _ => error::of(what)(error),
    }
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
    let (installation, image) = (&options.installation, &options.default_image);
    hold(docker, installation, &source, image, &volume_name(from)).await?;
    hold(docker, installation, &target, image, &volume_name(to)).await?;
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

/// Makes a container that never runs, and that a volume is seen through.
async fn hold(docker: &Docker, installation: &str, name: &str, image: &str, volume: &str) -> Result<(), Error> {
    let body = ContainerCreateBody {
        image: Some(image.into()),
        // An image need not say what runs in it; the engine asks for something.
        entrypoint: Some(vec![VOLUME_PATH.into()]),
        labels: Some(owner(installation)),
        host_config: Some(HostConfig {
            mounts: Some(vec![volume_called(volume, VOLUME_PATH, owner(installation))]),
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
        remove_holder(docker, installation, &name).await?;
    }
    Ok(())
}

async fn remove_holder(docker: &Docker, installation: &str, name: &str) -> Result<(), Error> {
    let found = if_there(docker.inspect_container(name, None).await)?;
    if found.is_some_and(|found| is_own(labels(&found), installation)) {
        // With what its image asked for in volumes without a name.
        let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        if_there(docker.remove_container(name, Some(force)).await)?;
    }
    Ok(())
}

/// Takes a volume away with all its files.
pub(super) async fn remove(docker: &Docker, installation: &str, id: VolumeId) -> Result<(), RuntimeError> {
    let (what, name) = ("remove a volume", volume_name(id));
    loop {
        let found = if_there(docker.inspect_volume(&name).await).map_err(error::of(what))?;
        let Some(found) = found else { return Ok(()) };
        if is_own(Some(&found.labels), installation) {
            break;
        }
        if !clear(docker, installation, &found).await.map_err(passing(what))? {
            return Ok(());
        }
    }
    remove_holders(docker, installation, id).await.map_err(error::of(what))?;
    remove_holder(docker, installation, &look(&name)).await.map_err(error::of(what))?;
    match if_there(docker.remove_volume(&name, None::<RemoveVolumeOptions>).await) {
        Err(error) if status(&error) == Some(CONFLICT) => {
            Err(RuntimeError::Refused { what, reason: format!("volume {id} is in use: {error}") })
        }
        answer => answer.map(drop).map_err(error::of(what)),
    }
}
