//! The entry point of the process.

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::log::Log;
use crate::program::{self, Options};

/// Asks for the version alone: whether the program can run where it is, without a boot line.
const VERSION: &str = "--version";

/// Runs the program in this process until it is ended: `raworc-agentd`, and `raworc agentd`.
///
/// It succeeds where a signal asked it to end; what it held is then queued again by the server.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().skip(1).any(|argument| argument == VERSION) {
        return tell_version();
    }
    let log = Log::default();
    log.install();
    // One thread does all but the disk: the program waits most of the time, and should be small.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the program cannot be started");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(until_asked(log));
    // Standard input may still be read by a thread that nothing can stop.
    runtime.shutdown_background();
    code
}

fn tell_version() -> ExitCode {
    match writeln!(std::io::stdout(), "raworc-agentd {}", env!("CARGO_PKG_VERSION")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn until_asked(log: Log) -> ExitCode {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => tracing::info!("asked to end"),
        _ = interrupt.recv() => tracing::info!("asked to end"),
        result = program::run_with_log(tokio::io::stdin(), Options::from_env(), log) => {
            let Err(error) = result;
            let mut reason = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                reason.push_str(&format!(": {error}"));
                source = error.source();
            }
            tracing::error!("{reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
