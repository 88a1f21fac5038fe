//! Ollama's own API: one JSON object a line.

use serde::Deserialize;
use serde_json::{Value, json};

use super::lines::{Lines, garbage};
use super::{ModelEvent, ModelFailure, ModelRequest, Parser, ToolCall, Wire};

/// The wire.
#[derive(Debug)]
pub(super) struct Ollama;

impl Wire for Ollama {
    fn path(&self) -> &'static str {
        "/api/chat"
    }

    fn body(&self, request: &ModelRequest) -> Value {
        let mut body = super::body(request, call, result);
        body["options"] = json!({ "num_ctx": request.model.context, "num_predict": request.max_tokens });
        body
    }

    fn parser(&self) -> Box<dyn Parser> {
        Box::<OllamaParser>::default()
    }
}

fn call(call: &ToolCall) -> Value {
    json!({ "function": { "name": call.name, "arguments": super::arguments_object(call) } })
}

fn result(_call: &str, name: &str, output: &str) -> Value {
    json!({ "role": "tool", "tool_name": name, "content": output })
}

#[derive(Debug, Default)]
struct OllamaParser {
    lines: Lines,
    /// Whether anything that could be read has come.
    begun: bool,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    message: Option<ChunkMessage>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Deserialize)]
struct ChunkMessage {
    content: Option<String>,
    thinking: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ChunkCall>>,
}

#[derive(Deserialize)]
struct ChunkCall {
    #[serde(default)]
    id: Option<String>,
    function: ChunkFunction,
}

#[derive(Deserialize)]
struct ChunkFunction {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl Parser for OllamaParser {
    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        if self.done || line.trim_ascii().is_empty() {
            return Ok(());
        }
        let chunk: Chunk = super::object(line)?;
        if chunk.message.is_none() && !chunk.done {
            return Err(garbage(line));
        }
        self.begun = true;
        if let Some(message) = chunk.message {
            events.extend(message.thinking.filter(|text| !text.is_empty()).map(ModelEvent::Thinking));
            events.extend(message.content.filter(|text| !text.is_empty()).map(ModelEvent::Text));
            events.extend(message.tool_calls.unwrap_or_default().into_iter().map(|call| {
                ModelEvent::Call(ToolCall {
                    id: call.id.unwrap_or_default(),
                    name: call.function.name,
                    arguments: super::arguments(call.function.arguments),
                })
            }));
        }
        if chunk.done {
            self.done = true;
            if let Some(written) = chunk.eval_count {
                events.push(ModelEvent::Usage { read: chunk.prompt_eval_count.unwrap_or(0), written });
            }
            events.push(ModelEvent::Done { cut: chunk.done_reason.as_deref() == Some("length") });
        }
        Ok(())
    }

    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        let rest = self.lines.take();
        self.line(&rest, events).map_err(|failure| super::lines::at_end(failure, self.begun))?;
        if self.done { Ok(()) } else { Err(ModelFailure::Cut) }
    }
}
