//! Docker as an installation's runtime.

mod trial;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use raworc_backends::docker::{DockerOptions, DockerRuntime, ENGINE_LIMIT, EngineAddress, PROGRAM_PATH};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::runtime::{Progress, Runtime, RuntimeError};

use super::agents::no_way_here;
use super::program;
use crate::exit::{Exit, Failure};
use crate::session::write_private;
use crate::settings::{DEFAULT_IMAGE, RuntimeKind, Settings};

/// The file that notes that agents may have been made on it.
const DOCKER: &str = "docker";

/// A computer with a shell and tools to build with, for `docker build`.
pub const DOCKERFILE: &str = include_str!("docker/Dockerfile");

/// How a program is made that runs in any image.
const STATIC: &str = "build the static one with scripts/agentd and set RAWORC_AGENTD to it";

/// How long the image may take to be built or pulled. Nothing is served meanwhile, and a registry may stall for good; an agent's
/// own image has as long.
const IMAGE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The engine of the configuration, for computers of `installation` from `image`, and where it answers.
pub fn open_engine(
    settings: &Settings,
    installation: impl Into<String>,
    image: &str,
    more: impl FnOnce(DockerOptions) -> DockerOptions,
) -> anyhow::Result<(DockerRuntime, String)> {
    let EngineAddress { host, tls, named_by, .. } = settings.docker.address()?;
    let mut options = DockerOptions::new(settings.docker.name.clone(), installation, &host, image);
    options.tls = tls;
    options.without_tls = settings.docker.without_tls;
    options.remote = settings.docker.remote;
    match DockerRuntime::open(more(options)) {
        Ok(runtime) => Ok((runtime, host)),
        Err(error) => Err(Failure::new(Exit::Usage, format!("the Docker engine of {named_by} cannot be used"))
            .because(error)
            .into()),
    }
}

/// The runtime, and where its engine answers. Its program is a copy in the data directory: a container is made with its
/// path, and has to find it there whatever becomes of the one that this process was started from.
fn open(settings: &Settings, installation: &str) -> anyhow::Result<(DockerRuntime, String)> {
    open_running(settings, installation, &[PROGRAM_PATH, "agentd"])
}

/// The same with these words for the program in its computers.
fn open_running(settings: &Settings, installation: &str, program: &[&str]) -> anyhow::Result<(DockerRuntime, String)> {
    let docker = &settings.docker;
    if docker.remote && settings.agents.listen.is_none() {
        return Err(no_way_here().into());
    }
    open_engine(settings, installation, &docker.image, |options| {
        let mut options = options
            .with_link_dir(settings.sockets())
            .with_program_file(program_file(settings))
            .with_program(program.iter().copied())
            .with_program_made_by(STATIC);
        options.default_cpu = docker.cpu.0;
        options.default_memory = docker.memory.0;
        options.default_pids = (docker.pids > 0).then_some(docker.pids);
        if docker.image == DEFAULT_IMAGE {
            options = options.with_default_image_made_by("make it with `raworc image build`");
        }
        options
    })
}

fn program_file(settings: &Settings) -> PathBuf {
    settings.data.join("program").join("raworc-agentd")
}

/// Puts the program of this release where computers find it at their next start.
fn place_program(settings: &Settings) -> Result<(), Failure> {
    let (source, target) = (program::find()?.0, program_file(settings));
    place(&source, &target).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot place the program at {}", target.display())).because(error)
    })
}

/// Copies a file to where it is not yet. The copy has the time of its source: an older release's, of the same length, is told
/// apart too.
fn place(source: &Path, target: &Path) -> std::io::Result<()> {
    let new = std::fs::metadata(source)?;
    if let Ok(old) = std::fs::metadata(target)
        && old.len() == new.len()
        && old.modified()? == new.modified()?
    {
        return Ok(());
    }
    if let Some(directory) = target.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Operators of one engine have one data directory, and may begin at once; in containers they may all be process 1.
    let next = target.with_extension(format!("{}.next", SystemEntropy.uuid(SystemClock.now()).simple()));
    let placed = (|| {
        std::fs::copy(source, &next)?;
        File::open(&next)?.set_modified(new.modified()?)?;
        std::fs::rename(&next, target)
    })();
    if placed.is_err() {
        // What is there of it is of no use to anybody.
        let _ = std::fs::remove_file(&next);
    }
    placed
}

/// Docker as far as this installation has it.
pub(super) struct Chosen {
    /// The runtime, where it is to be used or was used.
    pub(super) runtime: Option<DockerRuntime>,
    /// Whether it makes computers whose agent names no runtime.
    pub(super) is_default: bool,
    /// Why it cannot be used now.
    pub(super) why: Option<String>,
    /// Where its engine answers.
    pub(super) host: String,
}

/// Decides by the configuration and by what there is. Says what it does where that takes long.
pub(super) async fn choose(
    settings: &Settings,
    installation: &str,
    said: &(dyn Fn(String) + Send + Sync),
) -> anyhow::Result<Chosen> {
    let is_wanted = match settings.runtime {
        RuntimeKind::Docker => true,
        // Who takes the walls away means the local runtime.
        RuntimeKind::Auto => settings.local.isolation,
        RuntimeKind::Local => false,
    };
    if !is_wanted && !was_used(settings) {
        return Ok(Chosen { runtime: None, is_default: false, why: None, host: String::new() });
    }
    let (runtime, host) = match open(settings, installation) {
        Err(error) if settings.runtime != RuntimeKind::Docker => {
            let why = Some(format!("{error:#}"));
            return Ok(Chosen { runtime: None, is_default: false, why, host: String::new() });
        }
        opened => opened?,
    };
    place_program(settings)?;
    let why = if is_wanted { have((&runtime, installation), settings, &host, said).await.err() } else { None };
    let is_default = settings.runtime == RuntimeKind::Docker || (is_wanted && why.is_none());
    if is_default {
        note_use(settings, &host)?;
    }
    let runtime = Some(runtime).filter(|_| is_default || was_used(settings));
    Ok(Chosen { runtime, is_default, why, host })
}

/// Sees to it that the engine answers, has the image, and can make a computer. Tells why not.
async fn have(
    (runtime, installation): (&DockerRuntime, &str),
    settings: &Settings,
    host: &str,
    said: &(dyn Fn(String) + Send + Sync),
) -> Result<(), String> {
    let image = settings.docker.image.as_str();
    if settings.runtime == RuntimeKind::Auto && !host.starts_with("unix://") {
        return Err(format!("the engine at {host} may be on another machine; `--runtime docker` uses it all the same"));
    }
    within(ENGINE_LIMIT, "answer", runtime.ping()).await?;
    if !within(ENGINE_LIMIT, "say whether it has the image", runtime.has_image(image)).await? {
        if image == DEFAULT_IMAGE {
            said(format!("building the image {image} on {host}, this once"));
            let step = |line: &str| tracing::info!(%image, line, "building");
            within(IMAGE_LIMIT, "build the image", runtime.build_image(image, DOCKERFILE, &step)).await?;
        } else {
            let what = format!("pulling the image {image} to {host}, this once");
            said(what.clone());
            let told = AtomicU64::new(0);
            let tell = |now: Progress| {
                // Each tenth once: it may stand in a log.
                let tenth = now.percent().map_or(0, |percent| percent / 10 + 1);
                if told.fetch_max(tenth, Ordering::Relaxed) < tenth {
                    said(format!("{what}: {now}"));
                }
            };
            within(IMAGE_LIMIT, "pull the image", runtime.prepare(Some(image), &tell)).await?;
        }
    }
    let tried = tokio::time::timeout(trial::LIMIT, trial::try_out(runtime, settings, installation)).await;
    tried.unwrap_or_else(|_| Err(too_slow("make a computer and take it away", trial::LIMIT))).map_err(|error| {
        let may_be_elsewhere = !settings.docker.remote && !host.starts_with("unix://");
        let hint = if may_be_elsewhere { "; for an engine on another machine, set docker.remote" } else { "" };
        format!("{error}{hint}")
    })
}

/// What one call of the engine gives, or why there is nothing. An engine may take calls and answer none, and whoever starts
/// `up` is not to wait for that.
async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(too_slow(what, limit)),
    }
}

fn too_slow(what: &str, limit: Duration) -> String {
    format!("the engine does not {what} within {} s", limit.as_secs())
}

/// What it makes computers of, for people, or why it cannot yet.
pub(super) fn described(settings: &Settings, host: &str, why: Option<String>) -> String {
    match why {
        None => format!("docker at {host}, computers from {}", settings.docker.image),
        Some(why) => format!("docker at {host}, which cannot be used yet: {why}"),
    }
}

/// Notes that agents may be made on it, whatever makes computers at the next start.
fn note_use(settings: &Settings, host: &str) -> Result<(), Failure> {
    let path = settings.data.join(DOCKER);
    write_private(&path, host)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}", path.display())).because(error))
}

/// Whether agents may have been made on it.
fn was_used(settings: &Settings) -> bool {
    settings.data.join(DOCKER).exists()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn the_program_of_another_release_is_placed_though_it_is_older_and_as_long() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (source, target) = (dir.path().join("source"), dir.path().join("program/raworc-agentd"));
        let release = |text: &str, age: u64| {
            std::fs::write(&source, text).expect("written");
            let time = SystemClock.now() - jiff::SignedDuration::from_secs(age.cast_signed());
            File::open(&source).expect("there").set_modified(time.into()).expect("set");
            place(&source, &target).expect("placed");
            std::fs::read_to_string(&target).expect("there")
        };
        assert_eq!(release("new", 100), "new");
        assert_eq!(release("old", 200), "old");
        let file = || std::fs::metadata(&target).expect("there").ino();
        let before = file();
        place(&source, &target).expect("there");
        assert_eq!(file(), before, "it is not copied again");
    }

    #[test]
    fn of_several_that_place_the_program_at_once_each_finds_it_placed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (source, target) = (dir.path().join("source"), dir.path().join("program/raworc-agentd"));
        std::fs::write(&source, vec![7; 1 << 20]).expect("written");
        for _ in 0..20 {
            let together = Barrier::new(4);
            let place = || {
                together.wait();
                place(&source, &target)
            };
            std::thread::scope(|scope| {
                for one in [(); 4].map(|()| scope.spawn(place)) {
                    one.join().expect("it ends").expect("placed");
                }
            });
            let left = std::fs::read_dir(target.parent().expect("a directory")).expect("there").count();
            assert_eq!(left, 1, "nothing lies beside it");
            std::fs::remove_file(&target).expect("taken away");
        }
    }
}
