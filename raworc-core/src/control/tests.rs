//! The use cases against a store that a test can twist, with a simulated engine, in paused time.

mod activity;
mod commits;
mod disk;
mod program;
mod races;
mod restart;
mod retention;
mod rouse;
mod runtimes;
pub(crate) mod twisted;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::twisted::Twisted;
use super::{Call, ControlPlane, CreateAgent, EditAgent, Parts, SendMessage};
use crate::agent::{Agent, AgentSpec, State};
use crate::entropy::{Clock, SystemEntropy, TokioClock};
use crate::ids::{AgentName, TenantName, UserName};
use crate::message::Message;
use crate::operator::{Operator, OperatorSettings};
use crate::principal::Principal;
use crate::runtime::Runtimes;
use crate::runtime::simulated::{
    Act, Latency, Profile, SimulatedAgent, SimulatedControl, SimulatedOptions, SimulatedProgram, SimulatedRuntime,
};
use crate::seal::MasterKey;
use crate::store::{MemoryStore, Store};

/// An installation in memory.
struct World {
    control: ControlPlane,
    store: Arc<Twisted>,
    parts: Parts,
    engine: SimulatedControl,
    call: Call,
    tenant: TenantName,
    operator: Operator,
}

impl World {
    /// With a program that answers each message with its own text, or works on it for so many seconds.
    async fn new() -> Self {
        Self::with(SimulatedAgent::new(|message| {
            let text = message.text();
            match text.strip_prefix("work ").and_then(|seconds| seconds.parse().ok()) {
                Some(seconds) => Act::Work(Duration::from_secs(seconds), "worked".into()),
                None => Act::Answer(text),
            }
        }))
        .await
    }

    async fn with(program: SimulatedAgent) -> Self {
        let world = Self::running(program.clone()).await;
        program.connect(&world.control);
        world
    }

    async fn running(program: impl SimulatedProgram + 'static) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(Timestamp::UNIX_EPOCH));
        let latency = Latency::default().with_start(Duration::from_millis(20)).with_stop(Duration::from_millis(5));
        let options = SimulatedOptions::new(Profile::Container).with_latency(latency).with_program(program);
        let runtime = SimulatedRuntime::new(options);
        let engine = runtime.control();
        let runtimes = Runtimes::new().with(Arc::new(runtime), "unix:/nowhere", None);
        let memory = Arc::new(MemoryStore::new(clock.clone()));
        let store = Arc::new(Twisted::new(memory.clone()));
        let parts = Parts::new(memory.clone(), runtimes.clone(), MasterKey::generate(&SystemEntropy));
        let parts = Parts { clock, store: store.clone(), blobs: memory, ..parts };
        let control = ControlPlane::start(parts.clone()).await.expect("a control plane");
        let operator = Operator::start(&control, runtimes, OperatorSettings::default()).await.expect("an operator");
        let tenant = TenantName::default();
        let name = UserName::new("ada").expect("a name");
        let call = Call::by(Principal::User { name, tenant: tenant.clone(), admin: false });
        Self { control, store, parts, engine, call, tenant, operator }
    }

    async fn create(&self, name: &str, spec: AgentSpec) -> Agent {
        let request = CreateAgent { name: AgentName::new(name).expect("a name"), spec };
        self.control.create_agent(&self.call, &self.tenant, request).await.expect("created")
    }

    async fn idle(&self, name: &str, spec: AgentSpec) -> Agent {
        let agent = self.create(name, spec).await;
        self.until(&agent, "idle", |agent| agent.status.state() == State::Idle).await
    }

    async fn edit(&self, agent: &Agent, change: &str) -> Agent {
        let spec = serde_json::from_str(change).expect("a change");
        let edited = self.control.edit_agent(&self.call, &self.tenant, &agent.name, &EditAgent { spec }, None).await;
        edited.expect("edited")
    }

    async fn agent(&self, agent: &Agent) -> Agent {
        self.store.agent_by_id(agent.id).await.expect("a store").value.expect("an agent")
    }

    /// Waits, for up to an hour of paused time, until the agent is so.
    async fn until(&self, agent: &Agent, what: &str, done: impl Fn(&Agent) -> bool + Send + Sync) -> Agent {
        let probe = || async {
            let found = self.agent(agent).await;
            Ok(done(&found).then_some(found))
        };
        match self.control.inner.feed.until(agent.id, Duration::from_secs(3600), probe).await.expect("a store") {
            Some(agent) => agent,
            None => panic!("not {what} within an hour: {:#?}", self.agent(agent).await),
        }
    }

    async fn send(&self, agent: &Agent, text: &str) -> Message {
        let accepted = self.control.send(&self.call, &self.tenant, &agent.name, SendMessage::text(text)).await;
        accepted.expect("accepted").message
    }

    async fn ended(&self, agent: &Agent, message: &Message) -> Message {
        let limit = Duration::from_secs(3600);
        let ended = self
            .control
            .wait_for_message(&self.call, &self.tenant, &agent.name, message.id, limit)
            .await
            .expect("there");
        assert!(ended.state.is_ended(), "{ended:#?} {:#?}", self.agent(agent).await);
        ended
    }
}
