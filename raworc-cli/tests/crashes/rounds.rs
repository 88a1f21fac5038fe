//! Storms on a Docker engine of the test's own, one after another, each of another installation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::dockerd::{self, Dockerd, IMAGE};
use crate::place::Place;
use crate::{points, real, storm, tell};

/// How long a storm is.
const STORM: Duration = Duration::from_secs(10);

/// Of so many rounds, containers go on in one while their engine is away.
const LIVE_RESTORE: u64 = 3;

/// From so many rounds on, the server ends itself at each point with Docker too.
const MANY: u64 = 30;

/// A name as our containers and volumes have it.
const NAME: &str = "raworc-0193a1b2-0000-7000-8000-000000000001";

/// The computer that it would be.
const COMPUTER: &str = "0193a1b2-0000-7000-8000-000000000001";

pub(crate) fn trials(rounds: u64, seed: u64) -> Vec<Trial> {
    let mut trials = vec![real("docker::an_engine_that_is_killed_breaks_no_rule", seed, move || run(rounds, seed))];
    if rounds >= MANY {
        trials.push(real("docker::every_point_is_reached_and_nothing_is_lost_there", seed, move || at_points(seed)));
    }
    let required = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
    let is_wanted = required.split(',').any(|name| name == "docker") || dockerd::answers();
    trials.into_iter().map(|trial| trial.with_ignored_flag(!is_wanted)).collect()
}

async fn run(rounds: u64, seed: u64) -> Result<String, String> {
    let Some(engine) = engine()? else { return Ok("not tested".into()) };
    let strangers = Strangers::on(&engine)?;
    let before = strangers.seen()?;
    let (mut last, mut killed) = (String::new(), 0);
    for round in 0..rounds {
        // A seed of its own for each, with which it can be had alone.
        let seed = seed.wrapping_add(round);
        let goes_on = seed % LIVE_RESTORE == 0;
        engine.set_live_restore(goes_on);
        let report = storm::run(Place::Docker(engine.clone()), seed, STORM).await;
        let (report, done) = report.map_err(|error| format!("round {round} (--rounds 1 --seed {seed}): {error}"))?;
        killed += done.engines_killed();
        last = format!("round {} of {rounds}, containers go on: {goes_on}: {report}", round + 1);
        if rounds > LIVE_RESTORE {
            tell(&last);
        }
    }
    if killed < u32::try_from(rounds).map_err(|error| error.to_string())? {
        return Err(format!("the engine was killed {killed} times in {rounds} rounds"));
    }
    let after = strangers.seen()?;
    if after != before {
        return Err(format!("what is not ours was\n{before}\nand is\n{after}"));
    }
    Ok(last)
}

/// What others have on the engine, under names as ours are. They go with the engine.
struct Strangers<'a>(&'a Dockerd);

impl<'a> Strangers<'a> {
    fn on(engine: &'a Dockerd) -> Result<Self, String> {
        let label = format!("raworc.computer={COMPUTER}");
        let others = ["--label", "raworc.installation=another", "--label", &label];
        let volume = format!("{NAME}:/theirs");
        for (verbs, rest) in [
            (&["volume", "create"][..], &[NAME][..]),
            (&["network", "create"], &[NAME]),
            (&["create", "--name", NAME, "--network", NAME, "--volume", &volume], &[IMAGE, "true"]),
        ] {
            engine.docker([verbs, &others, rest].concat())?;
        }
        let this = Self(engine);
        std::fs::write(this.file(), "theirs").map_err(|error| error.to_string())?;
        Ok(this)
    }

    fn file(&self) -> PathBuf {
        self.0.data().join("volumes").join(NAME).join("_data/file")
    }

    /// All of it, as the engine tells it.
    fn seen(&self) -> Result<String, String> {
        let file = std::fs::read_to_string(self.file()).map_err(|error| format!("the file of others: {error}"))?;
        let told = ["container", "volume", "network"].map(|kind| self.0.docker([kind, "inspect", NAME]));
        Ok(told.into_iter().collect::<Result<Vec<_>, _>>()?.join("\n") + &file)
    }
}

async fn at_points(seed: u64) -> Result<String, String> {
    match engine()? {
        Some(engine) => points::run(Place::Docker(engine), seed, &["kill"]).await,
        None => Ok("not tested".into()),
    }
}

/// An engine of the test's own, where this machine lets it have one.
fn engine() -> Result<Option<Arc<Dockerd>>, String> {
    if dockerd::is_untested("crashes of a Docker engine", dockerd::obstacle()) {
        return Ok(None);
    }
    let started = tokio::task::block_in_place(Dockerd::start)?;
    Ok(Some(Arc::new(started)))
}
