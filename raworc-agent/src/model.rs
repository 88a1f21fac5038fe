//! What a model is asked and what it answers, apart from how either stands on a wire.

mod lines;
mod ollama;
mod openai;
#[cfg(test)]
mod tests;

use raworc_core::program::{ModelSpec, ModelWire};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    /// The gateway could not be reached.
    #[error("the model's gateway cannot be reached: {0}")]
    Away(String),
    /// The gateway says why there is no answer now.
    #[error("{0}")]
    Unavailable(String),
    /// The gateway says why there is none for this request.
    #[error("{0}")]
    Refused(String),
    /// The gateway says that the model cannot read so much at once.
    #[error("{0}")]
    TooLong(String),
    /// The model's server said in the middle of the stream that something is wrong.
    #[error("the model failed: {0}")]
    Failed(String),
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
            Self::Away(_) | Self::Unavailable(_) | Self::Cut | Self::Garbage(_) => true,
            Self::Refused(_) | Self::TooLong(_) | Self::Failed(_) | Self::Stalled(_) => false,
        }
    }

    /// What an answer of the gateway means that is no success. It gives its reasons in whole sentences.
    pub(crate) fn from_status(status: u16, body: &[u8]) -> Self {
        let (code, mut reason) = crate::errors::read(body);
        if reason.is_empty() {
            reason = format!("the model's gateway answers HTTP {status} and does not say why");
        }
        match status {
            408 | 429 | 500..=599 => Self::Unavailable(reason),
            _ if code == "model_too_long" => Self::TooLong(reason),
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
    /// Where its lines are put together.
    fn lines(&mut self) -> &mut lines::Lines;

    /// Takes a line and adds what it said.
    fn line(&mut self, line: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure>;

    /// Takes the next bytes and adds what they said. What was said before a failure stands before it. Nothing follows
    /// [`ModelEvent::Done`].
    fn feed(&mut self, bytes: &[u8], events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure> {
        let mut rest = bytes;
        while let Some(line) = self.lines().next(&mut rest)? {
            self.line(&line, events)?;
        }
        Ok(())
    }

    /// The stream ended: adds what that says.
    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelFailure>;
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

/// A request as both wires write it, but for how calls of tools and their results stand in it.
fn body(request: &ModelRequest, call: fn(&ToolCall) -> Value, result: fn(&str, &str, &str) -> Value) -> Value {
    let message = |turn: &Turn| match turn {
        Turn::System { text } => json!({ "role": "system", "content": text }),
        Turn::User { text } => json!({ "role": "user", "content": text }),
        Turn::Assistant { text, calls } => {
            let mut message = json!({ "role": "assistant", "content": text });
            if !calls.is_empty() {
                message["tool_calls"] = calls.iter().map(call).collect();
            }
            message
        }
        Turn::Tool { call, name, output } => result(call, name, output),
    };
    let messages: Value = request.turns.iter().map(message).collect();
    let mut body = json!({ "model": request.model.name, "messages": messages, "stream": true });
    if request.tools {
        body["tools"] = crate::tools::definitions();
    }
    body
}

/// Reads one object of an answer, which may be an error.
fn object<T: DeserializeOwned>(data: &[u8]) -> Result<T, ModelFailure> {
    let value: Value = serde_json::from_slice(data).map_err(|_| lines::garbage(data))?;
    match value.get("error").filter(|error| !error.is_null()) {
        Some(error) => {
            let text = error.as_str().or_else(|| error.get("message").and_then(Value::as_str));
            let text = text.map_or_else(|| error.to_string(), str::to_owned);
            Err(ModelFailure::Failed(crate::truncate::cut(&text, 500)))
        }
        None => serde_json::from_value(value).map_err(|_| lines::garbage(data)),
    }
}
