//! A computer that is made to be taken away again: whether agents' computers can be had of this engine and image.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use raworc_backends::docker::{DockerRuntime, PROGRAM_PATH};
use raworc_core::agent::{Network, NetworkMode, Resources};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::Incarnation;
use raworc_core::runtime::{Boot, ComputerSpec, Phase, Runtime, RuntimeError, RuntimeExt};

use super::{open_running, program_file};
use crate::exit::{Exit, Failure};
use crate::session::write_private;
use crate::settings::Settings;

/// Where the computer is noted that is made on trial, below the data directory.
const TRIAL: &str = "trial";

/// How long all of it may take. What is under way then is taken away by the next start.
pub(super) const LIMIT: Duration = Duration::from_secs(45);

/// How long a program may take to say its version.
const PROGRAM_LIMIT: Duration = Duration::from_secs(30);

/// Time between two looks at it.
const AGAIN: Duration = Duration::from_millis(20);

/// Makes a computer and takes it away: an engine that sees other files than this process cannot. Unless this program has run
/// in this image before, it is run there too, and asked for no more than its version.
pub(super) async fn try_out(runtime: &DockerRuntime, settings: &Settings, installation: &str) -> Result<(), String> {
    let _alone = alone(settings).await.map_err(|error| error.to_string())?;
    let known = pair(runtime, settings).await?;
    let is_known = known.is_some() && std::fs::read_to_string(remembered(settings)).ok() == known;
    // Under a name of its own: operators beside this one take away what no agent owns.
    // Elsewhere the program is uploaded once under the installation's own, which is worth more.
    let installation = if settings.docker.remote { installation.to_owned() } else { format!("{installation}-trial") };
    let opened = open_running(settings, &installation, &[PROGRAM_PATH, "agentd", "--version"]);
    let (asking, _) = opened.map_err(|error| format!("{error:#}"))?;
    let spec = noted(settings).map_err(|error| error.to_string())?;
    let tried = async {
        // What was left was made from what image and with what program there were then.
        asking.remove(spec.id).await.map_err(|error| error.to_string())?;
        asking.ensure(&spec).await.map_err(|error| error.to_string())?;
        if is_known { Ok(()) } else { run(&asking, &spec).await }
    };
    let tried = tried.await;
    let removed = async {
        asking.remove(spec.id).await?;
        asking.remove_volume(spec.volume).await
    };
    let removed = removed.await.map_err(|error: RuntimeError| error.to_string());
    tried.and(removed)?;
    std::fs::remove_file(settings.data.join(TRIAL)).map_err(|error| error.to_string())?;
    if let Some(known) = known.filter(|_| !is_known)
        && let Err(error) = write_private(&remembered(settings), &known)
    {
        tracing::info!(%error, "that the program runs in the image is not remembered");
    }
    Ok(())
}

/// Waits until no other process tries with this data directory.
async fn alone(settings: &Settings) -> std::io::Result<File> {
    let file = File::create(settings.data.join(TRIAL).with_extension("lock"))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(AGAIN).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The computer that is made on trial, noted before it is: what a start that was killed left of one is what the next start
/// makes, and takes away. No operator would take away its volume, which might hold somebody's files.
fn noted(settings: &Settings) -> Result<ComputerSpec, Failure> {
    let path = settings.data.join(TRIAL);
    let noted = std::fs::read_to_string(&path).ok();
    let noted: Option<ComputerSpec> = noted.and_then(|noted| serde_json::from_str(&noted).ok());
    let now = SystemClock.now();
    let ids = || (SystemEntropy.computer_id(now), SystemEntropy.volume_id(now));
    let (id, volume) = noted.map_or_else(ids, |noted| (noted.id, noted.volume));
    let mut network = Network::default();
    if settings.docker.remote {
        network.mode = NetworkMode::Open;
    }
    let spec = ComputerSpec { id, volume, image: None, resources: Resources::default(), network, root: false };
    // A struct of ids and numbers always serialises.
    let text = serde_json::to_string(&spec).unwrap_or_default();
    let failed = |error| Failure::new(Exit::Failed, format!("cannot write {}", path.display())).because(error);
    write_private(&path, &text).map_err(failed)?;
    Ok(spec)
}

/// Runs the program, which is asked for its version, to its end.
async fn run(runtime: &DockerRuntime, spec: &ComputerSpec) -> Result<(), String> {
    let boot = Boot {
        agent_url: String::new(),
        ca: None,
        computer: spec.id,
        incarnation: Incarnation(0),
        // Nothing is opened by it.
        key: String::new().into(),
    };
    let ended = async {
        runtime.start(spec.id, &boot).await?;
        loop {
            match runtime.observe(spec.id).await?.map(|seen| seen.phase) {
                Some(Phase::Running(_) | Phase::Stopping(_)) => tokio::time::sleep(AGAIN).await,
                ended => return Ok::<_, RuntimeError>(ended),
            }
        }
    };
    let ended = tokio::time::timeout(PROGRAM_LIMIT, ended).await;
    let ended =
        ended.map_err(|_| format!("the program did not say its version within {} s", PROGRAM_LIMIT.as_secs()))?;
    let mut why = "the program cannot say its version".to_owned();
    match ended.map_err(|error| error.to_string())? {
        Some(Phase::Unfit { reason }) => return Err(reason),
        Some(Phase::Stopped { reason: Some(reason) }) if reason == "exit code 0" => return Ok(()),
        Some(Phase::Stopped { reason: Some(reason) }) => why = format!("{why}: {reason}"),
        Some(_) => {}
        None => return Err(format!("{why}: its computer was taken away meanwhile")),
    }
    let log = runtime.log_tail(spec.id, 1 << 10).await;
    Err(log.lines().last().map_or(why.clone(), |last| format!("{why}: {last}")))
}

/// What the last trial that went well was of.
fn remembered(settings: &Settings) -> PathBuf {
    settings.data.join("program").join("tried")
}

/// This program and this image, so that another of either is told apart; `None` where that cannot be told.
async fn pair(runtime: &DockerRuntime, settings: &Settings) -> Result<Option<String>, String> {
    let Some(image) = runtime.image_id(&settings.docker.image).await.map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let program = std::fs::metadata(program_file(settings)).and_then(|file| Ok((file.len(), file.modified()?)));
    let Ok((size, changed)) = program else { return Ok(None) };
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(Some(format!("{size} bytes of {changed} in {image}\n")))
}
