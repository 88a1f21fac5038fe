//! The work on one message, without any input or output of its own.
//!
//! ```text
//!  begin ─▶ answering ──calls──▶ acting ──results──▶ answering ─▶ ... ─▶ ended
//!              ▲  │ too long
//!              │  ▼
//!          summarising
//! ```
//!
//! It is fed with [`Input`]s and says by [`Output`]s what is to be done next. It never waits and reads no clock.

mod limits;
mod prompt;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use raworc_core::message::{MESSAGE_LIMIT, Message, Part};
use raworc_core::program::{LeaseReply, ModelSpec, WorkSpec};
use raworc_core::step::{NewStep, STEP_LIMIT, StepKind};
use raworc_core::store::Ending;

use crate::context::Conversation;
use crate::model::{ModelEvent, ModelFailure, ModelRequest, ToolCall, Turn};
use crate::tools::{self, Tool, ToolOutput};
use crate::truncate::cut;
use limits::{Spent, Window};

/// How long to wait before a model that failed is asked once more.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The model said something.
    Model(ModelEvent),
    /// The model gave no answer.
    ModelFailed(ModelFailure),
    /// The tool is done.
    ToolDone(ToolOutput),
    /// Somebody asked to give the message up.
    Cancel,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) enum Output {
    /// Ask the model, after a pause.
    CallModel { request: ModelRequest, after: Duration },
    /// Hang up on the model.
    StopModel,
    /// Use a tool.
    RunTool(Tool),
    /// End what the tool does.
    StopTool,
    /// Report what was done.
    Step(NewStep),
    /// Show words as they come.
    Delta(String),
    /// The message ends. Nothing follows.
    End { ending: Ending, reply: Option<Vec<Part>> },
}

/// The work on one message.
#[derive(Debug)]
pub(crate) struct Session {
    work: WorkSpec,
    instructions: String,
    conversation: Conversation,
    window: Window,
    spent: Spent,
    /// Tool calls so far, to number those without an id.
    calls: u32,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A command is run without a model.
    Commanding { command: String },
    /// The model answers.
    Answering(Answer),
    /// The model puts the oldest exchanges in few words.
    Summarising { count: usize, text: String },
    /// A tool is at work, others wait.
    Acting { call: ToolCall, waiting: VecDeque<ToolCall> },
    /// All is done.
    Ended,
}

#[derive(Debug, Default)]
struct Answer {
    text: String,
    thinking: String,
    calls: Vec<ToolCall>,
    retried: bool,
}

impl Session {
    /// Begins the work on a message, and says what is to be done first.
    pub(crate) fn begin(lease: LeaseReply, conversation: Conversation) -> (Self, Vec<Output>) {
        let LeaseReply { message, earlier_steps, work } = lease;
        let mut session = Self {
            instructions: prompt::instructions(&work),
            window: Window::of(work.model.as_ref()),
            work,
            conversation,
            spent: Spent::default(),
            calls: 0,
            phase: Phase::Ended,
        };
        let command = Message::command(&message.parts).map(str::to_owned);
        session.conversation.begin(message.id, prompt::question(&message, &earlier_steps));
        let mut outputs = Vec::new();
        match (command, &session.work.model) {
            (Some(command), _) => {
                let seconds = session.work.limits.tool_seconds;
                outputs.push(step(StepKind::ToolCall, Some("shell"), &command));
                outputs.push(Output::RunTool(Tool::Shell { command: command.clone(), seconds }));
                session.phase = Phase::Commanding { command };
            }
            (None, Some(_)) => session.ask(&mut outputs, false),
            (None, None) => session.fail(
                "no model is configured for this agent; name one in its spec or in the installation's \
                 configuration, or begin the message with ! to run it as a shell command"
                    .into(),
                &mut outputs,
            ),
        }
        (session, outputs)
    }

    /// Takes what happened, and says what is to be done.
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Model(event) => self.on_model(event, &mut outputs),
            Input::ModelFailed(failure) => self.on_failure(failure, &mut outputs),
            Input::ToolDone(output) => self.on_tool(output, &mut outputs),
            Input::Cancel => self.on_cancel(&mut outputs),
        }
        outputs
    }

    /// What is remembered after it.
    pub(crate) fn into_conversation(mut self) -> Conversation {
        self.conversation.prune();
        self.conversation
    }

    fn on_model(&mut self, event: ModelEvent, outputs: &mut Vec<Output>) {
        match &mut self.phase {
            Phase::Answering(answer) => {
                match event {
                    ModelEvent::Text(text) => {
                        self.spent.estimate(text.len());
                        answer.text.push_str(&text);
                        outputs.push(Output::Delta(text));
                    }
                    ModelEvent::Thinking(text) => {
                        self.spent.estimate(text.len());
                        answer.thinking.push_str(&text);
                    }
                    ModelEvent::Call(call) => {
                        self.spent.estimate(call.arguments.to_string().len());
                        answer.calls.push(call);
                    }
                    ModelEvent::Usage { read, written } => {
                        self.spent.counted(written);
                        self.window.counted(read);
                    }
                    ModelEvent::Done { cut } => {
                        let answer = std::mem::take(answer);
                        return self.answered(answer, cut, outputs);
                    }
                }
                self.check_tokens(outputs);
            }
            Phase::Summarising { count, text } => {
                match event {
                    ModelEvent::Text(words) => {
                        self.spent.estimate(words.len());
                        text.push_str(&words);
                    }
                    ModelEvent::Thinking(words) => self.spent.estimate(words.len()),
                    ModelEvent::Usage { written, .. } => self.spent.counted(written),
                    ModelEvent::Call(_) => {}
                    ModelEvent::Done { .. } => {
                        let (count, text) = (*count, std::mem::take(text));
                        self.spent.end_call();
                        if text.trim().is_empty() {
                            self.forget(count, "the model gave an empty summary", outputs);
                        } else {
                            self.conversation.summarise(count, cut(text.trim(), self.window.budget() / 8));
                        }
                        return self.ask(outputs, false);
                    }
                }
                self.check_tokens(outputs);
            }
            Phase::Commanding { .. } | Phase::Acting { .. } | Phase::Ended => {}
        }
    }

    fn on_failure(&mut self, failure: ModelFailure, outputs: &mut Vec<Output>) {
        self.spent.end_call();
        match &self.phase {
            Phase::Answering(answer) if failure.is_retryable() && !answer.retried => {
                let text = format!("{failure}; it is asked once more");
                outputs.push(step(StepKind::Log, None, &text));
                self.ask(outputs, true);
            }
            Phase::Answering(answer) if matches!(failure, ModelFailure::TooLong(_)) && self.window.narrow() => {
                let retried = answer.retried;
                outputs.push(step(StepKind::Log, None, &format!("{failure}; it is asked again with less")));
                self.ask(outputs, retried);
            }
            Phase::Answering(_) => self.fail(failure.to_string(), outputs),
            Phase::Summarising { count, .. } => {
                self.forget(*count, &failure.to_string(), outputs);
                self.ask(outputs, false);
            }
            Phase::Commanding { .. } | Phase::Acting { .. } | Phase::Ended => {}
        }
    }

    fn on_tool(&mut self, output: ToolOutput, outputs: &mut Vec<Output>) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Commanding { command } => {
                outputs.push(step(StepKind::ToolResult, Some("shell"), &output.text));
                let remembered = format!("$ {command}\n{}", cut(&output.text, 2048));
                self.conversation.push(Turn::Assistant { text: remembered, calls: Vec::new() });
                match output.broken_off {
                    Some(reason) => self.end(Ending::Failed { reason }, None, outputs),
                    None => {
                        let text = if output.text.is_empty() { "[no output]".into() } else { output.text };
                        self.end(Ending::Done, Some(vec![Part::text(text)]), outputs);
                    }
                }
            }
            Phase::Acting { call, waiting } => {
                outputs.push(step(StepKind::ToolResult, Some(&call.name), &output.text));
                self.result(&call, &output.text);
                self.act(waiting, outputs);
            }
            other @ (Phase::Answering(_) | Phase::Summarising { .. } | Phase::Ended) => self.phase = other,
        }
    }

    fn on_cancel(&mut self, outputs: &mut Vec<Output>) {
        match &self.phase {
            Phase::Answering(_) | Phase::Summarising { .. } => outputs.push(Output::StopModel),
            Phase::Commanding { .. } | Phase::Acting { .. } => outputs.push(Output::StopTool),
            Phase::Ended => return,
        }
        self.close_open_calls("the message was cancelled");
        self.conversation.push(Turn::Assistant { text: "(cancelled)".into(), calls: Vec::new() });
        self.end(Ending::Cancelled, None, outputs);
    }

    /// The model's answer is whole.
    fn answered(&mut self, answer: Answer, was_cut: bool, outputs: &mut Vec<Output>) {
        let Answer { text, thinking, mut calls, retried } = answer;
        self.spent.end_call();
        if !thinking.trim().is_empty() {
            outputs.push(step(StepKind::Thought, None, thinking.trim()));
        }
        for call in &mut calls {
            self.calls += 1;
            if call.id.is_empty() {
                call.id = format!("call_{}", self.calls);
            }
        }
        if !calls.is_empty() {
            if !text.trim().is_empty() {
                outputs.push(step(StepKind::Thought, None, text.trim()));
            }
            self.conversation.push(Turn::Assistant { text, calls: calls.clone() });
            return self.act(calls.into(), outputs);
        }
        if text.trim().is_empty() {
            if was_cut {
                let allowed = self.window.answer_tokens();
                let reason = format!(
                    "the model used all the {allowed} tokens of one call without an answer; \
                     give it a smaller task, or a model with a larger context"
                );
                return self.fail(reason, outputs);
            }
            if retried {
                return self.fail("the model gave an empty answer twice; send the message again".into(), outputs);
            }
            return self.ask(outputs, true);
        }
        const CUT: &str = "\n\n[The model's answer was cut here: it used all the tokens of one call.]";
        let mut reply = cut(text.trim(), MESSAGE_LIMIT - CUT.len());
        if was_cut {
            reply.push_str(CUT);
        }
        self.conversation.push(Turn::Assistant { text, calls: Vec::new() });
        self.end(Ending::Done, Some(vec![Part::text(reply)]), outputs);
    }

    /// Uses the next tool that can be used, or asks the model again where none is left.
    fn act(&mut self, mut waiting: VecDeque<ToolCall>, outputs: &mut Vec<Output>) {
        while let Some(call) = waiting.pop_front() {
            match tools::parse(&call, self.work.limits.tool_seconds) {
                Ok(tool) => {
                    outputs.push(step(StepKind::ToolCall, Some(tool_name(&tool)), &prompt::call_text(&tool, &call)));
                    outputs.push(Output::RunTool(tool));
                    self.phase = Phase::Acting { call, waiting };
                    return;
                }
                Err(reason) => {
                    outputs.push(step(StepKind::ToolCall, Some(&call.name), &call.arguments.to_string()));
                    outputs.push(step(StepKind::ToolResult, Some(&call.name), &reason));
                    self.result(&call, &format!("error: {reason}"));
                }
            }
        }
        self.ask(outputs, false);
    }

    fn result(&mut self, call: &ToolCall, output: &str) {
        let output = cut(output, self.window.output_bytes());
        self.conversation.push(Turn::Tool { call: call.id.clone(), name: call.name.clone(), output });
    }

    /// Asks the model, after making room where its window is too small for all that was said.
    fn ask(&mut self, outputs: &mut Vec<Output>, retried: bool) {
        let Some(model) = self.work.model.clone() else {
            return self.fail("the agent's model was taken away while it worked".into(), outputs);
        };
        if let Some(reason) = self.spent.over(&self.work.limits) {
            return self.fail(reason, outputs);
        }
        let budget = self.window.budget().saturating_sub(self.instructions.len());
        if self.conversation.bytes() > budget {
            let surplus = self.conversation.surplus(budget);
            if surplus > 0 {
                return self.summarise(model, surplus, outputs);
            }
            if !self.conversation.shorten(budget) {
                let reason = format!(
                    "the message and the instructions do not fit into the {} tokens that the model {:?} reads; \
                     shorten them, or choose a model with a larger context",
                    self.window.context(),
                    model.name
                );
                return self.fail(reason, outputs);
            }
        }
        self.spent.begin_round();
        let turns = self.conversation.turns(&self.instructions);
        self.window.asked(self.instructions.len() + self.conversation.bytes() + tools::definitions().to_string().len());
        let request = ModelRequest { turns, tools: true, max_tokens: self.max_tokens(), model };
        let after = if retried { RETRY_AFTER } else { Duration::ZERO };
        outputs.push(Output::CallModel { request, after });
        self.phase = Phase::Answering(Answer { retried, ..Answer::default() });
    }

    fn summarise(&mut self, model: ModelSpec, count: usize, outputs: &mut Vec<Output>) {
        let transcript = self.conversation.transcript(count, self.window.budget() / 2);
        let turns = prompt::summary_turns(transcript);
        let max_tokens = self.max_tokens();
        outputs.push(Output::CallModel {
            request: ModelRequest { model, turns, tools: false, max_tokens },
            after: Duration::ZERO,
        });
        self.phase = Phase::Summarising { count, text: String::new() };
    }

    fn forget(&mut self, count: usize, why: &str, outputs: &mut Vec<Output>) {
        self.conversation.forget(count);
        let text = format!("the oldest part of the conversation was left out without a summary: {why}");
        outputs.push(step(StepKind::Log, None, &text));
    }

    fn max_tokens(&self) -> u32 {
        self.window.answer_tokens().min(self.spent.left(&self.work.limits)).max(1)
    }

    /// Hangs up on a model that has written more than it may.
    fn check_tokens(&mut self, outputs: &mut Vec<Output>) {
        if let Some(reason) = self.spent.over_tokens(&self.work.limits) {
            outputs.push(Output::StopModel);
            self.fail(reason, outputs);
        }
    }

    fn fail(&mut self, reason: String, outputs: &mut Vec<Output>) {
        self.close_open_calls("the work ended before");
        self.conversation.push(Turn::Assistant { text: format!("(failed: {reason})"), calls: Vec::new() });
        self.end(Ending::Failed { reason }, None, outputs);
    }

    /// Models refuse a conversation in which a call has no result.
    fn close_open_calls(&mut self, why: &str) {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Acting { call, waiting } => {
                for call in std::iter::once(call).chain(waiting) {
                    self.result(&call, &format!("[{why}]"));
                }
            }
            Phase::Commanding { .. } | Phase::Answering(_) | Phase::Summarising { .. } | Phase::Ended => {}
        }
    }

    fn end(&mut self, ending: Ending, reply: Option<Vec<Part>>, outputs: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        outputs.push(Output::End { ending, reply });
    }
}

const fn tool_name(tool: &Tool) -> &'static str {
    match tool {
        Tool::Shell { .. } => "shell",
        Tool::Files(_) => "files",
    }
}

fn step(kind: StepKind, tool: Option<&str>, text: &str) -> Output {
    let tool = tool.map(|name| cut(name, 64));
    Output::Step(NewStep { kind, tool, text: cut(text, STEP_LIMIT) })
}
