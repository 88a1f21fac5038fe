#![doc = include_str!("../README.md")]

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
