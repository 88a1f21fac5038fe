//! Images: looked for first, pulled where they are not there.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{BuildImageOptionsBuilder, CreateImageOptionsBuilder};
use bollard::{Docker, body_full};
use futures::StreamExt;
use raworc_core::runtime::{Progress, RuntimeError};

use super::container::AGENT_UID;
use super::error::{self, if_there};

/// The label by which an image says whose its `/agent` is.
const HOME: &str = "raworc.home";

/// Whether the engine has the image.
pub(super) async fn is_there(docker: &Docker, image: &str) -> Result<bool, RuntimeError> {
    Ok(found(docker, image).await?.is_some())
}

/// The engine's identity of an image that it has.
pub(super) async fn id(docker: &Docker, image: &str) -> Result<Option<String>, RuntimeError> {
    Ok(found(docker, image).await?.and_then(|found| found.id))
}

/// Whether an image says that its `/agent` is the agent's. The engine gives a new volume what an image has in its place,
/// the owner too.
pub(super) async fn has_home(docker: &Docker, image: &str) -> Result<bool, RuntimeError> {
    let labels = found(docker, image).await?.and_then(|found| found.config?.labels);
    Ok(labels.is_some_and(|labels| labels.get(HOME).is_some_and(|owner| *owner == AGENT_UID.to_string())))
}

async fn found(docker: &Docker, image: &str) -> Result<Option<ImageInspect>, RuntimeError> {
    if !is_name(image) {
        return Ok(None);
    }
    if_there(docker.inspect_image(image).await).map_err(error::of("look at an image"))
}

/// Pulls an image that is not there. What is `made_by` somebody is not pulled.
pub(super) async fn pull(
    docker: &Docker,
    image: &str,
    made_by: Option<&str>,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), RuntimeError> {
    let missing = |reason: String| RuntimeError::ImageMissing { image: image.into(), reason };
    if !is_name(image) {
        return Err(missing(
            "that is no name of an image, such as debian:bookworm or registry.example.org/a/b:1".into(),
        ));
    }
    if let Some(how) = made_by {
        return Err(missing(how.into()));
    }
    let (name, tag) = split(image);
    let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
    let mut told = docker.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    while let Some(info) = told.next().await {
        match info {
            Ok(info) => {
                if let Some(error) = info.error_detail.as_ref().and_then(|detail| detail.message.clone()) {
                    return Err(not_pulled(image, Error::DockerStreamError { error }));
                }
                progress(layers.take(info));
            }
            Err(error) => return Err(not_pulled(image, error)),
        }
    }
    if is_there(docker, image).await? {
        return Ok(());
    }
    Err(missing("it was pulled and is not there; see that its platform is the engine's".into()))
}

/// What is said of registries that have no answer now, as the engine passes it on: in words alone, once a pull is under way. A name
/// that is not found is not among them: more often it is misspelt than its server away.
const LATER: [&str; 10] = [
    "toomanyrequests",
    "429 Too Many Requests",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
    "i/o timeout",
    "connection reset",
    "TLS handshake timeout",
    "context deadline exceeded",
    "Client.Timeout exceeded",
];

/// Why an image was not pulled. What the engine has no room for, or a registry no answer to now, may be there all the same.
fn not_pulled(image: &str, error: Error) -> RuntimeError {
    let reason = match &error {
        Error::DockerResponseServerError { status_code: 429, message } => {
            return RuntimeError::Unavailable(message.clone());
        }
        Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } => {
            message.clone()
        }
        _ => return error::of("pull an image")(error),
    };
    if LATER.iter().any(|words| reason.contains(words)) {
        return RuntimeError::Unavailable(reason);
    }
    match error::of("pull an image")(error) {
        RuntimeError::Refused { .. } => {
            RuntimeError::ImageMissing { image: image.into(), reason: told_no_login(reason) }
        }
        other => other,
    }
}

/// The engine's own hint would lead nowhere: it is given no login.
fn told_no_login(reason: String) -> String {
    if reason.contains("docker login") || reason.contains("no basic auth credentials") {
        return format!(
            "{reason}; a registry that asks for a login is not asked with one: `docker pull` the image on the engine's machine"
        );
    }
    reason
}

/// Makes an image from a Dockerfile that needs no other file.
pub(super) async fn build(
    docker: &Docker,
    image: &str,
    dockerfile: &str,
    said: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), RuntimeError> {
    let what = "build an image";
    let failed = |error: std::io::Error| RuntimeError::Unavailable(error.to_string());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(dockerfile.len() as u64);
    let mut context = tar::Builder::new(Vec::new());
    context.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).map_err(failed)?;
    let context = context.into_inner().map_err(failed)?;
    let options = BuildImageOptionsBuilder::new().t(image).rm(true).forcerm(true).build();
    let mut told = docker.build_image(options, None, Some(body_full(context.into())));
    while let Some(info) = told.next().await {
        let info = info.map_err(error::of(what))?;
        if let Some(reason) = info.error_detail.and_then(|detail| detail.message) {
            return Err(RuntimeError::Refused { what, reason });
        }
        info.stream.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()).for_each(said);
    }
    Ok(())
}

/// Whether it can be an image's name. It becomes part of a path of the engine's API, in which it must lead nowhere else.
fn is_name(image: &str) -> bool {
    let mut parts = image.split('/');
    image.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte))
        && parts.all(|part| part.starts_with(|first: char| first.is_ascii_alphanumeric()))
}

/// Name and tag of an image; with a digest all of it is the name. Without either it is `latest`: the engine would pull
/// every tag otherwise.
fn split(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    match image.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        Some(_) | None => (image, "latest"),
    }
}

/// How far each layer of a pull is.
#[derive(Debug, Default)]
struct Layers(HashMap<String, (u64, Option<u64>)>);

impl Layers {
    fn take(&mut self, info: CreateImageInfo) -> Progress {
        let status = info.status.unwrap_or_default();
        if let (Some(layer), Some(detail)) = (info.id, info.progress_detail)
            && status == "Downloading"
        {
            let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
            self.0.insert(layer, (count(detail.current).unwrap_or(0), count(detail.total)));
        }
        let done = self.0.values().map(|(done, _)| done).sum();
        let total = self.0.values().map(|(_, total)| *total).sum::<Option<u64>>().filter(|total| *total > 0);
        Progress { what: format!("pulling: {}", status.to_lowercase()), done, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_tag_is_what_follows_the_last_colon_of_its_last_part() {
        assert_eq!(split("debian"), ("debian", "latest"));
        assert_eq!(split("debian:bookworm-slim"), ("debian", "bookworm-slim"));
        assert_eq!(split("localhost:5000/debian"), ("localhost:5000/debian", "latest"));
        assert_eq!(split("localhost:5000/a/b:c"), ("localhost:5000/a/b", "c"));
        assert_eq!(split("debian@sha256:00"), ("debian@sha256:00", ""));
    }

    #[test]
    fn only_an_image_that_cannot_be_had_is_missing() {
        let told = |status_code, message: &str| {
            let answered =
                not_pulled("debian", Error::DockerResponseServerError { status_code, message: message.into() });
            let streamed = not_pulled("debian", Error::DockerStreamError { error: message.into() });
            [answered, streamed]
        };
        for full in told(500, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device") {
            assert!(
                matches!(&full, RuntimeError::Full { reason, .. } if reason.contains("docker system df")),
                "{full:?}"
            );
        }
        let limited = "toomanyrequests: You have reached your unauthenticated pull rate limit.";
        let away = "received unexpected HTTP status: 503 Service Unavailable";
        let silent = "Get \"https://registry.example.org/v2/\": dial tcp 203.0.113.1:443: i/o timeout";
        let later = [told(500, limited), told(404, limited), told(500, away), told(500, silent)];
        for later in later.into_iter().flatten() {
            assert!(matches!(&later, RuntimeError::Unavailable(_)), "{later:?}");
        }
        for status in [429, 502, 503, 504] {
            let [later, _] = told(status, "not now");
            assert!(matches!(&later, RuntimeError::Unavailable(reason) if reason == "not now"), "{later:?}");
        }
        for missing in told(404, "manifest for debian:none not found: manifest unknown") {
            assert!(matches!(&missing, RuntimeError::ImageMissing { image, .. } if image == "debian"), "{missing:?}");
        }
    }

    #[test]
    fn a_name_that_would_lead_elsewhere_is_none() {
        for name in ["debian", "debian:bookworm-slim", "localhost:5000/a/b.c_d:e", "debian@sha256:00"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "/", "a//b", "../containers/raworc-1/export?x=", "a/../b", "a?b", "a%2e", "a b", "a#b", ".", "-a"]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_pull_tells_the_bytes_of_all_layers_and_their_sum_once_each_is_known() {
        let mut layers = Layers::default();
        let mut take = |layer: &str, current, total| {
            let detail = bollard::models::ProgressDetail { current: Some(current), total };
            let status = Some("Downloading".into());
            let info =
                CreateImageInfo { id: Some(layer.into()), status, progress_detail: Some(detail), ..Default::default() };
            let Progress { done, total, .. } = layers.take(info);
            (done, total)
        };
        assert_eq!(take("a", 5, Some(10)), (5, Some(10)));
        assert_eq!(take("b", 1, None), (6, None));
        assert_eq!(take("b", 2, Some(4)), (7, Some(14)));
    }
}
