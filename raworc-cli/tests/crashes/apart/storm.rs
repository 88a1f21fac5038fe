//! Random calls of fifty agents while servers, operators and programs are killed and frozen, the network is cut and the
//! database hangs up, at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use raworc_core::ids::AgentName;
use rustix::process::Signal;
use tokio::time::Instant;

use super::database::end_connections;
use super::fleet::{Fleet, signal};
use super::network::PAIRS;
use super::node::Node;
use crate::world::stop;

/// Agents that there are from the beginning.
const AGENTS: usize = 50;

const CALLERS: u64 = 6;

/// From so long on, a storm in which one of these did not happen shows nothing.
const LONG: Duration = Duration::from_secs(30);
const HAPPENS: [&str; 6] = ["server", "operator", "program", "database", "connections", "cut"];

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
    // Two of them, so that one thing goes wrong while another does.
    let of_nodes = Killer::new(seed).run(&fleet, deadline, async |killer, fleet| killer.strike_a_node(fleet).await);
    let of_others =
        Killer::new(!seed).run(&fleet, deadline, async |killer, fleet| killer.strike_what_is_between(fleet).await);
    let (of_nodes, of_others) = tokio::join!(of_nodes, of_others);
    let mut done = Done::new();
    for ended in [of_nodes, of_others] {
        match ended {
            Ok(some) => done.extend(some),
            Err(error) => fleet.trouble(error),
        }
    }
    stop(&flag, callers).await;
    let lacks = HAPPENS.into_iter().filter(|what| !done.keys().any(|key| key.starts_with(what)));
    let lacks: Vec<_> = lacks.filter(|what| *what != "cut" || fleet.network.has_cuts()).collect();
    let accepted = fleet.recorder.accepted();
    if time >= LONG && (!lacks.is_empty() || accepted < time.as_secs()) {
        fleet.trouble(format!("it was no storm: {accepted} messages were accepted, and nothing happened to {lacks:?}"));
    }
    let began = Instant::now();
    let report = fleet.finish(seed).await?;
    let over = began.elapsed();
    Ok(format!("{report}; made within {made:.1?}, at rest and gone within {over:.1?}; {done:?}"))
}

/// What was done to whom, how often.
type Done = BTreeMap<&'static str, u32>;

struct Killer {
    chance: Xoshiro256PlusPlus,
    done: Done,
}

impl Killer {
    fn new(seed: u64) -> Self {
        Self { chance: Xoshiro256PlusPlus::seed_from_u64(seed), done: Done::new() }
    }

    /// Strikes again and again until then.
    async fn run(
        mut self,
        fleet: &Fleet,
        deadline: Instant,
        strike: impl AsyncFn(&mut Self, &Fleet) -> Result<(), String>,
    ) -> Result<Done, String> {
        while Instant::now() < deadline {
            self.pause(1000).await;
            strike(&mut self, fleet).await?;
        }
        Ok(self.done)
    }

    async fn pause(&mut self, most: u64) {
        let millis = self.chance.random_range(0..most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// One of what can go wrong with a server or an operator.
    async fn strike_a_node(&mut self, fleet: &Fleet) -> Result<(), String> {
        for node in fleet.nodes() {
            if let Some(status) = node.ended().await {
                return Err(format!("machine {} ended by itself: {status}", node.machine));
            }
        }
        let (server, operator) = (self.one_of(&fleet.servers), self.one_of(&fleet.operators));
        match self.chance.random_range(0..100) {
            0..=19 => {
                self.count("server killed");
                self.kill(server).await
            }
            20..=34 => {
                fleet.recorder.kill_at_next_answer(server.pid().await);
                let deadline = Instant::now() + ANSWER_LIMIT;
                while server.ended().await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                fleet.recorder.kill_at_next_answer(None);
                if server.ended().await.is_some() {
                    self.count("server killed at an answer");
                }
                self.kill(server).await
            }
            35..=44 => {
                self.count("server frozen");
                self.freeze(server, 5000).await;
                Ok(())
            }
            45..=52 => {
                self.count("server left");
                self.leave(server).await
            }
            53..=70 => {
                self.count("operator killed");
                self.kill(operator).await
            }
            71..=89 => {
                self.count("operator frozen");
                // Longer than its sign of life counts, as often as not.
                self.freeze(operator, 10_000).await;
                Ok(())
            }
            _ => {
                self.count("operator left");
                self.leave(operator).await
            }
        }
    }

    /// One of what can go wrong with what is between them, and with programs.
    async fn strike_what_is_between(&mut self, fleet: &Fleet) -> Result<(), String> {
        let with_cuts = if fleet.network.has_cuts() { 100 } else { 50 };
        match self.chance.random_range(0..with_cuts) {
            0..=17 => {
                if let Some(program) = self.any_program(fleet) {
                    self.count("program killed");
                    signal(&program, Signal::KILL);
                }
            }
            18..=29 => {
                if let Some(program) = self.any_program(fleet) {
                    self.count("program frozen");
                    signal(&program, Signal::STOP);
                    self.pause(3000).await;
                    signal(&program, Signal::CONT);
                }
            }
            30..=39 => {
                self.count("database frozen");
                fleet.signal_database(Signal::STOP);
                self.pause(4000).await;
                fleet.signal_database(Signal::CONT);
            }
            40..=49 => {
                self.count("connections ended");
                end_connections(&fleet.database).await?;
            }
            _ => {
                self.count("cut");
                let (a, b) = PAIRS[self.chance.random_range(0..PAIRS.len())];
                fleet.network.cut(a, b)?;
                self.pause(8000).await;
                fleet.network.heal(a, b)?;
            }
        }
        Ok(())
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

    fn one_of<'a>(&mut self, nodes: &'a [Node]) -> &'a Node {
        &nodes[self.chance.random_range(0..nodes.len())]
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
