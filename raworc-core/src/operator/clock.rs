//! The store's clock beside one that nobody sets: how far it was moved, and which agents' times have not moved along yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::agent::ClockMove;
use crate::ids::AgentId;

/// A smaller difference between the two clocks is drift, or the store was slow to answer.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// For so long a move is remembered: by then every agent has been looked at that had a time to be moved.
const KEPT: Duration = Duration::from_secs(600);

/// What is known of the store's clock.
#[derive(Debug)]
pub(super) struct StoreTime {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the store's clock said last, and how far it was ahead of this process's then, which began at the epoch.
    last: Option<(Timestamp, SignedDuration)>,
    /// When the last move was noticed. What was asked before may have been answered before it.
    noticed: Option<Instant>,
    moves: Vec<(u64, ClockMove, Instant)>,
    count: u64,
    settled: HashMap<AgentId, u64>,
}

impl State {
    /// Of a move that is long past, nothing is kept of any agent either.
    fn forget_old(&mut self) {
        self.moves.retain(|(_, _, noticed)| noticed.elapsed() < KEPT);
        if self.moves.is_empty() {
            self.settled.clear();
        }
    }
}

impl StoreTime {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), state: Mutex::default() }
    }

    fn ahead(&self, now: Timestamp, at: Instant) -> SignedDuration {
        let passed = SignedDuration::try_from(at.duration_since(self.origin)).unwrap_or(SignedDuration::MAX);
        now.duration_since(Timestamp::UNIX_EPOCH).saturating_sub(passed)
    }

    /// Takes note of the time that the store told between `asked` and this moment. Returns by how much its clock was
    /// moved since the last time, if it was.
    pub(super) fn told(&self, now: Timestamp, asked: Instant) -> Option<SignedDuration> {
        let answered = Instant::now();
        // It was told somewhere between the two, so it was ahead by something between these.
        let (least, most) = (self.ahead(now, answered), self.ahead(now, asked));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.noticed.is_some_and(|noticed| asked < noticed) {
            return None;
        }
        let (last, before) = *state.last.get_or_insert((now, least));
        if least <= before + TOLERANCE && before <= most + TOLERANCE {
            state.last = Some((now.max(last), before.clamp(least, most)));
            return None;
        }
        state.last = Some((now, most));
        state.noticed = Some(answered);
        state.forget_old();
        let by = most.saturating_sub(before);
        if let Ok(ahead) = Duration::try_from(by) {
            let at = last.checked_add(by).unwrap_or(Timestamp::MAX);
            state.count += 1;
            let number = state.count;
            state.moves.push((number, ClockMove { ahead, at, noticed_at: now }, answered));
        }
        Some(by)
    }

    /// How the clock went ahead since this agent's times moved along last, and what to [`settle`](Self::settle) once they
    /// have.
    pub(super) fn owed(&self, agent: AgentId) -> (Vec<ClockMove>, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = state.settled.get(&agent).copied().unwrap_or(0);
        let owed = state.moves.iter().filter(|(number, _, noticed)| *number > settled && noticed.elapsed() < KEPT);
        (owed.map(|(_, by, _)| *by).collect(), state.count)
    }

    /// This agent's times have moved along.
    pub(super) fn settle(&self, agent: AgentId, upto: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old();
        if !state.moves.is_empty() {
            state.settled.insert(agent, upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{Clock, EntropyExt, SystemEntropy, TokioClock};

    fn time() -> (StoreTime, TokioClock) {
        (StoreTime::new(), TokioClock::starting_at(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_on_or_drifts_was_not_moved_and_one_that_is_set_was() {
        let (time, clock) = time();
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(60)).await;
            clock.set_ahead(SignedDuration::from_millis(100));
            assert_eq!(time.told(clock.now(), Instant::now()), None);
        }
        let agent = SystemEntropy.agent_id(clock.now());
        assert_eq!(time.owed(agent).0, []);
        for seconds in [3600, -3600, 10, -11] {
            let (by, before) = (SignedDuration::from_secs(seconds), clock.now());
            clock.set_ahead(by);
            assert_eq!(time.told(clock.now(), Instant::now()), Some(by));
            assert_eq!(time.told(clock.now(), Instant::now()), None, "it is told once");
            let (owed, upto) = time.owed(agent);
            let wanted =
                Duration::try_from(by).map(|ahead| ClockMove { ahead, at: before + by, noticed_at: clock.now() });
            assert_eq!(owed, wanted.into_iter().collect::<Vec<_>>());
            time.settle(agent, upto);
            assert_eq!(time.owed(agent).0, []);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_to_answer_moves_no_clock() {
        let (time, clock) = time();
        assert_eq!(time.told(clock.now(), Instant::now()), None);
        for told_late in [true, false] {
            let asked = Instant::now();
            let early = clock.now();
            tokio::time::advance(Duration::from_secs(40)).await;
            let now = if told_late { clock.now() } else { early };
            assert_eq!(time.told(now, asked), None);
            assert_eq!(time.told(clock.now(), Instant::now()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_before_a_move_was_noticed_does_not_move_the_clock_back() {
        let (time, clock) = time();
        time.told(clock.now(), Instant::now());
        let (asked, old) = (Instant::now(), clock.now());
        tokio::time::advance(Duration::from_millis(5)).await;
        clock.set_ahead(SignedDuration::from_hours(1));
        assert!(time.told(clock.now(), Instant::now()).is_some());
        assert_eq!(time.told(old, asked), None);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(time.told(clock.now(), Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_owed_every_move_since_it_was_settled_and_none_that_is_long_past() {
        let (time, clock) = time();
        let [first, second] = [(); 2].map(|()| SystemEntropy.agent_id(clock.now()));
        time.told(clock.now(), Instant::now());
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(1)).await;
            clock.set_ahead(SignedDuration::from_secs(100));
            time.told(clock.now(), Instant::now());
            time.settle(first, 1);
        }
        let ahead = |agent| time.owed(agent).0.iter().map(|owed| owed.ahead.as_secs()).collect::<Vec<_>>();
        assert_eq!((ahead(first), ahead(second)), (vec![100], vec![100, 100]));
        tokio::time::advance(KEPT).await;
        assert_eq!((ahead(first), ahead(second)), (vec![], vec![]));
        time.settle(first, 2);
        assert!(time.state.lock().expect("nobody failed").settled.is_empty(), "nothing is kept of who was settled");
    }
}
