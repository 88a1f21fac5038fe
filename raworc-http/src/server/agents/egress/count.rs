//! What agents reached: connections and bytes by name and port.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use raworc_core::ids::AgentId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::api::EgressCount;

/// Names that are counted apart for one agent.
const NAMES: usize = 256;

/// Of these, names that were never reached: whatever an agent asks for, what it reaches has places.
const REFUSED: usize = NAMES / 2;

/// Agents that are counted apart. Another one takes the place of any.
const AGENTS: usize = 1000;

const CONNECTIONS: &str = "raworc_egress_connections_total";
const BYTES: &str = "raworc_egress_bytes_total";

/// Where what has no place of its own is counted.
const OTHERS: &str = "others";

#[derive(Debug, Default)]
pub(super) struct Count {
    connections: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Count {
    fn was_reached(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    fn read(&self, target: &str) -> EgressCount {
        EgressCount {
            target: target.to_owned(),
            connections: self.connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            received_bytes: self.received.load(Ordering::Relaxed),
        }
    }
}

type Names = BTreeMap<String, Arc<Count>>;

/// One more connection that could not be made.
pub(super) fn failed() {
    metrics::counter!(CONNECTIONS, "outcome" => "failed").increment(1);
}

/// The counts of all agents since this process began.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<AgentId, Names>>);

impl Counts {
    /// The count of one agent and one `host:port` that it reached.
    pub(super) fn reached(&self, agent: AgentId, target: &str) -> Arc<Count> {
        self.count(agent, target, |_| true)
    }

    /// Counts a refusal.
    pub(super) fn refused(&self, agent: AgentId, target: &str) {
        let has_place = |names: &Names| names.values().filter(|count| !count.was_reached()).count() < REFUSED;
        self.count(agent, target, has_place).refused.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(CONNECTIONS, "outcome" => "refused").increment(1);
    }

    fn count(&self, agent: AgentId, target: &str, has_place: impl Fn(&Names) -> bool) -> Arc<Count> {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.len() >= AGENTS
            && !agents.contains_key(&agent)
            && let Some(any) = agents.keys().next().copied()
        {
            agents.remove(&any);
        }
        let names = agents.entry(agent).or_default();
        let is_apart = names.contains_key(target) || (names.len() < NAMES && has_place(names));
        let name = if is_apart { target } else { OTHERS };
        Arc::clone(names.entry(name.to_owned()).or_default())
    }

    pub(super) fn of(&self, agent: AgentId) -> Vec<EgressCount> {
        let agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        agents.get(&agent).into_iter().flatten().map(|(target, count)| count.read(target)).collect()
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    count: Arc<Count>,
    sent: u64,
    received: u64,
    /// How long the host may be silent once the computer says no more.
    linger: Duration,
    /// How long it may be silent, where somebody waits for it who may be gone.
    patience: Option<Duration>,
    silent: Option<Pin<Box<Sleep>>>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, count: Arc<Count>, linger: Duration) -> Self {
        count.connections.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(CONNECTIONS, "outcome" => "made").increment(1);
        Self { stream, count, sent: 0, received: 0, linger, patience: None, silent: None }
    }

    /// It ends where the host is silent for so long.
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    fn lost_patience(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(patience) = self.patience else { return false };
        self.silent.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx).is_ready()
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        metrics::counter!(BYTES, "direction" => "sent").increment(self.sent);
        metrics::counter!(BYTES, "direction" => "received").increment(self.received);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(read) => read?,
            Poll::Pending if self.lost_patience(cx) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => return Poll::Pending,
        }
        self.silent = None;
        let read = (buffer.filled().len() - before) as u64;
        self.received += read;
        self.count.received.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.sent += written as u64;
        self.count.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The computer says no more, or is gone: what the host still has to say it says soon.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patience = Some(self.patience.unwrap_or(self.linger));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    use super::*;

    #[test]
    fn names_that_were_refused_leave_places_to_those_that_are_reached() {
        let (counts, agent) = (Counts::default(), SystemEntropy.agent_id(SystemClock.now()));
        for n in 0..NAMES + 1 {
            counts.refused(agent, &format!("refused-{n}:443"));
        }
        let reach = |target: &str| drop(Counted::new((), counts.reached(agent, target), Duration::ZERO));
        (0..100).for_each(|n| reach(&format!("reached-{n}:443")));
        reach("refused-0:443");
        let counts = counts.of(agent);
        let of = |target: &str| counts.iter().find(|count| count.target == target);
        let reached = (0..100).filter_map(|n| of(&format!("reached-{n}:443"))).filter(|count| count.connections == 1);
        assert_eq!(reached.count(), 100);
        assert_eq!(of("refused-0:443").map(|count| (count.refused, count.connections)), Some((1, 1)));
        assert_eq!(of(OTHERS).map(|count| count.refused), Some((NAMES + 1 - REFUSED) as u64));
        assert_eq!(counts.iter().map(|count| count.refused).sum::<u64>(), (NAMES + 1) as u64, "none is lost");
    }
}
