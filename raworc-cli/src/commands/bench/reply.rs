//! A message to an idle agent whose program answers at once, until its end is seen on the stream of events.

use anyhow::Context as _;
use futures::StreamExt;
use raworc_core::control::SendMessage;
use raworc_core::event::EventKind;
use raworc_core::ids::{AgentName, MessageId};
use raworc_http::client::{Ask, Client, EventStream, Told};
use tokio::time::Instant;

use super::accept::make;
use super::figures::{Bound, Figure, Times};
use super::floor::Base;
use super::process::Process;

const MESSAGES: usize = 300;

struct Round {
    floor_p50: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

pub(super) struct Reply {
    agent: AgentName,
    events: EventStream,
    rounds: Vec<Round>,
}

impl Reply {
    pub(super) async fn prepare(client: &Client) -> anyhow::Result<Self> {
        let agent = AgentName::new("reply")?;
        make(client, &agent).await?;
        let events = client.follow(Some(&agent), None).await?;
        Ok(Self { agent, events, rounds: Vec::new() })
    }

    pub(super) async fn round(&mut self, server: &Process, client: &Client, base: &Base) -> anyhow::Result<()> {
        let before = server.cpu()?;
        let mut times = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES {
            let began = Instant::now();
            let message = client.send(&self.agent, &SendMessage::text(super::TEXT), Ask::new()).await?;
            until(&mut self.events, message.id, "done").await?;
            times.push(began.elapsed());
        }
        let cpu = server.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / MESSAGES as f64;
        let times = Times::new(times);
        self.rounds.push(Round { floor_p50: base.single.ms(0.5), p50: times.ms(0.5), p99: times.ms(0.99), cpu });
        Ok(())
    }

    pub(super) fn figures(self) -> Vec<Figure> {
        let alone = |pick: fn(&Round) -> f64| self.rounds.iter().map(pick).collect::<Vec<_>>();
        let beside: Vec<_> = self.rounds.iter().map(|round| (round.p50, round.floor_p50)).collect();
        vec![
            Figure::beside("message to reply seen: p50", "ms", &beside, Bound::AtMost { floors: 3.0, plus: 3.0 }),
            Figure::alone("message to reply seen: p99", "ms", alone(|round| round.p99), Bound::None),
            Figure::alone("message to reply seen: processor time", "us each", alone(|round| round.cpu), Bound::None),
        ]
    }
}

/// Follows a message until it is in this state.
pub(super) async fn until(events: &mut EventStream, id: MessageId, state: &str) -> anyhow::Result<()> {
    loop {
        let told = events.next().await.context("the stream of events ended")??;
        if let Told::Event(event) = told
            && event.kind == EventKind::MessageState
            && event.message == Some(id)
            && event.summary["to"] == state
        {
            return Ok(());
        }
    }
}
