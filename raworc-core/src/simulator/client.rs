//! Clients: people who make agents, talk to them, put them to sleep and take them away, and look at what is theirs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::caller::Caller;
use super::chance::Chance;
use super::check::Hold;
use super::journal::Sent;
use super::world::World;
use crate::agent::{Agent, AgentSpec, Resources};
use crate::control::{ActivityKind, Call, CreateAgent, EditAgent, History, ListAgents, SendMessage, SleepMode};
use crate::ids::{AgentName, TenantName, UserName};
use crate::message::Message;
use crate::principal::Principal;
use crate::quantity::Bytes;
use crate::store::Store;

/// The least that a volume may hold: some messages fill it.
const DISK: Bytes = Bytes::new(16 << 20);

/// What of an answer must be the same each time.
type Answer = (crate::ids::AgentId, u64, crate::ids::Revision);

fn answer(agent: &Agent) -> Answer {
    (agent.id, agent.generation, agent.revision)
}

#[derive(Clone)]
pub(super) struct Client {
    pub(super) caller: Caller,
    pub(super) tenant: TenantName,
    pub(super) user: UserName,
    /// What it does about disks, apart from what else it does.
    disks: Arc<Chance>,
}

impl Client {
    pub(super) fn new(world: &Arc<World>, number: u64) -> Option<Self> {
        let tenant = TenantName::new(["one", "two"][usize::from(number % 2 == 1)]).ok()?;
        let user = UserName::new(format!("user-{number}")).ok()?;
        let principal = Principal::User { name: user.clone(), tenant: tenant.clone(), admin: false };
        let chance = Arc::new(Chance::new(world.seed, user.as_str()));
        let caller = Caller { world: Arc::clone(world), number, principal, chance };
        let disks = Arc::new(Chance::new(world.seed, &format!("disks of {user}")));
        Some(Self { caller, tenant, user, disks })
    }

    fn chance(&self) -> &Chance {
        &self.caller.chance
    }

    /// Mostly a name that this client alone uses; sometimes one that both of the tenant do, or the other's.
    fn name(&self) -> Option<AgentName> {
        let name = match self.chance().below(10) {
            0 => self.chance().below(3),
            1 | 2 => 2,
            _ => self.caller.number / 2,
        };
        AgentName::new(format!("a{name}")).ok()
    }

    fn key(&self, number: u64) -> Option<String> {
        (!self.chance().once_in(3)).then(|| format!("key-{number}"))
    }

    /// Does one thing after another until faults are over.
    pub(super) async fn act(self) {
        for number in 0.. {
            tokio::time::sleep(self.chance().between(20, 5_000)).await;
            if self.caller.world.closing.is_cancelled() {
                return;
            }
            let Some(name) = self.name() else { return };
            match self.chance().below(20) {
                0..=2 => self.create(&name, self.key(number)).await,
                3..=8 => self.send(&name, number).await,
                9 => self.wish(&name, "sleep", self.key(number)).await,
                10 => self.wish(&name, "sleep now", self.key(number)).await,
                11 => self.wish(&name, "wake", self.key(number)).await,
                12 => self.wish(&name, "cancel", self.key(number)).await,
                13 if self.chance().once_in(2) => self.wish(&name, "delete", self.key(number)).await,
                13 | 14 => self.edit(&name, number).await,
                15 => self.keep_awake(&name, number).await,
                16 => self.cancel_message(&name, number).await,
                17 => self.hold(&name).await,
                18 => self.wait(&name).await,
                _ => self.look(&name).await,
            }
        }
    }

    fn spec(&self) -> AgentSpec {
        let seconds = |from: &[u32]| self.chance().pick(from).copied().unwrap_or(30);
        let setup = match self.chance().below(8) {
            0 => Some("fail".to_owned()),
            1 => Some("hang".to_owned()),
            2 => Some("succeed".to_owned()),
            _ => None,
        };
        AgentSpec {
            idle_timeout: seconds(&[0, 5, 12, 30]),
            busy_timeout: seconds(&[8, 15, 40]),
            image: self.chance().once_in(10).then(|| "ghost".to_owned()),
            setup,
            resources: Resources { disk: self.disks.once_in(3).then_some(DISK), ..Resources::default() },
            ..AgentSpec::default()
        }
    }

    async fn create(&self, name: &AgentName, key: Option<String>) {
        let request = CreateAgent { name: name.clone(), spec: self.spec() };
        let made = self.caller.change(format!("create {name}"), key, |control, call| {
            let request = request.clone();
            async move { control.create_agent(&call, &self.tenant, request).await.map(|agent| answer(&agent)) }
        });
        let _told = made.await;
    }

    async fn send(&self, name: &AgentName, number: u64) {
        let acts =
            ["answer", "answer", "work 2", "work 9", "work 20", "fail", "crash-once", "crash", "silent-once", "hang"];
        let act = self.chance().pick(&acts).copied().unwrap_or("answer");
        let filling = self.disks.pick(&["fill 17", "fill 17", "fill 1"]).copied().unwrap_or(act);
        let act = if self.disks.once_in(6) { filling } else { act };
        let text = format!("{}-{number} {act}", self.user);
        let _told = self.say(name, text, self.key(number)).await;
    }

    /// Says something to an agent, and notes the answer.
    pub(super) async fn say(&self, name: &AgentName, text: String, key: Option<String>) -> Option<Message> {
        let request = SendMessage::text(text.clone());
        let sent = self.caller.change(format!("send {name} {text:?}"), key, |control, call| {
            let request = request.clone();
            async move {
                let accepted = control.send(&call, &self.tenant, name, request).await?;
                Ok((accepted.agent.id, accepted.message))
            }
        });
        let message = sent.await.ok();
        let accepted = message.as_ref().map(|(agent, message)| (*agent, message.id));
        let sent = Sent { tenant: self.tenant.clone(), name: name.clone(), text, accepted };
        self.caller.world.journal().sent.push(sent);
        message.map(|(_, message)| message)
    }

    /// Asks for something of an agent as a whole.
    pub(super) async fn wish(&self, name: &AgentName, verb: &'static str, key: Option<String>) {
        let retry = self.chance().once_in(2);
        let done = self.caller.change(format!("{verb} {name}"), key, |control, call| async move {
            let tenant = &self.tenant;
            let agent = match verb {
                "sleep" => control.sleep(&call, tenant, name, SleepMode::AfterMessage).await,
                "sleep now" => control.sleep(&call, tenant, name, SleepMode::Now).await,
                "wake" => control.wake(&call, tenant, name, retry).await,
                "cancel" => control.cancel(&call, tenant, name).await,
                "keep awake no longer" => control.keep_awake(&call, tenant, name, None).await,
                _ => control.delete(&call, tenant, name).await,
            };
            agent.map(|agent| answer(&agent))
        });
        let _told = done.await;
    }

    async fn edit(&self, name: &AgentName, number: u64) {
        let changes = [
            r#"{"idle_timeout": 5}"#,
            r#"{"idle_timeout": 0}"#,
            r#"{"busy_timeout": 15}"#,
            r#"{"image": "other"}"#,
            r#"{"image": null}"#,
            r#"{"root": true}"#,
            r#"{"root": false}"#,
            r#"{"setup": null}"#,
            r#"{"setup": "succeed"}"#,
        ];
        let disks =
            [r#"{"resources": {"disk": "16Mi"}}"#, r#"{"resources": {"disk": "32Mi"}}"#, r#"{"resources": null}"#];
        let change = self.chance().pick(&changes).copied().unwrap_or("{}");
        let change = if self.disks.once_in(2) { self.disks.pick(&disks).copied().unwrap_or(change) } else { change };
        self.change_spec(name, change, self.key(number)).await;
    }

    /// Changes an agent's spec by a merge patch.
    pub(super) async fn change_spec(&self, name: &AgentName, change: &str, key: Option<String>) {
        let Ok(spec) = serde_json::from_str(change) else { return };
        let request = EditAgent { spec };
        let done =
            self.caller.change(format!("edit {name} {change}"), key, |control, call| {
                let request = request.clone();
                async move {
                    control.edit_agent(&call, &self.tenant, name, &request, None).await.map(|agent| answer(&agent))
                }
            });
        let _told = done.await;
    }

    async fn keep_awake(&self, name: &AgentName, number: u64) {
        let time = (!self.chance().once_in(4)).then(|| Duration::from_secs(1 + self.chance().below(60)));
        let done = self.caller.change(format!("keep {name} awake"), self.key(number), |control, call| async move {
            control.keep_awake(&call, &self.tenant, name, time).await.map(|agent| answer(&agent))
        });
        let _told = done.await;
    }

    async fn cancel_message(&self, name: &AgentName, number: u64) {
        let history = History { newest_first: true, ..History::default() };
        let read = |control: crate::control::ControlPlane, call: Call| async move {
            control.history(&call, &self.tenant, name, history).await
        };
        let Ok(page) = self.caller.read(read).await else { return };
        let open: Vec<_> = page.items.iter().filter(|message| !message.state.is_ended()).collect();
        let Some(message) = self.chance().pick(&open) else { return };
        let id = message.id;
        let done =
            self.caller.change(format!("cancel a message of {name}"), self.key(number), |control, call| async move {
                control.cancel_message(&call, &self.tenant, name, id).await.map(|message| message.id)
            });
        let _told = done.await;
    }

    /// Runs a command in the agent's computer for a while, as far as a server can tell.
    async fn hold(&self, name: &AgentName) {
        let world = &self.caller.world;
        let Some(server) = self.chance().pick(&world.servers()).cloned() else { return };
        let call = Call::by(self.caller.principal.clone());
        let held = async {
            let agent = server.control.get_agent(&call, &self.tenant, name).await.ok()?;
            let guard = server.control.system().hold(&agent, ActivityKind::Command).await.ok()?;
            Some((agent, guard))
        };
        let held = tokio::select! {
            biased;
            () = server.dead.cancelled() => None,
            held = held => held,
        };
        let Some((agent, guard)) = held else { return };
        let number = world.checker().holds.keys().next_back().map_or(0, |last| last + 1);
        let hold = Hold {
            agent: agent.id,
            incarnation: agent.status.incarnation,
            process: server.process,
            dead: server.dead.clone(),
            since: Instant::now(),
        };
        world.say(format_args!("client-{} holds {name} awake", self.caller.number));
        world.checker().holds.insert(number, hold);
        if self.disks.once_in(2) {
            self.free_disk(&agent);
        }
        tokio::select! {
            biased;
            () = server.dead.cancelled() => {}
            () = world.closing.cancelled() => {}
            () = tokio::time::sleep(self.chance().between(1_000, 70_000)) => {}
        }
        world.checker().holds.remove(&number);
        drop(guard);
    }

    /// Takes away what fills the agent's volume, as a command in its computer does.
    fn free_disk(&self, agent: &Agent) {
        let world = &self.caller.world;
        let computer = agent.status.computer.and_then(|id| World::at_once(world.store.computer(id)).ok()?);
        if let Some(computer) = computer {
            world.engine.write_volume_file(computer.spec.volume, "heap", "");
        }
    }

    async fn wait(&self, name: &AgentName) {
        let read = |control: crate::control::ControlPlane, call: Call| async move {
            let newest = History { newest_first: true, limit: Some(1), ..History::default() };
            let page = control.history(&call, &self.tenant, name, newest).await?;
            let Some(message) = page.items.first() else { return Ok(()) };
            control.wait_for_message(&call, &self.tenant, name, message.id, Duration::from_secs(15)).await.map(drop)
        };
        let _told = self.caller.read(read).await;
    }

    /// Looks at all that it may see, which must be its own.
    pub(super) async fn look(&self, name: &AgentName) {
        let world = &self.caller.world;
        let list = |control: crate::control::ControlPlane, call: Call| async move {
            control.list_agents(&call, &self.tenant, ListAgents::default()).await
        };
        if let Ok(page) = self.caller.read(list).await {
            for agent in page.items {
                if agent.tenant != self.tenant || agent.owner != self.user {
                    world.fail(7, format!("{} is shown an agent of {} in {}", self.user, agent.owner, agent.tenant));
                }
            }
        }
        let others = TenantName::new(if self.tenant.as_str() == "one" { "two" } else { "one" });
        let Ok(others) = others else { return };
        let peek = |control: crate::control::ControlPlane, call: Call| async move {
            control.history(&call, &others, name, History::default()).await
        };
        if let Ok(page) = self.caller.read(peek).await {
            world.fail(7, format!("{} is shown {} messages of another tenant", self.user, page.items.len()));
        }
    }
}
