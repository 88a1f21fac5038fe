//! The command line of Raworc: one binary that serves an installation and speaks to one.
//!
//! Everything is in this library so that tests can reach it; the binary only calls [`main`].

pub mod args;
pub mod commands;
pub mod duration;
mod entry;
pub mod exit;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod installation;
pub mod logging;
pub mod output;
pub mod session;
pub mod settings;
pub mod terminal;
#[cfg(feature = "otlp")]
pub mod traces;

pub use entry::main;
