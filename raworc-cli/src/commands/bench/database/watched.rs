//! People who watch, each one agent, by its stream of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use raworc_core::event::EventKind;
use raworc_core::ids::AgentName;
use raworc_http::client::{Client, EventStream, Told};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Streams that are opened at a time.
const AT_ONCE: usize = 32;

/// How long what was accepted may take to all of them.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Watchers {
    seen: Arc<AtomicUsize>,
    agents: usize,
    following: JoinSet<anyhow::Result<()>>,
}

impl Watchers {
    /// So many, of these agents in turn.
    pub(super) async fn begin(client: &Client, agents: &[AgentName], count: u32) -> anyhow::Result<Self> {
        let seen = Arc::new(AtomicUsize::new(0));
        let streams = stream::iter(agents.iter().cycle().take(count as usize))
            .map(|agent| client.follow(Some(agent), None))
            .buffer_unordered(AT_ONCE);
        let streams: Vec<EventStream> = streams.try_collect().await?;
        let mut following = JoinSet::new();
        for mut events in streams {
            let seen = Arc::clone(&seen);
            following.spawn(async move {
                while let Some(told) = events.next().await {
                    if matches!(told?, Told::Event(event) if event.kind == EventKind::MessageAccepted) {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::bail!("the stream of events ended")
            });
        }
        Ok(Self { seen, agents: agents.len(), following })
    }

    /// Waits until each has seen its part of so many messages, and ends.
    pub(super) async fn end(mut self, messages: usize) -> anyhow::Result<()> {
        let all = messages / self.agents * self.following.len();
        let began = Instant::now();
        loop {
            if let Some(ended) = self.following.try_join_next() {
                ended??;
            }
            let seen = self.seen.load(Ordering::Relaxed);
            if seen >= all {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "watchers were told of {seen} messages, not of {all}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
