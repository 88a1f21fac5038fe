//! Random calls of fifty agents while servers, operators and programs are killed and frozen, the network is cut, between two
//! or around one, and the database hangs up, at random.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use raworc_core::ids::AgentName;
use rustix::process::Signal;
use tokio::time::Instant;

use super::database::end_connections;
use super::fleet::{Fleet, signal};
use super::network::{ALL, ENGINE, PAIRS, SERVERS};
use super::node::Node;
use crate::world::stop;

/// Agents that there are from the beginning.
const AGENTS: usize = 50;

const CALLERS: u64 = 6;

/// From so long on, a storm in which one of the strikes did not happen shows nothing. It goes on until each has, for twice its time
/// at most.
const LONG: Duration = Duration::from_secs(30);

/// From so long on, programs are cut off from every server for longer than they may be silent.
const LONGER: Duration = Duration::from_secs(200);

/// For how long: a program that was not heard for 30 s is started anew.
const SILENCE: Duration = Duration::from_secs(40);

/// How long an answer is waited for at which its server is to be killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A storm of so long, in which the seed chooses what is called and what goes wrong.
pub(crate) async fn run(mut fleet: Fleet, seed: u64, time: Duration) -> Result<String, String> {
    let names: Vec<AgentName> = (0..AGENTS).map(|number| format!("a{number}").parse().expect("a name")).collect();
    let began = Instant::now();
    if let Err(error) = fleet.make(&names).await {
        fleet.trouble(error);
        return fleet.finish(seed).await;
    }
    let made = began.elapsed();
    let flag = Arc::new(AtomicBool::new(false));
    let seeds = (0..CALLERS).map(|number| seed.wrapping_mul(CALLERS + 1).wrapping_add(number + 1));
    let callers = seeds.enumerate().map(|(number, seed)| fleet.caller(&format!("c{number}"), seed, &names));
    let callers = callers.map(|caller| tokio::spawn(caller.run(flag.clone()))).collect();
    let deadline = Instant::now() + time;
    let latest = if time >= LONG { deadline + time } else { deadline };
    let of_network = match (fleet.network.has_cuts(), time >= LONGER) {
        (false, _) => &[][..],
        (true, false) => &OF_NETWORK[1..],
        (true, true) => &OF_NETWORK[..],
    };
    // Several, so that one thing goes wrong while another does.
    let all = [(seed, &OF_NODES[..]), (!seed, &OF_OTHERS[..]), (seed.rotate_left(32), of_network)];
    let mut killers = all.map(|(seed, strikes)| Killer::new(seed, strikes));
    let struck = join_all(killers.iter_mut().map(|killer| killer.run(&fleet, deadline, latest))).await;
    let mut troubles: Vec<_> = struck.into_iter().filter_map(Result::err).collect();
    for node in fleet.nodes() {
        troubles.extend(runs(node).await.err());
    }
    troubles.into_iter().for_each(|trouble| fleet.trouble(trouble));
    stop(&flag, callers).await;
    let lacks: Vec<_> = killers.iter().flat_map(Killer::lacks).collect();
    let accepted = fleet.recorder.accepted();
    if time >= LONG && (!lacks.is_empty() || accepted < time.as_secs()) {
        fleet.trouble(format!(
            "it was no storm: {accepted} messages were accepted, and these did not happen: {lacks:?}"
        ));
    }
    let began = Instant::now();
    let report = fleet.finish(seed).await?;
    let over = began.elapsed();
    let done: BTreeMap<_, _> = killers.into_iter().flat_map(|killer| killer.done).collect();
    Ok(format!("{report}; made within {made:.1?}, at rest and gone within {over:.1?}; {done:?}"))
}

async fn runs(node: &Node) -> Result<(), String> {
    match node.ended().await {
        Some(status) => Err(format!("machine {} ended by itself: {status}", node.machine)),
        None => Ok(()),
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strike {
    ServerKilled,
    ServerKilledAtAnAnswer,
    ServerFrozen,
    ServerLeft,
    OperatorKilled,
    OperatorFrozen,
    OperatorLeft,
    ProgramKilled,
    ProgramFrozen,
    DatabaseFrozen,
    ConnectionsEnded,
    Cut,
    /// A machine is cut off from every other.
    Isolated,
    ProgramsSilent,
}

/// What can go wrong with a server or an operator, and how often each of it does beside the others.
const OF_NODES: [(Strike, u32); 7] = [
    (Strike::ServerKilled, 20),
    (Strike::ServerKilledAtAnAnswer, 15),
    (Strike::ServerFrozen, 10),
    (Strike::ServerLeft, 8),
    (Strike::OperatorKilled, 18),
    (Strike::OperatorFrozen, 19),
    (Strike::OperatorLeft, 10),
];

/// The same of programs and of the database.
const OF_OTHERS: [(Strike, u32); 4] = [
    (Strike::ProgramKilled, 36),
    (Strike::ProgramFrozen, 24),
    (Strike::DatabaseFrozen, 20),
    (Strike::ConnectionsEnded, 20),
];

/// The same of the network. The first takes long.
const OF_NETWORK: [(Strike, u32); 3] = [(Strike::ProgramsSilent, 5), (Strike::Isolated, 30), (Strike::Cut, 65)];

struct Killer<'a> {
    chance: Xoshiro256PlusPlus,
    strikes: &'a [(Strike, u32)],
    /// What happened, how often.
    done: BTreeMap<Strike, u32>,
}

impl Killer<'_> {
    fn new(seed: u64, strikes: &[(Strike, u32)]) -> Killer<'_> {
        Killer { chance: Xoshiro256PlusPlus::seed_from_u64(seed), strikes, done: BTreeMap::new() }
    }

    /// Strikes again and again until the deadline, and where something did not happen by then, until the latest.
    async fn run(&mut self, fleet: &Fleet, deadline: Instant, latest: Instant) -> Result<(), String> {
        while !self.strikes.is_empty() && Instant::now() < if self.lacks().next().is_some() { latest } else { deadline }
        {
            self.pause(1000).await;
            let strike = self.choose();
            if self.strike(fleet, strike).await? {
                *self.done.entry(strike).or_default() += 1;
            }
        }
        Ok(())
    }

    /// What did not happen yet.
    fn lacks(&self) -> impl Iterator<Item = Strike> {
        self.strikes.iter().map(|(strike, _)| *strike).filter(|strike| !self.done.contains_key(strike))
    }

    /// What did not happen yet comes first, so that chance leaves out none of it.
    fn choose(&mut self) -> Strike {
        let lacks: Vec<_> = self.lacks().collect();
        match lacks.choose(&mut self.chance) {
            Some(one) => *one,
            None => {
                self.strikes.choose_weighted(&mut self.chance, |(_, often)| *often).expect("weights that are some").0
            }
        }
    }

    async fn pause(&mut self, most: u64) {
        let millis = self.chance.random_range(0..most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Has it go wrong, and tells whether it did.
    async fn strike(&mut self, fleet: &Fleet, strike: Strike) -> Result<bool, String> {
        match strike {
            Strike::ServerKilled => {
                let server = self.one_of(&fleet.servers).await?;
                self.kill(server).await?;
            }
            Strike::ServerKilledAtAnAnswer => {
                let server = self.one_of(&fleet.servers).await?;
                fleet.recorder.kill_at_next_answer(server.pid().await);
                let deadline = Instant::now() + ANSWER_LIMIT;
                while server.ended().await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                fleet.recorder.kill_at_next_answer(None);
                let is_killed = server.ended().await.is_some();
                self.kill(server).await?;
                return Ok(is_killed);
            }
            Strike::ServerFrozen => {
                let server = self.one_of(&fleet.servers).await?;
                self.freeze(server, 5000).await;
            }
            Strike::ServerLeft => {
                let server = self.one_of(&fleet.servers).await?;
                self.leave(server).await?;
            }
            Strike::OperatorKilled => {
                let operator = self.one_of(&fleet.operators).await?;
                self.kill(operator).await?;
            }
            Strike::OperatorFrozen => {
                let operator = self.one_of(&fleet.operators).await?;
                // Longer than its sign of life counts, as often as not.
                self.freeze(operator, 10_000).await;
            }
            Strike::OperatorLeft => {
                let operator = self.one_of(&fleet.operators).await?;
                self.leave(operator).await?;
            }
            Strike::ProgramKilled => {
                let Some(program) = self.any_program(fleet) else { return Ok(false) };
                signal(&program, Signal::KILL);
            }
            Strike::ProgramFrozen => {
                let Some(program) = self.any_program(fleet) else { return Ok(false) };
                signal(&program, Signal::STOP);
                self.pause(3000).await;
                signal(&program, Signal::CONT);
            }
            Strike::DatabaseFrozen => {
                fleet.signal_database(Signal::STOP);
                self.pause(4000).await;
                fleet.signal_database(Signal::CONT);
            }
            Strike::ConnectionsEnded => end_connections(&fleet.database).await?,
            Strike::Cut => {
                let pair = PAIRS[self.chance.random_range(0..PAIRS.len())];
                self.cut(fleet, &[pair], 0..8000).await?;
            }
            Strike::Isolated => {
                let machine = ALL[self.chance.random_range(0..ALL.len())];
                let pairs: Vec<_> = PAIRS.into_iter().filter(|(a, b)| [*a, *b].contains(&machine)).collect();
                self.cut(fleet, &pairs, 0..8000).await?;
            }
            Strike::ProgramsSilent => {
                let time = u64::try_from(SILENCE.as_millis()).expect("some seconds");
                self.cut(fleet, &SERVERS.map(|server| (server, ENGINE)), time..time + 5000).await?;
            }
        }
        Ok(true)
    }

    /// Cuts between these for so many milliseconds.
    async fn cut(&mut self, fleet: &Fleet, pairs: &[(u8, u8)], time: Range<u64>) -> Result<(), String> {
        pairs.iter().try_for_each(|(a, b)| fleet.network.cut(*a, *b))?;
        let millis = self.chance.random_range(time);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        pairs.iter().try_for_each(|(a, b)| fleet.network.heal(*a, *b))
    }

    async fn kill(&mut self, node: &Node) -> Result<(), String> {
        node.kill().await;
        self.pause(1500).await;
        node.start().await
    }

    async fn leave(&mut self, node: &Node) -> Result<(), String> {
        node.end().await?;
        self.pause(1000).await;
        node.start().await
    }

    async fn freeze(&mut self, node: &Node, most: u64) {
        node.signal(Signal::STOP).await;
        self.pause(most).await;
        node.signal(Signal::CONT).await;
    }

    async fn one_of<'a>(&mut self, nodes: &'a [Node]) -> Result<&'a Node, String> {
        let node = &nodes[self.chance.random_range(0..nodes.len())];
        runs(node).await.map(|()| node)
    }

    fn any_program(&mut self, fleet: &Fleet) -> Option<super::engine::Done> {
        let mut live = fleet.engine.journal().live();
        if live.is_empty() {
            return None;
        }
        let one = self.chance.random_range(0..live.len());
        Some(live.swap_remove(one))
    }
}
