//! The way from one life of a process to the store and the engine: latency, standing still, being cut off, being gone.
//!
//! A process has no other effect than by such calls, so one whose calls never return is one that was killed at that
//! await, and one whose calls return late is one that stood still there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fault::{Moment, Strike};
use super::process::Process;
use super::world::World;

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Store,
    Engine,
}

/// The way of one life of a process.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) world: Arc<World>,
    pub(super) process: usize,
    /// Cancelled at the end of this life.
    pub(super) dead: CancellationToken,
}

impl Port {
    pub(super) fn process(&self) -> &Process {
        &self.world.processes[self.process]
    }

    /// Carries out a call, unless the process is gone before it returns. What was under way is dropped then.
    pub(super) async fn alive<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => std::future::pending().await,
            () = self.world.failed.cancelled() => std::future::pending().await,
            answer = call => answer,
        }
    }

    /// The way there. Fails with the reason where the process is cut off.
    pub(super) async fn way(&self, to: To) -> Result<(), String> {
        self.still().await;
        self.latency().await;
        self.still().await;
        match self.process().cut(to) {
            false => Ok(()),
            true => {
                let chance = &self.process().chance;
                tokio::time::sleep(chance.between(1, 3_000)).await;
                Err(format!("{} is cut off", self.process().name))
            }
        }
    }

    /// The way back. Fails where the process was cut off meanwhile: it does not learn what happened.
    pub(super) async fn back(&self, to: To) -> Result<(), String> {
        self.latency().await;
        self.still().await;
        match self.process().cut(to) {
            false => Ok(()),
            true => Err(format!("{} was cut off", self.process().name)),
        }
    }

    /// What strikes at this call.
    pub(super) fn strike(&self, to: To) -> Option<Strike> {
        let strike = self.process().count_call(to)?;
        self.world.counts().fault(strike.word(), 1);
        self.world.say(format_args!("{} is struck: {strike:?}", self.process().name));
        Some(strike)
    }

    /// What a strike does at this moment of a call.
    pub(super) async fn suffer(&self, strike: Option<Strike>, now: Moment) {
        match strike {
            Some(Strike::Crash(moment, down)) if moment == now => {
                self.process().crash(down);
                std::future::pending::<()>().await;
            }
            Some(Strike::Pause(moment, time)) if moment == now => {
                self.process().pause(time);
                self.still().await;
            }
            _ => {}
        }
    }

    /// Waits for as long as the process stands still.
    pub(super) async fn still(&self) {
        loop {
            let until = self.process().paused_until();
            if until <= Instant::now() {
                return;
            }
            // Seen again from time to time: faults may be over before the pause would be.
            tokio::time::sleep_until(until.min(Instant::now() + Duration::from_secs(5))).await;
        }
    }

    async fn latency(&self) {
        let chance = &self.process().chance;
        match (chance.below(64), self.world.windy) {
            (0, false) => tokio::time::sleep(chance.between(10, 400)).await,
            // What is decided is often late by then.
            (0 | 1, true) => tokio::time::sleep(chance.between(10, 4_000)).await,
            (2..=12, _) => tokio::time::sleep(chance.between(1, 6)).await,
            _ => {}
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("process", &self.process).finish_non_exhaustive()
    }
}
