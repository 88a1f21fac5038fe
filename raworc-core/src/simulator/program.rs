//! The way of programs to servers, and what stands in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::chance::Chance;
use super::world::{World, locked};
use crate::ids::ComputerId;
use crate::message::Message;
use crate::program::SetupTask;
use crate::runtime::simulated::{Act, Fate, Line, SetupAct, Uplink};

/// How long a program waits for an answer; a wait for a message takes 20 s.
const LIMIT: Duration = Duration::from_secs(30);

/// What stands in the way of programs.
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    paused: BTreeMap<ComputerId, Instant>,
    cut: BTreeMap<ComputerId, Instant>,
    armed: Vec<(u32, Fate)>,
}

impl Programs {
    pub(super) fn pause(&self, computer: ComputerId, time: Duration) {
        locked(&self.0).paused.insert(computer, Instant::now() + time);
    }

    pub(super) fn cut_off(&self, computer: ComputerId, time: Duration) {
        locked(&self.0).cut.insert(computer, Instant::now() + time);
    }

    pub(super) fn arm(&self, call: u32, fate: Fate) {
        locked(&self.0).armed.push((call, fate));
    }

    pub(super) fn heal(&self) {
        *locked(&self.0) = State::default();
    }

    fn is_cut(&self, computer: ComputerId) -> bool {
        locked(&self.0).cut.get(&computer).is_some_and(|until| *until > Instant::now())
    }

    fn paused_until(&self, computer: ComputerId) -> Option<Instant> {
        locked(&self.0).paused.get(&computer).copied().filter(|until| *until > Instant::now())
    }

    async fn still(&self, computer: ComputerId) {
        while let Some(until) = self.paused_until(computer) {
            // Seen again from time to time: faults may be over before the pause would be.
            tokio::time::sleep_until(until.min(Instant::now() + Duration::from_secs(5))).await;
        }
    }

    fn fate(&self) -> Fate {
        let mut state = locked(&self.0);
        state.armed.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        match state.armed.iter().position(|(left, _)| *left == 0) {
            Some(place) => state.armed.remove(place).1,
            None => Fate::Answered,
        }
    }
}

/// The way from any computer to a server that answers.
pub(super) struct Way {
    world: Weak<World>,
    chance: Chance,
}

impl Way {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::downgrade(world), chance: Chance::new(world.seed, "ways of programs") }
    }
}

#[async_trait]
impl Uplink for Way {
    async fn dial(&self, from: ComputerId) -> Option<Line> {
        let world = self.world.upgrade()?;
        world.programs.still(from).await;
        tokio::time::sleep(self.chance.between(0, 3)).await;
        if world.programs.is_cut(from) {
            return None;
        }
        let server = self.chance.pick(&world.servers()).cloned()?;
        let fate = world.programs.fate();
        let word = match fate {
            Fate::Answered => None,
            Fate::RequestLost => Some("program's request lost"),
            Fate::AnswerLost => Some("program's answer lost"),
            Fate::Doubled => Some("program's call doubled"),
        };
        if let Some(word) = word {
            world.counts().fault(word, 1);
        }
        Some(Line { control: server.control, broken: server.dead, fate, limit: Some(LIMIT) })
    }

    async fn hear(&self, from: ComputerId) {
        if let Some(world) = self.world.upgrade() {
            world.programs.still(from).await;
        }
    }
}

/// What a text asks the program to do; the word after its own name says.
pub(super) fn act(message: &Message) -> Act {
    let text = message.text();
    let mut words = text.split(' ').skip(1);
    let number =
        |words: &mut dyn Iterator<Item = &str>| -> u64 { words.next().and_then(|word| word.parse().ok()).unwrap_or(1) };
    match words.next().unwrap_or_default() {
        "work" => Act::Work(Duration::from_secs(number(&mut words)), format!("re: {text}")),
        "fail" => Act::Fail("it was asked to".into()),
        "crash" => Act::Crash,
        "crash-once" if message.attempt == 1 => Act::Crash,
        "silent-once" if message.attempt == 1 => Act::FallSilent,
        "hang" => Act::Hang,
        "fill" => Act::Fill(number(&mut words) << 20, format!("re: {text}")),
        _ => Act::Answer(format!("re: {text}")),
    }
}

/// What a setup script does.
pub(super) fn prepare(task: &SetupTask) -> SetupAct {
    match task.script.as_str() {
        "fail" => SetupAct::Fail("no such package".into()),
        "hang" => SetupAct::Hang,
        _ => SetupAct::Succeed,
    }
}
