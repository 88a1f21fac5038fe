//! Purges: only what has ended goes, from the oldest on, and nobody's numbers begin anew.

use std::collections::BTreeSet;

use super::{Found, must};
use crate::ids::{AgentId, CommitId, MessageId};
use crate::message::Message;
use crate::simulator::world::{World, short};
use crate::store::{AuditQuery, MAX_PAGE, MessageQuery, Purge, Purged, Store, StoreError};

impl World {
    /// Purges, and looks at what is left. Nothing else happens meanwhile.
    pub(in crate::simulator) fn purge(&self, purge: &Purge) -> Result<Purged, StoreError> {
        let audited = self.first_audited();
        let purged = Self::at_once(self.store.purge(purge))?;
        if purged.rows.audit > 0 {
            let left = self.first_audited();
            self.checker().audited.retain(|commit| left.contains(commit) || !audited.contains(commit));
        }
        if purged.rows.all() > 0 {
            self.say(format_args!("purged {:?}", purged.rows));
            self.counts().purged(&purged.rows);
            let agents: Vec<_> = self.checker().agents.keys().copied().collect();
            for agent in agents {
                if let Err(violation) = self.left(agent) {
                    self.fail(violation.invariant, violation.what);
                }
            }
        }
        Ok(purged)
    }

    /// The commits of the first audit rows: as many as one purge may take.
    fn first_audited(&self) -> BTreeSet<CommitId> {
        let query = AuditQuery { tenant: None, after: None, limit: MAX_PAGE };
        let page = Self::at_once(self.store.audit(&query)).map(|page| page.items).unwrap_or_default();
        page.into_iter().map(|row| row.commit).collect()
    }

    /// That what is left of an agent's inbox is the end of it, without a gap, and nothing is missing that has not ended.
    fn left(&self, agent: AgentId) -> Found {
        let query = MessageQuery { newest_first: true, ..MessageQuery::of(agent) };
        let page = Self::at_once(self.store.messages(&query)).map(|page| page.items).unwrap_or_default();
        let checker = self.checker();
        let mut known: Vec<&Message> = checker.messages.values().filter(|message| message.agent == agent).collect();
        known.sort_unstable_by_key(|message| std::cmp::Reverse(message.seq));
        let newest: Vec<_> = known.iter().take(page.len()).map(|message| message.id).collect();
        let left: Vec<_> = page.iter().map(|message| message.id).collect();
        must(left == newest, 3, || format!("of agent {} there is not the end of its inbox left", short(agent)))?;
        let left: BTreeSet<MessageId> = left.into_iter().collect();
        let lost = known.iter().find(|message| !message.state.is_ended() && !left.contains(&message.id));
        must(lost.is_none(), 3, || format!("a message was purged that has not ended: {lost:?}"))
    }
}
