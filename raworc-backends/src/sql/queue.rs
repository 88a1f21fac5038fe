//! What the writer is asked for, and what it answers.

use bytes::Bytes;
use raworc_core::blob::BlobId;
use raworc_core::ids::{AgentId, Revision, TenantName};
use raworc_core::store::{
    AgentOp, Change, Commit, Committed, Conflict, Lease, LeaseClaim, NewMessage, Reply, Stamped, StoreError, Touch,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, FaultKind};
use super::purge::Stale;

/// Bytes of texts from which on a batch is large enough: it has to be written within the time that a transaction may take.
const BYTES: usize = 8 << 20;

/// Something to write.
#[derive(Debug)]
pub(crate) enum Work {
    Commit(Box<Commit>),
    Touch(Vec<Touch>),
    Claim(LeaseClaim),
    Put { tenant: TenantName, id: BlobId, content: Bytes },
    Unlink { tenant: TenantName, id: BlobId },
    ForgetLog { upto: Revision },
    Forget(Box<Stale>),
}

impl Work {
    /// Bytes of what people and programs have written, which is what can be much.
    fn bytes(&self) -> usize {
        let of_op = |op: &AgentOp| match op {
            AgentOp::Accept(NewMessage { parts, .. }) | AgentOp::End { reply: Some(Reply { parts, .. }), .. } => {
                parts.iter().map(|part| part.as_text().len()).sum()
            }
            _ => 0,
        };
        match self {
            Self::Put { content, .. } => content.len(),
            Self::Commit(commit) => {
                let agents = commit.changes.iter().filter_map(|change| match change {
                    Change::Agent(change) => Some(change),
                    Change::Reclaimed(_) | Change::Record(_) => None,
                });
                agents.flat_map(|change| &change.ops).map(of_op).sum()
            }
            Self::Touch(_) | Self::Claim(_) | Self::Unlink { .. } | Self::ForgetLog { .. } | Self::Forget(_) => 0,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Committed(Box<Committed>),
    Refused(Conflict),
    /// Agents that the touches had no effect on.
    Untouched(Vec<AgentId>),
    Claimed(Stamped<Lease>),
    Done,
}

/// Some work, and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl Job {
    /// Tells who waits. Whoever has gone away meanwhile does not hear it.
    pub(crate) fn answer(self, result: Result<Outcome, Fault>) {
        let result = match result {
            Ok(Outcome::Refused(conflict)) => Err(StoreError::Conflict(conflict)),
            Ok(outcome) => Ok(outcome),
            Err(fault) => Err(fault.into()),
        };
        drop(self.reply.send(result));
    }
}

/// Who writes batches, each in one transaction: all of it, or none.
pub(crate) trait Attempt {
    /// Does the work. Where it `grows`, what has come by the time that it begins may be added to the batch, and is done with it.
    fn attempt(
        &mut self,
        batch: &mut Vec<Job>,
        grows: bool,
    ) -> impl Future<Output = Result<Vec<Outcome>, Fault>> + Send;
}

/// Does the work of a batch, and answers. Where the database refuses a row, each job is tried alone.
pub(crate) async fn write(writer: &mut (impl Attempt + Send), mut batch: Vec<Job>) {
    let fault = match writer.attempt(&mut batch, true).await {
        Ok(outcomes) => {
            for (job, outcome) in batch.into_iter().zip(outcomes) {
                job.answer(Ok(outcome));
            }
            return;
        }
        Err(fault) => fault,
    };
    let mut broken = (fault.kind != FaultKind::OfRow || batch.len() == 1).then_some(fault);
    for job in batch {
        let mut alone = vec![job];
        let result = match &broken {
            Some(fault) => Err(fault.clone()),
            None => writer.attempt(&mut alone, false).await,
        };
        if let Err(fault) = &result
            && fault.kind != FaultKind::OfRow
        {
            // The others would have to wait for the same.
            broken = Some(fault.clone());
        }
        let result = result.and_then(|mut outcomes| outcomes.pop().ok_or_else(Fault::closed));
        if let Some(job) = alone.pop() {
            job.answer(result);
        }
    }
    if let Some(fault) = broken {
        tracing::warn!(reason = %fault.reason, "a batch was not written");
    }
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(crate) struct Queue(mpsc::Sender<Job>);

impl Queue {
    /// A way for so many jobs to wait at most, and its end at the writer, which takes no more once `closing`.
    pub(crate) fn new(length: usize, closing: CancellationToken) -> (Self, Jobs) {
        let (sender, receiver) = mpsc::channel(length.max(1));
        (Self(sender), Jobs { receiver, closing })
    }

    /// Waits until the work is durable, or refused.
    pub(crate) async fn write(&self, work: Work) -> Result<Outcome, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job { work, reply }).await.map_err(|_| Fault::closed())?;
        answer.await.map_err(|_| Fault::closed())?
    }

    /// Whether the writer has taken all that it was asked for.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.capacity() == self.0.max_capacity()
    }
}

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) struct Jobs {
    receiver: mpsc::Receiver<Job>,
    closing: CancellationToken,
}

impl Jobs {
    /// What waits, of which there is at least one and at most `most`, and not many more than [`BYTES`]; none once all is written
    /// that was asked for.
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<Job>> {
        let mut batch = vec![self.first().await?];
        self.add_to(&mut batch, most);
        Some(batch)
    }

    /// Adds what waits by now, within the same bounds.
    pub(crate) fn add_to(&mut self, batch: &mut Vec<Job>, most: usize) {
        let mut bytes: usize = batch.iter().map(|job| job.work.bytes()).sum();
        while batch.len() < most
            && bytes < BYTES
            && let Ok(job) = self.receiver.try_recv()
        {
            bytes += job.work.bytes();
            batch.push(job);
        }
    }

    async fn first(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            job = self.receiver.recv() => return job,
            () = self.closing.cancelled() => {}
        }
        // What was queued before is still written.
        self.receiver.close();
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    use super::*;
    use crate::sql::commits::{accept, message_id};

    #[tokio::test]
    async fn a_batch_is_as_long_as_what_waits_unless_that_is_much() {
        let (queue, mut jobs) = Queue::new(64, CancellationToken::new());
        let agent = SystemEntropy.agent_id(SystemClock.now());
        for text in ["x".repeat(1 << 20), "x".to_owned()] {
            for _ in 0..12 {
                let (reply, _) = oneshot::channel();
                let work = Work::Commit(Box::new(accept(agent, message_id(), &text)));
                queue.0.send(Job { work, reply }).await.expect("it is taken");
            }
        }
        let mut batch = jobs.next(64).await.expect("some wait");
        assert_eq!(batch.len(), 8);
        jobs.add_to(&mut batch, 64);
        assert_eq!(batch.len(), 8, "it is large enough");
        let mut batch = jobs.next(6).await.expect("some wait");
        assert_eq!(batch.len(), 6);
        jobs.add_to(&mut batch, 6);
        assert_eq!(batch.len(), 6, "it is long enough");
        jobs.add_to(&mut batch, 64);
        assert_eq!(batch.len(), 16, "all that waits");
    }
}
