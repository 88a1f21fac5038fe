//! What becomes of an agent's times when the store's clock is set: no time has passed by that.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Agent, Status};
use crate::control::HOLD;

/// How far the store's clock went ahead though no time passed: a person or a time server set it, or the machine was
/// suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockMove {
    /// By how much.
    pub ahead: Duration,
    /// The first time after it: what bears an earlier one is from before.
    pub at: Timestamp,
    /// The time that was told when it was noticed.
    pub noticed_at: Timestamp,
}

/// The times of an agent that are compared with the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    heard_at: Option<Timestamp>,
    awake_until: Option<Timestamp>,
    keep_awake_until: Option<Timestamp>,
    busy_until: Option<Timestamp>,
    cancel_by: Option<Timestamp>,
    /// When its run began, and by when that has to be ready.
    run: Option<(Timestamp, Timestamp)>,
    clock_known_at: Option<Timestamp>,
}

impl Agent {
    /// Its times as they are after moves of the clock, in their order, if that changes any; without any, where it is only
    /// looked whether the clock was set back.
    ///
    /// No deadline comes earlier by it than its whole time after it was set, and none much later. Where nothing was moved
    /// there is nothing to change, so it does no harm to ask once too often.
    pub(crate) fn times_after(&self, moves: &[ClockMove], now: Timestamp) -> Option<Times> {
        let times = Times::of(self);
        let ahead = moves.iter().fold(times, |times, by| times.ahead(&self.status, *by, now));
        let after = ahead.back(self, now).bounded(self, now);
        // A move is not worth noting where it moves nothing.
        (Times { clock_known_at: times.clock_known_at, ..after } != times).then_some(after)
    }

    pub(crate) const fn set_times(&mut self, times: &Times) {
        let status = &mut self.status;
        status.heard_at = times.heard_at;
        status.awake_until = times.awake_until;
        status.keep_awake_until = times.keep_awake_until;
        status.busy_until = times.busy_until;
        status.cancel_by = times.cancel_by;
        if let (Some(run), Some((began_at, deadline))) = (&mut status.run, times.run) {
            run.began_at = began_at;
            run.deadline = deadline;
        }
        status.clock_known_at = times.clock_known_at;
    }
}

impl Times {
    fn of(agent: &Agent) -> Self {
        let status = &agent.status;
        Self {
            heard_at: status.heard_at,
            awake_until: status.awake_until,
            keep_awake_until: status.keep_awake_until,
            busy_until: status.busy_until,
            cancel_by: status.cancel_by,
            run: status.run.as_ref().map(|run| (run.began_at, run.deadline)),
            clock_known_at: status.clock_known_at,
        }
    }

    /// Where the clock went ahead, a deadline from before gets the time by which it did: once, whoever sees it, and of two
    /// moves that somebody saw as one only what is not known yet. What is known from a time to come is from before the clock
    /// was set back, and says nothing.
    fn ahead(self, status: &Status, by: ClockMove, now: Timestamp) -> Self {
        let whole = SignedDuration::try_from(by.ahead).unwrap_or(SignedDuration::MAX);
        let known = self.clock_known_at.filter(|known| *known <= now);
        let ahead = known.map_or(whole, |known| whole.min(by.at.duration_since(known)));
        if !ahead.is_positive() {
            return self;
        }
        let since = status.since;
        // A setup that began has a deadline of its own, which may be newer than the move that its start is not.
        let setup = status.run.as_ref().and_then(|run| Some(run.setup.as_ref()?.began_at));
        let later = |time: Timestamp| moved(time, ahead);
        let if_before = |written: Timestamp, time: Timestamp| if written < by.at { later(time) } else { time };
        Self {
            heard_at: self.heard_at.map(later),
            awake_until: self.awake_until.map(later),
            // These two do not say when they were written. What the move did not reach is left: it may be new.
            keep_awake_until: self.keep_awake_until.map(|time| if_before(time, time)),
            cancel_by: self.cancel_by.map(|time| if_before(time, time)),
            busy_until: self.busy_until.map(|time| if_before(since, time)),
            run: self.run.map(|(began, ready)| (if_before(began, began), if_before(setup.unwrap_or(began), ready))),
            clock_known_at: Some(by.noticed_at),
        }
    }

    /// Where the clock was set back, the last sign of its program or of its start is in the future by now. That sign is
    /// taken to be of this moment, and what goes with it moves along.
    fn back(self, agent: &Agent, now: Timestamp) -> Self {
        let status = &agent.status;
        let sign = self.heard_at.max(self.run.map(|(began, _)| began));
        let back = sign.map_or(SignedDuration::ZERO, |sign| sign.duration_since(now));
        if !back.is_positive() {
            return self;
        }
        // What lies nearer than that was written since,
        let earlier = |time: Timestamp| if time.duration_since(now) >= back { moved(time, -back) } else { time };
        // or was over already, which is seen by what it holds since. Where the clock was set back by less than such a time
        // is long, one that was written since is taken for that too: better over too early than hours too late.
        let since = status.since;
        let setup = status.run.as_ref().and_then(|run| Some(run.setup.as_ref()?.began_at));
        let earlier_than = |written: Timestamp, time: Timestamp| {
            if now < written && written <= time { moved(time, -back) } else { earlier(time) }
        };
        // Of one that was over before it went along with a move ahead nothing tells so: a message has its whole time once more.
        let whole = moved(now, SignedDuration::from_secs(agent.spec.busy_timeout.into()));
        Self {
            heard_at: self.heard_at.map(|heard| heard.min(now)),
            awake_until: self.awake_until.map(earlier),
            keep_awake_until: self.keep_awake_until.map(earlier),
            busy_until: self.busy_until.map(|time| earlier_than(since, time).min(whole)),
            cancel_by: self.cancel_by.map(|time| earlier_than(since, time)),
            run: self.run.map(|(began, ready)| (began.min(now), earlier_than(setup.unwrap_or(began), ready))),
            // A later move may lead to the same time again.
            clock_known_at: self.clock_known_at.map(|known| known.min(now)),
        }
    }

    /// What is written down for the activity of this moment reaches no farther than this.
    fn bounded(mut self, agent: &Agent, now: Timestamp) -> Self {
        let idle = Duration::from_secs(agent.spec.idle_timeout.into());
        let farthest = SignedDuration::try_from(idle.max(HOLD) + HOLD).unwrap_or(SignedDuration::MAX);
        let farthest = Some(moved(now, farthest)).max(self.keep_awake_until);
        self.awake_until = self.awake_until.min(farthest);
        // A wish that is newer than the move stayed where the rest was moved.
        self.awake_until = self.awake_until.map(|awake| awake.max(self.keep_awake_until.unwrap_or(awake)));
        self.heard_at = self.heard_at.min(Some(now));
        self
    }
}

fn moved(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests;
