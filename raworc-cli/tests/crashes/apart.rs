//! Servers and operators apart, as processes on machines of their own: two of each on one database, with an engine in a
//! process of its own, whose programs are real ones. All of them are killed, frozen and cut off from each other.

mod cases;
mod database;
mod engine;
mod fleet;
mod network;
mod node;
mod storm;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::Trial;

use self::fleet::Fleet;
use self::network::Network;
use crate::clock::{library, sweep};
use crate::databases::{Database, server};
use crate::{LONG, real, tell};

/// How long a storm is on each database, unless it is said. On MariaDB there is none then: it has the statements of MySQL. Who
/// is followed in time is tested on each database where a storm is long, else on the first.
const STORMS: [(&str, u64); 3] = [("postgres", 60), ("mysql", 60), ("mariadb", 0)];

/// Where an operator halts, the first two unless it may take long.
const POINTS: [&str; 5] =
    ["begin.before", "engine.stop.before", "engine.start.before", "started.before", "run-ended.before"];

/// Runs one of the other processes that tests are made of, where the first argument names it.
pub(crate) fn other_process() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().filter(|kind| ["--engine", "--relay"].contains(&kind.as_str()))?;
    let (address, path) = (arguments.next()?.parse().ok()?, arguments.next()?.into());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().ok()?;
    let ended = match kind.as_str() {
        "--engine" => runtime.block_on(engine::run(address, path)),
        _ => runtime.block_on(database::relay(address, path)),
    };
    Some(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn trials(seconds: Option<u64>, seed: u64) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (kind, usual) in STORMS {
        let time = seconds.unwrap_or(usual);
        let storm = trial(kind, "a_storm_over_two_servers_and_two_operators_breaks_no_rule", seed, move |fleet| {
            storm::run(fleet, seed, Duration::from_secs(time))
        });
        trials.push(if time > 0 { storm } else { storm.with_ignored_flag(true) });
        let name = "whoever_dies_leaves_halts_or_is_cut_off_is_followed_in_time";
        let points = if time >= LONG { &POINTS[..] } else { &POINTS[..2] };
        let cases = trial(kind, name, seed, move |fleet| cases::all(fleet, seed, points));
        trials.push(if kind == "postgres" || time >= LONG { cases } else { cases.with_ignored_flag(true) });
    }
    trials
}

/// A test on a database of its own. It is shown as ignored where no server of this kind is there and none is required.
fn trial<F: Future<Output = Result<String, String>>>(
    kind: &'static str,
    name: &str,
    seed: u64,
    test: impl FnOnce(Fleet) -> F + Send + 'static,
) -> Trial {
    let server = server(kind);
    let is_wanted = server.is_ok() || is_required("RAWORC_TEST_BACKENDS", kind);
    let trial = real(&format!("{kind}::{name}"), seed, move || async move {
        let (network, no_cuts) = Network::new();
        if let Some(reason) = no_cuts {
            untested(kind, "cuts of the network between processes", &reason)?;
        }
        let mut result = Err("it did not begin".to_owned());
        if let Err(reason) = library() {
            untested(kind, "clocks that differ between processes", &reason)?;
        }
        Database::with(&server?, async |database| {
            result = match Fleet::start(network, database).await {
                Ok(fleet) => test(fleet).await,
                Err(error) => Err(error),
            };
        })
        .await;
        sweep();
        result
    });
    trial.with_ignored_flag(!is_wanted)
}

fn is_required(variable: &str, what: &str) -> bool {
    std::env::var(variable).unwrap_or_default().split(',').any(|name| name == what)
}

/// Says what this machine does not let be tested; `scripts/test` looks for it.
fn untested(kind: &str, what: &str, reason: &str) -> Result<(), String> {
    if is_required("RAWORC_TEST_REQUIRED", kind) {
        return Err(format!("{kind} is required, and this machine does not let {what} be tested, since {reason}"));
    }
    tell(&format!("NOT TESTED on this machine: {what}, since {reason}"));
    Ok(())
}
