//! What the program of one start wrote.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;

use super::engine::locked;
use crate::runtime::{LogsOptions, RuntimeError};

/// A log, from a start's first byte to its last.
#[derive(Debug)]
pub(super) struct Log {
    bytes: Mutex<Vec<u8>>,
    /// Whether nothing more will come; told to all that follow, also at each write.
    ended: watch::Sender<bool>,
}

impl Default for Log {
    fn default() -> Self {
        Self { bytes: Mutex::default(), ended: watch::Sender::new(false) }
    }
}

impl Log {
    /// An empty one to which nothing will come.
    pub(super) fn over() -> Arc<Self> {
        let log = Self::default();
        log.end();
        Arc::new(log)
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        locked(&self.bytes).extend_from_slice(bytes);
        self.ended.send_modify(|_| ());
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    fn from(&self, offset: usize) -> Bytes {
        locked(&self.bytes).get(offset..).map_or_else(Bytes::new, Bytes::copy_from_slice)
    }

    pub(super) fn read(self: Arc<Self>, options: LogsOptions) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let ended = self.ended.subscribe();
        let length = locked(&self.bytes).len();
        let tail = options.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let begin = length.saturating_sub(tail);
        let follow = options.follow;
        let reader = (self, ended, begin, true);
        stream::unfold(reader, move |(log, mut ended, offset, first)| async move {
            loop {
                let is_ended = *ended.borrow_and_update();
                let chunk = log.from(offset);
                if !chunk.is_empty() && (first || follow) {
                    let next = offset + chunk.len();
                    return Some((Ok(chunk), (log, ended, next, false)));
                }
                if !follow || is_ended || ended.changed().await.is_err() {
                    return None;
                }
            }
        })
        .boxed()
    }
}
