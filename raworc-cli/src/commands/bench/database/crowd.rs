//! Agents that are made at a steady rate, each until it is idle, on an engine that starts each in 20 ms.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use raworc_core::ids::AgentName;
use raworc_http::client::{Ask, Client};

use crate::args::BenchArgs;
use crate::commands::bench::accept::make;
use crate::commands::bench::load::{self, Outcome};

/// Agents a second.
const RATE: u32 = 75;

/// Deletes that are waited for at a time.
const AT_ONCE: usize = 32;

pub(super) struct Crowd<'a> {
    /// Of the round.
    pub(super) number: u32,
    pub(super) client: &'a Client,
}

impl Crowd<'_> {
    /// For twice as long as other loads last. What was made is gone after it.
    pub(super) async fn round(self, args: &BenchArgs) -> anyhow::Result<Outcome> {
        let (client, number) = (self.client.clone(), self.number);
        let made = load::offered(RATE, Duration::from_secs(2 * args.seconds), move |n| {
            let client = client.clone();
            async move { make(&client, &name(number, n)?).await }
        });
        let made = made.await?;
        let gone = stream::iter(0..made.times.len()).map(|n| async move {
            self.client.delete_agent(&name(self.number, n)?, Ask::new().wait_secs(60)).await?;
            anyhow::Ok(())
        });
        gone.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(made)
    }
}

fn name(number: u32, n: usize) -> anyhow::Result<AgentName> {
    Ok(AgentName::new(format!("crowd-{number}-{n}"))?)
}
