//! The program of computers on another machine: in a volume that is filled once, by a container that never runs.
//!
//! The volume is named by what is in the program's file. A mark that is unpacked after the file says that all of it is there,
//! where the file has its size too. Of several processes that fill a volume one does at a time: the container has one name.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig, Mount, Volume, VolumeCreateRequest};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, UploadToContainerOptionsBuilder,
};
use bollard::{Docker, body_try_stream};
use bytes::Bytes;
use futures::stream;
use raworc_core::entropy::{Clock, SystemClock};
use raworc_core::runtime::RuntimeError;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::{DockerOptions, PROGRAM_PATH};
use super::container::{COMPUTER, INSTALLATION, computer_of, is_own, owner, read_only, volume_called};
use super::error::{self, CONFLICT, if_there, status};
use super::volume;

/// The label that says which program a volume holds, or which one a container fills it with.
const PROGRAM: &str = "raworc.program";

/// What lies beside the program once all of it is there.
const MARK: &str = ".complete";

/// How long an upload may take before what it left is taken for abandoned.
const UPLOAD_LIMIT: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// How long somebody else's upload of the same program is waited for before it is taken for abandoned.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// Time between two looks at somebody else's upload.
const AGAIN: Duration = Duration::from_millis(100);

/// The volume with the program, as this process has seen it last.
#[derive(Debug, Default)]
pub(super) struct Uploaded(Mutex<Option<Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    name: String,
    /// One that was made again is another one.
    created: Option<String>,
}

/// Where the volume is shown.
fn directory() -> &'static str {
    PROGRAM_PATH.rsplit_once('/').map_or("/", |(directory, _)| directory)
}

/// Whose a program is, and which one.
fn labelled(installation: &str, hash: &str) -> HashMap<String, String> {
    let mut labels = owner(installation);
    labels.insert(PROGRAM.into(), hash.into());
    labels
}

/// The volume of this name, as computers are shown it.
pub(super) fn mount(volume: &str, installation: &str) -> Mount {
    let hash = volume.rsplit('-').next().unwrap_or_default();
    read_only(volume_called(volume, directory(), labelled(installation, hash)))
}

impl Uploaded {
    /// Sees to it that the engine has the program's file, and gives the name of the volume that it is in. The container that
    /// fills it is made from `image`.
    pub(super) async fn ensure(
        &self,
        docker: &Docker,
        options: &DockerOptions,
        image: &str,
        file: &Path,
    ) -> Result<String, RuntimeError> {
        let what = "upload the program";
        let mut seen = self.0.lock().await;
        if let Some(seen) = &*seen
            && let Some(found) = if_there(docker.inspect_volume(&seen.name).await).map_err(error::of(what))?
            && found.created_at == seen.created
            && is_own(Some(&found.labels), &options.installation)
        {
            return Ok(seen.name.clone());
        }
        let read = tokio::fs::read(file).await;
        let program = Bytes::from(read.map_err(|error| RuntimeError::Refused {
            what,
            reason: format!("{} cannot be read: {error}", file.display()),
        })?);
        let (hash, program) = hashed(program).await;
        let name = format!("raworc-{}-program-{hash}", options.installation);
        fill(docker, options, image, (&name, &hash), program).await?;
        let found = docker.inspect_volume(&name).await.map_err(error::of(what))?;
        *seen = Some(Seen { name: name.clone(), created: found.created_at });
        drop(seen);
        self.sweep(docker, &options.installation).await;
        Ok(name)
    }

    /// Takes away older programs that no container uses any more. It is for room alone, so it is tried and no more.
    pub(super) async fn sweep(&self, docker: &Docker, installation: &str) {
        // While one is uploaded nobody waits for room.
        let Some(Seen { name, created }) = self.0.try_lock().ok().and_then(|seen| seen.clone()) else { return };
        let swept = async {
            remove_abandoned(docker, installation).await?;
            for volume in volumes(docker, installation).await? {
                // A newer one is that of a process which is to follow this one.
                if volume.name != name && time(volume.created_at.as_deref()) < time(created.as_deref()) {
                    remove_unused(docker, &volume.name).await?;
                }
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = swept.await {
            tracing::debug!(%error, "an older program was not looked for");
        }
    }
}

/// Takes away every program of the installation.
pub(super) async fn remove_all(docker: &Docker, installation: &str) -> Result<(), RuntimeError> {
    let removed = async {
        for holder in holders(docker, installation).await? {
            remove_holder(docker, &holder.0).await?;
        }
        for volume in volumes(docker, installation).await? {
            if_there(docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await)?;
        }
        Ok(())
    };
    removed.await.map_err(error::of("remove the program"))
}

/// Of a large file it takes a while.
async fn hashed(program: Bytes) -> (String, Bytes) {
    let hash = |program: &Bytes| hex::encode(&Sha256::digest(program)[..8]);
    let (again, work) = (program.clone(), program.clone());
    match tokio::task::spawn_blocking(move || hash(&work)).await {
        Ok(hash) => (hash, program),
        Err(_) => (hash(&again), program),
    }
}

/// Makes the volume and puts the program into it, where it is not there as a whole.
async fn fill(
    docker: &Docker,
    options: &DockerOptions,
    image: &str,
    (name, hash): (&str, &str),
    program: Bytes,
) -> Result<(), RuntimeError> {
    let what = "upload the program";
    let labels = labelled(&options.installation, hash);
    let request =
        VolumeCreateRequest { name: Some(name.into()), labels: Some(labels.clone()), ..VolumeCreateRequest::default() };
    if !volume::is_made(docker, request, &options.installation, what).await? {
        let reason = format!("the volume {name} is there and not this installation's; rename or remove it");
        return Err(RuntimeError::Refused { what, reason });
    }
    // It has the labels of its image too, which may say that it is a computer.
    let not_a_computer = [(COMPUTER.into(), String::new())];
    let body = ContainerCreateBody {
        image: Some(image.into()),
        entrypoint: Some(options.program.clone()),
        labels: Some(labels.clone().into_iter().chain(not_a_computer).collect()),
        host_config: Some(HostConfig {
            mounts: Some(vec![volume_called(name, directory(), labels)]),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let holder = hold(docker, options, &format!("{name}-upload"), body).await?;
    let uploaded = upload(docker, &holder, program).await;
    let removed = remove_holder(docker, &holder).await;
    match uploaded.and(removed) {
        Err(error) if error::is_missing(&error) => {
            Err(RuntimeError::Unavailable(format!("somebody took the upload of the program for abandoned: {error}")))
        }
        filled => filled.map_err(error::of(what)),
    }
}

/// Makes the container that a volume is filled by, once nobody else has one of its name, and gives its id.
async fn hold(
    docker: &Docker,
    options: &DockerOptions,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, RuntimeError> {
    let what = "upload the program";
    let (mut wait, mut removed) = (Wait::default(), None);
    loop {
        let query = CreateContainerOptionsBuilder::new().name(name).build();
        match docker.create_container(Some(query), body.clone()).await {
            Ok(made) => return Ok(made.id),
            Err(error) if error::is_missing(&error) => {
                let image = body.image.unwrap_or_default();
                return Err(RuntimeError::ImageMissing { image, reason: error.to_string() });
            }
            Err(error) if status(&error) == Some(CONFLICT) => {}
            Err(error) => return Err(error::of(what)(error)),
        }
        let found = named(docker, name).await.map_err(error::of(what))?;
        if found.as_ref().is_some_and(|found| !is_own(found.labels.as_ref(), &options.installation)) {
            let reason = format!("the name {name} has a container that is not this installation's; remove it");
            return Err(RuntimeError::Refused { what, reason });
        }
        // The name is taken before there is a container, and still when there is none any more.
        let id = found.and_then(|found| found.id);
        if wait.is_over(id.as_deref()) {
            match id {
                Some(id) if removed.as_ref() != Some(&id) => {
                    tracing::warn!(
                        container = name,
                        "an upload of the program does not end, and is taken for abandoned"
                    );
                    remove_holder(docker, &id).await.map_err(error::of(what))?;
                    (wait, removed) = (Wait::default(), Some(id));
                }
                _ => return Err(RuntimeError::Unavailable(format!("the engine does not let go of the name {name}"))),
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The container of this name, without a look into it: the engine answers one only once an upload to it is over.
async fn named(docker: &Docker, name: &str) -> Result<Option<ContainerSummary>, Error> {
    // The engine's filter takes a part of a name too.
    let filters = HashMap::from([("name", vec![name])]);
    let query = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let is_named = |found: &ContainerSummary| {
        let mut names = found.names.iter().flatten();
        names.any(|own| own.strip_prefix('/') == Some(name))
    };
    Ok(docker.list_containers(Some(query)).await?.into_iter().find(is_named))
}

/// Whose upload is waited for, and since when.
#[derive(Debug, Default)]
struct Wait(Option<(Option<String>, Instant)>);

impl Wait {
    /// Whether this container has been waited for as long as one is. Its clock is this process's own: nobody knows the
    /// engine's.
    fn is_over(&mut self, id: Option<&str>) -> bool {
        match &self.0 {
            Some((waited, since)) if waited.as_deref() == id => since.elapsed() >= WAIT_LIMIT,
            _ => {
                self.0 = Some((id.map(Into::into), Instant::now()));
                false
            }
        }
    }
}

async fn upload(docker: &Docker, holder: &str, program: Bytes) -> Result<(), Error> {
    // An upload may have been cut short that replaced the file of a complete one, and left its mark.
    if size(docker, holder, &format!("{}/{MARK}", directory())).await?.is_some()
        && size(docker, holder, PROGRAM_PATH).await? == i64::try_from(program.len()).ok()
    {
        return Ok(());
    }
    tracing::info!(bytes = program.len(), "uploading the program to the engine, this once");
    let query = UploadToContainerOptionsBuilder::new().path(directory()).build();
    let parts = packed(program).map_err(|error| Error::IOError { err: error })?;
    docker.upload_to_container(holder, Some(query), body_try_stream(stream::iter(parts.map(Ok)))).await
}

/// How large a file of a container is, in bytes; `None` where there is none.
async fn size(docker: &Docker, holder: &str, path: &str) -> Result<Option<i64>, Error> {
    let query = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
    Ok(if_there(docker.get_container_archive_info(holder, Some(query)).await)?.map(|found| found.size))
}

/// An archive of the program and of the mark after it, without a copy of the program.
fn packed(program: Bytes) -> std::io::Result<[Bytes; 3]> {
    let header = |name: &str, size: usize, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header.set_cksum();
        Ok::<_, std::io::Error>(header)
    };
    let file = PROGRAM_PATH.rsplit_once('/').map_or(PROGRAM_PATH, |(_, file)| file);
    let first = header(file, program.len(), 0o755)?;
    // The file is followed by what fills its last block, and the archive by two that are empty.
    let mut rest = vec![0; program.len().next_multiple_of(BLOCK) - program.len()];
    rest.extend_from_slice(header(MARK, 0, 0o444)?.as_bytes());
    rest.extend_from_slice(&[0; 2 * BLOCK]);
    Ok([Bytes::copy_from_slice(first.as_bytes()), program, rest.into()])
}

/// What an archive is made of.
const BLOCK: usize = 512;

fn own(installation: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".into(), vec![format!("{INSTALLATION}={installation}"), PROGRAM.into()])])
}

async fn volumes(docker: &Docker, installation: &str) -> Result<Vec<Volume>, Error> {
    let query = ListVolumesOptionsBuilder::new().filters(&own(installation)).build();
    Ok(docker.list_volumes(Some(query)).await?.volumes.unwrap_or_default())
}

/// The containers that fill a volume, and when each was made. A computer is none of them, whatever labels its image has: a
/// container has those too.
async fn holders(docker: &Docker, installation: &str) -> Result<Vec<(String, Option<i64>)>, Error> {
    let query = ListContainersOptionsBuilder::new().all(true).filters(&own(installation)).build();
    let listed = docker.list_containers(Some(query)).await?;
    let holders = listed.into_iter().filter(|found| computer_of(found.labels.as_ref(), installation).is_none());
    Ok(holders.filter_map(|found| Some((found.id?, found.created))).collect())
}

/// The time that the engine tells, in its own zone.
fn time(told: Option<&str>) -> Option<jiff::Timestamp> {
    told?.parse().ok()
}

/// What an upload left that was cut short.
async fn remove_abandoned(docker: &Docker, installation: &str) -> Result<(), Error> {
    let before = SystemClock.now().saturating_sub(UPLOAD_LIMIT).map_or(0, |before| before.as_second());
    for (id, created) in holders(docker, installation).await? {
        if created.is_some_and(|created| created < before) {
            remove_holder(docker, &id).await?;
        }
    }
    Ok(())
}

async fn remove_holder(docker: &Docker, name: &str) -> Result<(), Error> {
    // With what its image asked for in volumes without a name; the program's own has one, and stays.
    let query = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match if_there(docker.remove_container(name, Some(query)).await) {
        Err(error) if status(&error) == Some(CONFLICT) => Ok(()),
        answer => answer.map(drop),
    }
}

async fn remove_unused(docker: &Docker, volume: &str) -> Result<(), Error> {
    match if_there(docker.remove_volume(volume, None::<RemoveVolumeOptions>).await) {
        // In use.
        Err(error) if status(&error) == Some(CONFLICT) => Ok(()),
        answer => answer.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_upload_is_waited_for_so_long_and_the_next_one_as_long_again() {
        let mut wait = Wait::default();
        assert!(!wait.is_over(Some("one")));
        tokio::time::advance(WAIT_LIMIT - Duration::from_secs(1)).await;
        assert!(!wait.is_over(Some("one")));
        assert!(!wait.is_over(Some("another")), "it has just begun");
        tokio::time::advance(WAIT_LIMIT - Duration::from_secs(1)).await;
        assert!(!wait.is_over(Some("another")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(wait.is_over(Some("another")));
        assert!(!wait.is_over(None), "it is gone, and its name is not free yet");
        tokio::time::advance(WAIT_LIMIT).await;
        assert!(wait.is_over(None));
    }

    #[test]
    fn what_is_uploaded_is_the_program_with_its_mark_behind_it_whatever_its_size() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1] {
            let program = Bytes::from(vec![7; size]);
            let whole = packed(program.clone()).expect("packed").concat();
            let mut archive = tar::Archive::new(whole.as_slice());
            let mut entries = archive.entries().expect("an archive");
            let mut first = entries.next().expect("an entry").expect("read");
            let mut content = Vec::new();
            first.read_to_end(&mut content).expect("read");
            assert_eq!(
                (first.path().expect("a path").as_ref(), content),
                (Path::new("raworc-agentd"), program.to_vec())
            );
            assert_eq!(first.header().mode().expect("a mode"), 0o755);
            let second = entries.next().expect("an entry").expect("read");
            assert_eq!(second.path().expect("a path").as_ref(), Path::new(MARK));
            assert!(entries.next().is_none());
        }
    }
}
