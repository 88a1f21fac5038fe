//! Random calls while the server and the programs in computers are killed and frozen at random.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::dockerd::Dockerd;
use crate::machine;
use crate::place::Place;
use crate::world::{World, stop};

const CALLERS: u64 = 4;

/// From so long on, a storm without messages and deaths shows nothing.
const LONG: Duration = Duration::from_secs(30);

/// How long an answer is waited for at which the server is to be killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A storm of so long, in which the seed chooses what is called and what goes wrong.
pub(crate) async fn run(place: Place, seed: u64, time: Duration) -> Result<(String, Done), String> {
    let mut world = World::start(place).await?;
    let flag = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let caller =
            world.caller(&format!("c{number}"), seed.wrapping_mul(CALLERS + 1).wrapping_add(number + 1)).await?;
        callers.push(tokio::spawn(caller.run(flag.clone())));
    }
    let mut killer = Killer { chance: Xoshiro256PlusPlus::seed_from_u64(seed), done: Done::default() };
    let deadline = Instant::now() + time;
    while Instant::now() < deadline || killer.done.is_to_kill_yet(world.server.place()) {
        let pause = killer.chance.random_range(100..1500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if let Err(error) = killer.strike(&world).await {
            world.trouble(error);
            break;
        }
    }
    stop(&flag, callers).await;
    let (done, accepted) = (killer.done, world.recorder.accepted());
    if time >= LONG && (accepted < time.as_secs() / 4 || done.deaths() == 0) {
        world.trouble(format!("it was no storm: {accepted} messages were accepted, and this was done: {done:?}"));
    }
    let report = world.finish(seed).await?;
    Ok((format!("{report}; {done:?}"), done))
}

/// What was done to whom, how often.
#[derive(Debug, Default)]
pub(crate) struct Done {
    server_killed: u32,
    server_killed_at_an_answer: u32,
    server_killed_at_start: u32,
    server_frozen: u32,
    program_killed: u32,
    program_frozen: u32,
    engine_killed: u32,
    engine_killed_with_the_server: u32,
    engine_frozen: u32,
    container_killed: u32,
}

impl Done {
    /// Servers and programs that were killed.
    fn deaths(&self) -> u32 {
        self.server_killed + self.server_killed_at_an_answer + self.server_killed_at_start + self.program_killed
    }

    /// Engines that were killed while they ran.
    pub(crate) fn engines_killed(&self) -> u32 {
        self.engine_killed + self.engine_killed_with_the_server
    }

    /// Whether a storm on an engine would say nothing yet of one that is killed.
    fn is_to_kill_yet(&self, place: &Place) -> bool {
        place.is_killed() && self.engines_killed() == 0
    }
}

/// The first process of a container.
const INIT: &str = "/sbin/docker-init";

struct Killer {
    chance: Xoshiro256PlusPlus,
    done: Done,
}

impl Killer {
    async fn pause(&mut self, most: u64) {
        let millis = self.chance.random_range(0..most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// One of what can go wrong.
    async fn strike(&mut self, world: &World) -> Result<(), String> {
        let server = &world.server;
        if let Some(status) = server.ended().await {
            return Err(format!("the server ended by itself: {status}"));
        }
        if let Place::Docker(engine) = server.place()
            && self.chance.random_bool(0.4)
        {
            return self.strike_engine(world, engine).await;
        }
        match self.chance.random_range(0..100) {
            0..=19 => {
                world.recorder.kill_at_next_answer(server.pid().await);
                let deadline = Instant::now() + ANSWER_LIMIT;
                while server.ended().await.is_none() && Instant::now() < deadline {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                world.recorder.kill_at_next_answer(None);
                self.done.server_killed_at_an_answer += u32::from(server.ended().await.is_some());
                server.kill().await;
                server.start(None).await?;
            }
            20..=39 => {
                self.done.server_killed += 1;
                server.kill().await;
                self.pause(600).await;
                server.start(None).await?;
            }
            40..=49 => {
                self.done.server_killed_at_start += 1;
                server.kill().await;
                let time = Duration::from_millis(self.chance.random_range(0..800));
                server.start_for(time).await.map_err(|error| error.to_string())?;
                server.start(None).await?;
            }
            50..=64 => {
                self.done.server_frozen += 1;
                server.signal(Signal::STOP).await;
                self.pause(4000).await;
                server.signal(Signal::CONT).await;
            }
            65..=84 => {
                if let Some(program) = self.any_program(world) {
                    self.done.program_killed += 1;
                    machine::signal(&program, server.home(), Signal::KILL);
                }
            }
            85..=92 => {
                if let Some(program) = self.any_program(world) {
                    self.done.program_frozen += 1;
                    machine::signal(&program, server.home(), Signal::STOP);
                    self.pause(3000).await;
                    machine::signal(&program, server.home(), Signal::CONT);
                }
            }
            // A server dies, and with it nobody is there who would see to a program that does not move.
            _ => {
                let program = self.any_program(world);
                if let Some(program) = &program {
                    self.done.program_frozen += 1;
                    machine::signal(program, server.home(), Signal::STOP);
                }
                self.done.server_killed += 1;
                server.kill().await;
                server.start(None).await?;
                if let Some(program) = &program {
                    machine::signal(program, server.home(), Signal::CONT);
                }
            }
        }
        Ok(())
    }

    /// One of what can go wrong with an engine.
    async fn strike_engine(&mut self, world: &World, engine: &Dockerd) -> Result<(), String> {
        let server = &world.server;
        match self.chance.random_range(0..100) {
            0..=39 => {
                self.done.engine_killed += u32::from(engine.kill());
                self.pause(1500).await;
                resume(engine)?;
            }
            40..=59 => {
                self.done.engine_killed_with_the_server += u32::from(engine.kill());
                server.kill().await;
                self.pause(600).await;
                // Either may be there first.
                if self.chance.random_bool(0.5) {
                    server.start(None).await?;
                    resume(engine)?;
                } else {
                    resume(engine)?;
                    server.start(None).await?;
                }
            }
            60..=74 => {
                self.done.engine_frozen += 1;
                engine.signal(Signal::STOP);
                self.pause(4000).await;
                engine.signal(Signal::CONT);
            }
            _ => {
                let inits = machine::named(server.home(), INIT);
                if let Some(init) = self.any(inits) {
                    self.done.container_killed += 1;
                    machine::signal(&init, server.home(), Signal::KILL);
                }
            }
        }
        Ok(())
    }

    fn any_program(&mut self, world: &World) -> Option<machine::Process> {
        self.any(machine::programs(world.server.home()))
    }

    fn any(&mut self, mut processes: Vec<machine::Process>) -> Option<machine::Process> {
        if processes.is_empty() {
            return None;
        }
        let one = self.chance.random_range(0..processes.len());
        Some(processes.swap_remove(one))
    }
}

/// Starts the engine, which takes a while in which others go on. It ends with the thread that has started it, so that is
/// this test's own.
fn resume(engine: &Dockerd) -> Result<(), String> {
    tokio::task::block_in_place(|| engine.resume())
}
