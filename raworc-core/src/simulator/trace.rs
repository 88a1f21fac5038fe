//! The trace: one line for whatever happens, all of them in one hash, and the last of them to read.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

use tokio::time::Instant;

/// Lines that are kept to be read.
const TAIL: usize = 400;

/// Lines at one moment of paused time that can only be a loop without end.
const BUSY: u64 = 200_000;

#[derive(Debug)]
pub(super) struct Trace {
    begun: Instant,
    hash: DefaultHasher,
    tail: VecDeque<String>,
    pub(super) lines: u64,
    last: Instant,
    at_once: u64,
}

impl Trace {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        // Its keys are fixed.
        Self { begun, hash: DefaultHasher::new(), tail: VecDeque::new(), lines: 0, last: begun, at_once: 0 }
    }

    /// Adds a line. Says whether time still passes.
    pub(super) fn say(&mut self, what: std::fmt::Arguments<'_>) -> bool {
        let now = Instant::now();
        let micros = (now - self.begun).as_micros();
        let line = format!("{:>5}.{:06} {what}", micros / 1_000_000, micros % 1_000_000);
        self.hash.write(line.as_bytes());
        self.lines += 1;
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
        if now > self.last {
            self.last = now;
            self.at_once = 0;
        }
        self.at_once += 1;
        self.at_once < BUSY
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
