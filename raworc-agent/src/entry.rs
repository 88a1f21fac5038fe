//! The entry point of the process.

use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// The signals that ask it to end.
///
/// All that are commonly ignored by what runs in the background are among them: what this process had been made to ignore,
/// the agent's programs would ignore too. Of a signal that is received, programs begin with what it does by itself.
fn signals() -> std::io::Result<[Signal; 4]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::quit())?,
        signal(SignalKind::hangup())?,
    ])
}

async fn until_asked(log: Log) -> ExitCode {
    let mut signals = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            return ExitCode::FAILURE;
        }
    };
    let asked = futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    tokio::select! {
        biased;
        _ = asked => tracing::info!("asked to end"),
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
