//! The log of a serving process, on standard error.

use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};
use crate::settings::{LogFormat, Settings};

/// Begins to log as the settings ask for.
///
/// # Errors
/// Where the filter cannot be read.
pub fn start(settings: &Settings, colours: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| {
        Failure::new(Exit::Usage, format!("log: {:?} is no filter", settings.log))
            .because(error)
            .hint("write a level such as info, or parts such as warn,raworc_core=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // In a test, another installation of the same process logs already.
    if let Err(error) = started {
        tracing::debug!(error, "the log was started before");
    }
    Ok(())
}
