//! The gate of an engine: so many calls at a time, so many of one tenant's, and no tenant before another out of turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::ids::TenantName;

#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Calls that one tenant gets at a time, and those that it has.
    each: usize,
    busy: BTreeMap<TenantName, usize>,
    waiting: BTreeMap<TenantName, VecDeque<oneshot::Sender<Pass>>>,
    /// The tenant that was served last.
    last: Option<TenantName>,
}

/// The right to one call, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass(Option<(Gate, TenantName)>);

impl Gate {
    pub(super) fn new(calls: usize) -> Self {
        Self::shared(calls, usize::MAX)
    }

    /// A gate at which one tenant gets no more than `each` of the calls, however few others want some.
    pub(super) fn shared(calls: usize, each: usize) -> Self {
        let (busy, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { free: calls.max(1), each: each.max(1), busy, waiting, last: None })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the tenant's turn.
    pub(super) async fn enter(&self, tenant: &TenantName) -> Pass {
        let turn = {
            let mut state = self.lock();
            if state.free > 0 && state.may_begin(tenant) {
                state.begin(tenant);
                return Pass(Some((self.clone(), tenant.clone())));
            }
            let (pass, turn) = oneshot::channel();
            state.waiting.entry(tenant.clone()).or_default().push_back(pass);
            turn
        };
        // The sender stands in the queue until it has sent.
        turn.await.unwrap_or(Pass(None))
    }

    /// Calls under way.
    pub(super) fn running(&self) -> usize {
        self.lock().busy.values().sum()
    }

    /// Those that wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.waiting.values().flatten().filter(|turn| !turn.is_closed()).count()
    }

    fn leave(&self, tenant: &TenantName) {
        let mut state = self.lock();
        let state = &mut *state;
        state.end(tenant);
        while state.free > 0 {
            let Some(tenant) = state.next() else { return };
            let next = state.waiting.get_mut(&tenant).and_then(VecDeque::pop_front);
            if state.waiting.get(&tenant).is_some_and(VecDeque::is_empty) {
                state.waiting.remove(&tenant);
            }
            state.last = Some(tenant.clone());
            let Some(next) = next else { continue };
            match next.send(Pass(Some((self.clone(), tenant.clone())))) {
                Ok(()) => state.begin(&tenant),
                // Who waited is gone. The pass that comes back must not leave by itself: this loop goes on for it.
                Err(mut pass) => pass.0 = None,
            }
        }
    }
}

impl State {
    fn may_begin(&self, tenant: &TenantName) -> bool {
        self.busy.get(tenant).is_none_or(|busy| *busy < self.each)
    }

    fn begin(&mut self, tenant: &TenantName) {
        self.free -= 1;
        *self.busy.entry(tenant.clone()).or_default() += 1;
    }

    fn end(&mut self, tenant: &TenantName) {
        self.free += 1;
        if let Some(busy) = self.busy.get_mut(tenant) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(tenant);
            }
        }
    }

    /// The tenant whose turn it is: the next one after the last that waits and may have another call.
    fn next(&self) -> Option<TenantName> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.last.iter().flat_map(|last| self.waiting.range::<TenantName, _>((Excluded(last), Unbounded)));
        let (tenant, _) = after.chain(&self.waiting).find(|(tenant, _)| self.may_begin(tenant))?;
        Some(tenant.clone())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((gate, tenant)) = self.0.take() {
            gate.leave(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).expect("a label")
    }

    #[tokio::test]
    async fn a_tenant_with_many_calls_does_not_hold_up_one_with_few() {
        let gate = Gate::new(1);
        let first = gate.enter(&tenant("many")).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for name in ["many", "many", "many", "few"] {
            let (gate, order) = (gate.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _pass = gate.enter(&tenant(name)).await;
                order.lock().expect("order").push(name);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.expect("a call");
        }
        let order = order.lock().expect("order");
        let place = order.iter().position(|name| *name == "few").expect("served");
        assert!(place <= 1, "{order:?}");
    }

    #[tokio::test]
    async fn a_tenant_gets_no_more_than_its_share_however_much_is_free() {
        let gate = Gate::shared(4, 2);
        let held = [gate.enter(&tenant("a")).await, gate.enter(&tenant("a")).await];
        let a = tenant("a");
        let mut third = Box::pin(gate.enter(&a));
        assert!(futures::poll!(&mut third).is_pending());
        let other = gate.enter(&tenant("b")).await;
        drop(other);
        assert!(futures::poll!(&mut third).is_pending(), "what another tenant gives back is not for it");
        drop(held);
        drop(third.await);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_costs_no_pass() {
        let gate = Gate::new(1);
        let pass = gate.enter(&tenant("a")).await;
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { drop(gate.enter(&tenant("b")).await) }
        });
        tokio::task::yield_now().await;
        assert_eq!((gate.running(), gate.waiting()), (1, 1));
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!((gate.running(), gate.waiting()), (1, 0));
        drop(pass);
        drop(gate.enter(&tenant("c")).await);
        drop(gate.enter(&tenant("c")).await);
    }
}
