//! What the writer is asked for, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raworc_core::blob::BlobId;
use raworc_core::ids::{AgentId, Revision, TenantName};
use raworc_core::store::{
    AgentOp, Change, Commit, Committed, Conflict, Lease, LeaseClaim, NewMessage, Reply, Stamped, StoreError, Touch,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::purge::Stale;

/// Bytes of texts from which on a batch is large enough: it has to be written within the time that a transaction may take.
const BYTES: usize = 8 << 20;

/// Bytes of messages, replies and steps that may wait or be written at one time. A database that is slower than who writes to
/// it takes no more of this process's memory, but for the bodies of requests, which have bounds of their own.
const ROOM: usize = 64 << 20;

/// For how long something waits until it is begun. Whoever waits for longer is answered sooner if told to come again.
const WAIT: Duration = Duration::from_secs(15);

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
    /// Whether it is a sign of life.
    const fn is_sign(&self) -> bool {
        matches!(self, Self::Touch(_) | Self::Claim(_))
    }

    /// Bytes of what people and programs have written, which is what can be much.
    fn bytes(&self) -> usize {
        let of_op = |op: &AgentOp| match op {
            AgentOp::Accept(NewMessage { parts, .. }) | AgentOp::End { reply: Some(Reply { parts, .. }), .. } => {
                parts.iter().map(|part| part.as_text().len()).sum()
            }
            AgentOp::AddSteps { steps, .. } => steps.iter().map(|step| step.text.len()).sum(),
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
    asked: Instant,
    /// Whether an attempt was not answered, which may have done it.
    may_be_done: bool,
    /// What it takes of the room for texts, until it is answered.
    _room: OwnedSemaphorePermit,
}

impl Job {
    /// Tells who waits. Whoever has gone away meanwhile does not hear it.
    pub(crate) fn answer(self, result: Result<Outcome, Fault>) {
        let result = match result {
            Ok(Outcome::Refused(conflict)) => Err(StoreError::Conflict(conflict)),
            Ok(outcome) => Ok(outcome),
            Err(fault) if self.may_be_done => Err(fault.after_one_without_an_answer().into()),
            Err(fault) => Err(fault.into()),
        };
        drop(self.reply.send(result));
    }
}

/// Notes that an attempt to do these was not answered.
pub(crate) fn not_answered(batch: &mut [Job]) {
    for job in batch {
        job.may_be_done = true;
    }
}

/// Who writes batches, each in one transaction: all of it, or none.
pub(crate) trait Attempt {
    /// Does the work, or the first of it where all of it would be too much. Where it `grows`, what has come by the time that it
    /// begins may be added to the batch, and is done with it.
    fn attempt(
        &mut self,
        batch: &mut Vec<Job>,
        grows: bool,
    ) -> impl Future<Output = Result<Vec<Outcome>, Fault>> + Send;
}

/// Does the work of a batch, and answers. Where the database refuses a row, or one cannot be read, each job is tried alone.
pub(crate) async fn write(writer: &mut (impl Attempt + Send), mut batch: Vec<Job>) {
    let fault = loop {
        match writer.attempt(&mut batch, true).await {
            Ok(outcomes) => {
                let mut rest = batch.split_off(outcomes.len().clamp(1, batch.len()));
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    job.answer(Ok(outcome));
                }
                if rest.is_empty() {
                    return;
                }
                // What was added last may be a sign of life, which is not to wait for all of them.
                rest.sort_by_key(|job| !job.work.is_sign());
                batch = rest;
            }
            Err(fault) => break fault,
        }
    };
    let mut broken = (!fault.kind.is_of_one() || batch.len() == 1).then_some(fault);
    for job in batch {
        let mut alone = vec![job];
        let result = match &broken {
            Some(fault) => Err(fault.clone()),
            None => writer.attempt(&mut alone, false).await,
        };
        if let Err(fault) = &result
            && !fault.kind.is_of_one()
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
pub(crate) struct Queue {
    /// Signs of life, of which a late one is as good as none.
    first: mpsc::Sender<Job>,
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// A way for so many jobs to wait at most, and its end at the writer, which takes no more once `closing`.
    pub(crate) fn new(length: usize, closing: CancellationToken) -> (Self, Jobs) {
        let [(first, ahead), (jobs, receiver)] = [(); 2].map(|()| mpsc::channel(length.max(1)));
        (Self { first, jobs, room: Arc::new(Semaphore::new(ROOM)) }, Jobs { ahead, receiver, turn: true, closing })
    }

    /// Waits until the work is durable, or refused. Where too much waits before it, it is refused for now, and nothing of it is
    /// done.
    pub(crate) async fn write(&self, work: Work) -> Result<Outcome, StoreError> {
        let way = if work.is_sign() { &self.first } else { &self.jobs };
        let (job, answer) = self.job(work)?;
        timeout(WAIT, way.send(job)).await.map_err(|_| too_late())?.map_err(|_| Fault::closed())?;
        answer.await.map_err(|_| Fault::closed())?
    }

    /// The work, with who waits for it, where there is room for it.
    fn job(&self, work: Work) -> Result<(Job, oneshot::Receiver<Result<Outcome, StoreError>>), Fault> {
        // What is larger than all of the room waits alone.
        let bytes = u32::try_from(work.bytes().min(ROOM)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(|_| no_room())?;
        let (reply, answer) = oneshot::channel();
        Ok((Job { work, reply, asked: Instant::now(), may_be_done: false, _room: room }, answer))
    }

    /// Whether the writer has taken all that it was asked for.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        [&self.first, &self.jobs].iter().all(|way| way.capacity() == way.max_capacity())
    }
}

/// What the database has not come to in time is refused for now.
fn too_late() -> Fault {
    let limit = WAIT.as_secs();
    Fault::unavailable(format!("what was to be written before took the database {limit} s; try again in a moment"))
}

/// A text that finds no room is refused for now.
fn no_room() -> Fault {
    let room = ROOM >> 20;
    Fault::unavailable(format!("{room} MiB of texts wait to be written already; try again in a moment"))
}

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) struct Jobs {
    ahead: mpsc::Receiver<Job>,
    receiver: mpsc::Receiver<Job>,
    /// Whether the next batch begins with a sign of life where both wait: by turns, so that neither keeps the other waiting.
    turn: bool,
    closing: CancellationToken,
}

impl Jobs {
    /// What waits, of which there is at least one and at most `most`, and not many more than [`BYTES`]; none once all is written
    /// that was asked for.
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<Job>> {
        loop {
            let mut batch: Vec<_> = in_time(self.first().await?).into_iter().collect();
            self.add_to(&mut batch, most);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Adds what waits by now, within the same bounds. Signs of life go first until they are half of what there may be.
    pub(crate) fn add_to(&mut self, batch: &mut Vec<Job>, most: usize) {
        let mut bytes: usize = batch.iter().map(|job| job.work.bytes()).sum();
        while batch.len() < most
            && bytes < BYTES
            && let Some(job) = self.waiting(batch.len() < most / 2)
        {
            let Some(job) = in_time(job) else { continue };
            bytes += job.work.bytes();
            batch.push(job);
        }
    }

    /// What waits, a sign of life or something else as is asked for where both do.
    fn waiting(&mut self, signs_first: bool) -> Option<Job> {
        let (first, then) =
            if signs_first { (&mut self.ahead, &mut self.receiver) } else { (&mut self.receiver, &mut self.ahead) };
        first.try_recv().or_else(|_| then.try_recv()).ok()
    }

    async fn first(&mut self) -> Option<Job> {
        let signs_first = self.turn;
        self.turn = !signs_first;
        if let Some(job) = self.waiting(signs_first) {
            return Some(job);
        }
        tokio::select! {
            biased;
            Some(job) = self.ahead.recv() => return Some(job),
            job = self.receiver.recv() => return job,
            () = self.closing.cancelled() => {}
        }
        // What was queued before is still written.
        self.ahead.close();
        self.receiver.close();
        match self.ahead.recv().await {
            Some(job) => Some(job),
            None => self.receiver.recv().await,
        }
    }
}

/// The job, unless it has waited for too long: then it is refused.
fn in_time(job: Job) -> Option<Job> {
    if job.asked.elapsed() <= WAIT {
        return Some(job);
    }
    job.answer(Err(too_late()));
    None
}

#[cfg(test)]
mod tests {
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};

    use super::*;
    use crate::sql::commits::{accept, message_id};

    fn text(length: usize) -> Work {
        let agent = SystemEntropy.agent_id(SystemClock.now());
        Work::Commit(Box::new(accept(agent, message_id(), &"x".repeat(length))))
    }

    #[tokio::test]
    async fn a_batch_is_as_long_as_what_waits_unless_that_is_much() {
        let (queue, mut jobs) = Queue::new(64, CancellationToken::new());
        for length in [1 << 20, 1] {
            for _ in 0..12 {
                let (job, _) = queue.job(text(length)).expect("there is room");
                queue.jobs.send(job).await.expect("it is taken");
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

    fn is_refused_for_now(answer: &Result<Outcome, StoreError>) -> bool {
        matches!(answer, Err(StoreError::Unavailable { reason }) if reason.contains("try again"))
    }

    /// What comes of it, by a paused clock: what never ends fails at once.
    async fn ended<T>(work: impl Future<Output = T>) -> T {
        timeout(WAIT * 20, work).await.expect("it ends")
    }

    #[tokio::test(start_paused = true)]
    async fn texts_that_wait_have_so_much_room_and_what_has_none_waits_all_the_same() {
        let (queue, mut jobs) = Queue::new(1024, CancellationToken::new());
        let waiting: Vec<_> = (0..ROOM >> 20).map(|_| queue.job(text(1 << 20)).expect("there is room")).collect();
        assert!(is_refused_for_now(&ended(queue.write(text(1))).await));
        let without_texts = tokio::spawn({
            let queue = queue.clone();
            async move { queue.write(Work::Forget(Box::default())).await }
        });
        for job in ended(jobs.next(64)).await.expect("it waits") {
            job.answer(Ok(Outcome::Done));
        }
        assert!(matches!(ended(without_texts).await, Ok(Ok(Outcome::Done))), "what has no texts needs no room");
        drop(waiting);
        assert!(queue.job(text(2 * ROOM)).is_ok(), "there is room again, also for more than all of it");
    }

    #[tokio::test]
    async fn signs_of_life_go_before_what_waits_and_leave_room_for_it() {
        let (queue, mut jobs) = Queue::new(64, CancellationToken::new());
        for _ in 0..8 {
            for (way, work) in [(&queue.jobs, text(1)), (&queue.first, Work::Touch(Vec::new()))] {
                let (job, _) = queue.job(work).expect("there is room");
                way.send(job).await.expect("it is taken");
            }
        }
        let is_sign = |job: &Job| matches!(job.work, Work::Touch(_));
        let batch = jobs.next(4).await.expect("some wait");
        assert_eq!(batch.iter().map(is_sign).collect::<Vec<_>>(), [true, true, false, false]);
        // A batch of one is either by turns.
        let mut alone = Vec::new();
        for _ in 0..4 {
            alone.extend(jobs.next(1).await.expect("some wait").iter().map(is_sign));
        }
        assert_eq!(alone, [false, true, false, true]);
        assert_eq!(jobs.next(64).await.expect("some wait").len(), 8, "all that waits");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_for_too_long_is_refused_and_never_begun() {
        let (queue, mut jobs) = Queue::new(2, CancellationToken::new());
        let write = || {
            let queue = queue.clone();
            tokio::spawn(async move { queue.write(text(1)).await })
        };
        let old = [write(), write(), write()];
        tokio::time::sleep(WAIT + Duration::from_secs(1)).await;
        let [first, second, without_a_place] = old;
        assert!(is_refused_for_now(&ended(without_a_place).await.expect("no panic")), "it found no place");
        let next = tokio::spawn(async move { jobs.next(64).await.map(|batch| (batch, jobs)) });
        for old in [first, second] {
            assert!(is_refused_for_now(&ended(old).await.expect("no panic")), "its turn came too late");
        }
        let young = write();
        let (batch, mut jobs) = ended(next).await.expect("no panic").expect("one waits");
        assert_eq!(batch.len(), 1, "the young one");
        tokio::time::sleep(WAIT * 2).await;
        for job in batch {
            job.answer(Ok(Outcome::Done));
        }
        assert!(
            matches!(ended(young).await, Ok(Ok(Outcome::Done))),
            "what was begun is answered however long it takes"
        );
        drop(queue);
        assert!(ended(jobs.next(64)).await.is_none());
    }
}
