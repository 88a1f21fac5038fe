//! The whole life of agents on the in-memory store and a simulated engine, in paused time.

mod bounds;
mod clock;
mod deaths;
mod disk;
mod ending;
mod failures;
mod hanging;
mod lifecycle;
mod limits;
mod messages;
mod orphans;
mod races;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Operator, OperatorSettings};
use crate::agent::{Agent, AgentSpec, Condition, ConditionKind, State};
use crate::control::tests::twisted::Twisted;
use crate::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage};
use crate::entropy::{Clock, EntropyExt, SystemEntropy, TokioClock};
use crate::error::Error;
use crate::ids::{AgentName, ComputerId, TenantName, UserName};
use crate::message::{Message, MessageState};
use crate::principal::Principal;
use crate::runtime::simulated::{
    Act, Latency, Profile, SimulatedAgent, SimulatedControl, SimulatedOptions, SimulatedRuntime,
};
use crate::runtime::{ComputerSpec, Phase, Runtimes};
use crate::seal::MasterKey;
use crate::store::{MemoryStore, Store};

/// An installation in memory.
struct World {
    clock: TokioClock,
    store: Arc<Twisted>,
    control: ControlPlane,
    operator: Option<Operator>,
    runtime: SimulatedRuntime,
    runtimes: Runtimes,
    engine: SimulatedControl,
    settings: OperatorSettings,
    call: Call,
    tenant: TenantName,
}

/// What a text asks the program to do: `crash`, `hang`, `silent`, `fail WHY`, `work SECONDS`, or an answer.
fn act(message: &Message) -> Act {
    let text = message.text();
    match text.split_once(' ').unwrap_or((&text, "")) {
        ("crash", _) => Act::Crash,
        ("crash-once", _) if message.attempt == 1 => Act::Crash,
        ("hang", _) => Act::Hang,
        ("silent", _) => Act::FallSilent,
        ("fail", why) => Act::Fail(why.into()),
        ("fill", megabytes) => Act::Fill(megabytes.parse::<u64>().expect("a number") << 20, "filled".into()),
        ("work", seconds) => Act::Work(Duration::from_secs(seconds.parse().expect("seconds")), "worked".into()),
        _ => Act::Answer(text),
    }
}

impl World {
    async fn new() -> Self {
        Self::with(SimulatedAgent::new(act), Profile::Container).await
    }

    async fn with(program: SimulatedAgent, profile: Profile) -> Self {
        Self::with_settings(program, profile, OperatorSettings::default()).await
    }

    async fn with_settings(program: SimulatedAgent, profile: Profile, settings: OperatorSettings) -> Self {
        let latency = Latency::default().with_start(Duration::from_millis(20)).with_stop(Duration::from_millis(5));
        let options = SimulatedOptions::new(profile).with_latency(latency).with_program(program.clone());
        Self::on(SimulatedRuntime::new(options), program, settings).await
    }

    /// An installation on this engine, with an empty store.
    async fn on(runtime: SimulatedRuntime, program: SimulatedAgent, settings: OperatorSettings) -> Self {
        let hands = TokioClock::starting_at(start());
        let clock: Arc<dyn Clock> = Arc::new(hands.clone());
        let engine = runtime.control();
        let runtimes = Runtimes::new().with(Arc::new(runtime.clone()), "unix:/nowhere", None);
        let memory = Arc::new(MemoryStore::new(clock.clone()));
        let store = Arc::new(Twisted::new(Arc::clone(&memory)));
        let master_key = MasterKey::generate(&SystemEntropy);
        let parts = Parts::new(memory, runtimes.clone(), master_key);
        let parts = Parts { clock, store: Arc::clone(&store) as Arc<dyn Store>, ..parts };
        let control = ControlPlane::start(parts).await.expect("a control plane");
        program.connect(&control);
        let tenant = TenantName::default();
        let name = UserName::new("ada").expect("a name");
        let call = Call::by(Principal::User { name, tenant: tenant.clone(), admin: false });
        let mut world =
            Self { clock: hands, store, control, operator: None, runtime, runtimes, engine, settings, call, tenant };
        world.start_operator().await;
        world
    }

    async fn start_operator(&mut self) {
        self.operator = Some(self.another_operator().await);
    }

    async fn another_operator(&self) -> Operator {
        let operator = Operator::start(&self.control, self.runtimes.clone(), self.settings.clone()).await;
        operator.expect("an operator")
    }

    /// The operator is gone from one moment to the next, as with `kill -9`.
    fn kill_operator(&mut self) {
        self.operator = None;
    }

    async fn create(&self, name: &str, spec: AgentSpec) -> Agent {
        self.try_create(name, spec).await.expect("created")
    }

    async fn try_create(&self, name: &str, spec: AgentSpec) -> Result<Agent, Error> {
        let request = CreateAgent { name: agent_name(name), spec };
        self.control.create_agent(&self.call, &self.tenant, request).await
    }

    /// A new agent that is idle.
    async fn idle(&self, name: &str, spec: AgentSpec) -> Agent {
        let agent = self.create(name, spec).await;
        self.until(&agent, "idle", |agent| agent.status.state() == State::Idle).await
    }

    async fn agent(&self, agent: &Agent) -> Agent {
        let found = self.control.system().store().agent_by_id(agent.id).await.expect("a store");
        found.value.expect("an agent")
    }

    /// Waits, for up to an hour of paused time, until the agent is so.
    async fn until(&self, agent: &Agent, what: &str, done: impl Fn(&Agent) -> bool + Send + Sync) -> Agent {
        let limit = Duration::from_secs(3600);
        let probe = || async {
            let found = self.agent(agent).await;
            Ok(done(&found).then_some(found))
        };
        match self.control.feed().until(agent.id, limit, probe).await.expect("a store") {
            Some(agent) => agent,
            None => panic!("not {what} within an hour: {:#?}", self.agent(agent).await),
        }
    }

    async fn volume(&self, id: ComputerId) -> crate::ids::VolumeId {
        self.control.system().store().computer(id).await.expect("a store").expect("a computer").spec.volume
    }

    async fn send(&self, agent: &Agent, text: &str) -> Message {
        let request = SendMessage::text(text);
        let accepted = self.control.send(&self.call, &self.tenant, &agent.name, request).await;
        accepted.expect("accepted").message
    }

    async fn ended(&self, agent: &Agent, message: &Message) -> Message {
        let (call, limit) = (&self.call, Duration::from_secs(3600));
        let ended = self.control.wait_for_message(call, &self.tenant, &agent.name, message.id, limit).await;
        let ended = ended.expect("a message");
        assert!(ended.state.is_ended(), "{ended:#?} {:#?}", self.agent(agent).await);
        ended
    }

    async fn done(&self, agent: &Agent, text: &str) {
        let message = self.send(agent, text).await;
        let ended = self.ended(agent, &message).await;
        assert_eq!(ended.state, MessageState::Done, "{ended:#?}");
    }

    /// Waits until the engine is so. Engines tell the operator, not the log, so this asks again and again.
    async fn engine_until(&self, what: &str, done: impl Fn(&SimulatedControl) -> bool) {
        for _ in 0..100_000 {
            if done(&self.engine) {
                return;
            }
            tokio::time::advance(Duration::from_millis(50)).await;
            tokio::task::yield_now().await;
        }
        panic!("the engine is not {what}: {:#?}", self.engine.computers());
    }

    fn running(&self) -> usize {
        self.engine.computers().iter().filter(|seen| matches!(seen.phase, Phase::Running(_))).count()
    }
}

/// Long enough after the epoch that a clock can be set back.
fn start() -> Timestamp {
    Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(24)
}

fn agent_name(name: &str) -> AgentName {
    AgentName::new(name).expect("a name")
}

/// What an engine is asked for, for a computer that no store knows.
fn unknown_computer() -> ComputerSpec {
    ComputerSpec {
        id: SystemEntropy.computer_id(start()),
        volume: SystemEntropy.volume_id(start()),
        image: None,
        resources: crate::agent::Resources::default(),
        network: crate::agent::Network::default(),
        root: false,
    }
}

fn computer(agent: &Agent) -> ComputerId {
    agent.status.computer.expect("a computer")
}

fn ready(agent: &Agent) -> &Condition {
    agent.status.conditions.get(ConditionKind::Ready).expect("a condition")
}

fn idle_after(seconds: u32) -> AgentSpec {
    AgentSpec { idle_timeout: seconds, ..AgentSpec::default() }
}
