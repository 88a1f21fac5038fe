//! Steps on their way to the server: coalesced, at most four reports a second, in order, none twice.

use std::sync::Arc;
use std::time::Duration;

use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{CommitId, MessageId};
use raworc_core::program::StepsReport;
use raworc_core::step::{NewStep, STEP_LIMIT, StepKind};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::calls::{CallError, Calls};
use crate::truncate::cut;

/// Between two reports.
const PAUSE: Duration = Duration::from_millis(250);

/// Steps of one report; more of them wait for the next.
const REPORT_STEPS: usize = 64;

/// Bytes of one report's texts. Written as JSON, a byte may take six.
const REPORT_BYTES: usize = 512 << 10;

/// A fresh id for a commit.
pub(crate) fn commit_id() -> CommitId {
    SystemEntropy.commit_id(SystemClock.now())
}

/// The steps of one message, or of the setup.
#[derive(Debug)]
pub(crate) struct Outbox {
    calls: Arc<Calls>,
    message: Option<MessageId>,
    waiting: Vec<NewStep>,
    due: Instant,
    sending: Option<JoinHandle<Result<(), CallError>>>,
}

impl Outbox {
    /// An empty one.
    pub(crate) fn new(calls: Arc<Calls>, message: Option<MessageId>) -> Self {
        Self { calls, message, waiting: Vec::new(), due: Instant::now(), sending: None }
    }

    /// Takes a step. It goes out after a short while, so that what follows at once goes with it.
    pub(crate) fn push(&mut self, step: NewStep) {
        if self.waiting.is_empty() {
            self.due = self.due.max(Instant::now() + PAUSE);
        }
        match self.waiting.last_mut() {
            Some(last) if joins(last, &step) => last.text.push_str(&step.text),
            Some(_) | None => self.waiting.push(step),
        }
    }

    /// Sends when it is time. Only returns when the server has refused something.
    pub(crate) async fn run(&mut self) -> CallError {
        loop {
            if let Some(sending) = &mut self.sending {
                let sent = sending.await;
                self.sending = None;
                if let Some(error) = failure(sent) {
                    return error;
                }
            } else if self.waiting.is_empty() {
                std::future::pending::<()>().await;
            } else {
                tokio::time::sleep_until(self.due).await;
                let steps = self.next_report();
                self.due = Instant::now() + PAUSE;
                self.send(steps);
            }
        }
    }

    /// As many of the waiting steps as one report may hold.
    fn next_report(&mut self) -> Vec<NewStep> {
        let mut bytes = 0;
        let fit = self.waiting.iter().take(REPORT_STEPS).take_while(|step| {
            bytes += step.text.len();
            bytes <= REPORT_BYTES
        });
        let count = fit.count().max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    fn send(&mut self, steps: Vec<NewStep>) {
        let report = StepsReport { commit: commit_id(), message: self.message, steps };
        let calls = Arc::clone(&self.calls);
        self.sending = Some(tokio::spawn(async move { calls.steps(&report).await }));
    }

    /// Waits for what is on its way, and gives what was not sent yet: no more than one report holds.
    pub(crate) async fn close(mut self) -> Result<Vec<NewStep>, CallError> {
        loop {
            if let Some(sending) = self.sending.take()
                && let Some(error) = failure(sending.await)
            {
                return Err(error);
            }
            let steps = self.next_report();
            if self.waiting.is_empty() {
                return Ok(steps);
            }
            self.send(steps);
        }
    }

    /// Sends all, and waits for that.
    pub(crate) async fn flush(self) -> Result<(), CallError> {
        let (calls, message) = (Arc::clone(&self.calls), self.message);
        let steps = self.close().await?;
        if steps.is_empty() {
            return Ok(());
        }
        calls.steps(&StepsReport { commit: commit_id(), message, steps }).await
    }
}

fn failure(sent: Result<Result<(), CallError>, tokio::task::JoinError>) -> Option<CallError> {
    match sent {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(error) => Some(CallError::Away(error.to_string())),
    }
}

/// Lines of a log belong together until a step is full.
fn joins(last: &NewStep, step: &NewStep) -> bool {
    last.kind == StepKind::Log
        && step.kind == StepKind::Log
        && last.tool == step.tool
        && last.text.len() + step.text.len() <= STEP_LIMIT / 4
}

/// A remark of the program.
pub(crate) fn log_step(text: &str) -> NewStep {
    NewStep { kind: StepKind::Log, tool: None, text: cut(text, STEP_LIMIT) }
}
