//! The agent's mind and hands inside its computer.
//!
//! The program is started with one line on its standard input that says who it is and where the agents' listener is.
//! It runs the agent's setup script, takes messages one after the other, works on each with a model and two tools, a
//! shell and files, and serves the server's own requests (commands, files, logs) on a connection that it dials.

mod boot;
mod calls;
mod context;
mod egress;
mod entry;
mod errors;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod home;
mod link;
mod lock;
mod log;
mod model;
mod outbox;
mod processes;
mod program;
mod server;
mod session;
mod setup;
mod shared;
mod terminal;
mod tools;
mod truncate;
mod volume;
mod whole;
mod worker;

pub use boot::NoBoot;
pub use entry::main;
pub use lock::InUse;
pub use program::{Ended, Options, run};
