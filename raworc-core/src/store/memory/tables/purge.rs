//! What is old, taken away.

use std::collections::BTreeSet;
use std::ops::Bound;

use jiff::Timestamp;

use super::{COMMITS_KEPT, Tables};
use crate::agent::State;
use crate::ids::{AgentId, MessageId, Revision};
use crate::store::evaluate::later;
use crate::store::{Cutoffs, PURGE_LOOKS, Purge, PurgeFrom, Purged, PurgedRows, is_past};

impl Tables {
    pub(in crate::store::memory) fn purge(&mut self, purge: &Purge, now: Timestamp) -> Purged {
        let cutoffs = purge.retention.cutoffs(now);
        let mut rows = PurgedRows::default();
        let Some(part) = purge.from.part(&cutoffs) else { return Purged { rows, next: None } };
        let most = purge.most();
        let (ends, next) = match part {
            PurgeFrom::Events => {
                let gone = self.log.iter().take(most).take_while(|event| is_past(cutoffs.events, event.at)).count();
                self.cut_log(Revision(self.forgotten + gone as u64));
                self.commits.retain(|_, made| made.revision.0 > self.forgotten || later(made.now, COMMITS_KEPT) > now);
                rows.events = gone as u64;
                (gone < most, part)
            }
            PurgeFrom::Audit => {
                let gone = self.audit.iter().take(most).take_while(|row| is_past(cutoffs.audit, row.at)).count();
                self.audit.drain(..gone);
                self.audit_gone += gone;
                rows.audit = gone as u64;
                (gone < most, part)
            }
            PurgeFrom::Agents(after) => {
                let (ends, done) = self.purge_agents(after, &cutoffs, now, &mut rows, most);
                (ends, PurgeFrom::Agents(done))
            }
            PurgeFrom::Blobs => {
                let referred = self
                    .messages
                    .values()
                    .flat_map(|message| message.blobs().into_iter().map(|blob| (message.tenant.clone(), blob)));
                let referred: BTreeSet<_> = referred.collect();
                let old = self
                    .blobs
                    .iter()
                    .filter(|(key, (_, since))| is_past(cutoffs.blobs, *since) && !referred.contains(key));
                let old: Vec<_> = old.take(most).map(|(key, _)| key.clone()).collect();
                for key in &old {
                    self.blobs.remove(key);
                }
                rows.blobs = old.len() as u64;
                (old.len() < most, part)
            }
        };
        Purged { rows, next: if ends { part.next_part(&cutoffs) } else { Some(next) } }
    }

    /// Whether these were the last agents, and the last of them that is done with.
    fn purge_agents(
        &mut self,
        after: Option<AgentId>,
        cutoffs: &Cutoffs,
        now: Timestamp,
        rows: &mut PurgedRows,
        most: usize,
    ) -> (bool, Option<AgentId>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ids = self.agents.range((from, Bound::Unbounded)).map(|(id, _)| *id);
        let some: Vec<_> = ids.by_ref().take(PURGE_LOOKS).collect();
        let are_last = ids.next().is_none();
        let mut done = after;
        for id in some {
            if !self.purge_agent(id, cutoffs, now, rows, most) {
                return (false, done);
            }
            done = Some(id);
        }
        (are_last, done)
    }

    /// Whether all that may go of this agent is gone.
    fn purge_agent(
        &mut self,
        id: AgentId,
        cutoffs: &Cutoffs,
        now: Timestamp,
        rows: &mut PurgedRows,
        most: usize,
    ) -> bool {
        let left = |rows: &PurgedRows| most.saturating_sub(usize::try_from(rows.all()).unwrap_or(usize::MAX));
        let status = self.agents.get(&id).map(|agent| &agent.status);
        let deleted = status.filter(|status| status.state() == State::Deleted).map(|status| status.since);
        let mine = cutoffs.of_agent(deleted);
        let messages = self.inbox(id).take_while(|message| mine.take_message(message));
        let messages: Vec<_> = messages.map(|message| (message.seq, message.id)).collect();
        for (seq, message) in messages {
            if left(rows) == 0 {
                return false;
            }
            self.inboxes.remove(&(id, seq));
            if let Some(message) = self.messages.remove(&message) {
                for blob in message.blobs() {
                    if let Some((_, since)) = self.blobs.get_mut(&(message.tenant.clone(), blob)) {
                        *since = now;
                    }
                }
            }
            rows.messages += 1;
        }
        let open: BTreeSet<MessageId> =
            self.inbox(id).filter(|message| !message.state.is_ended()).map(|message| message.id).collect();
        let steps = self.steps.range((id, 0)..=(id, u64::MAX)).take_while(|(_, step)| {
            mine.take_step(step) && !step.message.is_some_and(|message| open.contains(&message))
        });
        let steps: Vec<_> = steps.map(|(place, _)| *place).collect();
        for place in steps {
            if left(rows) == 0 {
                return false;
            }
            self.steps.remove(&place);
            rows.steps += 1;
        }
        let goes = deleted.is_some_and(|at| is_past(cutoffs.deleted_agents, at));
        if goes && self.computers.values().all(|computer| computer.agent != id) {
            if left(rows) == 0 {
                return false;
            }
            self.agents.remove(&id);
            rows.agents += 1;
        }
        true
    }

    /// As a store does that does not look whether a message has ended.
    #[cfg(test)]
    pub(in crate::store::memory) fn lose_open_messages(&mut self) {
        let open = self.messages.values().filter(|message| !message.state.is_ended());
        let open: Vec<_> = open.map(|message| (message.id, (message.agent, message.seq))).collect();
        for (id, place) in open {
            self.messages.remove(&id);
            self.inboxes.remove(&place);
        }
    }

    /// As a store does that takes the next number from the rows that are left.
    #[cfg(test)]
    pub(in crate::store::memory) fn count_anew(&mut self) {
        for (id, agent) in &mut self.agents {
            let messages = self.inboxes.range((*id, 0)..=(*id, u64::MAX)).next_back();
            let steps = self.steps.range((*id, 0)..=(*id, u64::MAX)).next_back();
            agent.inbox.last_seq = messages.map_or(0, |((_, seq), _)| *seq);
            agent.inbox.last_step = steps.map_or(0, |((_, seq), _)| *seq);
        }
    }

    /// As a store does that knows nothing of references.
    #[cfg(test)]
    pub(in crate::store::memory) fn lose_blobs(&mut self) {
        self.blobs.clear();
    }

    /// As a store does that knows of no computers of a deleted agent.
    #[cfg(test)]
    pub(in crate::store::memory) fn lose_computers(&mut self) {
        self.computers.clear();
    }
}
