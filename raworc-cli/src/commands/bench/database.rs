//! Several servers on one database, beside that database's own inserts.
//!
//! The servers are `raworc server`. The operator, the simulated engine and the programs of agents are in a process of their
//! own, so that what a program takes up was always accepted elsewhere.

mod asleep;
mod crowd;
mod leased;
mod place;
mod theirs;
mod watched;

use std::path::Path;
use std::time::Duration;

use raworc_http::client::Client;

use self::crowd::Crowd;
use self::leased::Leased;
use self::place::Place;
use self::theirs::Theirs;
use super::accept::Accept;
use super::figures::{Bound, Figure, median};
use super::floor::{Base, Floor};
use super::load::{Outcome, each};
use super::process::{Process, Site, load};
use crate::args::BenchArgs;
use crate::exit::{Exit, Failure};
use crate::output::Console;

/// What each round found.
struct Round {
    load: f64,
    base: Base,
    at_once: f64,
    offered: Accepted,
    watched: Accepted,
    one: Accepted,
    two: Accepted,
    leased: Outcome,
    crowd: Outcome,
}

/// Messages that were accepted, and what each took of the servers' processors and of the database's, in microseconds.
struct Accepted {
    outcome: Outcome,
    cpu: f64,
    theirs: Option<f64>,
}

/// Measures, and takes away what was made for it, whatever came of it.
pub(super) async fn measure(console: &Console, args: &BenchArgs, dir: &Path) -> anyhow::Result<Vec<Figure>> {
    let address = args.database.as_deref().ok_or_else(|| {
        Failure::new(Exit::Usage, "no database is named that could be measured")
            .hint("name a server by --database, such as postgres://USER@HOST/DATABASE, or in RAWORC_BENCH_DATABASE")
            .hint("or run `scripts/database postgres sh -c 'raworc bench database --database \"$RAWORC_TEST_POSTGRES_URL\"'`")
    })?;
    let mut place = Place::find(address)?;
    console.note(place.described().await?);
    let measured = tokio::select! {
        measured = figures(console, args, dir, &mut place) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| anyhow::bail!("interrupted")),
    };
    let removed = place.remove().await;
    let figures = measured?;
    removed?;
    Ok(figures)
}

async fn figures(console: &Console, args: &BenchArgs, dir: &Path, place: &mut Place) -> anyhow::Result<Vec<Figure>> {
    let progress = console.progress("starting");
    let mut floor = Floor::at_server(&place.database("floor").await?).await?;
    let site = Site::new(&dir.join("servers"), &place.database("servers").await?, "auto")?;
    let engine = site.engine().await?;
    let server = site.start("server", "first").await?;
    let bench = Bench {
        args,
        client: engine.client_of(&server)?,
        accept: Accept::prepare(&engine.client()?).await?,
        theirs: Theirs::find(place.port()),
        engine,
        server,
        site,
    };
    let mut leased = Leased::prepare(&bench.engine.client()?).await?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        progress.say(format!("round {number} of {}", args.rounds));
        rounds.push(bench.round(number, &mut floor, &mut leased).await?);
    }
    let Bench { engine, server, .. } = bench;
    server.end().await?;
    engine.end().await?;
    floor.close().await?;
    let mut figures = of_rounds(&rounds, place);
    figures.extend(asleep::measure(&progress, args, dir, place).await?);
    Ok(figures)
}

struct Bench<'a> {
    args: &'a BenchArgs,
    site: Site,
    engine: Process,
    server: Process,
    /// At the server.
    client: Client,
    accept: Accept,
    theirs: Option<Theirs>,
}

impl Bench<'_> {
    async fn round(&self, number: u32, floor: &mut Floor, leased: &mut Leased) -> anyhow::Result<Round> {
        let (load, base, at_once) = (load()?, floor.measure().await?, floor.measure_at_once().await?);
        let servers = std::slice::from_ref(&self.client);
        let offered = self.accepted(&[&self.server], self.accept.offered(self.args, servers)).await?;
        let watchers = watched::Watchers::begin(&self.client, self.accept.agents(), self.args.watchers).await?;
        let watched = self.accepted(&[&self.server], self.accept.offered(self.args, servers)).await?;
        watchers.end(watched.outcome.times.len()).await?;
        // Which one comes first changes: the database has more to do with each.
        let (one, two) = if number.is_multiple_of(2) {
            let two = self.two().await?;
            (self.one().await?, two)
        } else {
            (self.one().await?, self.two().await?)
        };
        Ok(Round {
            load,
            base,
            at_once,
            offered,
            watched,
            one,
            two,
            leased: leased.round(self.args, &self.client).await?,
            crowd: Crowd { number, client: &self.another()? }.round(self.args).await?,
        })
    }

    /// A client of the server with connections of its own, which go with it: one user may have no more than some hundreds, and
    /// watchers have most of these.
    fn another(&self) -> anyhow::Result<Client> {
        self.engine.client_of(&self.server)
    }

    async fn one(&self) -> anyhow::Result<Accepted> {
        self.accepted(&[&self.server], self.accept.sustained(self.args, &[self.another()?])).await
    }

    /// With a second server, which is there for no longer.
    async fn two(&self) -> anyhow::Result<Accepted> {
        let second = self.site.start("server", "second").await?;
        let servers = [self.another()?, self.engine.client_of(&second)?];
        let accepted = self.accepted(&[&self.server, &second], self.accept.sustained(self.args, &servers)).await?;
        second.end().await?;
        Ok(accepted)
    }

    async fn accepted(
        &self,
        servers: &[&Process],
        accepting: impl Future<Output = anyhow::Result<Outcome>>,
    ) -> anyhow::Result<Accepted> {
        let spent = || servers.iter().map(|server| server.cpu()).sum::<anyhow::Result<Duration>>();
        let theirs = || self.theirs.as_ref().map(Theirs::cpu).transpose();
        let before = (spent()?, theirs()?);
        let outcome = accepting.await?;
        let after = (spent()?, theirs()?);
        let theirs = after.1.zip(before.1).map(|(after, before)| each(after.saturating_sub(before), &outcome));
        Ok(Accepted { cpu: each(after.0.saturating_sub(before.0), &outcome), theirs, outcome })
    }
}

fn of_rounds(rounds: &[Round], place: &Place) -> Vec<Figure> {
    let beside = |what, unit, pick: fn(&Round) -> (f64, f64), bound| {
        Figure::beside(what, unit, &rounds.iter().map(pick).collect::<Vec<_>>(), bound)
    };
    let and = |what, unit, pick: fn(&Round) -> (f64, f64), bound| {
        Figure::and(what, unit, &rounds.iter().map(pick).collect::<Vec<_>>(), bound)
    };
    let bound = |what, unit, pick: fn(&Round) -> f64, bound| {
        Figure::alone(what, unit, rounds.iter().map(pick).collect(), bound)
    };
    let shown = |what, unit, pick| bound(what, unit, pick, Bound::None);
    let theirs = |what, pick: fn(&Round) -> &Accepted| {
        let each: Option<Vec<_>> = rounds.iter().map(|round| pick(round).theirs).collect();
        each.map(|each| Figure::alone(what, "us each", each, Bound::None))
    };
    let floors: Vec<_> = rounds.iter().map(|round| round.base.batched_rate).collect();
    // Where the database itself does not come to twice that, nobody can.
    let least = if median(&floors) < 2000.0 { Bound::None } else { Bound::NotBelow(1000.0) };
    let figures = [
        Some(beside(
            "accept, offered: p99",
            "ms",
            |round| (round.offered.outcome.times.ms(0.99), round.base.single.ms(0.99)),
            Bound::AtMost { floors: 3.0, plus: 2.0 },
        )),
        Some(beside(
            "accept, offered: p50",
            "ms",
            |round| (round.offered.outcome.times.ms(0.5), round.base.single.ms(0.5)),
            Bound::None,
        )),
        Some(shown("accept, offered: lag of the load, p99", "ms", |round| round.offered.outcome.lag.ms(0.99))),
        Some(shown("accept, offered: processor time", "us each", |round| round.offered.cpu)),
        theirs("accept, offered: the database's", |round| &round.offered),
        Some(and(
            "accept beside watchers: p99, and without",
            "ms",
            |round| (round.watched.outcome.times.ms(0.99), round.offered.outcome.times.ms(0.99)),
            Bound::AtMost { floors: 2.0, plus: 0.0 },
        )),
        Some(shown("accept beside watchers: lag of the load, p99", "ms", |round| round.watched.outcome.lag.ms(0.99))),
        Some(shown("accept beside watchers: processor time", "us each", |round| round.watched.cpu)),
        Some(beside(
            "accept, sustained",
            "1/s",
            |round| (round.one.outcome.rate(), round.base.batched_rate),
            Bound::AtLeast { floors: 0.5 },
        )),
        Some(beside(
            "accept, sustained, and 64 rows a statement",
            "1/s",
            |round| (round.one.outcome.rate(), round.at_once),
            Bound::None,
        )),
        Some(bound("accept, sustained", "1/s", |round| round.one.outcome.rate(), least)),
        Some(shown("accept, sustained: p99", "ms", |round| round.one.outcome.times.ms(0.99))),
        Some(and(
            "two servers, and one: sustained",
            "1/s",
            |round| (round.two.outcome.rate(), round.one.outcome.rate()),
            Bound::AtLeast { floors: 0.9 },
        )),
        Some(and(
            "two servers, and one: processor time",
            "us each",
            |round| (round.two.cpu, round.one.cpu),
            Bound::AtMost { floors: 1.2, plus: 0.0 },
        )),
        theirs("one server: the database's", |round| &round.one),
        theirs("two servers: the database's", |round| &round.two),
        Some(beside(
            "message to leased elsewhere: p50",
            "ms",
            |round| (round.leased.times.ms(0.5), round.base.single.ms(0.5)),
            Bound::AtMost { floors: 3.0, plus: 5.0 + place.poll().as_secs_f64() * 1e3 },
        )),
        Some(shown("message to leased elsewhere: p99", "ms", |round| round.leased.times.ms(0.99))),
        Some(bound("75 created a second: p50", "ms", |round| round.crowd.times.ms(0.5), Bound::NotAbove(100.0))),
        Some(bound("75 created a second: p99", "ms", |round| round.crowd.times.ms(0.99), Bound::NotAbove(300.0))),
        Some(shown("75 created a second: lag of the load, p99", "ms", |round| round.crowd.lag.ms(0.99))),
        Some(shown("load of the machine at the round's begin", "", |round| round.load)),
    ];
    figures.into_iter().flatten().collect()
}
