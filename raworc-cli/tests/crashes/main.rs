//! Crash tests with real processes: `raworc up` on SQLite, killed and frozen while clients call it, with the local runtime
//! and with a Docker engine of the test's own, which is killed and frozen too. What they do and what comes of it is a
//! history, which is held against what must always be so.
//!
//! ```text
//! cargo test -p raworc-cli --all-features --test crashes -- [--seconds N] [--rounds N] [--seed SEED] [NAME]
//! ```
//!
//! `--seconds` is for the storm on the local runtime, and `--rounds` for those on Docker, of ten seconds each. Docker's are
//! shown as ignored where no engine answers that could lend its image.
//!
//! `RAWORC` names another binary than the one that was built along.

#[cfg(all(feature = "postgres", feature = "mysql"))]
mod apart;
mod check;
mod clients;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "../cli/clock.rs"]
mod clock;
#[cfg(all(feature = "postgres", feature = "mysql"))]
#[path = "../../../raworc-backends/src/sql/server/tests/database.rs"]
mod databases;
#[path = "../../../raworc-backends/tests/docker/dockerd.rs"]
#[allow(dead_code, reason = "tests of another binary use the rest")]
mod dockerd;
mod history;
mod machine;
mod place;
mod points;
mod process;
mod rounds;
mod server;
mod storm;
mod world;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use rand::TryRng;
use rand::rngs::SysRng;

use self::place::Place;

/// How long a storm is, unless it is said.
const SECONDS: u64 = 30;

/// Storms on Docker, unless it is said.
const ROUNDS: u64 = 3;

/// From so many seconds on, points are frozen at as well.
const LONG: u64 = 120;

fn main() -> ExitCode {
    #[cfg(all(feature = "postgres", feature = "mysql"))]
    if let Some(ended) = apart::other_process() {
        return ended;
    }
    let (mut seconds, mut rounds, mut seed, mut rest) = (None, ROUNDS, None, Vec::new());
    let mut arguments = std::env::args();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = Some(number(arguments.next())),
            "--rounds" => rounds = number(arguments.next()),
            "--seed" => seed = Some(number(arguments.next())),
            _ => rest.push(argument),
        }
    }
    let seed = seed.unwrap_or_else(|| SysRng.try_next_u64().expect("chance") >> 40);
    let mut arguments = Arguments::from_iter(rest);
    // One at a time, unless it is said: each takes what the machine has, and what an engine has lost track of lives the longer
    // beside another one's storm.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, trials(seconds, rounds, seed)).exit_code()
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("--seconds, --rounds and --seed take a number")
}

fn trials(asked: Option<u64>, rounds: u64, seed: u64) -> Vec<Trial> {
    let seconds = asked.unwrap_or(SECONDS);
    macro_rules! pure {
        ($($case:ident),+ $(,)?) => {
            vec![$(Trial::test(concat!("check::", stringify!($case)), || { check::cases::$case(); Ok(()) })),+]
        };
    }
    let mut trials = pure![
        a_good_history_breaks_no_rule,
        every_bad_history_is_caught_by_its_rule,
        every_rule_has_a_bad_history,
        what_could_not_be_read_is_not_taken_for_lost,
        what_is_allowed_breaks_no_rule,
    ];
    let what: &[&str] = if seconds >= LONG { &["kill", "freeze"] } else { &["kill"] };
    trials.push(real("every_point_is_reached_and_nothing_is_lost_there", seed, move || {
        points::run(Place::Local, seed, what)
    }));
    let time = Duration::from_secs(seconds);
    trials.push(real("a_storm_breaks_no_rule", seed, move || async move {
        storm::run(Place::Local, seed, time).await.map(|(report, _)| report)
    }));
    trials.extend(rounds::trials(rounds, seed));
    #[cfg(all(feature = "postgres", feature = "mysql"))]
    trials.extend(apart::trials(asked, seed));
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
    Trial::test(if name.contains("::") { name.to_owned() } else { format!("crashes::{name}") }, test)
}

#[expect(clippy::print_stdout, reason = "what was reached is what it is run for")]
fn tell(text: &str) {
    println!("{text}");
}
