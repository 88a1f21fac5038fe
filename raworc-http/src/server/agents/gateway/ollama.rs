//! Ollama's own API: one JSON object a line, as <https://docs.ollama.com/api> has it.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::relay::{Line, Reader};
use super::upstream::{ModelFault, client};
use super::usage::Tokens;

/// Where Ollama listens unless it is told otherwise.
pub const OLLAMA_URL: &str = "http://127.0.0.1:11434";

/// How long discovery may take: what is there answers at once.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Chunk {
    message: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
    #[serde(default)]
    done: bool,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

/// Reads an answer.
#[derive(Debug, Default)]
pub(super) struct OllamaReader {
    pieces: u64,
}

impl Reader for OllamaReader {
    fn line(&mut self, line: &[u8], tokens: &mut Tokens) -> Line {
        if line.trim_ascii().is_empty() {
            return Line::Pass;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(line) else { return Line::Garbage };
        if chunk.error.is_some() {
            return Line::Error;
        }
        if chunk.message.is_none() && !chunk.done {
            return Line::Garbage;
        }
        if !chunk.done {
            // Each piece is about a token, and the only count there is where the answer is cut off.
            self.pieces += 1;
            tokens.completion = self.pieces;
            return Line::Pass;
        }
        tokens.prompt = chunk.prompt_eval_count.unwrap_or(tokens.prompt);
        tokens.completion = chunk.eval_count.unwrap_or(self.pieces);
        Line::End
    }

    fn may_end(&self) -> bool {
        false
    }

    fn whole(&self, body: &Value, tokens: &mut Tokens) -> bool {
        tokens.prompt = body["prompt_eval_count"].as_u64().unwrap_or(0);
        tokens.completion = body["eval_count"].as_u64().unwrap_or(0);
        body["message"].is_object()
    }

    fn error_line(&self, code: &str, message: &str) -> String {
        format!("{}\n", json!({ "error": format!("{message} ({code})") }))
    }

    fn media_type(&self) -> &'static str {
        "application/x-ndjson"
    }
}

/// A model that an Ollama has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredModel {
    /// Its name, such as `gpt-oss:20b`.
    pub name: String,
    /// Bytes on its disk.
    pub bytes: u64,
    /// Tokens that it can read at once at most, where Ollama says so.
    pub context: Option<u32>,
    /// Whether it can call tools.
    pub tools: bool,
    /// Whether it sees pictures.
    pub vision: bool,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    size: u64,
}

/// Looks for an Ollama at `url`, or where it listens unless it is told otherwise, and at what it has.
///
/// # Errors
/// Where none answers there.
pub async fn discover_ollama(url: Option<&str>) -> Result<Vec<DiscoveredModel>, ModelFault> {
    let base = url.unwrap_or(OLLAMA_URL).trim_end_matches('/');
    let parsed = reqwest::Url::parse(base).map_err(|error| ModelFault::Unavailable(format!("{base}: {error}")))?;
    let client = client(&parsed).map_err(|error| ModelFault::Unavailable(error.to_string()))?;
    let away = |error: reqwest::Error| ModelFault::Unavailable(format!("no Ollama answers at {base}: {error}"));
    let tags = client.get(format!("{base}/api/tags")).timeout(DISCOVERY_LIMIT).send().await.map_err(away)?;
    let tags: Tags = tags.error_for_status().map_err(away)?.json().await.map_err(away)?;
    let mut models = Vec::with_capacity(tags.models.len());
    for Tag { name, size } in tags.models {
        let show = client.post(format!("{base}/api/show")).json(&json!({ "model": name }));
        let shown = match show.timeout(DISCOVERY_LIMIT).send().await {
            Ok(answer) => answer.json::<Value>().await.unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let able = |what: &str| shown["capabilities"].as_array().is_some_and(|all| all.iter().any(|one| one == what));
        let info = shown["model_info"].as_object().into_iter().flatten();
        let context = info.filter(|(key, _)| key.ends_with(".context_length")).find_map(|(_, value)| value.as_u64());
        models.push(DiscoveredModel {
            bytes: size,
            context: context.and_then(|context| u32::try_from(context).ok()),
            tools: able("tools"),
            vision: able("vision"),
            name,
        });
    }
    Ok(models)
}
