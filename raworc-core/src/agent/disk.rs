//! What becomes of an agent whose volume holds more than it may, where no engine limits it and its program measures it.

use jiff::{SignedDuration, Timestamp};

use super::{Agent, AgentSpec, ConditionKind, Desired, State};
use crate::program::{DISK_ROOM_PERCENT, has_disk_room};
use crate::quantity::Bytes;
use crate::store::AgentOp;

/// The reason of a sleep by time.
pub(crate) const IDLE_TIMEOUT: &str = "IdleTimeout";

/// How long a volume counts as full at least. A program that says now this and now that is not to fill the log.
const LEAST: SignedDuration = SignedDuration::from_secs(10);

/// What a program said of its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    /// It holds so many bytes.
    Bytes(u64),
    /// It has not looked yet.
    NotYet,
    /// It never looks: it is older than that.
    Never,
}

impl Agent {
    /// Whether messages wait that its program may take up. Those that wait for room on its volume keep it from no sleep.
    pub(crate) fn has_work(&self) -> bool {
        self.inbox.queued > 0 && !self.status.conditions.holds(ConditionKind::DiskFull)
    }

    /// What changes by what its program said of its volume, which may hold `limit` if it has one that is measured.
    pub(crate) fn on_measured(&self, limit: Option<Bytes>, measured: Measured, now: Timestamp) -> Option<AgentOp> {
        let there = self.status.conditions.get(ConditionKind::DiskFull).filter(|there| there.status);
        let room = AgentOp::ClearCondition(ConditionKind::DiskFull);
        let Some(limit) = limit else { return there.map(|_| room) };
        // One of a time to come is from before the clock was set back.
        let is_new = |since| (SignedDuration::ZERO..LEAST).contains(&now.duration_since(since));
        let settled = there.is_some_and(|there| !is_new(there.since));
        let used = match measured {
            Measured::Bytes(used) => used,
            Measured::NotYet => return None,
            // Nobody would ever say that there is room again.
            Measured::Never => return settled.then_some(room),
        };
        let rule = format!("its volume may hold {limit} (resources.disk)");
        match there {
            None if used <= limit.get() => None,
            Some(_) if has_disk_room(used, limit.get()) => settled.then_some(room),
            // Told once for each limit, not again with each figure.
            Some(there) if there.message.starts_with(&rule) => None,
            None | Some(_) => Some(AgentOp::SetCondition {
                kind: ConditionKind::DiskFull,
                status: true,
                reason: "VolumeFull".into(),
                message: format!(
                    "{rule} and holds {}: new messages wait; delete files (raworc agent exec) until it is down to \
                     {DISK_ROOM_PERCENT} % of that, or raise resources.disk",
                    binary(used)
                ),
            }),
        }
    }

    /// Whether it fell asleep by time while messages waited for room, and may run them by its spec that was `before`.
    pub(crate) fn is_given_room(&self, before: &AgentSpec) -> bool {
        let status = &self.status;
        let by_time = status.conditions.get(ConditionKind::Ready).is_some_and(|ready| ready.reason == IDLE_TIMEOUT);
        let more = match (before.resources.disk, self.spec.resources.disk) {
            (Some(before), Some(after)) => after > before,
            (before, after) => before.is_some() && after.is_none(),
        };
        let slept = status.state() == State::Slept && self.desired == Desired::Asleep && by_time;
        slept && more && self.inbox.queued > 0 && status.conditions.holds(ConditionKind::DiskFull)
    }
}

/// Bytes as people read them.
fn binary(bytes: u64) -> String {
    const GI: u64 = 1 << 30;
    let (unit, word) = match bytes {
        0..GI => (1 << 20, "Mi"),
        GI.. => (GI, "Gi"),
    };
    format!("{:.1}{word}", bytes as f64 / unit as f64)
}

#[cfg(test)]
mod tests;
