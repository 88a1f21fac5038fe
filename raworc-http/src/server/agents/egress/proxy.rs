//! The proxy on one connection of a computer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{client, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use raworc_core::agent::{NetworkMode, is_host_pattern};
use raworc_core::control::{Call, ControlPlane};
use raworc_core::ids::AgentId;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Slot;
use super::count::{self, Counted};
use super::refusal::Refusal;
use crate::server::agents::listener::Place;

/// How long a connection may wait for a request.
const HEAD_LIMIT: Duration = Duration::from_secs(60);

/// How long a host may be silent that was asked by a plain request, before its answer and in the middle of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// Bytes that are under way in each direction of a tunnel.
const BUFFER: usize = 64 << 10;

/// Headers that are between a client and its proxy, or a proxy and a host, and are not passed on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The proxy on one connection.
#[derive(Debug)]
pub(super) struct Proxy {
    control: ControlPlane,
    call: Call,
    agent: AgentId,
    slot: Slot,
    /// A way out is a connection among those that are allowed, for as long as it lasts.
    _place: Option<Place>,
}

/// Where a request wants to go.
struct Target {
    host: String,
    port: u16,
}

impl Target {
    fn of(request: &Request<Incoming>) -> Result<Self, Refusal> {
        let uri = request.uri();
        let Some(authority) = uri.authority() else {
            return Err(Refusal::Malformed("this is a proxy: ask for http://HOST/PATH, or CONNECT HOST:PORT"));
        };
        let port = match (request.method(), uri.scheme()) {
            (&Method::CONNECT, _) => {
                authority.port_u16().ok_or(Refusal::Malformed("name a port: CONNECT HOST:PORT"))?
            }
            (_, Some(scheme)) if *scheme == Scheme::HTTP => authority.port_u16().unwrap_or(80),
            _ => return Err(Refusal::Malformed("only http is proxied so; use CONNECT for everything else")),
        };
        let host = name(authority);
        // Before it is looked for, counted or told.
        if host.contains('*') || !is_host_pattern(&host) {
            return Err(Refusal::Malformed("its host is neither a name nor an address"));
        }
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A host by one of its spellings.
fn name(authority: &Authority) -> String {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl Proxy {
    pub(super) fn new(
        control: ControlPlane,
        call: Call,
        agent: AgentId,
        slot: Slot,
        place: Option<Place>,
    ) -> Arc<Self> {
        Arc::new(Self { control, call, agent, slot, _place: place })
    }

    /// Serves the connection until it ends, or everything does.
    pub(super) async fn serve(self: Arc<Self>, connection: Upgraded, closing: &CancellationToken) {
        let (agent, ends) = (self.agent, closing.clone());
        let service = service_fn(move |request| {
            let (proxy, ends) = (Arc::clone(&self), ends.clone());
            async move { Ok::<_, Infallible>(proxy.answer(request, ends).await) }
        });
        let mut builder = server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(BUFFER);
        let serving = builder.serve_connection(connection, service).with_upgrades();
        tokio::select! {
            ended = serving => {
                if let Err(error) = ended {
                    tracing::debug!(%agent, %error, "a way out ended in an error");
                }
            }
            () = closing.cancelled() => {}
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, ends: CancellationToken) -> Response<Body> {
        let target = match Target::of(&request) {
            Ok(target) => target,
            Err(refusal) => return refusal.page("this request"),
        };
        let opened = self.open(&target).await;
        let answered = match opened {
            Ok(stream) if request.method() == Method::CONNECT => {
                tokio::spawn(async move { self.tunnel(request, stream, ends).await });
                return Response::new(Body::empty());
            }
            Ok(stream) => forward(request, &target, stream).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| refusal.page(&target.to_string()))
    }

    /// Connects to where a request wants to go, if its agent may go there.
    async fn open(&self, target: &Target) -> Result<Counted<TcpStream>, Refusal> {
        let egress = &self.slot.egress.0;
        let dialled = match self.may_reach(target).await {
            Ok(()) => self.slot.dial(&target.host, target.port).await,
            Err(refusal) => Err(refusal),
        };
        let refusal = match dialled {
            Ok(stream) => {
                return Ok(Counted::new(
                    stream,
                    egress.counts.reached(self.agent, &target.to_string()),
                    egress.options.linger,
                ));
            }
            Err(refusal) => refusal,
        };
        if refusal.is_told() {
            egress.counts.refused(self.agent, &target.to_string());
            let text = format!("egress refused: {target}: {}", refusal.words());
            egress.remarks.add(&self.control, &self.call, self.agent, text).await;
        } else {
            count::failed();
        }
        Err(refusal)
    }

    /// Asks the agent's list, as it is now.
    async fn may_reach(&self, target: &Target) -> Result<(), Refusal> {
        let agent = self.control.check_program(&self.call).await.map_err(|error| Refusal::Away(error.to_string()))?;
        let network = &agent.spec.network;
        if network.mode != NetworkMode::Closed {
            return Err(Refusal::Open);
        }
        if !network.allows(&target.host, target.port) {
            return Err(Refusal::NotListed { rules: network.egress.len() });
        }
        Ok(())
    }

    async fn tunnel(&self, request: Request<Incoming>, mut stream: Counted<TcpStream>, ends: CancellationToken) {
        let copy = async {
            let upgraded = hyper::upgrade::on(request).await.map_err(std::io::Error::other)?;
            copy_bidirectional_with_sizes(&mut TokioIo::new(upgraded), &mut stream, BUFFER, BUFFER).await
        };
        tokio::select! {
            copied = copy => {
                if let Err(error) = copied {
                    tracing::debug!(agent = %self.agent, %error, "a tunnel ended in an error");
                }
            }
            () = ends.cancelled() => {}
        }
    }
}

/// Passes a request on to its host, which alone says whose it is, and its answer back.
async fn forward(
    request: Request<Incoming>,
    target: &Target,
    stream: Counted<TcpStream>,
) -> Result<Response<Body>, Refusal> {
    let garbled = |error: hyper::Error| Refusal::Garbled(error.to_string());
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let slash = if path.starts_with('/') { "" } else { "/" };
    parts.uri =
        format!("{slash}{path}").parse::<Uri>().map_err(|_| Refusal::Malformed("its path cannot be passed on"))?;
    only_end_to_end(&mut parts.headers);
    let host = target.to_string();
    let host = HeaderValue::try_from(host.strip_suffix(":80").unwrap_or(&host))
        .map_err(|_| Refusal::Malformed("its host cannot be passed on"))?;
    parts.headers.insert(header::HOST, host);
    let (mut sender, connection) =
        client::conn::http1::handshake(TokioIo::new(stream.with_patience(ANSWER_LIMIT))).await.map_err(garbled)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the outside ended in an error");
        }
    });
    let mut answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(garbled)?;
    only_end_to_end(answer.headers_mut());
    Ok(answer.map(Body::new))
}

/// Takes away what is not passed on, and what a `Connection` header names besides.
fn only_end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}
