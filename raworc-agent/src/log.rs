//! What the program logs: on its standard error, for the engine, and in a ring, for the link.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that are kept.
const KEPT: usize = 256 << 10;

/// The ring. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    /// Bytes that were ever written.
    end: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self(Arc::new(Shared { ring: Mutex::default(), end: watch::Sender::new(0) }))
    }
}

impl Log {
    /// Sends the program's events here, unless it lives in a process that has a place for them already.
    pub(crate) fn install(&self) {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(self.clone())
            .with_ansi(false)
            .with_target(false)
            .with_max_level(tracing::Level::INFO);
        if subscriber.try_init().is_err() {
            tracing::debug!("events go where they went before");
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the ring alone.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut ring = self.ring();
        ring.bytes.extend(bytes);
        let surplus = ring.bytes.len().saturating_sub(KEPT);
        ring.bytes.drain(..surplus);
        ring.end += bytes.len() as u64;
        self.0.end.send_replace(ring.end);
    }

    /// Where the last `tail` bytes begin.
    pub(crate) fn position(&self, tail: u64) -> u64 {
        self.ring().end.saturating_sub(tail)
    }

    /// What stands from `position` on, and the position after it.
    pub(crate) fn read_from(&self, position: u64) -> (Vec<u8>, u64) {
        let ring = self.ring();
        let begin = ring.end - ring.bytes.len() as u64;
        let skip = usize::try_from(position.saturating_sub(begin)).unwrap_or(usize::MAX).min(ring.bytes.len());
        (ring.bytes.iter().skip(skip).copied().collect(), ring.end)
    }

    /// What stands from `position` on, as soon as that is anything.
    pub(crate) async fn wait_from(&self, position: u64) -> (Vec<u8>, u64) {
        let mut end = self.0.end.subscribe();
        // The sender lives as long as this ring.
        let _ = end.wait_for(|&end| end > position).await;
        self.read_from(position)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        // A standard error that is closed must not end the program.
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_follows_from_the_tail_on() {
        let log = Log::default();
        log.push(b"old and new");
        let (bytes, next) = log.read_from(log.position(3));
        assert_eq!(bytes, b"new");
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.wait_from(next).await.0 }
        });
        log.push(b"est");
        assert_eq!(waiting.await.expect("a reader"), b"est");
    }

    #[test]
    fn only_the_last_bytes_are_kept() {
        let log = Log::default();
        log.push(&vec![b'a'; KEPT]);
        log.push(b"end");
        let (bytes, next) = log.read_from(0);
        assert_eq!((bytes.len(), next), (KEPT, KEPT as u64 + 3));
        assert!(bytes.ends_with(b"aend"));
    }
}
