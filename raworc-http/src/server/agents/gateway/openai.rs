//! OpenAI's chat completions, as many servers speak them: server-sent events, each one a JSON object.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::relay::{Line, Reader};
use super::usage::Tokens;

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// Reads an answer.
#[derive(Debug, Default)]
pub(super) struct OpenaiReader {
    pieces: u64,
    counted: bool,
    finished: bool,
}

impl Reader for OpenaiReader {
    fn line(&mut self, line: &[u8], tokens: &mut Tokens) -> Line {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b":") {
            return Line::Pass;
        }
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], line[colon + 1..].trim_ascii_start()),
            None => (line, [].as_slice()),
        };
        match field {
            b"data" => {}
            b"event" | b"id" | b"retry" => return Line::Pass,
            _ => return Line::Garbage,
        }
        if value == b"[DONE]" {
            return Line::End;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(value) else { return Line::Garbage };
        if chunk.error.is_some() {
            return Line::Error;
        }
        if chunk.choices.is_none() && chunk.usage.is_none() {
            return Line::Garbage;
        }
        let choices = chunk.choices.unwrap_or_default();
        self.finished |= choices.iter().any(|choice| choice.finish_reason.is_some());
        if let Some(usage) = chunk.usage {
            *tokens = Tokens { prompt: usage.prompt_tokens, completion: usage.completion_tokens };
            self.counted = true;
        } else if !choices.is_empty() && !self.counted {
            // Each piece is about a token, and the only count there is where the server tells none.
            self.pieces += 1;
            tokens.completion = self.pieces;
        }
        Line::Pass
    }

    fn may_end(&self) -> bool {
        // Some servers leave out the closing [DONE].
        self.finished
    }

    fn whole(&self, body: &Value, tokens: &mut Tokens) -> bool {
        tokens.prompt = body["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
        tokens.completion = body["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        body["choices"].is_array()
    }

    fn error_line(&self, code: &str, message: &str) -> String {
        // The empty line ends an event that was under way, which would take this in.
        format!("\ndata: {}\n\n", json!({ "error": { "code": code, "message": message, "type": "gateway" } }))
    }

    fn media_type(&self) -> &'static str {
        "text/event-stream"
    }
}
