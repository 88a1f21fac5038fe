//! OpenAI-compatible chat completions: server-sent events, each with one JSON object.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::lines::{LINE_LIMIT, Lines, garbage};
use super::{ModelEvent, ModelFailure, ModelRequest, Parser, ToolCall, Wire};

/// Tool calls that one answer may hold.
const CALLS_LIMIT: usize = 64;

/// Bytes that the arguments of one tool call may hold.
const ARGUMENTS_LIMIT: usize = 1 << 20;

/// The wire.
#[derive(Debug)]
pub(super) struct OpenAi;

impl Wire for OpenAi {
    fn path(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn body(&self, request: &ModelRequest) -> Value {
        let mut body = super::body(request, call, result);
        body["stream_options"] = json!({ "include_usage": true });
        body["max_tokens"] = json!(request.max_tokens);
        body
    }

    fn parser(&self) -> Box<dyn Parser> {
        Box::<OpenAiParser>::default()
    }
}

fn call(call: &ToolCall) -> Value {
    let arguments = super::arguments_object(call).to_string();
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
}

fn result(call: &str, _name: &str, output: &str) -> Value {
    json!({ "role": "tool", "tool_call_id": call, "content": output })
}

#[derive(Debug, Default)]
struct OpenAiParser {
    lines: Lines,
    data: Vec<u8>,
    calls: BTreeMap<usize, PartialCall>,
    /// Why the answer ended, once it did; what was counted may still follow.
    finished: Option<String>,
    /// Whether anything that could be read has come.
    begun: bool,
    done: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    id: String,
    name: String,
    arguments: String,
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    /// In place of `delta` where a server does not stream.
    message: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    /// Servers name the thought in one of two ways.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Deserialize)]
struct CallDelta {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDelta>,
}

#[derive(Deserialize)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<Value>,
}

impl OpenAiParser {
    fn event(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        let data = std::mem::take(&mut self.data);
        if data.trim_ascii().is_empty() {
            return Ok(());
        }
        if data.trim_ascii() == b"[DONE]" {
            self.end(events);
            return Ok(());
        }
        let chunk: Chunk = super::object(&data)?;
        let choices = match (chunk.choices, &chunk.usage) {
            (Some(choices), _) => choices,
            (None, Some(_)) => Vec::new(),
            (None, None) => return Err(garbage(&data)),
        };
        self.begun = true;
        for choice in choices {
            if let Some(delta) = choice.delta.or(choice.message) {
                self.delta(delta, events)?;
            }
            if choice.finish_reason.is_some() {
                self.finished = choice.finish_reason;
            }
        }
        if let Some(usage) = chunk.usage {
            let (read, written) = (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0));
            if written > 0 && self.finished.is_some() {
                events.push(ModelEvent::Usage { read, written });
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta, events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        let thinking = delta.reasoning_content.or(delta.reasoning);
        events.extend(thinking.filter(|text| !text.is_empty()).map(ModelEvent::Thinking));
        events.extend(delta.content.filter(|text| !text.is_empty()).map(ModelEvent::Text));
        for call in delta.tool_calls.unwrap_or_default() {
            let index = self.index_of(&call);
            if index >= CALLS_LIMIT {
                return Err(ModelFailure::Garbage(format!("more than {CALLS_LIMIT} tool calls at once")));
            }
            let partial = self.calls.entry(index).or_default();
            if let Some(id) = call.id {
                partial.id = id;
            }
            let Some(function) = call.function else { continue };
            if let Some(name) = function.name {
                partial.name.push_str(&name);
            }
            match function.arguments {
                Some(Value::String(text)) => {
                    partial.arguments.push_str(&text);
                    if partial.arguments.len() > ARGUMENTS_LIMIT {
                        return Err(ModelFailure::Garbage(format!("a tool call of more than {ARGUMENTS_LIMIT} bytes")));
                    }
                }
                Some(Value::Null) | None => {}
                Some(object) => partial.object = Some(object),
            }
        }
        Ok(())
    }

    /// Servers that number no calls send each whole, or go on with the one of the same id.
    fn index_of(&self, call: &CallDelta) -> usize {
        let last = self.calls.last_key_value();
        match (call.index, last) {
            (Some(index), _) => index,
            (None, None) => 0,
            (None, Some((&last, partial))) => match &call.id {
                Some(id) if *id != partial.id => last + 1,
                Some(_) | None => last,
            },
        }
    }

    fn end(&mut self, events: &mut Vec<ModelEvent>) {
        self.done = true;
        for partial in std::mem::take(&mut self.calls).into_values() {
            let written = partial.object.unwrap_or(Value::String(partial.arguments));
            let arguments = super::arguments(written);
            events.push(ModelEvent::Call(ToolCall { id: partial.id, name: partial.name, arguments }));
        }
        events.push(ModelEvent::Done { cut: self.finished.as_deref() == Some("length") });
    }
}

impl Parser for OpenAiParser {
    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        if self.done {
            return Ok(());
        }
        if line.is_empty() {
            return self.event(events);
        }
        if self.data.len() + line.len() > LINE_LIMIT {
            return Err(ModelFailure::Garbage(format!("an event of more than {LINE_LIMIT} bytes")));
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            return Ok(());
        }
        let field = [&b":"[..], b"event:", b"id:", b"retry:"].iter().any(|start| line.starts_with(start));
        if field {
            return Ok(());
        }
        // A server that does not stream, or fails, answers with the object alone.
        self.data.extend_from_slice(line);
        Ok(())
    }

    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        let rest = self.lines.take();
        let read = self.line(&rest, events).and_then(|()| self.event(events));
        read.map_err(|failure| super::lines::at_end(failure, self.begun))?;
        if !self.done && self.finished.is_some() {
            self.end(events);
        }
        if self.done { Ok(()) } else { Err(ModelFailure::Cut) }
    }
}
