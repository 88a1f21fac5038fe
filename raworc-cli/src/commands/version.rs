//! `raworc version`.

use raworc_core::program::PROTOCOL;
use serde::Serialize;

use crate::output::Console;

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    protocol: String,
}

/// Prints the version.
///
/// # Errors
/// Where standard output is closed.
pub fn run(console: &Console) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let protocol = format!("{}.{}", PROTOCOL.major, PROTOCOL.minor);
    console.show(&Version { version, protocol }, version, || format!("raworc {version}"))
}
