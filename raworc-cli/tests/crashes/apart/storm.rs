//! Random calls of fifty agents while servers, operators and programs are killed and frozen, the network is cut and the
//! database hangs up, at random.

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
    let mut killer = Killer { chance: Xoshiro256PlusPlus::seed_from_u64(seed), done: Done::default() };
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        killer.pause(1000).await;
        if let Err(error) = killer.strike(&fleet).await {
            fleet.trouble(error);
            break;
        }
    }
    stop(&flag, callers).await;
    let (done, began) = (killer.done, Instant::now());
    let report = fleet.finish(seed).await?;
    Ok(format!("{report}; made within {made:.1?}, at rest and gone within {:.1?}; {done:?}", began.elapsed()))
}

/// What was done to whom, how often.
#[derive(Debug, Default)]
struct Done {
    server_killed: u32,
    server_killed_at_an_answer: u32,
    server_frozen: u32,
    server_left: u32,
    operator_killed: u32,
    operator_frozen: u32,
    operator_left: u32,
    program_killed: u32,
    program_frozen: u32,
    database_frozen: u32,
    connections_ended: u32,
    cut: u32,
    cut_beside_another: u32,
}

struct Killer {
    chance: Xoshiro256PlusPlus,
    done: Done,
}

impl Killer {
    async fn pause(&mut self, most: u64) {
        let millis = self.chance.random_range(0..most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// One of what can go wrong, or a cut and another one at once.
    async fn strike(&mut self, fleet: &Fleet) -> Result<(), String> {
        for node in fleet.nodes() {
            if let Some(status) = node.ended().await {
                return Err(format!("machine {} ended by itself: {status}", node.machine));
            }
        }
        if !fleet.network.has_cuts() || self.chance.random_bool(0.6) {
            return self.strike_process(fleet).await;
        }
        let (a, b) = PAIRS[self.chance.random_range(0..PAIRS.len())];
        fleet.network.cut(a, b)?;
        if self.chance.random_bool(0.3) {
            self.done.cut_beside_another += 1;
            // Nobody is started, or asked to end, who cannot while it is cut.
            self.freeze_or_end(fleet).await?;
        } else {
            self.done.cut += 1;
            self.pause(8000).await;
        }
        fleet.network.heal(a, b)
    }

    async fn strike_process(&mut self, fleet: &Fleet) -> Result<(), String> {
        let server = self.one_of(&fleet.servers);
        let operator = self.one_of(&fleet.operators);
        match self.chance.random_range(0..100) {
            0..=14 => {
                self.done.server_killed += 1;
                self.kill(server).await?;
            }
            15..=24 => {
                fleet.recorder.kill_at_next_answer(server.pid().await);
                let deadline = Instant::now() + ANSWER_LIMIT;
                while server.ended().await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                fleet.recorder.kill_at_next_answer(None);
                self.done.server_killed_at_an_answer += u32::from(server.ended().await.is_some());
                self.kill(server).await?;
            }
            25..=30 => {
                self.done.server_left += 1;
                server.end().await?;
                self.pause(1000).await;
                server.start().await?;
            }
            31..=44 => {
                self.done.operator_killed += 1;
                self.kill(operator).await?;
            }
            45..=52 => {
                self.done.operator_left += 1;
                operator.end().await?;
                self.pause(1000).await;
                operator.start().await?;
            }
            _ => self.freeze_or_end(fleet).await?,
        }
        Ok(())
    }

    /// What leaves servers and operators as they are.
    async fn freeze_or_end(&mut self, fleet: &Fleet) -> Result<(), String> {
        match self.chance.random_range(0..100) {
            0..=19 => {
                self.done.server_frozen += 1;
                let server = self.one_of(&fleet.servers);
                self.freeze(server, 5000).await;
            }
            20..=49 => {
                self.done.operator_frozen += 1;
                // Longer than its sign of life counts, as often as not.
                let operator = self.one_of(&fleet.operators);
                self.freeze(operator, 10_000).await;
            }
            50..=69 => {
                if let Some(program) = self.any_program(fleet) {
                    self.done.program_killed += 1;
                    signal(&program, Signal::KILL);
                }
            }
            70..=79 => {
                if let Some(program) = self.any_program(fleet) {
                    self.done.program_frozen += 1;
                    signal(&program, Signal::STOP);
                    self.pause(3000).await;
                    signal(&program, Signal::CONT);
                }
            }
            80..=89 => {
                self.done.database_frozen += 1;
                fleet.signal_database(Signal::STOP);
                self.pause(4000).await;
                fleet.signal_database(Signal::CONT);
            }
            _ => {
                self.done.connections_ended += 1;
                end_connections(&fleet.database).await?;
            }
        }
        Ok(())
    }

    async fn kill(&mut self, node: &Node) -> Result<(), String> {
        node.kill().await;
        self.pause(1500).await;
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
