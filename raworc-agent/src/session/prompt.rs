//! What the model is told around a conversation.

use raworc_core::message::{Message, Part, Role};
use raworc_core::program::WorkSpec;
use raworc_core::step::{Step, StepKind};

use crate::model::{ToolCall, Turn};
use crate::tools::Tool;
use crate::truncate::cut;

/// Bytes that a predecessor's steps take in the question.
const EARLIER_LIMIT: usize = 4096;

const OWN: &str = "You are an agent with a Linux computer of your own. Your files are in your home directory and stay. \
Use the shell and files tools to do what you are asked, look at the results, and go on until it is done; then answer \
in a few words. Do not say that you did what you have not done.";

/// The instructions before every conversation.
pub(super) fn instructions(work: &WorkSpec) -> String {
    match &work.instructions {
        Some(text) if !text.trim().is_empty() => format!("{OWN}\n\n{}", text.trim()),
        Some(_) | None => OWN.into(),
    }
}

/// What a message asks, and what its earlier attempts did.
pub(super) fn question(message: &Message, earlier: &[Step]) -> String {
    let mut text = String::new();
    if message.role == Role::System {
        text.push_str("[From your owner, about how to behave:]\n");
    }
    let parts: Vec<_> = message
        .parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => text.replace('\0', "\u{fffd}"),
            Part::Blob { media_type, .. } => format!("[a file of type {media_type}, which cannot be shown here]"),
        })
        .collect();
    text.push_str(&parts.join("\n"));
    if !earlier.is_empty() {
        let steps: Vec<_> = earlier.iter().map(line).collect();
        text.push_str("\n\n[An earlier attempt at this was broken off after these steps. What they did is done.]\n");
        text.push_str(&cut(&steps.join("\n"), EARLIER_LIMIT));
    }
    text
}

fn line(step: &Step) -> String {
    let kind = match step.kind {
        StepKind::Thought => "thought",
        StepKind::ToolCall => "called",
        StepKind::ToolResult => "result of",
        StepKind::Screenshot => "screenshot",
        StepKind::Log => "log",
    };
    let tool = step.tool.as_deref().unwrap_or_default();
    format!("- {kind} {tool}: {}", cut(&step.text, 500))
}

/// A tool call for people: the command itself, or what is done with which file.
pub(super) fn call_text(tool: &Tool, call: &ToolCall) -> String {
    match tool {
        Tool::Shell { command, .. } => command.clone(),
        Tool::Files(_) => call.arguments.to_string(),
    }
}

/// How the model is asked for a summary.
pub(super) fn summary_turns(transcript: String) -> Vec<Turn> {
    let ask = "Write a short summary of the conversation below, for the assistant in it to go on from. Keep facts, \
               names, paths, decisions, and what is still to be done. Answer with the summary alone.";
    vec![Turn::System { text: ask.into() }, Turn::User { text: transcript }]
}
