//! Quotas: never exceeded, and always what the rows add up to.

use std::collections::BTreeSet;

use super::{Checker, Found, Passed, must};
use crate::agent::State;
use crate::ids::{RuntimeName, TenantName};
use crate::simulator::world::{QUOTA, World};
use crate::store::{Change, ComputerQuery, MAX_PAGE, QuotaKind, Store};

impl Checker {
    pub(super) fn quotas(&self, world: &World, passed: &Passed<'_>) -> Found {
        let reclaims = passed.commit.changes.iter().any(|change| matches!(change, Change::Reclaimed(_)));
        let deletes = passed.committed.agents.iter().any(|agent| agent.status.state() == State::Deleted);
        if passed.commit.quota.is_empty() && !reclaims && !deletes {
            return Ok(());
        }
        let tenants: BTreeSet<_> = self.agents.values().map(|agent| &agent.tenant).collect();
        tenants.into_iter().try_for_each(|tenant| self.quota(world, tenant))
    }

    fn quota(&self, world: &World, tenant: &TenantName) -> Found {
        let used = World::at_once(world.store.usage(tenant, QuotaKind::Agents)).unwrap_or_default();
        must(used <= QUOTA, 8, || format!("tenant {tenant} uses {used} of {QUOTA}"))?;
        let agents = self.agents.values().filter(|agent| agent.tenant == *tenant);
        let living = agents.filter(|agent| agent.status.state() != State::Deleted).count() as u64;
        let query = ComputerQuery { runtime: RuntimeName::simulated(), reclaim: true, after: None, limit: MAX_PAGE };
        let waiting = World::at_once(world.store.computers(&query)).map(|page| page.items).unwrap_or_default();
        // A volume goes with its agent, and is given back with it.
        let last = waiting.iter().filter(|computer| computer.tenant == *tenant && !computer.keep_volume);
        let expected = living + last.count() as u64;
        must(used == expected, 8, || format!("tenant {tenant} uses {used} by its quota, and {expected} by its rows"))
    }
}
