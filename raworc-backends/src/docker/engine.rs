//! The way to the engine.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use raworc_core::runtime::RuntimeError;
use tokio::sync::OnceCell;

use super::address::Place;
use super::config::{DockerOptions, ENGINE_LIMIT};
use super::error::{self, LIMIT};
use super::tls;

/// How long a connection is silent before the other side is asked whether it is there, and between two such questions.
const ALIVE: Duration = Duration::from_secs(10);

/// An engine, which need not answer yet.
#[derive(Clone)]
pub(super) struct Engine {
    docker: Docker,
    known: Known,
}

/// What an engine can do.
#[derive(Debug)]
pub(super) struct Abilities {
    /// Its own identity.
    pub(super) id: Option<String>,
    /// Which limits it cannot enforce.
    pub(super) unlimited: Vec<&'static str>,
    /// Who root of a container is outside of it; `None` where that is an unprivileged user of its own.
    pub(super) root_outside: Option<&'static str>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Engine {
    /// The engine at the options' address.
    pub(super) fn at(options: &DockerOptions) -> Result<Self, RuntimeError> {
        let known = Known::default();
        Ok(Self { docker: connect(options, &known)?, known })
    }

    /// The way to it, in the newest version of its API that both sides know.
    pub(super) async fn docker(&self) -> Result<&Docker, RuntimeError> {
        self.abilities().await?;
        Ok(&self.docker)
    }

    /// Has it asked again what it is: another one may answer from now on.
    pub(super) fn forget(&self) {
        self.known.forget();
    }

    /// What it can do.
    pub(super) async fn abilities(&self) -> Result<Arc<Abilities>, RuntimeError> {
        let once = locked(&self.known.abilities).clone();
        let asked = once.get_or_try_init(async || {
            let version = agreed(self.docker.version().await?.api_version.as_deref())?;
            *locked(&self.known.version) = Some(format!("/v{version}"));
            let info = self.docker.info().await?;
            let limits = [
                ("cpu", info.cpu_cfs_quota),
                ("memory", info.memory_limit),
                ("swap", info.swap_limit),
                ("pids", info.pids_limit),
            ];
            let unlimited = limits.into_iter().filter(|(_, enforced)| *enforced == Some(false)).map(|(name, _)| name);
            let options = info.security_options.unwrap_or_default();
            let has = |option: &str| options.iter().any(|has| has == option);
            let root_outside = match (has("name=userns"), has("name=rootless")) {
                (true, _) => None,
                (false, true) => Some("the user who runs the engine"),
                (false, false) => Some("root of the engine's machine"),
            };
            Ok(Arc::new(Abilities { id: info.id, unlimited: unlimited.collect(), root_outside }))
        });
        asked.await.cloned().map_err(error::of("tell what it can do"))
    }
}

/// The newest version of the API that both sides know.
fn agreed(told: Option<&str>) -> Result<ClientVersion, Error> {
    let numbers = told.and_then(|told| told.split_once('.'));
    let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major_version, minor_version) = numbers.ok_or(Error::APIVersionParseError {})?;
    let ours = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
    let (major_version, minor_version) = ours.min((major_version, minor_version));
    Ok(ClientVersion { major_version, minor_version })
}

/// What is known of the engine that answered last.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The version of the API that calls are made in, once it was agreed on. Calls bear it in their path; the client leaves it
    /// out.
    version: Arc<Mutex<Option<String>>>,
    /// What it can do, once it was asked.
    abilities: Arc<Mutex<Arc<OnceCell<Arc<Abilities>>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn forget(&self) {
        let mut abilities = locked(&self.abilities);
        // Whoever is asking it at this moment asks for all.
        if abilities.initialized() {
            *abilities = Arc::default();
        }
    }

    /// The path of a call, in this version, but for the question which ones it knows.
    fn path(&self, uri: &Uri) -> PathAndQuery {
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let version = locked(&self.version).clone().filter(|_| path.path() != "/version");
        version.and_then(|version| format!("{version}{path}").parse().ok()).unwrap_or(path)
    }

    /// The same call, in this version.
    fn of(&self, request: BollardRequest) -> BollardRequest {
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.clone().into_parts();
        uri.path_and_query = Some(self.path(&parts.uri));
        if let Ok(uri) = Uri::from_parts(uri) {
            parts.uri = uri;
        }
        BollardRequest::from_parts(parts, body)
    }
}

fn connect(options: &DockerOptions, known: &Known) -> Result<Docker, RuntimeError> {
    let refused = |reason: String| RuntimeError::Refused { what: "be reached", reason };
    let place = Place::of(&options.host, options.tls.as_deref(), options.without_tls);
    let connected = match place.map_err(|error| refused(error.to_string()))? {
        Place::Socket(socket) => {
            let (client, known) = (client(UnixConnector), known.clone());
            let send = move |request: BollardRequest| {
                let (client, socket, known) = (client.clone(), socket.clone(), known.clone());
                async move {
                    let (mut parts, body) = request.into_parts();
                    parts.uri = Uri::from(hyperlocal::Uri::new(&socket, known.path(&parts.uri).as_str()));
                    answer(client.request(BollardRequest::from_parts(parts, body)).await, &socket, &known)
                }
            };
            Docker::connect_with_custom_transport(send, Some("http://engine"), LIMIT.as_secs(), API_DEFAULT_VERSION)
        }
        Place::Tcp { authority, tls: None } => {
            let (client, url) = (client(tcp()), format!("http://{authority}"));
            let (named, known) = (url.clone(), known.clone());
            let send = move |request: BollardRequest| {
                let (client, named, known) = (client.clone(), named.clone(), known.clone());
                async move { answer(client.request(known.of(request)).await, &named, &known) }
            };
            Docker::connect_with_custom_transport(send, Some(url), LIMIT.as_secs(), API_DEFAULT_VERSION)
        }
        Place::Tcp { authority, tls: Some(directory) } => {
            let config = tls::config(&directory).map_err(refused)?;
            let connector = HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_only().enable_http1();
            let (client, url) = (client(connector.wrap_connector(tcp())), format!("https://{authority}"));
            let (way, known) = (Arc::new((Arc::new(config), authority, directory)), known.clone());
            let send = move |request: BollardRequest| {
                let (client, way, known) = (client.clone(), Arc::clone(&way), known.clone());
                async move {
                    let (config, authority, directory) = &*way;
                    let answered = client.request(known.of(request)).await;
                    let objection = match &answered {
                        Ok(_) => None,
                        // What it says of itself, where the connection came to nothing.
                        Err(error) if error.is_connect() => tls::explained(error, directory),
                        Err(error) => match tls::explained(error, directory) {
                            Some(why) => Some(why),
                            None => {
                                let objection = tls::objection(Arc::clone(config), authority).await;
                                objection.and_then(|error| tls::explained(&error, directory))
                            }
                        },
                    };
                    match objection {
                        Some(why) => Err(io::Error::other(format!("https://{authority}: {why}")).into()),
                        None => answer(answered, &format!("https://{authority}"), &known),
                    }
                }
            };
            Docker::connect_with_custom_transport(send, Some(url), LIMIT.as_secs(), API_DEFAULT_VERSION)
        }
    };
    connected.map_err(|error| refused(error.to_string()))
}

/// Another machine may be gone without a word: it is asked whether it is there while it says nothing.
fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(ENGINE_LIMIT));
    connector.set_keepalive(Some(ALIVE));
    connector.set_keepalive_interval(Some(ALIVE));
    connector.set_keepalive_retries(Some(3));
    connector
}

/// A client that keeps no connection: one that the engine closed meanwhile would fail a call that must not be repeated.
fn client<C: Connect + Clone, B: Body + Send>(connector: C) -> Client<C, B>
where
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

/// The engine says "not modified" where it was asked to start what runs, and the client makes success of that. Here it
/// is the conflict that it is: whoever is told of success has started it. Where there is no answer, `place` is named.
///
/// Without an answer, or with one that the call was a bad one, which is what an older engine says to a newer version of its API, it
/// may be another engine that answers the next call.
fn answer(
    answer: Result<Response<Incoming>, hyper_util::client::legacy::Error>,
    place: &str,
    known: &Known,
) -> Result<Response<Incoming>, Error> {
    if answer.as_ref().map_or(true, |answer| answer.status() == StatusCode::BAD_REQUEST) {
        known.forget();
    }
    let mut response = answer.map_err(|error| io::Error::other(format!("{place}: {}", error::root(&error))))?;
    if response.status() == StatusCode::NOT_MODIFIED {
        *response.status_mut() = StatusCode::CONFLICT;
    }
    Ok(response)
}
