//! What every command that speaks to a server is given.

use crate::args::GlobalArgs;
use crate::output::Console;
use crate::remote::Remote;

/// What every command that speaks to a server is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where to print.
    pub console: Console,
    /// The server, as the user who is logged in.
    pub remote: Remote,
}

impl Context {
    /// Of a command line.
    ///
    /// # Errors
    /// Where nobody is logged in.
    pub fn new(global: &GlobalArgs, console: &Console) -> anyhow::Result<Self> {
        Ok(Self { console: console.clone(), remote: Remote::open(global)? })
    }
}

/// The time now, for ages.
#[must_use]
pub fn now() -> jiff::Timestamp {
    use raworc_core::entropy::{Clock, SystemClock};
    SystemClock.now()
}
