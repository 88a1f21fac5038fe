//! Docker: what a program in a computer can reach, and what the runtime leaves alone.
//!
//! `RAWORC_TEST_BACKENDS` with `docker` in it makes an engine that does not answer a failure; else all of it is shown as
//! ignored.

mod between;
#[allow(dead_code, reason = "the command line's tests use the rest")]
mod dockerd;
mod engine;
mod logs;
mod machine;
mod networks;
mod restarts;
mod strangers;
mod tls;
mod unfit;
mod uploads;
mod walls;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    let is_ignored = !required.split(',').any(|name| name == "docker") && !machine::answers();
    let trials = [
        engine::trials(),
        logs::trials(),
        networks::trials(),
        restarts::trials(),
        strangers::trials(),
        tls::trials(),
        unfit::trials(),
        uploads::trials(),
        walls::trials(),
    ]
    .into_iter()
    .flatten();
    let trials: Vec<Trial> = trials.map(|trial| trial.with_ignored_flag(is_ignored)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
