//! An agents' listener of a few lines: it hands out messages, remembers what it is told, and fails as it is asked to.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use raworc_core::ids::{ComputerId, Incarnation};
use raworc_core::runtime::Boot;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How the model answers one call.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With these lines.
    Lines(Vec<Value>),
    /// With a beginning, and then nothing more, for ever.
    Stuck(Value),
    /// With a status that is an error, and a body.
    Error(u16, Value),
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// What was told, in order: the path and the body.
    pub(crate) told: Vec<(String, Value)>,
    /// Where in which trace what was told belongs, as far as it said so: the path and the header.
    pub(crate) traced: Vec<(String, String)>,
    /// Leases that wait.
    pub(crate) leases: VecDeque<Value>,
    /// The lease that is held.
    pub(crate) held: Option<Value>,
    pub(crate) setup: Option<Value>,
    pub(crate) cancel: Option<Value>,
    /// What the volume may hold, as a newer server says.
    pub(crate) disk_limit: Option<u64>,
    /// Answers that are lost: what is told counts, and the connection is cut.
    pub(crate) lose: HashMap<String, u32>,
    pub(crate) stale: bool,
    /// Ends that are refused.
    pub(crate) refuse_end: u32,
    /// Reports of steps that are refused.
    pub(crate) refuse_steps: u32,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) link: Option<SendRequest<Full<Bytes>>>,
    pub(crate) links: u32,
}

pub(crate) struct Fake {
    pub(crate) directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    serving: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fake {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (state, changed) = (Arc::default(), Arc::default());
        let serving = listen(&directory.path().join("agents.sock"), &state, &changed);
        Self { directory, state, changed, serving }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("agents.sock")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Goes away with all its connections, and comes back.
    pub(crate) async fn restart(&mut self, meanwhile: impl Future<Output = ()>) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        std::fs::remove_file(self.socket()).expect("removed");
        self.state().link = None;
        meanwhile.await;
        self.serving = listen(&self.socket(), &self.state, &self.changed);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(crate) fn boot_line(&self) -> String {
        boot_line(&format!("unix:{}", self.socket().display()), None)
    }

    pub(crate) fn queue(&self, lease: Value) {
        self.state().leases.push_back(lease);
        self.changed.notify_waiters();
    }

    /// Waits until `look` sees what it looks for.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let seen = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(seen) = look(&self.state()) {
                    return seen;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), seen).await {
            Ok(seen) => seen,
            Err(_) => panic!("{what} did not come: {:#?}", self.state()),
        }
    }

    /// The bodies that were told to this path.
    pub(crate) fn told(&self, path: &str) -> Vec<Value> {
        told(&self.state(), path)
    }

    /// Waits for the `n`th body that is told to this path.
    pub(crate) async fn nth(&self, path: &str, n: usize) -> Value {
        self.until(path, |state| told(state, path).get(n).cloned()).await
    }
}

fn told(state: &State, path: &str) -> Vec<Value> {
    state.told.iter().filter(|(told, _)| told == path).map(|(_, body)| body.clone()).collect()
}

pub(crate) fn boot_line(url: &str, ca: Option<String>) -> String {
    let computer: ComputerId = "01890000-0000-7000-8000-00000000000c".parse().expect("an id");
    Boot { agent_url: url.into(), ca, computer, incarnation: Incarnation(3), key: "once".into() }.to_line()
}

/// A lease of a message with this text.
pub(crate) fn lease(n: u8, text: &str, model: bool) -> Value {
    let model = model.then(|| json!({ "name": "m", "wire": "ollama", "context": 8192 }));
    json!({
        "message": {
            "id": format!("01890000-0000-7000-8000-0000000000{n:02x}"), "tenant": "default",
            "agent": "01890000-0000-7000-8000-00000000000a", "seq": n, "role": "user", "author": "user:ada",
            "parts": [{ "type": "text", "text": text }], "reply_to": null, "state": "leased", "attempt": 1,
            "incarnation": 3, "cancel_requested": false, "reason": null, "created_at": "2026-01-01T00:00:00Z",
            "leased_at": null, "ended_at": null,
        },
        "earlier_steps": [],
        "work": {
            "instructions": null, "env": { "AGENT_VAR": "agent's" }, "model": model,
            "limits": { "rounds": 50, "tokens": 200_000, "tool_seconds": 120 },
        },
    })
}

fn listen(path: &Path, state: &Arc<Mutex<State>>, changed: &Arc<Notify>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a socket");
    let (state, changed) = (Arc::clone(state), Arc::clone(changed));
    tokio::spawn(async move {
        // Ends all connections with itself.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            connections.spawn(connection(stream, Arc::clone(&state), Arc::clone(&changed)));
        }
    })
}

/// Serves one connection.
pub(crate) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
) {
    let service = service_fn(|request| {
        let (state, changed) = (Arc::clone(&state), Arc::clone(&changed));
        async move { answer(request, state, changed).await }
    });
    // A lost answer ends it with an error.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn reply(status: u16, value: &Value) -> Response<Body> {
    let text = if value.is_null() { String::new() } else { value.to_string() };
    Response::builder().status(status).body(body(text)).expect("an answer")
}

async fn answer(
    mut request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path().strip_prefix("/agent/v0/").expect("an agent's path").to_owned();
    if path == "link" {
        assert_eq!(request.headers()["upgrade"], "raworc-link");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let Ok((sender, connection)) = http2::handshake(TokioExecutor::new(), upgraded).await else { return };
            {
                let mut state = state.lock().expect("no panic");
                state.link = Some(sender);
                state.links += 1;
            }
            changed.notify_waiters();
            let _ = connection.await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "upgrade");
        return Ok(response.header("upgrade", "raworc-link").body(body("")).expect("an answer"));
    }
    let authorized = request.headers().get("authorization").is_some_and(|bearer| bearer == "Bearer good");
    if let Some(parent) = request.headers().get("traceparent") {
        let parent = parent.to_str().expect("text").to_owned();
        state.lock().expect("no panic").traced.push((path.clone(), parent));
    }
    let bytes = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let told: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
    assert!(authorized || path == "boot", "{path} without a token");
    let answered = if path == "lease" {
        state.lock().expect("no panic").told.push((path.clone(), told));
        wait_for_message(&state, &changed).await
    } else {
        let mut state = state.lock().expect("no panic");
        state.told.push((path.clone(), told));
        if state.stale {
            reply(409, &json!({ "error": { "code": "stale_incarnation", "message": "over", "details": {} } }))
        } else {
            known(&path, &mut state)
        }
    };
    changed.notify_waiters();
    let mut state = state.lock().expect("no panic");
    if let Some(left) = state.lose.get_mut(&path).filter(|left| **left > 0) {
        *left -= 1;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(answered)
}

fn token() -> Value {
    json!({ "token": "good", "expires_at": "2099-01-01T00:00:00Z" })
}

/// An older server says nothing of it.
fn limited(answer: &mut Value, state: &State) {
    if let Some(limit) = state.disk_limit {
        answer["disk_limit"] = limit.into();
    }
}

fn known(path: &str, state: &mut State) -> Response<Body> {
    match path {
        "token" => reply(200, &token()),
        "boot" => {
            let lease = lease(0, "", false);
            let mut spec = json!({
                "agent": lease["message"]["agent"], "name": "ada", "tenant": "default",
                "computer": "01890000-0000-7000-8000-00000000000c", "incarnation": 3,
                "setup": state.setup, "work": lease["work"],
            });
            limited(&mut spec, state);
            reply(200, &json!({ "token": token(), "spec": spec }))
        }
        "heartbeat" => {
            let mut beat = json!({ "cancel": state.cancel });
            limited(&mut beat, state);
            reply(200, &beat)
        }
        "gateway/api/chat" => match state.answers.pop_front().expect("an answer for the model") {
            Answer::Error(status, value) => reply(status, &value),
            Answer::Lines(lines) => {
                let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
                Response::new(body(lines))
            }
            Answer::Stuck(line) => {
                let first = Ok(Frame::data(Bytes::from(format!("{line}\n"))));
                let stream = futures::StreamExt::chain(futures::stream::iter([first]), futures::stream::pending());
                Response::new(StreamBody::new(stream).boxed_unsync())
            }
        },
        "steps" if state.refuse_steps > 0 => {
            state.refuse_steps -= 1;
            reply(400, &json!({ "error": { "code": "invalid", "message": "no steps", "details": {} } }))
        }
        "end" if state.refuse_end > 0 => {
            state.refuse_end -= 1;
            reply(400, &json!({ "error": { "code": "invalid", "message": "no", "details": {} } }))
        }
        "end" => {
            state.held = None;
            reply(204, &Value::Null)
        }
        "setup" | "steps" | "deltas" => reply(204, &Value::Null),
        other => panic!("nobody calls {other}"),
    }
}

async fn wait_for_message(state: &Mutex<State>, changed: &Notify) -> Response<Body> {
    loop {
        let waiting = changed.notified();
        tokio::pin!(waiting);
        waiting.as_mut().enable();
        {
            let mut state = state.lock().expect("no panic");
            if state.held.is_none() {
                state.held = state.leases.pop_front();
            }
            if let Some(lease) = &state.held {
                return reply(200, lease);
            }
        }
        waiting.await;
    }
}
