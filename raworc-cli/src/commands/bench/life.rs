//! Create, sleep and wake: the control plane's own share, which is what a call takes beyond what the engine takes. That
//! is measured in the same round.

use std::time::Duration;

use raworc_core::agent::State;
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client};
use tokio::time::Instant;

use super::accept::make;
use super::figures::{Bound, Figure, Times};
use super::floor::Base;
use super::server::{START, STOP};

const AGENTS: usize = 100;

/// The shares of one round.
struct Round {
    floor_p99: f64,
    create: Times,
    sleep: Times,
    wake: Times,
}

#[derive(Default)]
pub(super) struct Life {
    rounds: Vec<Round>,
}

impl Life {
    pub(super) async fn round(&mut self, round: u32, client: &Client, base: &Base) -> anyhow::Result<()> {
        let (mut create, mut sleep, mut wake) = (Vec::new(), Vec::new(), Vec::new());
        let (start, stop) = (slept(START).await, slept(STOP).await);
        for n in 0..AGENTS {
            let name = AgentName::new(format!("life-{round}-{n}"))?;
            let began = Instant::now();
            make(client, &name).await?;
            create.push(share(began, start));
            let began = Instant::now();
            let agent = client.sleep(&name, false, waiting()).await?;
            sleep.push(share(began, stop));
            anyhow::ensure!(agent.status.run.is_none(), "the computer of {name} has not stopped");
            let began = Instant::now();
            let agent = client.wake(&name, false, waiting()).await?;
            wake.push(share(began, start));
            anyhow::ensure!(agent.status.state() == State::Idle, "agent {name} is {}", agent.status.state());
            client.delete_agent(&name, waiting()).await?;
        }
        self.rounds.push(Round {
            floor_p99: base.single.ms(0.99),
            create: Times::new(create),
            sleep: Times::new(sleep),
            wake: Times::new(wake),
        });
        Ok(())
    }

    pub(super) fn figures(self) -> Vec<Figure> {
        let bound = Bound::AtMost { floors: 3.0, plus: 5.0 };
        let figure = |what, pick: fn(&Round) -> &Times| {
            let rounds: Vec<_> = self.rounds.iter().map(|round| (pick(round).ms(0.99), round.floor_p99)).collect();
            Figure::beside(what, "ms", &rounds, bound)
        };
        let middle = |what, pick: fn(&Round) -> &Times| {
            Figure::alone(what, "ms", self.rounds.iter().map(|round| pick(round).ms(0.5)).collect(), Bound::None)
        };
        vec![
            figure("create to idle, own share: p99", |round| &round.create),
            middle("create to idle, own share: p50", |round| &round.create),
            figure("sleep to stopped, own share: p99", |round| &round.sleep),
            middle("sleep to stopped, own share: p50", |round| &round.sleep),
            figure("wake to idle, own share: p99", |round| &round.wake),
            middle("wake to idle, own share: p50", |round| &round.wake),
        ]
    }
}

/// What the simulated engine really takes for this: its timer counts in milliseconds and wakes late. The middle of some.
async fn slept(time: Duration) -> Duration {
    let mut times = Vec::new();
    for _ in 0..21 {
        let began = Instant::now();
        tokio::time::sleep(time).await;
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

fn share(began: Instant, engine: Duration) -> Duration {
    began.elapsed().saturating_sub(engine)
}

fn waiting() -> Ask {
    Ask::new().wait_secs(60)
}
