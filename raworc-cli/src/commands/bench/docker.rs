//! The life of agents on a real Docker engine, by `raworc up` as people start it, beside calls of the same engine for
//! containers that are made with the same flags.

mod engine;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use raworc_core::control::SendMessage;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client, EventStream};
use secrecy::SecretString;
use tokio::time::Instant;

use self::engine::Engine;
use super::accept::make;
use super::figures::{Bound, Figure, median};
use super::process::{Process, load};
use super::reply::until;
use crate::args::{AssemblyArgs, BenchArgs};
use crate::output::Console;
use crate::settings::Settings;

/// How often each is measured in a round.
const TIMES: usize = 5;

/// Agents that are made at once.
const CROWD: usize = 10;

/// The engine's calls of a start, and of a stop.
const START: [&str; 3] = ["prepare", "ensure", "start"];
const STOP: [&str; 1] = ["stop"];

/// What was measured of something in a round, in milliseconds: the engine alone, Raworc, and what of that it spent in no
/// call of the engine.
#[derive(Debug, Default)]
struct Measured {
    floor: Vec<f64>,
    ours: Vec<f64>,
    outside: Vec<f64>,
}

/// All that was measured in a round.
#[derive(Debug, Default)]
struct Round {
    load: f64,
    create: Measured,
    sleep: Measured,
    wake: Measured,
    crowd: Measured,
    /// Processor time of the serving process for each of the crowd, in milliseconds.
    cpu: f64,
}

/// Measures, and takes away what was made for it, whatever came of it.
pub(super) async fn measure(console: &Console, args: &BenchArgs, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let progress = console.progress("starting `raworc up` on the engine");
    let (data, password) = (dir.join("docker"), dir.join("password"));
    let secret: [u8; 16] = SystemEntropy.bytes();
    let secret = format!("{secret:02x?}");
    std::fs::write(&password, &secret)?;
    let up = Process::up_on_docker(&data, &password).await?;
    let installation = std::fs::read_to_string(data.join("installation")).context("the installation has no name")?;
    let address = Settings::load(&AssemblyArgs::default())?.docker.address()?;
    anyhow::ensure!(
        address.tls.is_none(),
        "figures are taken on this machine's engine; name its socket by docker.host"
    );
    let engine = Engine::at(&address.host, installation.trim()).await?;
    let measured = async {
        let client = up.client()?;
        let token = client.login("admin", &SecretString::from(secret)).await?.token;
        let mut bench = Bench::prepare(&up, client.with_token(token), &engine).await?;
        let mut rounds = Vec::new();
        for number in 1..=args.rounds {
            progress.say(format!("round {number} of {} on the engine", args.rounds));
            rounds.push(bench.round(number).await?);
        }
        anyhow::Ok(rounds)
    };
    let measured = measured.await;
    let ended = up.end().await;
    let cleared = engine.clear().await;
    drop(progress);
    let rounds = measured?;
    ended?;
    cleared?;
    Ok(figures(&rounds))
}

struct Bench<'a> {
    up: &'a Process,
    client: Client,
    engine: &'a Engine,
    /// A container as Raworc makes them, with a program that only says that it runs.
    like: engine::Like,
    events: EventStream,
}

impl<'a> Bench<'a> {
    async fn prepare(up: &'a Process, client: Client, engine: &'a Engine) -> anyhow::Result<Self> {
        let model = AgentName::new("model")?;
        make(&client, &model).await?;
        let like = engine.like_ours().await?;
        let events = client.follow(None, None).await?;
        let bench = Self { up, client, engine, like, events };
        bench.delete(&[model]).await?;
        Ok(bench)
    }

    async fn round(&mut self, number: u32) -> anyhow::Result<Round> {
        let mut round = Round { load: load()?, ..Round::default() };
        for n in 0..TIMES {
            self.life(&mut round, &format!("{number}-{n}")).await?;
        }
        self.crowd(&mut round, number).await?;
        Ok(round)
    }

    /// One life, step by step beside the engine's.
    async fn life(&mut self, round: &mut Round, label: &str) -> anyhow::Result<()> {
        let name = AgentName::new(format!("life-{label}"))?;
        let floor = self.engine.run(&self.like, label);
        let container = timed(&mut round.create.floor, floor).await?;
        self.ours(&mut round.create, &START, make(&self.client, &name)).await?;

        timed(&mut round.sleep.floor, self.engine.stop(&container)).await?;
        let asleep = async {
            let agent = self.client.sleep(&name, false, waiting()).await?;
            anyhow::ensure!(agent.status.run.is_none(), "the computer of {name} has not stopped");
            Ok(())
        };
        self.ours(&mut round.sleep, &STOP, asleep).await?;

        timed(&mut round.wake.floor, self.engine.start(&container)).await?;
        let before = self.calls().await?;
        let began = Instant::now();
        let message = self.client.send(&name, &SendMessage::text("!true"), Ask::new()).await?.id;
        until(&mut self.events, message, "leased").await?;
        let took = began.elapsed();
        until(&mut self.events, message, "done").await?;
        round.wake.take(took, &START, &before, &self.calls().await?);

        self.engine.remove(&container).await?;
        self.delete(&[name]).await
    }

    /// Agents that are made at once, beside as many containers.
    async fn crowd(&self, round: &mut Round, number: u32) -> anyhow::Result<()> {
        let labels: Vec<_> = (0..CROWD).map(|n| format!("crowd-{number}-{n}")).collect();
        let runs = try_join_all(labels.iter().map(|label| self.engine.run(&self.like, label)));
        for container in timed(&mut round.crowd.floor, runs).await? {
            self.engine.remove(&container).await?;
        }
        let names = labels.into_iter().map(AgentName::new).collect::<Result<Vec<_>, _>>()?;
        let before = self.up.cpu()?;
        timed(&mut round.crowd.ours, try_join_all(names.iter().map(|name| make(&self.client, name)))).await?;
        round.cpu = ms(self.up.cpu()?.saturating_sub(before)) / CROWD as f64;
        self.delete(&names).await
    }

    async fn ours(
        &self,
        measured: &mut Measured,
        of_engine: &[&str],
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let before = self.calls().await?;
        let began = Instant::now();
        work.await?;
        measured.take(began.elapsed(), of_engine, &before, &self.calls().await?);
        Ok(())
    }

    /// Time that was spent in the engine's calls, by call.
    async fn calls(&self) -> anyhow::Result<BTreeMap<String, Duration>> {
        let figures = self.client.metrics().await?;
        Ok(figures.lines().filter_map(spent).fold(BTreeMap::new(), |mut calls, (call, time)| {
            *calls.entry(call).or_default() += time;
            calls
        }))
    }

    /// Deletes agents, and waits until their computers are gone: nothing of this is at work in what is measured next.
    async fn delete(&self, names: &[AgentName]) -> anyhow::Result<()> {
        try_join_all(names.iter().map(|name| self.client.delete_agent(name, waiting()))).await?;
        self.engine.until_ours_are_gone().await
    }
}

impl Measured {
    fn take(
        &mut self,
        took: Duration,
        of_engine: &[&str],
        before: &BTreeMap<String, Duration>,
        after: &BTreeMap<String, Duration>,
    ) {
        let spent =
            |calls: &BTreeMap<String, Duration>| of_engine.iter().filter_map(|call| calls.get(*call)).sum::<Duration>();
        self.ours.push(ms(took));
        self.outside.push(ms(took.saturating_sub(spent(after).saturating_sub(spent(before)))));
    }
}

/// Runs something and keeps what it took.
async fn timed<T>(times: &mut Vec<f64>, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let began = Instant::now();
    let done = work.await?;
    times.push(ms(began.elapsed()));
    Ok(done)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn waiting() -> Ask {
    Ask::new().wait_secs(120)
}

/// The call of Docker's engine and the time that this line of `/metrics` is the sum of.
fn spent(line: &str) -> Option<(String, Duration)> {
    let (labels, value) = line.strip_prefix("raworc_engine_call_seconds_sum{")?.split_once("} ")?;
    let label = |name: &str| {
        labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
    };
    if label("runtime")? != "docker" {
        return None;
    }
    Some((label("call")?.to_owned(), Duration::try_from_secs_f64(value.parse().ok()?).ok()?))
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let beside = |what, pick: fn(&Round) -> &Measured, floors| {
        let pairs: Vec<_> = rounds.iter().map(pick).map(|of| (median(&of.ours), median(&of.floor))).collect();
        Figure::beside(what, "ms", &pairs, Bound::AtMost { floors, plus: 0.0 })
    };
    let outside = |what, pick: fn(&Round) -> &Measured| {
        Figure::alone(what, "ms", rounds.iter().map(pick).map(|of| median(&of.outside)).collect(), Bound::None)
    };
    let alone =
        |what, unit, pick: fn(&Round) -> f64| Figure::alone(what, unit, rounds.iter().map(pick).collect(), Bound::None);
    vec![
        beside("docker, message to leased by a sleeper", |round| &round.wake, 1.25),
        outside("docker, message to leased: outside the engine's calls", |round| &round.wake),
        beside("docker, sleep to stopped", |round| &round.sleep, 1.25),
        outside("docker, sleep to stopped: outside the engine's calls", |round| &round.sleep),
        beside("docker, create to idle", |round| &round.create, 1.25),
        outside("docker, create to idle: outside the engine's calls", |round| &round.create),
        beside("docker, ten created at once, all idle", |round| &round.crowd, 1.3),
        alone("docker, ten created at once: processor time of `up`", "ms each", |round| round.cpu),
        alone("load of the machine at the round's begin", "", |round| round.load),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engines_call_took_is_read_from_the_figures_of_a_server() {
        let line = |runtime: &str| {
            format!(r#"raworc_engine_call_seconds_sum{{runtime="{runtime}",call="start",outcome="done"}} 0.25"#)
        };
        assert_eq!(spent(&line("docker")), Some(("start".into(), Duration::from_millis(250))));
        assert_eq!(spent(&line("local")), None);
        assert_eq!(spent(r#"raworc_engine_call_seconds_count{runtime="docker",call="start"} 3"#), None);
    }

    #[test]
    fn what_is_outside_the_engines_calls_is_what_they_did_not_take() {
        let calls = |start: u64, stop: u64| {
            let ms = Duration::from_millis;
            BTreeMap::from([("start".to_owned(), ms(start)), ("stop".to_owned(), ms(stop))])
        };
        let mut measured = Measured::default();
        measured.take(Duration::from_millis(100), &START, &calls(10, 0), &calls(70, 500));
        assert_eq!((measured.ours, measured.outside), (vec![100.0], vec![40.0]));
    }
}
