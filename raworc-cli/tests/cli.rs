//! The binary, as a person or a script runs it.

#[path = "cli/alone.rs"]
mod alone;
#[cfg(feature = "bench")]
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/health.rs"]
mod health;
#[path = "cli/home.rs"]
mod home;
#[path = "cli/lossy.rs"]
mod lossy;
#[path = "cli/serving.rs"]
mod serving;
