//! One start of a computer at a time: an engine may say to several who start one container at the same moment that they did.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use raworc_core::ids::ComputerId;
use tokio::sync::Notify;

/// What is being started by this process. Between processes it is the lease of an agent that keeps two from one computer.
#[derive(Debug, Clone, Default)]
pub(super) struct Starts {
    all: Arc<All>,
}

#[derive(Debug, Default)]
struct All {
    computers: Mutex<HashSet<ComputerId>>,
    one_ended: Notify,
}

/// A start that is under way, until it is dropped.
pub(super) struct Starting {
    all: Arc<All>,
    id: ComputerId,
}

impl Starts {
    /// Waits until nobody else here starts this computer.
    pub(super) async fn begin(&self, id: ComputerId) -> Starting {
        loop {
            let one_ended = self.all.one_ended.notified();
            if self.all.computers.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
                return Starting { all: Arc::clone(&self.all), id };
            }
            one_ended.await;
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.all.computers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.all.one_ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    use super::*;

    #[tokio::test]
    async fn a_start_waits_for_another_of_the_same_computer_and_for_no_other() {
        let starts = Starts::default();
        let [one, other] = [(); 2].map(|()| SystemEntropy.computer_id(SystemClock.now()));
        let first = starts.begin(one).await;
        let mut second = pin!(starts.begin(one));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        assert!(starts.begin(other).now_or_never().is_some(), "another does not");
        assert!(second.as_mut().now_or_never().is_none(), "it still waits");
        drop(first);
        let second = second.now_or_never().expect("it is its turn");
        assert!(starts.begin(one).now_or_never().is_none(), "it has its turn until it ends");
        drop(second);
        assert!(starts.begin(one).now_or_never().is_some(), "none is left");
    }

    #[tokio::test]
    async fn who_is_gone_while_it_waits_keeps_nobody_waiting() {
        let starts = Starts::default();
        let id = SystemEntropy.computer_id(SystemClock.now());
        let first = starts.begin(id).await;
        let mut waiting = pin!(starts.begin(id));
        {
            let mut gone = Box::pin(starts.begin(id));
            assert!(gone.as_mut().now_or_never().is_none());
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(first);
        assert!(waiting.now_or_never().is_some());
    }
}
