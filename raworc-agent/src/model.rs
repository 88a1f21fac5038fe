//! What a model is asked and what it answers, apart from how either stands on a wire.

mod lines;
mod ollama;
mod openai;
#[cfg(test)]
mod tests;

use raworc_core::program::{ModelSpec, ModelWire};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(crate) enum Turn {
    /// How to behave.
    System { text: String },
    /// What somebody asked.
    User { text: String },
    /// What the model said, and the tools that it called.
    Assistant {
        text: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    Tool { call: String, name: String, output: String },
}

/// A tool that the model calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToolCall {
    /// Its id, where the wire knows ids; empty until the session gives one.
    pub(crate) id: String,
    /// The tool.
    pub(crate) name: String,
    /// An object; a text where the model wrote something that is no JSON.
    pub(crate) arguments: Value,
}

/// One call of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ModelRequest {
    /// Which one, and how it is spoken to.
    pub(crate) model: ModelSpec,
    /// The conversation.
    pub(crate) turns: Vec<Turn>,
    /// Whether it may call tools.
    pub(crate) tools: bool,
    /// Tokens that it may write.
    pub(crate) max_tokens: u32,
}

/// A piece of a model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelEvent {
    /// Words of the answer.
    Text(String),
    /// Words of its thought.
    Thinking(String),
    /// A tool that it calls.
    Call(ToolCall),
    /// What was counted.
    Usage { read: u64, written: u64 },
    /// The answer is whole, or cut at the tokens that it had.
    Done { cut: bool },
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModelFailure {
    /// Neither it nor the gateway could be reached.
    #[error(
        "the model cannot be reached: {0}; see that its server runs and that the gateway's address for it is right"
    )]
    Unavailable(String),
    /// It said no.
    #[error("the model refused: {0}")]
    Refused(String),
    /// The stream ended in the middle.
    #[error("the model's answer broke off in the middle; send the message again")]
    Cut,
    /// What came is no answer.
    #[error("the model's answer cannot be read: {0}; see that the model speaks the configured protocol")]
    Garbage(String),
    /// Nothing came for too long.
    #[error("the model wrote nothing for {0} s; see that its server is not stuck")]
    Stalled(u64),
}

impl ModelFailure {
    /// Whether the same call may do better at once.
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Cut | Self::Garbage(_) => true,
            Self::Refused(_) | Self::Stalled(_) => false,
        }
    }

    /// What a status that is no success means, with the body that came along.
    pub(crate) fn from_status(status: u16, body: &[u8]) -> Self {
        let reason = match error_text(body) {
            Some(text) => format!("{text} (HTTP {status})"),
            None => format!("HTTP {status}"),
        };
        match status {
            408 | 429 | 500..=599 => Self::Unavailable(reason),
            _ => Self::Refused(reason),
        }
    }
}

/// How one protocol writes a request and reads an answer.
pub(crate) trait Wire: Sync {
    /// Where requests go, below the gateway.
    fn path(&self) -> &'static str;

    /// The body of a request.
    fn body(&self, request: &ModelRequest) -> Value;

    /// Reads the answer to one request.
    fn parser(&self) -> Box<dyn Parser>;
}

/// Reads one streamed answer, in pieces of any size.
pub(crate) trait Parser: Send {
    /// Takes the next bytes and tells what they said. Nothing follows [`ModelEvent::Done`].
    fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ModelEvent>, ModelFailure>;

    /// The stream ended: what that says.
    fn finish(&mut self) -> Result<Vec<ModelEvent>, ModelFailure>;
}

/// The protocol that this model speaks.
pub(crate) fn wire(model: &ModelSpec) -> &'static dyn Wire {
    match model.wire {
        ModelWire::Ollama => &ollama::Ollama,
        ModelWire::Openai => &openai::OpenAi,
    }
}

/// Arguments as models write them: an object, or the text of one.
fn arguments(written: Value) -> Value {
    match written {
        Value::String(text) if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            // Some models encode twice.
            Ok(Value::String(inner)) => serde_json::from_str(&inner).unwrap_or(Value::String(inner)),
            Ok(value) => value,
            Err(_) => Value::String(text),
        },
        Value::Null => Value::Object(serde_json::Map::new()),
        value => value,
    }
}

/// Arguments as they go back to the model, where only an object is understood.
fn arguments_object(call: &ToolCall) -> Value {
    match &call.arguments {
        object @ Value::Object(_) => object.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Value::Object(serde_json::Map::new())
        }
    }
}

/// The text of an error in one of the shapes that model servers use.
fn error_text(body: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => error_in(&value),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let text = crate::truncate::beginning(text.trim(), 200);
            (!text.is_empty()).then(|| text.replace('\0', "\u{fffd}"))
        }
    }
}

fn error_in(value: &Value) -> Option<String> {
    let error = value.get("error")?;
    let text = error.as_str().or_else(|| error.get("message").and_then(Value::as_str));
    Some(crate::truncate::cut(text.map_or_else(|| error.to_string(), str::to_owned).as_str(), 500))
}
