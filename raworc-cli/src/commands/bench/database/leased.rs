//! A message to an idle agent, until its program has it: at another process than the one that accepted it.

use std::time::Duration;

use raworc_core::control::SendMessage;
use raworc_core::entropy::{EntropyExt, SystemEntropy};
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client, EventStream};
use tokio::time::Instant;

use crate::args::BenchArgs;
use crate::commands::bench::TEXT;
use crate::commands::bench::accept::make;
use crate::commands::bench::figures::Times;
use crate::commands::bench::load::Outcome;
use crate::commands::bench::reply::until;

/// Messages of a round for each second that loads last.
const MESSAGES: u64 = 10;

/// Between two messages: who asks the database for what is new does so less often meanwhile, as it does for an agent that
/// has waited.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Leased {
    agent: AgentName,
    /// Where the programs are.
    events: EventStream,
}

impl Leased {
    pub(super) async fn prepare(engine: &Client) -> anyhow::Result<Self> {
        let agent = AgentName::new("leased")?;
        make(engine, &agent).await?;
        let events = engine.follow(Some(&agent), None).await?;
        Ok(Self { agent, events })
    }

    pub(super) async fn round(&mut self, args: &BenchArgs, client: &Client) -> anyhow::Result<Outcome> {
        let mut times = Vec::new();
        let first = Instant::now();
        for _ in 0..MESSAGES * args.seconds {
            // From half of it to one and a half: not in step with whoever asks.
            tokio::time::sleep(PAUSE / 2 + SystemEntropy.jitter(PAUSE)).await;
            let began = Instant::now();
            let message = client.send(&self.agent, &SendMessage::text(TEXT), Ask::new()).await?.id;
            until(&mut self.events, message, "leased").await?;
            times.push(began.elapsed());
            until(&mut self.events, message, "done").await?;
        }
        Ok(Outcome { times: Times::new(times), lag: Times::default(), took: first.elapsed() })
    }
}
