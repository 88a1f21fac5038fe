//! The gate of an engine: so many calls at a time, and no tenant before another out of turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::ids::TenantName;

#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: BTreeMap<TenantName, VecDeque<oneshot::Sender<Pass>>>,
    /// The tenant that was served last.
    last: Option<TenantName>,
}

/// The right to one call, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass(Option<Gate>);

impl Gate {
    pub(super) fn new(calls: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: calls.max(1), waiting: BTreeMap::new(), last: None })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the tenant's turn.
    pub(super) async fn enter(&self, tenant: &TenantName) -> Pass {
        let turn = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Pass(Some(self.clone()));
            }
            let (pass, turn) = oneshot::channel();
            state.waiting.entry(tenant.clone()).or_default().push_back(pass);
            turn
        };
        // The sender stands in the queue until it has sent.
        turn.await.unwrap_or(Pass(None))
    }

    fn leave(&self) {
        loop {
            let mut state = self.lock();
            let state = &mut *state;
            let after = state.last.as_ref().and_then(|last| {
                use std::ops::Bound::{Excluded, Unbounded};
                state.waiting.range::<TenantName, _>((Excluded(last), Unbounded)).next().map(|(name, _)| name.clone())
            });
            let Some(tenant) = after.or_else(|| state.waiting.keys().next().cloned()) else {
                state.free += 1;
                return;
            };
            let next = state.waiting.get_mut(&tenant).and_then(VecDeque::pop_front);
            if state.waiting.get(&tenant).is_some_and(VecDeque::is_empty) {
                state.waiting.remove(&tenant);
            }
            state.last = Some(tenant);
            let Some(next) = next else { continue };
            match next.send(Pass(Some(self.clone()))) {
                Ok(()) => return,
                // Who waited is gone. The pass that comes back must not leave by itself: this loop goes on for it.
                Err(mut pass) => pass.0 = None,
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.0.take() {
            gate.leave();
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
    async fn who_gives_up_waiting_costs_no_pass() {
        let gate = Gate::new(1);
        let pass = gate.enter(&tenant("a")).await;
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { drop(gate.enter(&tenant("b")).await) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(pass);
        drop(gate.enter(&tenant("c")).await);
        drop(gate.enter(&tenant("c")).await);
    }
}
