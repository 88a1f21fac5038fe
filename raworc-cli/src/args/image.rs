//! `raworc image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::ConfigArgs;

/// Images that agents' computers are made from.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make the image of agents' computers on the Docker engine.
    Build(ImageBuildArgs),
}

/// Make the image of agents' computers on the Docker engine.
#[derive(Debug, Args)]
#[command(
    after_help = "The engine is that of the configuration: docker.host, DOCKER_HOST, Docker's context, or this machine's socket.\n\nExamples:\n  \
                        raworc image build\n  raworc image build --file Dockerfile --tag mine/computer"
)]
pub struct ImageBuildArgs {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The image's name [default: docker.image of the configuration, raworc/computer:latest]
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// A Dockerfile of your own that needs no other file, instead of the one that is built in.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}
