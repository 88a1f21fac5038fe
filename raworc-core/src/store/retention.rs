//! How long what is old is kept, and how it is taken away: a little at a time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::query::MAX_PAGE;
use crate::ids::AgentId;
use crate::message::Message;
use crate::step::Step;

const DAY: Duration = Duration::from_hours(24);

/// How long what is old is kept; for ever where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Messages, from their end on.
    pub messages: Option<Duration>,
    /// Steps, from when they were taken on. They go with their messages at the latest.
    pub steps: Option<Duration>,
    /// Events: for so long a watcher may have been away and misses nothing.
    pub events: Option<Duration>,
    /// Audit rows.
    pub audit: Option<Duration>,
    /// Agents, from when they were deleted on, with their messages and steps.
    pub deleted_agents: Option<Duration>,
    /// Blobs, from when they were put on, or from when the last message that refers to them is gone.
    pub blobs: Option<Duration>,
}

impl Default for Retention {
    /// What people wrote and were answered is theirs, and stays until its agent is deleted.
    fn default() -> Self {
        Self {
            messages: None,
            steps: Some(90 * DAY),
            events: Some(7 * DAY),
            audit: Some(400 * DAY),
            deleted_agents: Some(30 * DAY),
            blobs: Some(DAY),
        }
    }
}

impl Retention {
    /// Everything for ever.
    #[must_use]
    pub const fn for_ever() -> Self {
        Self { messages: None, steps: None, events: None, audit: None, deleted_agents: None, blobs: None }
    }

    /// Everything for this time.
    #[must_use]
    pub const fn of(kept: Duration) -> Self {
        let kept = Some(kept);
        Self { messages: kept, steps: kept, events: kept, audit: kept, deleted_agents: kept, blobs: kept }
    }

    /// The shortest of all times; none where everything is kept for ever.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        let times = [self.messages, self.steps, self.events, self.audit, self.deleted_agents, self.blobs];
        times.into_iter().flatten().min()
    }

    /// Up to when what is old goes, at the store's time.
    #[must_use]
    pub fn cutoffs(&self, now: Timestamp) -> Cutoffs {
        let before = |kept: Option<Duration>| {
            let kept = SignedDuration::try_from(kept?).unwrap_or(SignedDuration::MAX);
            now.checked_sub(kept).ok()
        };
        let messages = before(self.messages);
        Cutoffs {
            messages,
            steps: before(self.steps).max(messages),
            events: before(self.events),
            audit: before(self.audit),
            deleted_agents: before(self.deleted_agents),
            blobs: before(self.blobs),
        }
    }
}

/// Up to when what is old goes, this moment included; nothing where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoffs {
    /// Messages that ended then.
    pub messages: Option<Timestamp>,
    /// Steps that were taken then.
    pub steps: Option<Timestamp>,
    /// Events of then.
    pub events: Option<Timestamp>,
    /// Audit rows of then.
    pub audit: Option<Timestamp>,
    /// Agents that were deleted then.
    pub deleted_agents: Option<Timestamp>,
    /// Blobs that nothing refers to since then.
    pub blobs: Option<Timestamp>,
}

impl Cutoffs {
    /// Those for the messages and steps of an agent, given when it was deleted: all of them go with one that goes itself.
    #[must_use]
    pub fn of_agent(&self, deleted: Option<Timestamp>) -> Self {
        match deleted {
            Some(at) if is_past(self.deleted_agents, at) => {
                Self { messages: Some(Timestamp::MAX), steps: Some(Timestamp::MAX), ..*self }
            }
            Some(_) | None => *self,
        }
    }

    /// Whether a message may go, as far as those before it have gone.
    #[must_use]
    pub fn take_message(&self, message: &Message) -> bool {
        message.state.is_ended() && message.ended_at.is_some_and(|at| is_past(self.messages, at))
    }

    /// Whether a step may go, as far as those before it have gone and the message that it was taken for has ended.
    #[must_use]
    pub fn take_step(&self, step: &Step) -> bool {
        is_past(self.steps, step.at)
    }

    /// Whether something of agents may go.
    #[must_use]
    pub const fn any_of_agents(&self) -> bool {
        self.messages.is_some() || self.steps.is_some() || self.deleted_agents.is_some()
    }
}

/// Whether what is of this time goes.
#[must_use]
pub fn is_past(cutoff: Option<Timestamp>, at: Timestamp) -> bool {
    cutoff.is_some_and(|cutoff| at <= cutoff)
}

/// Where in all that is kept a purge goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PurgeFrom {
    /// At the beginning, with the log.
    #[default]
    Events,
    /// With the audit.
    Audit,
    /// With the agents after this one, by their ids; with the first where absent.
    Agents(Option<AgentId>),
    /// With blobs.
    Blobs,
}

impl PurgeFrom {
    /// The first of this part and those after it of which something may go.
    #[must_use]
    pub const fn part(self, cutoffs: &Cutoffs) -> Option<Self> {
        match self {
            Self::Events if cutoffs.events.is_some() => Some(self),
            Self::Events | Self::Audit if cutoffs.audit.is_some() => Some(Self::Audit),
            Self::Events | Self::Audit if cutoffs.any_of_agents() => Some(Self::Agents(None)),
            Self::Agents(_) if cutoffs.any_of_agents() => Some(self),
            Self::Events | Self::Audit | Self::Agents(_) | Self::Blobs if cutoffs.blobs.is_some() => Some(Self::Blobs),
            Self::Events | Self::Audit | Self::Agents(_) | Self::Blobs => None,
        }
    }

    /// The part after this one of which something may go.
    #[must_use]
    pub const fn next_part(self, cutoffs: &Cutoffs) -> Option<Self> {
        match self {
            Self::Events => Self::Audit.part(cutoffs),
            Self::Audit => Self::Agents(None).part(cutoffs),
            Self::Agents(_) => Self::Blobs.part(cutoffs),
            Self::Blobs => None,
        }
    }
}

/// A wish to take away some of what is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// How long it is kept.
    pub retention: Retention,
    /// Where it goes on.
    pub from: PurgeFrom,
    /// At most so many rows, and never more than [`MAX_PAGE`].
    pub limit: usize,
}

impl Purge {
    /// From the beginning.
    #[must_use]
    pub const fn new(retention: Retention) -> Self {
        Self { retention, from: PurgeFrom::Events, limit: MAX_PAGE }
    }

    /// Rows that go at most; at least one, so that every call makes headway.
    #[must_use]
    pub fn most(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }
}

/// Agents that one call looks at, at most: where nothing of them is old it takes nothing away.
pub const PURGE_LOOKS: usize = 64;

/// What was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PurgedRows {
    /// Messages.
    pub messages: u64,
    /// Steps.
    pub steps: u64,
    /// Events.
    pub events: u64,
    /// Audit rows.
    pub audit: u64,
    /// Deleted agents.
    pub agents: u64,
    /// Blobs.
    pub blobs: u64,
}

impl PurgedRows {
    /// Each kind with its number.
    #[must_use]
    pub const fn each(&self) -> [(&'static str, u64); 6] {
        [
            ("messages", self.messages),
            ("steps", self.steps),
            ("events", self.events),
            ("audit", self.audit),
            ("agents", self.agents),
            ("blobs", self.blobs),
        ]
    }

    /// These, and others.
    #[must_use]
    pub const fn with(mut self, others: &Self) -> Self {
        self.messages += others.messages;
        self.steps += others.steps;
        self.events += others.events;
        self.audit += others.audit;
        self.agents += others.agents;
        self.blobs += others.blobs;
        self
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.each().iter().map(|(_, rows)| rows).sum()
    }
}

/// What came of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// What was taken away.
    pub rows: PurgedRows,
    /// Where it goes on; none once everything was looked at.
    pub next: Option<PurgeFrom>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    #[test]
    fn what_is_kept_for_ever_never_goes() {
        let cutoffs = Retention::for_ever().cutoffs(Timestamp::MAX);
        assert!(!is_past(cutoffs.events, Timestamp::MIN));
        assert_eq!(PurgeFrom::default().part(&cutoffs), None);
        let longest = Retention::of(Duration::MAX).cutoffs(hours(0));
        assert!(!is_past(longest.events, Timestamp::MIN), "a time before all times is none");
    }

    #[test]
    fn what_is_as_old_as_it_may_be_goes() {
        let cutoffs = Retention::of(Duration::from_hours(2)).cutoffs(hours(10));
        assert!(is_past(cutoffs.audit, hours(8)));
        assert!(!is_past(cutoffs.audit, hours(8) + SignedDuration::from_nanos(1)));
    }

    #[test]
    fn steps_are_not_kept_longer_than_messages() {
        let mut retention = Retention::for_ever();
        retention.messages = Some(Duration::from_hours(2));
        assert_eq!(retention.cutoffs(hours(10)).steps, Some(hours(8)));
        retention.steps = Some(Duration::from_hours(9));
        assert_eq!(retention.cutoffs(hours(10)).steps, Some(hours(8)));
        retention.steps = Some(Duration::from_hours(1));
        assert_eq!(retention.cutoffs(hours(10)).steps, Some(hours(9)));
    }

    #[test]
    fn parts_of_which_nothing_may_go_are_passed_over() {
        let mut retention = Retention::for_ever();
        retention.audit = Some(Duration::ZERO);
        let cutoffs = retention.cutoffs(hours(0));
        assert_eq!(PurgeFrom::Events.part(&cutoffs), Some(PurgeFrom::Audit));
        assert_eq!(PurgeFrom::Audit.next_part(&cutoffs), None);
        retention.steps = Some(Duration::ZERO);
        let cutoffs = retention.cutoffs(hours(0));
        assert_eq!(PurgeFrom::Audit.next_part(&cutoffs), Some(PurgeFrom::Agents(None)));
    }

    #[test]
    fn all_of_an_agent_goes_with_it() {
        let mut retention = Retention::for_ever();
        retention.deleted_agents = Some(Duration::from_hours(2));
        let cutoffs = retention.cutoffs(hours(10));
        assert_eq!(cutoffs.of_agent(Some(hours(8))).messages, Some(Timestamp::MAX));
        assert_eq!(cutoffs.of_agent(Some(hours(9))).messages, None, "it was deleted lately");
        assert_eq!(cutoffs.of_agent(None).steps, None, "it lives");
    }
}
