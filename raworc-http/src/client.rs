//! A typed client of the API.
//!
//! ```no_run
//! # async fn example() -> Result<(), raworc_http::client::ClientError> {
//! use raworc_core::control::SendMessage;
//! use raworc_http::client::{Ask, Client};
//!
//! let client = Client::new("http://127.0.0.1:9000")?;
//! let login = client.login("admin", &"the password".into()).await?;
//! let client = client.with_token(login.token);
//! let name = "one".parse().expect("a name");
//! let said = client.send(&name, &SendMessage::text("hello"), Ask::new().wait_secs(60)).await?;
//! # Ok(()) }
//! ```

mod agents;
mod ask;
mod auth;
mod error;
mod events;
mod exec;
mod files;
mod messages;

pub use ask::Ask;
pub use error::ClientError;
pub use events::{EventStream, Told};
pub use exec::{ByteStream, Exec};
pub use files::Found;

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::{HeaderValue, Method, StatusCode};
use raworc_core::ids::{AgentName, TenantName};
use reqwest::{RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{BASE, IDEMPOTENCY_KEY, ReadyReply, VersionReply};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take, beside the time that the call asks the server to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A call that may be sent again is sent so many times more.
const RETRIES: usize = 4;

/// A server, as one user of one tenant. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Arc<Url>,
    token: Option<Arc<SecretString>>,
    tenant: Option<TenantName>,
}

impl Client {
    /// The server at this address, such as `http://127.0.0.1:9000`, as nobody yet.
    ///
    /// # Errors
    /// Where the text is no address of a server.
    pub fn new(server: &str) -> Result<Self, ClientError> {
        let refused =
            |reason: &str| ClientError::local("invalid", format!("{server:?} is no server's address: {reason}"));
        let url = Url::parse(server).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(refused("write it as http://HOST:PORT or https://HOST"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("leave out the user; log in instead"));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("raworc/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // Nothing is asked of certificates, and a machine without any is served as well.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ClientError::transport(&url, error))?;
        Ok(Self { http, server: Arc::new(url), token: None, tenant: None })
    }

    /// As the user to whom this token was given.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<SecretString>) -> Self {
        self.token = Some(Arc::new(token.into()));
        self
    }

    /// In another tenant than the user's own.
    #[must_use]
    pub fn with_tenant(mut self, tenant: TenantName) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// What the server runs.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn version(&self) -> Result<VersionReply, ClientError> {
        self.fetch(self.request(Method::GET, self.root(&["version"]))).await
    }

    /// Whether the server can do its work.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn ready(&self) -> Result<ReadyReply, ClientError> {
        let url = self.root(&["readyz"]);
        let sent = self.request(Method::GET, url).send().await;
        let response = sent.map_err(|error| ClientError::transport(&self.server, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.read(response).await,
            _ => Err(ClientError::of(response).await),
        }
    }

    fn root(&self, segments: &[&str]) -> Url {
        let mut url = (*self.server).clone();
        // The address was checked to have a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) fn api(&self, segments: &[&str]) -> Url {
        let mut all: Vec<&str> = BASE.split('/').filter(|segment| !segment.is_empty()).collect();
        all.extend(segments);
        self.root(&all)
    }

    /// The address of something of the tenant.
    pub(crate) fn of_tenant(&self, segments: &[&str]) -> Url {
        match &self.tenant {
            None => self.api(segments),
            Some(tenant) => self.api(&[&["tenants", tenant.as_str()], segments].concat()),
        }
    }

    /// The address of something of an agent.
    pub(crate) fn of_agent(&self, name: &AgentName, segments: &[&str]) -> Url {
        self.of_tenant(&[&["agents", name.as_str()], segments].concat())
    }

    /// A request with the caller's token, and no limit of time yet.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        let Some(token) = &self.token else { return request };
        match HeaderValue::try_from(format!("Bearer {}", token.expose_secret())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.header(http::header::AUTHORIZATION, value)
            }
            // No server has given such a token; the call is refused as one without.
            Err(_) => request,
        }
    }

    /// Sends a request that changes nothing, again where it may help, and reads the answer.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send_again(request.timeout(ANSWER_LIMIT)).await?;
        self.read(response).await
    }

    /// Sends a request under a key, so that it may be sent again and has one effect, and reads the answer.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        ask: &Ask,
    ) -> Result<T, ClientError> {
        let request = ask.on(request).header(IDEMPOTENCY_KEY, ask.key()).timeout(ANSWER_LIMIT + ask.wait_time());
        let response = self.send_again(request).await?;
        self.read(response).await
    }

    /// Sends a request once. An error's body is read, and an answer's is not.
    pub(crate) async fn send_once(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| ClientError::transport(&self.server, error))?;
        if response.status().is_success() { Ok(response) } else { Err(ClientError::of(response).await) }
    }

    /// Sends a request that may be sent again. Bodies are whole, so that each attempt has one.
    async fn send_again(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let attempt = || async {
            match request.try_clone() {
                Some(request) => self.send_once(request).await,
                None => Err(ClientError::local("internal", "a stream cannot be sent again".into())),
            }
        };
        attempt
            .retry(backoff().with_max_times(RETRIES))
            .when(ClientError::may_be_sent_again)
            .adjust(|error: &ClientError, planned| planned.map(|time| error.retry_after().unwrap_or(time)))
            .await
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| ClientError::transport(&self.server, error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            ClientError::local("unreadable", format!("the answer of {} cannot be read: {error}", self.server()))
        })
    }
}

/// From a tenth of a second on, with jitter, up to five.
fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// A body of JSON.
pub(crate) fn json(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, ClientError> {
    let bytes = serde_json::to_vec(body).map_err(|error| ClientError::local("invalid", error.to_string()))?;
    Ok(request.header(http::header::CONTENT_TYPE, "application/json").body(bytes))
}

#[cfg(all(test, feature = "server"))]
mod tests;
