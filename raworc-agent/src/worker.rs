//! Takes messages and works on them: does what the session says, and tells it what came of that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raworc_core::ids::MessageId;
use raworc_core::message::Part;
use raworc_core::program::{DeltaReport, EndReport, LeaseReply};
use raworc_core::store::Ending;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::calls::{Answer, CallError, Calls};
use crate::context::Conversation;
use crate::model::{ModelEvent, ModelFailure, ModelRequest};
use crate::outbox::{Outbox, commit_id, log_step};
use crate::session::{Input, Output, Session};
use crate::shared::Shared;
use crate::tools::{Tool, ToolOutput, Tools};

/// The agent at work.
#[derive(Debug)]
pub(crate) struct Worker {
    calls: Arc<Calls>,
    shared: Arc<Shared>,
    memory: PathBuf,
    /// Not there while a task works with them.
    tools: Option<Tools>,
    home: PathBuf,
}

/// What goes on for one message.
struct Job {
    message: MessageId,
    outbox: Outbox,
    deltas: Deltas,
    model: Model,
    tool: Option<(JoinHandle<(Tools, ToolOutput)>, CancellationToken)>,
}

enum Model {
    Silent,
    Asked(JoinHandle<Result<Answer, ModelFailure>>),
    Speaking(Answer),
}

struct End {
    ending: Ending,
    reply: Option<Vec<Part>>,
}

impl Worker {
    /// A worker that keeps its memory below `home`.
    pub(crate) fn new(calls: Arc<Calls>, shared: Arc<Shared>, home: &Path) -> Self {
        Self {
            calls,
            shared,
            memory: home.join(".raworc/conversation.json"),
            tools: Some(Tools::new(home)),
            home: home.to_owned(),
        }
    }

    /// Works on messages until the server refuses to give any.
    pub(crate) async fn run(&mut self) -> CallError {
        let mut pauses = crate::calls::pauses();
        let mut given_up: Option<(MessageId, String)> = None;
        loop {
            self.shared.meter.caught_up().await;
            let lease = match self.calls.lease().await {
                Ok(Some(lease)) => lease,
                Ok(None) => continue,
                Err(error) => return error,
            };
            let message = lease.message.id;
            self.calls.trace(lease.message.traceparent);
            // What was given up comes again where not even that was taken, and is not begun once more.
            let reason = match given_up.take().filter(|(given_up, _)| *given_up == message) {
                Some((_, reason)) => reason,
                None => match self.work(lease).await {
                    Ok(()) => {
                        pauses = crate::calls::pauses();
                        continue;
                    }
                    Err(CallError::Stale) => return CallError::Stale,
                    Err(error) => unrecorded(&error),
                },
            };
            match self.give_up(message, &reason).await {
                Ok(()) => pauses = crate::calls::pauses(),
                Err(CallError::Stale) => return CallError::Stale,
                Err(error) => {
                    tracing::warn!("the message in hand cannot be given up: {error}");
                    given_up = Some((message, reason));
                    tokio::time::sleep(pauses.next().unwrap_or_default()).await;
                }
            }
        }
    }

    /// Ends a message whose work could not be told. Otherwise it would be held for ever, or be done again.
    async fn give_up(&self, message: MessageId, reason: &str) -> Result<(), CallError> {
        tracing::warn!("the message in hand is given up: {reason}");
        let ending = Ending::Failed { reason: reason.to_owned() };
        let report = EndReport { commit: commit_id(), message, ending, reply: None, steps: Vec::new() };
        self.calls.end(&report).await
    }

    async fn work(&mut self, lease: LeaseReply) -> Result<(), CallError> {
        let message = lease.message.id;
        self.shared.set_env(&lease.work.env);
        let cancelled_before = lease.message.cancel_requested;
        let mut job = Job {
            message,
            outbox: Outbox::new(Arc::clone(&self.calls), Some(message)),
            deltas: Deltas::new(Arc::clone(&self.calls), message),
            model: Model::Silent,
            tool: None,
        };
        let memory = self.memory.clone();
        let (conversation, note) = blocking(move || Conversation::load(&memory)).await?;
        if let Some(note) = note {
            tracing::warn!("{note}");
            job.outbox.push(log_step(&note));
        }
        let (mut session, mut outputs) = Session::begin(lease, conversation);
        let shared = Arc::clone(&self.shared);
        let cancelled = async move {
            if !cancelled_before {
                shared.cancelled(message).await;
            }
        };
        tokio::pin!(cancelled);
        let mut cancelling = false;
        let end = loop {
            if let Some(end) = self.perform(outputs, &mut job).await? {
                break end;
            }
            let input = tokio::select! {
                biased;
                () = &mut cancelled, if !cancelling => {
                    cancelling = true;
                    Input::Cancel
                }
                error = job.outbox.run() => {
                    self.stop_tool(&mut job).await?;
                    return Err(error);
                }
                input = next(&mut job.model) => input,
                (tools, output) = tool_done(&mut job.tool) => {
                    job.tool = None;
                    self.shared.meter.written();
                    self.tools = Some(tools.unwrap_or_else(|| Tools::new(&self.home)));
                    Input::ToolDone(output)
                }
                never = job.deltas.run() => match never {},
            };
            outputs = session.on(input);
        };
        self.finish(session, job, end).await
    }

    async fn perform(&mut self, outputs: Vec<Output>, job: &mut Job) -> Result<Option<End>, CallError> {
        for output in outputs {
            match output {
                Output::CallModel { request, after } => job.model = Model::Asked(self.ask(request, after)),
                Output::StopModel => job.model = Model::Silent,
                Output::RunTool(tool) => job.tool = Some(self.start(tool)),
                Output::StopTool => self.stop_tool(job).await?,
                Output::Step(step) => job.outbox.push(step),
                Output::Delta(text) => job.deltas.push(&text),
                Output::End { ending, reply } => return Ok(Some(End { ending, reply })),
            }
        }
        Ok(None)
    }

    fn ask(&self, request: ModelRequest, after: std::time::Duration) -> JoinHandle<Result<Answer, ModelFailure>> {
        let calls = Arc::clone(&self.calls);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            calls.ask(&request).await
        })
    }

    fn start(&mut self, tool: Tool) -> (JoinHandle<(Tools, ToolOutput)>, CancellationToken) {
        let mut tools = self.tools.take().unwrap_or_else(|| Tools::new(&self.home));
        let env = self.shared.env();
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let task = tokio::spawn(async move {
            let output = tools.run(tool, &env, &stop).await;
            (tools, output)
        });
        (task, cancel)
    }

    async fn stop_tool(&mut self, job: &mut Job) -> Result<(), CallError> {
        if let Some((task, cancel)) = job.tool.take() {
            cancel.cancel();
            self.tools = task.await.ok().map(|(tools, _)| tools);
        }
        Ok(())
    }

    async fn finish(&mut self, session: Session, job: Job, end: End) -> Result<(), CallError> {
        let conversation = session.into_conversation();
        let memory = self.memory.clone();
        let mut outbox = job.outbox;
        // Remembered before it is told, so that an answer which somebody has seen is never forgotten.
        if let Err(error) = blocking(move || conversation.save(&memory)).await? {
            let note = format!("the conversation cannot be kept: {error}");
            tracing::warn!("{note}");
            outbox.push(log_step(&note));
        }
        self.shared.meter.written();
        drop(job.deltas);
        let steps = outbox.close().await?;
        let End { ending, reply } = end;
        let report = EndReport { commit: commit_id(), message: job.message, ending, reply, steps };
        self.calls.end(&report).await
    }
}

/// Why a message fails whose steps or answer the server did not take.
fn unrecorded(error: &CallError) -> String {
    match error {
        CallError::Refused { message, .. } => format!("the work could not be recorded: {message}"),
        CallError::Away(_) | CallError::Stale => format!("the work could not be recorded: {error}"),
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        match self {
            Self::Asked(task) => task.abort(),
            Self::Silent | Self::Speaking(_) => {}
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CallError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| CallError::Away(error.to_string()))
}

/// What the model says next. Never, while none was asked.
async fn next(model: &mut Model) -> Input {
    loop {
        match model {
            Model::Silent => std::future::pending::<()>().await,
            Model::Asked(task) => {
                let asked = task.await.unwrap_or_else(|error| Err(ModelFailure::Away(error.to_string())));
                match asked {
                    Ok(answer) => *model = Model::Speaking(answer),
                    Err(failure) => {
                        *model = Model::Silent;
                        return Input::ModelFailed(failure);
                    }
                }
            }
            Model::Speaking(answer) => match answer.next().await {
                Ok(event) => {
                    if matches!(event, ModelEvent::Done { .. }) {
                        *model = Model::Silent;
                    }
                    return Input::Model(event);
                }
                Err(failure) => {
                    *model = Model::Silent;
                    return Input::ModelFailed(failure);
                }
            },
        }
    }
}

async fn tool_done(
    tool: &mut Option<(JoinHandle<(Tools, ToolOutput)>, CancellationToken)>,
) -> (Option<Tools>, ToolOutput) {
    let Some((task, _)) = tool else { return std::future::pending().await };
    match task.await {
        Ok((tools, output)) => (Some(tools), output),
        Err(error) => {
            let reason = format!("the tool failed: {error}");
            (None, ToolOutput { text: reason.clone(), broken_off: Some(reason) })
        }
    }
}

/// Words on their way to whoever watches: best effort, one call at a time.
struct Deltas {
    calls: Arc<Calls>,
    message: MessageId,
    text: String,
    sending: Option<JoinHandle<()>>,
}

impl Deltas {
    const fn new(calls: Arc<Calls>, message: MessageId) -> Self {
        Self { calls, message, text: String::new(), sending: None }
    }

    fn push(&mut self, text: &str) {
        // While nobody takes them, words are of no use.
        if self.text.len() < 64 << 10 {
            self.text.push_str(text);
        }
    }

    async fn run(&mut self) -> std::convert::Infallible {
        loop {
            if let Some(sending) = &mut self.sending {
                // Whether they arrived does not matter.
                let _ = sending.await;
                self.sending = None;
            } else if self.text.is_empty() {
                std::future::pending::<()>().await;
            } else {
                let report = DeltaReport { message: self.message, text: std::mem::take(&mut self.text) };
                let calls = Arc::clone(&self.calls);
                self.sending = Some(tokio::spawn(async move {
                    if let Err(error) = calls.deltas(&report).await {
                        tracing::debug!("words did not arrive: {error}");
                    }
                }));
            }
        }
    }
}

impl Drop for Deltas {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}
