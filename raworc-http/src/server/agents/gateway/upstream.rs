//! [`Upstreams`]: the model servers and providers behind the gateway.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use raworc_core::control::Models;
use raworc_core::ids::AgentId;
use raworc_core::program::{ModelSpec, ModelWire};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::ollama::OllamaReader;
use super::openai::OpenaiReader;
use super::question::Question;
use super::relay::{Reader, Relay, excerpt};
use super::usage::{Meter, ModelUsage, Open};
use crate::server::error::ApiError;

/// Bytes of a provider's refusal that are read.
const REFUSAL_LIMIT: usize = 64 << 10;

/// A model server or provider, as it stands in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Its name, for errors and the log.
    pub name: String,
    /// What is spoken to it.
    pub kind: ModelWire,
    /// Where it is: for Ollama `http://host:11434`, for others up to and with the version, `https://host/v1`.
    pub url: String,
    /// Its key, where it wants one.
    #[serde(default)]
    pub key: Option<SecretString>,
    /// The models that agents may use of it.
    pub models: Vec<UpstreamModel>,
}

/// A model of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamModel {
    /// Its name, as the upstream knows it.
    pub name: String,
    /// Tokens that it can read at once.
    #[serde(default = "default_context")]
    pub context: u32,
    /// Whether it sees pictures.
    #[serde(default)]
    pub vision: bool,
}

const fn default_context() -> u32 {
    8192
}

/// Limits of model calls.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GatewayLimits {
    /// How long a connection may take.
    pub connect: Duration,
    /// How long a model may take to write its first or next words. A large one is loaded first.
    pub silence: Duration,
    /// How long an answer may take in all.
    pub total: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(900), total: Duration::from_secs(3600) }
    }
}

impl GatewayLimits {
    /// With another time without words.
    #[must_use]
    pub const fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// With another time in all.
    #[must_use]
    pub const fn with_total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }
}

/// A configuration of upstreams that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("model upstream {name:?}: {reason}")]
pub struct InvalidUpstream {
    name: String,
    reason: String,
}

/// Why a model gave no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFault {
    /// It cannot be reached, or says that it cannot answer now.
    #[error("the model is not available: {0}")]
    Unavailable(String),
    /// It wrote nothing for too long.
    #[error("the model wrote nothing for {0:?}")]
    Silent(Duration),
    /// Its answer took too long in all.
    #[error("the model's answer took too long")]
    TooLong,
    /// Its answer was cut off.
    #[error("the model's answer was cut off")]
    Cut,
    /// What came is no answer.
    #[error("what the model's server sent is no answer: {0}")]
    Garbage(String),
    /// The provider does not take the key.
    #[error("the provider refused this installation's key (status {0}); an administrator has to look at it")]
    Refused(u16),
    /// The provider does not take the request.
    #[error("the model's server does not take the request: {0}")]
    Rejected(String),
    /// The model cannot read so much at once.
    #[error(
        "the request is longer than the model reads: {0}; see that `context` in the configuration is what its server gives it"
    )]
    TooMuch(String),
    /// The provider, or this server, has too many requests.
    #[error("too many model calls: {0}")]
    Busy(String),
}

impl ModelFault {
    /// A word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) | Self::Cut | Self::Garbage(_) => "model_unavailable",
            Self::Silent(_) | Self::TooLong => "model_timeout",
            Self::Refused(_) => "model_refused",
            Self::Rejected(_) => "model_rejected",
            Self::TooMuch(_) => "model_too_long",
            Self::Busy(_) => "model_busy",
        }
    }
}

impl From<ModelFault> for ApiError {
    fn from(fault: ModelFault) -> Self {
        let error = Self::new(fault.code(), fault.to_string());
        match fault {
            ModelFault::Busy(_) => error.with_retry_after(5),
            ModelFault::Unavailable(_) | ModelFault::Cut => error.with_retry_after(1),
            ModelFault::Silent(_)
            | ModelFault::TooLong
            | ModelFault::Garbage(_)
            | ModelFault::Refused(_)
            | ModelFault::Rejected(_)
            | ModelFault::TooMuch(_) => error,
        }
    }
}

/// Whether a model answers.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Which upstream.
    pub upstream: String,
    /// Which model of it.
    pub model: String,
    /// Why it does not answer, where it does not.
    pub fault: Option<ModelFault>,
}

struct Upstream {
    config: UpstreamConfig,
    url: reqwest::Url,
    client: reqwest::Client,
}

/// The model servers and providers behind the gateway. Clones are one.
#[derive(Clone, Default)]
pub struct Upstreams {
    all: Arc<[Upstream]>,
    limits: GatewayLimits,
    meter: Meter,
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.all.iter().map(|upstream| &upstream.config.name).collect();
        f.debug_struct("Upstreams").field("names", &names).finish_non_exhaustive()
    }
}

impl Upstreams {
    /// Upstreams by configuration. The first model of the first one is the default.
    ///
    /// # Errors
    /// Where an address is none, or a model is there twice.
    pub fn new(configs: Vec<UpstreamConfig>, limits: GatewayLimits) -> Result<Self, InvalidUpstream> {
        let mut all: Vec<Upstream> = Vec::with_capacity(configs.len());
        for config in configs {
            let invalid = |reason: String| InvalidUpstream { name: config.name.clone(), reason };
            let address = format!("{}{}", config.url.trim_end_matches('/'), path(config.kind));
            let url = reqwest::Url::parse(&address)
                .map_err(|error| invalid(format!("{:?} is no address: {error}", config.url)))?;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                return Err(invalid(format!("{:?} is no address; write http://host:port or https://..", config.url)));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(invalid("the address holds a password; write the key as `key`".into()));
            }
            let key = config.key.as_ref().map_or("", |key| key.expose_secret());
            if key.bytes().any(|byte| !(0x21..=0x7e).contains(&byte)) {
                return Err(invalid("its key holds blanks, line breaks or other characters that a key has not".into()));
            }
            for model in &config.models {
                let taken =
                    all.iter().flat_map(|other| other.config.models.iter()).any(|other| other.name == model.name);
                if taken || config.models.iter().filter(|other| other.name == model.name).count() > 1 {
                    return Err(invalid(format!("model {:?} is there twice", model.name)));
                }
                if model.name.is_empty() || model.context < 512 {
                    return Err(invalid("a model needs a name, and a context of 512 tokens or more".into()));
                }
            }
            let client = client(&url).map_err(|error| invalid(error.to_string()))?;
            all.push(Upstream { config, url, client });
        }
        Ok(Self { all: all.into(), limits, meter: Meter::default() })
    }

    /// The models, for [`Settings::models`](raworc_core::control::Settings::models).
    #[must_use]
    pub fn models(&self) -> Models {
        self.specs().fold(Models::default(), Models::with)
    }

    fn specs(&self) -> impl Iterator<Item = ModelSpec> {
        self.all.iter().flat_map(|upstream| {
            let wire = upstream.config.kind;
            upstream.config.models.iter().map(move |model| ModelSpec {
                name: model.name.clone(),
                wire,
                context: model.context,
                vision: model.vision,
            })
        })
    }

    /// What all agents together have used since this process began.
    #[must_use]
    pub fn totals(&self) -> ModelUsage {
        self.meter.totals()
    }

    /// What an agent has used since this process began.
    #[must_use]
    pub fn usage(&self, agent: AgentId) -> ModelUsage {
        self.meter.of(agent)
    }

    /// Asks the first model of each upstream for a word, for `limit` at most.
    pub async fn probe(&self, limit: Duration) -> Vec<Probe> {
        let probes = self.all.iter().filter_map(|upstream| Some((upstream, upstream.config.models.first()?)));
        let probes = probes.map(|(upstream, model)| async move {
            let mut body = json!({
                "model": model.name,
                "messages": [{ "role": "user", "content": "Say ok." }],
                "stream": true,
            });
            match upstream.config.kind {
                ModelWire::Ollama => body["options"] = json!({ "num_predict": 1 }),
                ModelWire::Openai => body["max_tokens"] = json!(1),
            }
            let body = body.to_string().into();
            let question = Question { model: &model.name, streams: true, body, open: None, room: None, guard: None };
            let fault = match timeout(limit, self.ask(question)).await {
                Ok(answer) => answer.err(),
                Err(_) => Some(ModelFault::Silent(limit)),
            };
            Probe { upstream: upstream.config.name.clone(), model: model.name.clone(), fault }
        });
        futures::future::join_all(probes).await
    }

    /// A program's leave to ask, until it is dropped.
    pub(super) fn open(&self, agent: AgentId) -> Result<Open, ModelFault> {
        self.meter.open(agent).ok_or_else(|| ModelFault::Busy("this agent has 8 open already".into()))
    }

    /// Asks a model. The answer is passed on as it comes.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Response, ModelFault> {
        let Question { model, streams, body, open, room, guard } = question;
        let upstream = self.all.iter().find(|upstream| upstream.config.models.iter().any(|known| known.name == model));
        let upstream = upstream.ok_or_else(|| ModelFault::Unavailable(format!("no upstream has {model:?}")))?;
        let counter = self.meter.begin(open, model);
        let kind = upstream.config.kind;
        let deadline = Instant::now() + self.limits.total;
        let answer = upstream.send(body, &self.limits).await?;
        drop(room);
        let key = upstream.config.key.clone();
        let reader = reader(kind);
        let media_type = if streams { reader.media_type() } else { "application/json" };
        let mut relay =
            Relay::new(Box::pin(answer.bytes_stream()), reader, counter, key, &self.limits, deadline, guard);
        let body = if streams {
            relay.begin().await?;
            Body::from_stream(relay.into_stream())
        } else {
            Body::from(relay.whole().await?)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// Reads what is answered in this wire.
pub(super) fn reader(kind: ModelWire) -> Box<dyn Reader> {
    match kind {
        ModelWire::Ollama => Box::<OllamaReader>::default(),
        ModelWire::Openai => Box::<OpenaiReader>::default(),
    }
}

const fn path(kind: ModelWire) -> &'static str {
    match kind {
        ModelWire::Ollama => "/api/chat",
        ModelWire::Openai => "/chat/completions",
    }
}

/// A client for one upstream. It follows no redirects, for they could lead the key elsewhere.
pub(super) fn client(url: &reqwest::Url) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(GatewayLimits::default().connect)
        .user_agent(concat!("raworc/", env!("CARGO_PKG_VERSION")));
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // A machine without any authorities can still reach its own Ollama.
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

impl Upstream {
    async fn send(&self, body: Bytes, limits: &GatewayLimits) -> Result<reqwest::Response, ModelFault> {
        let mut request = self.client.post(self.url.clone()).body(body);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.config.key {
            request = request.bearer_auth(key.expose_secret());
        }
        let sent = timeout(limits.silence, request.send()).await.map_err(|_| ModelFault::Silent(limits.silence))?;
        let answer = sent.map_err(|error| {
            let name = &self.config.name;
            tracing::warn!(upstream = name, error = %error.without_url(), "a model cannot be reached");
            ModelFault::Unavailable(format!("upstream {name:?} cannot be reached; see that it runs and try again"))
        })?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.fault(answer).await) }
    }

    async fn fault(&self, answer: reqwest::Response) -> ModelFault {
        let status = answer.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PAYMENT_REQUIRED) {
            tracing::warn!(upstream = self.config.name, %status, "a provider refuses this installation's key");
            return ModelFault::Refused(status.as_u16());
        }
        let (said, is_too_much) = self.said(answer).await;
        let said = format!("{said} (status {} of upstream {:?})", status.as_u16(), self.config.name);
        match status {
            StatusCode::TOO_MANY_REQUESTS => ModelFault::Busy(said),
            StatusCode::REQUEST_TIMEOUT => ModelFault::Unavailable(said),
            StatusCode::NOT_FOUND if self.config.kind == ModelWire::Ollama => {
                ModelFault::Rejected(format!("{said}; `ollama pull` fetches a model"))
            }
            StatusCode::NOT_FOUND => ModelFault::Rejected(format!(
                "{said}; see that it has the model, and that its address in the configuration goes up to and with the \
                 version, as in http://host/v1"
            )),
            status if status.is_client_error() && is_too_much => ModelFault::TooMuch(said),
            status if status.is_client_error() => ModelFault::Rejected(said),
            _ => ModelFault::Unavailable(said),
        }
    }

    /// What the provider says of its refusal, without the key should it be in there, and whether it means the length.
    async fn said(&self, mut answer: reqwest::Response) -> (String, bool) {
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = answer.chunk().await {
                let chunk: Bytes = chunk;
                body.extend_from_slice(&chunk);
                if body.len() > REFUSAL_LIMIT {
                    break;
                }
            }
        };
        // What has come until then is enough.
        let _ = timeout(Duration::from_secs(5), read).await;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = &value["error"];
        let text = error["message"].as_str().or(error.as_str());
        (excerpt(text.map_or(body.as_slice(), str::as_bytes), self.config.key.as_ref()), is_too_much(error))
    }
}

/// Whether an error says that the request is too long: OpenAI and llama.cpp have a word for it, others OpenAI's sentence.
fn is_too_much(error: &Value) -> bool {
    error["code"] == "context_length_exceeded"
        || error["type"] == "exceed_context_size_error"
        || error["message"].as_str().is_some_and(|text| text.contains("maximum context length"))
}
