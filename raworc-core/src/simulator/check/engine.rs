//! The engine's own truth: one live computer an agent, and nothing taken away that is in use.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::Checker;
use crate::ids::{ComputerId, Incarnation, RuntimeName, VolumeId};
use crate::runtime::StartId;
use crate::simulator::world::{World, short};
use crate::store::{ComputerQuery, MAX_PAGE, MemoryStore, Store};

impl Checker {
    /// A start is being carried out. One that is over by now was asked for by a process that stood still: what it
    /// starts is refused when it boots, and ends.
    pub(in crate::simulator) fn starts(&mut self, store: &MemoryStore, id: ComputerId, incarnation: Incarnation) {
        let computer = World::at_once(store.computer(id)).ok().flatten();
        let agent = computer.and_then(|computer| World::at_once(store.agent_by_id(computer.agent)).ok()?.value);
        let run = agent.filter(|agent| agent.status.computer == Some(id)).and_then(|agent| agent.status.run);
        if run.is_none_or(|run| run.incarnation != incarnation || run.ending) {
            self.late.insert(id);
        }
    }
}

impl World {
    /// That no agent has two live computers, by the engine's own truth.
    pub(in crate::simulator) fn check_engine(&self) {
        let running = self.engine.running();
        let mut checker = self.checker();
        checker.late.retain(|late| running.iter().any(|(id, _)| id == late));
        if self.disturbance().lies_until > Instant::now() {
            return;
        }
        let mut live: BTreeMap<_, Vec<ComputerId>> = BTreeMap::new();
        for (id, _) in running.iter().filter(|(id, _)| !checker.late.contains(id)) {
            let computer = Self::at_once(self.store.computer(*id)).ok().flatten();
            if let Some(computer) = computer {
                live.entry(computer.agent).or_default().push(*id);
            }
        }
        drop(checker);
        if let Some((agent, two)) = live.into_iter().find(|(_, computers)| computers.len() > 1) {
            self.fail(1, format!("agent {} has two live computers: {two:?}", short(agent)));
        }
    }

    /// That a start which is about to be stopped is not that of a run which goes on.
    pub(in crate::simulator) fn check_stop(&self, id: ComputerId, start: &StartId) {
        let computer = Self::at_once(self.store.computer(id)).ok().flatten();
        let agent = computer.and_then(|computer| Self::at_once(self.store.agent_by_id(computer.agent)).ok()?.value);
        let run = agent.filter(|agent| agent.status.computer == Some(id)).and_then(|agent| agent.status.run);
        if run.is_some_and(|run| !run.ending && run.start_id.as_ref() == Some(start)) {
            self.fail(1, format!("start {start} of computer {} is stopped, and its run goes on", short(id)));
        }
    }

    /// That a computer which is about to be removed belongs to nobody.
    pub(in crate::simulator) fn check_removal(&self, id: ComputerId) {
        let computer = Self::at_once(self.store.computer(id)).ok().flatten();
        if computer.is_some_and(|computer| computer.reclaim_since.is_none()) {
            self.fail(1, format!("computer {} is removed and its agent has it", short(id)));
        }
    }

    /// That a volume which is about to be removed belongs to nobody.
    pub(in crate::simulator) fn check_volume_removal(&self, id: VolumeId) {
        let query = ComputerQuery { runtime: RuntimeName::simulated(), reclaim: false, after: None, limit: MAX_PAGE };
        let computers = Self::at_once(self.store.computers(&query)).map(|page| page.items).unwrap_or_default();
        if computers.iter().any(|computer| computer.spec.volume == id && computer.reclaim_since.is_none()) {
            self.fail(1, format!("volume {} is removed and an agent has it", short(id)));
        }
    }
}
