//! Accepting messages over HTTP, for agents that have one in hand: nothing but accepting is done.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use raworc_core::agent::{AgentSpec, State};
use raworc_core::control::{CreateAgent, SendMessage};
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client};

use super::figures::{Bound, Figure};
use super::floor::Base;
use super::load::{self, Outcome, each};
use super::process::Process;
use super::server::HOLD;
use crate::args::BenchArgs;

const AGENTS: usize = 100;

/// The figures of one round.
struct Round {
    floor_p99: f64,
    floor_rate: f64,
    p50: f64,
    p99: f64,
    lag_p99: f64,
    cpu: f64,
    rate: f64,
    sustained_p99: f64,
    sustained_cpu: f64,
}

pub(super) struct Accept {
    agents: Vec<AgentName>,
    rounds: Vec<Round>,
}

impl Accept {
    pub(super) async fn prepare(client: &Client) -> anyhow::Result<Self> {
        let mut agents = Vec::with_capacity(AGENTS);
        for n in 0..AGENTS {
            let name = AgentName::new(format!("accept-{n}"))?;
            make(client, &name).await?;
            client.send(&name, &SendMessage::text(HOLD), Ask::new()).await?;
            agents.push(name);
        }
        for name in &agents {
            until_busy(client, name).await?;
        }
        Ok(Self { agents, rounds: Vec::new() })
    }

    pub(super) async fn round(
        &mut self,
        args: &BenchArgs,
        server: &Process,
        client: &Client,
        base: &Base,
    ) -> anyhow::Result<()> {
        let clients = std::slice::from_ref(client);
        let before = server.cpu()?;
        let offered = self.offered(args, clients).await?;
        let between = server.cpu()?;
        let sustained = self.sustained(args, clients).await?;
        let after = server.cpu()?;
        self.rounds.push(Round {
            floor_p99: base.single.ms(0.99),
            floor_rate: base.batched_rate,
            p50: offered.times.ms(0.5),
            p99: offered.times.ms(0.99),
            lag_p99: offered.lag.ms(0.99),
            cpu: each(between.saturating_sub(before), &offered),
            rate: sustained.rate(),
            sustained_p99: sustained.times.ms(0.99),
            sustained_cpu: each(after.saturating_sub(between), &sustained),
        });
        Ok(())
    }

    /// So many messages a second, to these servers in turn.
    pub(super) async fn offered(&self, args: &BenchArgs, clients: &[Client]) -> anyhow::Result<Outcome> {
        load::offered(args.rate, Duration::from_secs(args.seconds), self.call(clients)).await
    }

    /// As many as so many callers get rid of, at these servers in turn.
    pub(super) async fn sustained(&self, args: &BenchArgs, clients: &[Client]) -> anyhow::Result<Outcome> {
        load::sustained(args.callers, Duration::from_secs(args.seconds), self.call(clients)).await
    }

    fn call(&self, clients: &[Client]) -> impl Fn(usize) -> BoxFuture<'static, anyhow::Result<()>> + use<> {
        let (clients, agents) = (clients.to_vec(), self.agents.clone());
        move |n| {
            let client = clients[n % clients.len()].clone();
            let name = agents[n / clients.len() % agents.len()].clone();
            async move {
                client.send(&name, &SendMessage::text(super::TEXT), Ask::new()).await?;
                Ok(())
            }
            .boxed()
        }
    }

    /// Those who are written to, in turn.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn agents(&self) -> &[AgentName] {
        &self.agents
    }

    pub(super) fn figures(self) -> Vec<Figure> {
        let beside = |pick: fn(&Round) -> (f64, f64)| self.rounds.iter().map(pick).collect::<Vec<_>>();
        let alone = |pick: fn(&Round) -> f64| self.rounds.iter().map(pick).collect::<Vec<_>>();
        vec![
            Figure::beside(
                "accept, offered: p99",
                "ms",
                &beside(|round| (round.p99, round.floor_p99)),
                Bound::AtMost { floors: 3.0, plus: 2.0 },
            ),
            Figure::alone("accept, offered: p50", "ms", alone(|round| round.p50), Bound::None),
            Figure::alone("accept, offered: lag of the load, p99", "ms", alone(|round| round.lag_p99), Bound::None),
            Figure::alone("accept, offered: processor time", "us each", alone(|round| round.cpu), Bound::None),
            Figure::beside(
                "accept, sustained",
                "1/s",
                &beside(|round| (round.rate, round.floor_rate)),
                Bound::AtLeast { floors: 0.5 },
            ),
            Figure::alone("accept, sustained", "1/s", alone(|round| round.rate), Bound::NotBelow(1000.0)),
            Figure::alone("accept, sustained: p99", "ms", alone(|round| round.sustained_p99), Bound::None),
            Figure::alone(
                "accept, sustained: processor time",
                "us each",
                alone(|round| round.sustained_cpu),
                Bound::None,
            ),
        ]
    }
}

/// Makes an agent, and waits until it is idle.
pub(super) async fn make(client: &Client, name: &AgentName) -> anyhow::Result<()> {
    let new = CreateAgent { name: name.clone(), spec: AgentSpec::default() };
    let agent = client.create_agent(&new, Ask::new().wait_secs(60)).await?;
    anyhow::ensure!(agent.status.state() == State::Idle, "agent {name} is {}, not idle", agent.status.state());
    Ok(())
}

async fn until_busy(client: &Client, name: &AgentName) -> anyhow::Result<()> {
    for _ in 0..1000 {
        if client.agent(name).await?.status.state() == State::Busy {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("agent {name} did not take up its message")
}
