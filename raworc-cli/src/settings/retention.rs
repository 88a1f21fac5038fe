//! How long what is old is kept.

use std::fmt;
use std::time::Duration;

use raworc_core::store;
use serde::Deserialize;

use crate::duration;

/// The shortest time for which something is kept: whoever waits for it is to see it once more.
const SHORTEST: Duration = Duration::from_mins(1);

/// How long what is old is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Messages that have ended.
    pub messages: Kept,
    /// Steps.
    pub steps: Kept,
    /// Events.
    pub events: Kept,
    /// Audit rows.
    pub audit: Kept,
    /// Agents that are deleted.
    pub deleted_agents: Kept,
    /// Blobs that nothing refers to.
    pub blobs: Kept,
}

impl Retention {
    /// As the control plane takes them.
    pub(super) fn times(&self) -> store::Retention {
        let mut times = store::Retention::for_ever();
        times.messages = self.messages.0;
        times.steps = self.steps.0;
        times.events = self.events.0;
        times.audit = self.audit.0;
        times.deleted_agents = self.deleted_agents.0;
        times.blobs = self.blobs.0;
        times
    }
}

/// A time for which something is kept; for ever where `0` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Kept(pub Option<Duration>);

impl TryFrom<String> for Kept {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time = duration::parse(&text)?;
        match time {
            Duration::ZERO => Ok(Self(None)),
            time if time < SHORTEST => {
                Err(format!("{text:?} is too short: write 1m or more, such as 90d, or 0 for ever"))
            }
            time => Ok(Self(Some(time))),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => f.write_str(&duration::short(time)),
            None => f.write_str("0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Duration>, String> {
        Kept::try_from(text.to_owned()).map(|kept| kept.0)
    }

    #[test]
    fn a_time_is_days_or_less_and_0_is_for_ever() {
        assert_eq!(read("90d"), Ok(Some(Duration::from_hours(90 * 24))));
        assert_eq!(read("1m"), Ok(Some(SHORTEST)));
        assert_eq!(read("0"), Ok(None));
        assert!(read("59s").unwrap_err().contains("too short"));
        assert!(read("a while").unwrap_err().contains("90s"));
    }

    #[test]
    fn each_time_is_for_what_it_is_written_for() {
        let kept = |days: u64| Kept(Some(Duration::from_hours(days * 24)));
        let [messages, steps, events, audit, deleted_agents, blobs] = [1, 2, 3, 4, 5, 6].map(kept);
        let times = Retention { messages, steps, events, audit, deleted_agents, blobs }.times();
        let store::Retention { messages, steps, events, audit, deleted_agents, blobs, .. } = times;
        let days =
            [messages, steps, events, audit, deleted_agents, blobs].map(|time| time.map(|time| time.as_secs() / 86400));
        assert_eq!(days, [1, 2, 3, 4, 5, 6].map(Some));
    }

    #[test]
    fn defaults_are_written_as_they_are_read() {
        let defaults = store::Retention::default();
        let store::Retention { messages, steps, events, audit, deleted_agents, blobs, .. } = defaults;
        for kept in [messages, steps, events, audit, deleted_agents, blobs] {
            assert_eq!(read(&Kept(kept).to_string()), Ok(kept));
        }
    }
}
