//! The log of a serving process: on standard error, and in files where it is to be kept. Its traces, beside that.

use std::path::Path;

use raworc_core::trace;
use tracing::Subscriber;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::exit::{Exit, Failure};
use crate::installation::Role;
use crate::output::Console;
use crate::session::make_private_dir;
use crate::settings::{LogFormat, Settings};

/// Begins to log, and to trace, as the settings ask for.
///
/// # Errors
/// Where the filter cannot be read, the directory cannot be written to, or spans cannot be told.
pub fn start(settings: &Settings, role: Role, console: &Console) -> Result<(), Failure> {
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
    // A line is in the file when the call that wrote it returns: a process that is killed leaves all of them.
    let kept = kept.map(|file| fmt::layer().json().with_writer(file));
    // Spans of traces are for their collector alone.
    let is_of_log = filter_fn(|metadata| metadata.target() != trace::TARGET);
    let log = shown.and_then(kept).with_filter(filter.and(is_of_log));
    let started = tracing_subscriber::registry().with(log).with(traces(settings, role)?).try_init();
    // In a test, another installation of the same process logs already.
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
    Ok(())
}

/// What tells of spans. It stands for nothing where no collector is named.
fn traces<S>(settings: &Settings, role: Role) -> Result<Option<Box<dyn Layer<S> + Send + Sync>>, Failure>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    #[cfg(feature = "otlp")]
    return crate::traces::layer(settings, role);
    #[cfg(not(feature = "otlp"))]
    match settings.tracing.address()? {
        None => Ok(None),
        Some(_) => Err(Failure::new(
            Exit::Usage,
            format!("tracing.otlp: this build of raworc {} tells no traces", role.as_str()),
        )
        .hint("unset it, or take a build with the feature otlp")),
    }
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
