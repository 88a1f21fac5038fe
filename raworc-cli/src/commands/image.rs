//! `raworc image`.

use std::sync::Mutex;

use serde::Serialize;

use crate::args::{AssemblyArgs, ImageBuildArgs, ImageCommand};
use crate::exit::{Exit, Failure};
use crate::installation::{DOCKERFILE, open_engine};
use crate::output::{Console, talk};
use crate::settings::Settings;

/// Lines of the engine's words that are shown where a build fails.
const LAST: usize = 12;

#[derive(Debug, Serialize)]
struct Built {
    image: String,
    engine: String,
}

/// Makes images.
///
/// # Errors
/// Where the engine does not answer, or a step of the build fails.
pub async fn run(console: &Console, command: ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Build(args) => build(console, args).await,
    }
}

async fn build(console: &Console, args: ImageBuildArgs) -> anyhow::Result<()> {
    let settings = Settings::load(&AssemblyArgs { config: args.config, ..AssemblyArgs::default() })?;
    let dockerfile = match &args.file {
        None => DOCKERFILE.to_owned(),
        Some(file) => std::fs::read_to_string(file).map_err(|error| {
            Failure::new(Exit::Usage, format!("cannot read the Dockerfile {}", file.display())).because(error)
        })?,
    };
    let image = args.tag.unwrap_or_else(|| settings.docker.image.clone());
    let (runtime, engine) = open_engine(&settings, "none", &image, |options| options)?;
    let built = Built { image, engine };
    runtime.ping().await.map_err(|error| {
        Failure::new(Exit::Unreachable, format!("no Docker engine answers at {}", built.engine))
            .because(error)
            .hint("start Docker, or name another engine by docker.host, DOCKER_HOST or a context")
    })?;
    let progress = console.progress(format!("building {}", built.image));
    let last = Mutex::new(Vec::new());
    let said = |line: &str| {
        let line = talk::printable(line);
        // A build is long, and without a terminal there is no spinner to show that it goes on.
        if console.verbosity > 0 || !console.err_is_terminal {
            console.note(&line);
        }
        progress.say(format!("building {}: {line}", built.image));
        if let Ok(mut last) = last.lock() {
            if last.len() == LAST {
                last.remove(0);
            }
            last.push(line);
        }
    };
    let made = runtime.build_image(&built.image, &dockerfile, &said).await;
    drop(progress);
    if let Err(error) = made {
        if console.verbosity <= 0 && console.err_is_terminal {
            last.into_inner().unwrap_or_default().iter().for_each(|line| console.note(line));
        }
        return Err(Failure::new(Exit::Failed, format!("{} was not built", built.image)).because(error).into());
    }
    console.show(&built, &built.image, || format!("{} is built on {}", built.image, built.engine))
}
