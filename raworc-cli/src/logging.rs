//! The log of a serving process: on standard error, and in files where it is to be kept.

use std::path::Path;

use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::exit::{Exit, Failure};
use crate::output::Console;
use crate::session::make_private_dir;
use crate::settings::{LogFormat, Settings};

/// Begins to log as the settings ask for.
///
/// # Errors
/// Where the filter cannot be read, or the directory cannot be written to.
pub fn start(settings: &Settings, console: &Console) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| {
        Failure::new(Exit::Usage, format!("log: {:?} is no filter", settings.log))
            .because(error)
            .hint("write a level such as info, or parts such as warn,raworc_core=debug")
    })?;
    let is_text = match settings.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => console.err_is_terminal,
    };
    let shown = match is_text {
        true => fmt::layer().with_writer(std::io::stderr).with_ansi(console.err.colours()).boxed(),
        false => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    let kept = settings.log_dir.as_deref().map(|directory| open(directory, settings.log_files)).transpose()?;
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(shown)
        // A line is in the file when the call that wrote it returns: a process that is killed leaves all of them.
        .with(kept.map(|file| fmt::layer().json().with_writer(file)))
        .try_init();
    // In a test, another installation of the same process logs already.
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
    Ok(())
}

/// A file for each day, of which the newest are kept.
fn open(directory: &Path, files: usize) -> Result<RollingFileAppender, Failure> {
    let failed = || Failure::new(Exit::Failed, format!("the log cannot be kept in {}", directory.display()));
    make_private_dir(directory).map_err(|error| failed().because(error))?;
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("raworc")
        .filename_suffix("log")
        .max_log_files(files)
        .build(directory)
        .map_err(|error| failed().because(error).hint("choose a directory of this user's by log_dir"))
}
