//! A server with its agents' listener on a Unix socket, and a program that is played by the test.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use raworc_core::agent::{Agent, AgentEvent, AgentSpec};
use raworc_core::control::{Call, ControlPlane, CreateAgent, Parts, SendMessage, Settings};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::ids::{AgentName, CommitId, ComputerId, MessageId, TenantName, UserName};
use raworc_core::principal::Principal;
use raworc_core::program::{BootReply, BootRequest, PROTOCOL};
use raworc_core::runtime::simulated::{SimulatedOptions, SimulatedRuntime};
use raworc_core::runtime::{ComputerSpec, Runtimes};
use raworc_core::seal::MasterKey;
use raworc_core::store::{AgentChange, AgentOp, Check, Commit, MemoryStore, NewComputer};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::egress::Egress;
use super::gateway::Upstreams;
use super::{AgentsListener, AgentsState, Links, ListenerLimits, Listening, agents_router};
use crate::server::computers::computer_routes;
use crate::server::{ApiState, Options, Tokens};

/// How long a test waits for what has to come.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// How long a call waits for a program that dials anew.
pub(crate) const REDIAL: Duration = Duration::from_millis(500);

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{what} did not come about"));
}

/// Waits for something that has to come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// A server.
pub(crate) struct World {
    pub(crate) control: ControlPlane,
    pub(crate) state: AgentsState,
    pub(crate) socket: PathBuf,
    pub(crate) listening: Listening,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// An agent and what its next program is told.
pub(crate) struct Placed {
    pub(crate) agent: Agent,
    pub(crate) computer: ComputerId,
    pub(crate) key: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Upstreams::default()).await
    }

    pub(crate) async fn with(upstreams: Upstreams) -> Self {
        let runtime = Arc::new(SimulatedRuntime::new(SimulatedOptions::default()));
        let runtimes = Runtimes::new().with(runtime, "unix:/nowhere", None);
        let mut settings = Settings::default();
        settings.models = upstreams.models();
        let parts = Parts::new(Arc::new(MemoryStore::default()), runtimes, MasterKey::generate(&SystemEntropy));
        Self::of(parts.with_settings(settings), upstreams, |_, links| links).await
    }

    /// A server of an installation that may have others.
    pub(crate) async fn of(
        parts: Parts,
        upstreams: Upstreams,
        linked: impl FnOnce(&ControlPlane, Links) -> Links,
    ) -> Self {
        let control = ControlPlane::start(parts).await.unwrap();
        let links = linked(&control, Links::with_redial(&control, REDIAL));
        let closing = CancellationToken::new();
        let (tokens, egress) = (Tokens::new(&control), Egress::default());
        let state = AgentsState { tokens, links, upstreams, egress, control: control.clone(), closing };
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agents").join("socket");
        let mut world = Self {
            control,
            state,
            socket,
            listening: Listening::default(),
            stop: CancellationToken::new(),
            served: None,
            _directory: directory,
        };
        world.listen().await;
        world
    }

    /// Listens, for the first time or again.
    pub(crate) async fn listen(&mut self) {
        self.listen_within(ListenerLimits::default()).await;
    }

    /// Listens with other limits.
    pub(crate) async fn listen_within(&mut self, limits: ListenerLimits) {
        self.hang_up().await;
        let limits = limits.with_drain(Duration::from_millis(200));
        let listener = AgentsListener::unix(&self.socket, limits).await.unwrap();
        self.listening = listener.listening();
        self.stop = CancellationToken::new();
        let (router, stop) = (agents_router(self.state.clone()), self.stop.clone());
        self.served = Some(tokio::spawn(listener.serve(router, stop.cancelled_owned())));
    }

    /// Stops to listen.
    pub(crate) async fn hang_up(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            served.await.unwrap();
        }
    }

    pub(crate) fn admin(&self) -> Call {
        let name = UserName::new("admin").unwrap();
        Call::by(Principal::User { name, tenant: TenantName::default(), admin: true })
    }

    fn commit_id(&self) -> CommitId {
        SystemEntropy.commit_id(SystemClock.now())
    }

    /// Makes an agent and begins its first start.
    pub(crate) async fn place(&self, name: &str) -> Placed {
        self.place_as(name, AgentSpec::default()).await
    }

    /// The same with a spec of its own.
    pub(crate) async fn place_as(&self, name: &str, spec: AgentSpec) -> Placed {
        let request = CreateAgent { name: AgentName::new(name).unwrap(), spec };
        let agent = self.control.create_agent(&self.admin(), &TenantName::default(), request).await.unwrap();
        self.begin(&agent).await
    }

    /// Begins a start, as an operator does.
    pub(crate) async fn begin(&self, agent: &Agent) -> Placed {
        let now = SystemClock.now();
        let key = format!("key of {}", SystemEntropy.commit_id(now));
        let present = agent.status.computer;
        let id = present.unwrap_or_else(|| SystemEntropy.computer_id(now));
        let spec = ComputerSpec {
            id,
            volume: SystemEntropy.volume_id(now),
            image: None,
            resources: agent.spec.resources,
            network: agent.spec.network.clone(),
            root: false,
        };
        let runtime = agent.spec.runtime.clone().unwrap();
        let begin = AgentOp::Begin {
            operator: SystemEntropy.process_id(now),
            computer: present.is_none().then_some(NewComputer { runtime, spec, disk_limit: false }),
            key_hash: hex::encode(Sha256::digest(key.as_bytes())),
            deadline: Duration::from_secs(120),
            generation: agent.generation,
        };
        // What the operator does of a start before this one.
        let mut ops = Vec::new();
        let before = self.agent(agent.name.as_str()).await.status;
        if before.state().is_up() {
            ops.push(AgentOp::Transition {
                event: AgentEvent::Lost,
                reason: "Lost".into(),
                message: "its program is gone".into(),
                backoff: None,
            });
        }
        if let Some(run) = &before.run {
            ops.push(AgentOp::RunEnded { incarnation: run.incarnation });
        }
        ops.push(begin);
        let change = AgentChange { agent: agent.id, when: vec![Check::Alive], ops };
        let commit = Commit::of(self.commit_id(), change);
        let committed = self.control.system().store().commit(commit).await.unwrap();
        let agent = committed.agents.into_iter().next().unwrap();
        Placed { computer: agent.status.computer.unwrap(), agent, key }
    }

    /// An agent whose program is up.
    pub(crate) async fn up(&self, name: &str) -> Program {
        let placed = self.place(name).await;
        Program::boot(self, &placed).await
    }

    /// The agent as it is now.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        let name = AgentName::new(name).unwrap();
        self.control.get_agent(&self.admin(), &TenantName::default(), &name).await.unwrap()
    }

    /// Sends a message.
    pub(crate) async fn send(&self, name: &str, text: &str) -> MessageId {
        let name = AgentName::new(name).unwrap();
        let message = SendMessage::text(text);
        let accepted = self.control.send(&self.admin(), &TenantName::default(), &name, message).await.unwrap();
        accepted.message.id
    }

    /// The routes into computers, as the API has them.
    pub(crate) fn api(&self) -> Router {
        self.api_with(Options::default())
    }

    pub(crate) fn api_with(&self, options: Options) -> Router {
        let options = options.with_links(self.state.links.clone());
        let routes: Router<ApiState> = computer_routes().into();
        Router::new().nest("/agents/{name}", routes).with_state(ApiState::new(self.control.clone(), options))
    }

    /// A token of an admin.
    pub(crate) async fn api_token(&self) -> String {
        let name = UserName::new("admin").unwrap();
        self.control.system().ensure_first_admin(&name, "a good long password".into()).await.unwrap();
        let principal = self.control.system().user_principal(&name).await.unwrap();
        self.state.tokens.issue(&principal, Duration::from_secs(600)).unwrap().token
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        self.state.links.close();
    }
}

/// A program, played by the test.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) socket: PathBuf,
    pub(crate) token: String,
    pub(crate) agent: Agent,
}

impl Program {
    pub(crate) async fn boot(world: &World, placed: &Placed) -> Self {
        let mut program = Self { socket: world.socket.clone(), token: String::new(), agent: placed.agent.clone() };
        let (status, body) = program.call(Method::POST, "boot", &boot_request(placed)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let reply: BootReply = serde_json::from_value(body).unwrap();
        assert_eq!((reply.spec.agent, reply.spec.computer), (placed.agent.id, placed.computer));
        program.token = reply.token.token;
        program
    }

    /// A call of the agents' router.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &impl Serialize) -> (StatusCode, Value) {
        let body = serde_json::to_vec(body).unwrap();
        let answer = self.send(method, path, Full::from(body), HeaderMap::new()).await;
        let status = answer.status();
        let body = soon("an answer's body", answer.into_body().collect()).await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, body)
    }

    /// A call of the agents' router, on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Full<Bytes>,
        headers: HeaderMap,
    ) -> Response<Incoming> {
        let io = TokioIo::new(UnixStream::connect(&self.socket).await.unwrap());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/agent/v0/{path}"))
            .header(header::HOST, "raworc")
            .body(body)
            .unwrap();
        request.headers_mut().extend(headers);
        if !self.token.is_empty() {
            request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {}", self.token).parse().unwrap());
        }
        soon("an answer", sender.send_request(request)).await.unwrap()
    }

    /// Dials the link and serves `router` on it, until the returned token is cancelled.
    pub(crate) async fn link(&self, router: Router) -> CancellationToken {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "Upgrade".parse().unwrap());
        headers.insert(header::UPGRADE, "raworc-link".parse().unwrap());
        let answer = self.send(Method::POST, "link", Full::default(), headers).await;
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        serve_link(upgraded, router)
    }
}

/// What a program trades in.
pub(crate) fn boot_request(placed: &Placed) -> BootRequest {
    BootRequest {
        computer: placed.computer,
        incarnation: placed.agent.status.incarnation,
        key: placed.key.clone(),
        protocol: PROTOCOL,
    }
}

/// Serves HTTP/2 on a connection that was dialled, until the returned token is cancelled.
pub(crate) fn serve_link(io: impl Read + Write + Unpin + Send + 'static, router: Router) -> CancellationToken {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_send_buf_size(64 << 10);
        let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
        tokio::select! {
            _ = &mut connection => {}
            () = stopped.cancelled() => {}
        }
    });
    stop
}

/// The whole body of an answer, as text.
pub(crate) async fn text(body: Body) -> String {
    let bytes = soon("a body", body.collect()).await.unwrap().to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}
