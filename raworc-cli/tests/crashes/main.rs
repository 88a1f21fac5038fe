//! Crash tests with real processes: `raworc up` on SQLite and the local runtime, killed and frozen while clients call it.
//! What they do and what comes of it is a history, which is held against what must always be so.
//!
//! ```text
//! cargo test -p raworc-cli --features failpoints --test crashes -- [--seconds N] [--seed SEED] [NAME]
//! ```
//!
//! `RAWORC` names another binary than the one that was built along.

mod check;
mod clients;
mod history;
mod machine;
mod points;
mod server;
mod storm;
mod world;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use rand::TryRng;
use rand::rngs::SysRng;

/// How long a storm is, unless it is said.
const SECONDS: u64 = 30;

/// From so many seconds on, points are frozen at as well.
const LONG: u64 = 120;

fn main() -> ExitCode {
    let (mut seconds, mut seed, mut rest) = (SECONDS, None, Vec::new());
    let mut arguments = std::env::args();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = number(arguments.next()),
            "--seed" => seed = Some(number(arguments.next())),
            _ => rest.push(argument),
        }
    }
    let seed = seed.unwrap_or_else(|| SysRng.try_next_u64().expect("chance") >> 40);
    libtest_mimic::run(&Arguments::from_iter(rest), trials(seconds, seed)).exit_code()
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("--seconds and --seed take a number")
}

fn trials(seconds: u64, seed: u64) -> Vec<Trial> {
    macro_rules! pure {
        ($($case:ident),+ $(,)?) => {
            vec![$(Trial::test(concat!("check::", stringify!($case)), || { check::cases::$case(); Ok(()) })),+]
        };
    }
    let mut trials = pure![
        a_good_history_breaks_no_rule,
        every_bad_history_is_caught_by_its_rule,
        every_rule_has_a_bad_history,
        what_is_allowed_breaks_no_rule,
    ];
    let what: &[&str] = if seconds >= LONG { &["kill", "freeze"] } else { &["kill"] };
    trials.push(real("every_point_is_reached_and_nothing_is_lost_there", seed, move || points::run(seed, what)));
    let time = Duration::from_secs(seconds);
    trials.push(real("a_storm_breaks_no_rule", seed, move || storm::run(seed, time)));
    trials
}

/// A test with real processes. Says how to have its like again where it fails.
fn real<F: Future<Output = Result<String, String>>>(
    name: &str,
    seed: u64,
    run: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let shown = name.to_owned();
    let test = move || -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(run());
        runtime.shutdown_timeout(Duration::from_secs(5));
        let report = ended.map_err(|error| {
            format!("seed {seed}: {error}\nagain, as far as processes do the same again: --seed {seed} {shown}")
        })?;
        tell(&format!("{shown}: seed {seed}: {report}"));
        Ok(())
    };
    Trial::test(format!("crashes::{name}"), test)
}

#[expect(clippy::print_stdout, reason = "what was reached is what it is run for")]
fn tell(text: &str) {
    println!("{text}");
}
