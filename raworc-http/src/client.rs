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
//!
//! A call that reads, or that changes something under a key of idempotency, is sent again where its answer was lost or
//! the server asks for it; each has one effect. A server that was reached before and is away for a moment is waited for
//! as well. One that was never reached is not: [`Client::wait_until_ready`] does that.

mod agents;
mod ask;
mod auth;
mod body;
mod error;
mod events;
mod exec;
mod files;
mod messages;

pub use ask::Ask;
pub use body::Body;
pub use error::ClientError;
pub use events::{EventStream, LATEST, Told};
pub use exec::{ByteStream, Exec};
pub use files::Found;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::{HeaderValue, Method};
use raworc_core::ids::{AgentName, TenantName};
use reqwest::{RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::api::{BASE, IDEMPOTENCY_KEY, ReadyReply, VersionReply, WAIT_INTERRUPTED, WAIT_LIMIT, Wait};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take, beside the time that the call asks the server to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A call that may be sent again is sent so many times more.
const RETRIES: usize = 4;

/// Before a server that is not ready is asked again.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A server, as one user of one tenant. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Arc<Url>,
    token: Option<Arc<SecretString>>,
    tenant: Option<TenantName>,
    /// Whether anything has answered there yet; the same for all clones.
    reached: Arc<AtomicBool>,
    /// The longest that the server is asked to wait in one call.
    wait_limit: Duration,
}

impl Client {
    /// The server at this address, such as `http://127.0.0.1:9000`, as nobody yet.
    ///
    /// # Errors
    /// Where the text is no address of a server.
    pub fn new(server: &str) -> Result<Self, ClientError> {
        let refused =
            |reason: &str| ClientError::invalid("server", format!("{server:?} is no server's address: {reason}"));
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
        let server = Arc::new(url);
        let http = builder.build().map_err(|error| ClientError::transport(&server, error))?;
        Ok(Self { http, server, token: None, tenant: None, reached: Arc::default(), wait_limit: WAIT_LIMIT })
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
        error::address(&self.server)
    }

    /// What the server runs.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn version(&self) -> Result<VersionReply, ClientError> {
        self.fetch(self.request(Method::GET, self.root(&["version"]))).await
    }

    /// Whether the server can do its work. One that cannot says why, which is no error.
    ///
    /// # Errors
    /// Where it cannot be reached, or answers something else.
    pub async fn ready(&self) -> Result<ReadyReply, ClientError> {
        let request = self.request(Method::GET, self.root(&["readyz"])).timeout(ANSWER_LIMIT);
        let response = self.answer(request).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| ClientError::transport(&self.server, error))?;
        // The body says as much as the status, which a proxy may have changed.
        serde_json::from_slice(&bytes).map_err(|error| match status.is_success() {
            true => ClientError::unreadable(&self.server, error),
            false => ClientError::told(&self.server, status, &String::from_utf8_lossy(&bytes)),
        })
    }

    /// Waits until the server can do its work, for `limit` at most. It need not be up yet.
    ///
    /// # Errors
    /// `timed_out` where it says that it cannot, and why; else why it could not be asked last.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            let failed = match self.ready().await {
                Ok(ReadyReply { ready: true, .. }) => return Ok(()),
                Ok(ReadyReply { checks, .. }) => {
                    let ill: Vec<_> = checks.iter().filter(|(_, state)| *state != "ok").collect();
                    let ill: Vec<_> = ill.into_iter().map(|(name, state)| format!("{name}: {state}")).collect();
                    ClientError::local("timed_out", format!("{} is not ready: {}", self.server(), ill.join(", ")))
                }
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(failed);
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// The server's figures, as Prometheus reads them. For admins, unless the server shows them to everybody.
    ///
    /// # Errors
    /// Where it cannot be reached, or shows none to this user.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let request = self.request(Method::GET, self.root(&["metrics"])).timeout(ANSWER_LIMIT);
        let response = self.open(request).await?;
        response.text().await.map_err(|error| ClientError::transport(&self.server, error))
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
        self.fetch_late(request.timeout(ANSWER_LIMIT)).await
    }

    /// As [`fetch`](Self::fetch), where the answer may take as long as it likes.
    pub(crate) async fn fetch_late<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.again(|| async { self.read(self.send_once(copy(&request)?).await?).await }).await
    }

    /// Sends a request that changes nothing, again where it may help. Its answer is read as it comes.
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        self.again(|| async { self.send_once(copy(&request)?).await }).await
    }

    /// Sends a request under a key, so that it may be sent again and has one effect, and reads the answer.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        ask: &Ask,
    ) -> Result<T, ClientError> {
        let Ok(key) = HeaderValue::try_from(ask.key()) else {
            let message = format!("Idempotency-Key: use visible ASCII characters, not {:?}", ask.key());
            return Err(ClientError::invalid("Idempotency-Key", message));
        };
        let mut done = None;
        let asked = self.ask_until(request.header(IDEMPOTENCY_KEY, key), ask.wait_time(), &mut done).await;
        // What was done is no error, whatever keeps it from being waited for: it would be asked for once more.
        asked.or_else(|error| done.ok_or(error))
    }

    /// Sends a request that may be sent again, and has the server wait so long for what is asked for.
    ///
    /// A server waits no longer than [`WAIT_LIMIT`] in one call, and answers at once when it closes. It is asked again
    /// until it has answered sooner than it had to, which says that what is waited for has come, or until all of the
    /// time is over. Where that is an error, `last` is what was answered before.
    pub(crate) async fn ask_until<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        time: Duration,
        last: &mut Option<T>,
    ) -> Result<T, ClientError> {
        if time.is_zero() {
            return self.fetch(request).await;
        }
        let deadline = Instant::now() + time;
        let mut waits = backoff().without_max_times().build();
        loop {
            let told = self
                .again(|| async {
                    let asked = Instant::now();
                    let wait = whole_millis(deadline.duration_since(asked)).min(self.wait_limit);
                    let request = copy(&request)?.query(&[("wait", Wait(wait).to_string())]);
                    let response = self.send_once(request.timeout(ANSWER_LIMIT + wait)).await?;
                    let is_cut = response.headers().contains_key(WAIT_INTERRUPTED);
                    Ok((self.read(response).await?, is_cut, asked.elapsed() < wait))
                })
                .await;
            let is_over = Instant::now() >= deadline;
            let pause = match told {
                Ok((answer, is_cut, is_sooner)) if is_over || (is_sooner && !is_cut) => return Ok(answer),
                Ok((answer, is_cut, _)) => {
                    *last = Some(answer);
                    if is_cut {
                        waits.next().unwrap_or_default()
                    } else {
                        waits = backoff().without_max_times().build();
                        Duration::ZERO
                    }
                }
                // What was there is waited for wherever it can be asked about.
                Err(error) if error.is_retryable() && last.is_some() && !is_over => {
                    error.pause(waits.next().unwrap_or_default())
                }
                Err(error) if error.is_retryable() => return last.take().ok_or(error),
                Err(error) => return Err(error),
            };
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        }
    }

    /// Sends a request once. An error's body is read, and an answer's is not.
    pub(crate) async fn send_once(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = self.answer(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(ClientError::of(&self.server, response).await) }
    }

    /// The answer to a request, whatever it says.
    async fn answer(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await.map_err(|error| ClientError::transport(&self.server, error));
        if !answer.as_ref().is_err_and(ClientError::is_unreachable) {
            self.reached.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Makes an attempt, and others after it where they may help. What is attempted has one effect however often it is.
    pub(crate) async fn again<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, ClientError> {
        let mut waits = backoff().with_max_times(RETRIES).build();
        let mut lost = None;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let may_help = error.may_be_sent_again() && self.reached.load(Ordering::Relaxed);
            let Some(wait) = waits.next().filter(|_| may_help) else {
                // What was sent and not answered may have been done, whatever became of the attempts after it.
                return Err(lost.filter(|_| error.is_unreachable()).unwrap_or(error));
            };
            tokio::time::sleep(error.pause(wait)).await;
            lost = Some(error).filter(ClientError::is_lost).or(lost);
        }
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| ClientError::transport(&self.server, error))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::unreadable(&self.server, error))
    }
}

/// A request to be sent while the original is kept. Its body is whole.
fn copy(request: &RequestBuilder) -> Result<RequestBuilder, ClientError> {
    request.try_clone().ok_or_else(|| ClientError::local("internal", "a stream cannot be sent again".into()))
}

/// Waits are told in milliseconds; a part of one counts as one.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
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
    let bytes = serde_json::to_vec(body).map_err(|error| ClientError::invalid("body", error.to_string()))?;
    Ok(request.header(http::header::CONTENT_TYPE, "application/json").body(bytes))
}

#[cfg(all(test, feature = "server"))]
mod tests;
