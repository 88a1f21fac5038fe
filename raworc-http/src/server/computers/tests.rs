mod audit;
mod logs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request as AxumRequest};
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use raworc_core::control::{ActivityKind, Call, SleepMode};
use raworc_core::ids::{AgentName, TenantName};
use raworc_core::program::ExecRequest;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::server::Options;
use crate::server::agents::testing::*;

struct Api {
    world: World,
    token: String,
}

impl Api {
    async fn new() -> Self {
        let world = World::new().await;
        let token = world.api_token().await;
        Self { world, token }
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let bearer = format!("Bearer {}", self.token);
        let request = Request::builder().method(method).uri(format!("/agents/a/{path}"));
        request.header(header::AUTHORIZATION, bearer).header(header::CONTENT_TYPE, "application/json")
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        soon("an answer", self.world.api().oneshot(request)).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let answer = self.send(self.request(method, path).body(body.into()).unwrap()).await;
        let status = answer.status();
        let body = text(answer.into_body()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }
}

/// A program that runs `say WORDS`, which writes them to both streams, and `hang`, which never ends by itself.
fn hands(ended: Arc<Notify>) -> Router {
    let stream = |Path(id): Path<String>| async move {
        if id == "hang" {
            Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>())
        } else {
            Body::from(id)
        }
    };
    let wait = |Path(id): Path<String>| async move {
        if id == "hang" {
            std::future::pending::<()>().await;
        }
        Json(json!({ "exit_code": 3 }))
    };
    let end = move |Path(_): Path<String>| {
        ended.notify_one();
        async { StatusCode::NO_CONTENT }
    };
    Router::new()
        .route(
            "/exec",
            post(|Json(request): Json<ExecRequest>| async move { Json(json!({ "id": request.command[0] })) }),
        )
        .route("/exec/{id}", delete(end))
        .route("/exec/{id}/stdout", get(stream))
        .route("/exec/{id}/stderr", get(stream))
        .route("/exec/{id}/wait", get(wait))
        .route("/exec/{id}/resize", post(|| async { StatusCode::NO_CONTENT }))
        .route("/exec/{id}/stdin", axum::routing::put(|_: Bytes| async { StatusCode::NO_CONTENT }))
        .route(
            "/stats",
            get(|| async {
                Json(json!({ "processes": 1, "memory_bytes": 1, "cpu_seconds": 0.5, "disk_bytes": null }))
            }),
        )
}

#[tokio::test]
async fn a_command_is_run_and_its_streams_and_end_are_passed_on() {
    let api = Api::new().await;
    let program = api.world.up("a").await;
    program.link(hands(Arc::default())).await;
    let (status, started) = api.call("POST", "exec", json!({ "command": ["say"] }).to_string()).await;
    assert_eq!((status, &started), (StatusCode::CREATED, &json!({ "id": "say" })));
    let (status, out) = api.call("GET", "exec/say/stdout", "").await;
    assert_eq!((status, out), (StatusCode::OK, json!("say")));
    assert_eq!(api.call("GET", "exec/say/wait", "").await.1, json!({ "exit_code": 3 }));
    assert_eq!(api.call("PUT", "exec/say/stdin", "in").await.0, StatusCode::NO_CONTENT);
    let size = json!({ "rows": 24, "cols": 80 }).to_string();
    assert_eq!(api.call("POST", "exec/say/resize", size).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.call("DELETE", "exec/say", "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.call("GET", "stats", "").await.1["processes"], 1);

    let (status, result) = api.call("POST", "exec?wait=10s", json!({ "command": ["both"] }).to_string()).await;
    let wanted = json!({ "exit_code": 3, "stdout": "both", "stderr": "both", "truncated": false, "timed_out": false });
    assert_eq!((status, result), (StatusCode::OK, wanted));
}

#[tokio::test]
async fn a_command_that_takes_longer_than_it_is_waited_for_is_ended() {
    let api = Api::new().await;
    let ended = Arc::new(Notify::new());
    let (waited_for, program) = (Arc::new(Notify::new()), hands(Arc::clone(&ended)));
    let tell = Arc::clone(&waited_for);
    let program = program.layer(axum::middleware::from_fn(move |request: AxumRequest, next: Next| {
        if request.uri().path() == "/exec/hang/wait" {
            tell.notify_one();
        }
        next.run(request)
    }));
    api.world.up("a").await.link(program).await;
    let (status, result) = api.call("POST", "exec?wait=100ms", json!({ "command": ["hang"] }).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&result["exit_code"], &result["timed_out"]), (&Value::Null, &json!(true)));
    soon("the end of the command", ended.notified()).await;
    soon("the call that waits for it", waited_for.notified()).await;
    // And one whose caller goes away.
    let request = api.request("POST", "exec?wait=60s").body(Body::from(json!({ "command": ["hang"] }).to_string()));
    let call = tokio::spawn(api.world.api().oneshot(request.unwrap()));
    soon("the call that waits for it", waited_for.notified()).await;
    let name = AgentName::new("a").unwrap();
    let why = api.world.control.explain(&api.world.admin(), &TenantName::default(), &name).await.unwrap();
    assert!(why.activity.iter().any(|reason| reason.kind == ActivityKind::Command), "{why:?}");
    call.abort();
    soon("the end of the command", ended.notified()).await;
    until("the end of the reason", || async {
        let why = api.world.control.explain(&api.world.admin(), &TenantName::default(), &name).await.unwrap();
        why.activity.is_empty()
    })
    .await;
}

#[tokio::test]
async fn whoever_uses_a_computer_keeps_it_awake_and_whoever_watches_it_does_not() {
    let api = Api::new().await;
    let log = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>()) };
    api.world.up("a").await.link(hands(Arc::default()).route("/logs", get(log))).await;
    let activity = || async {
        let name = AgentName::new("a").unwrap();
        let why = api.world.control.explain(&api.world.admin(), &TenantName::default(), &name).await.unwrap();
        why.activity.iter().map(|reason| reason.kind).collect::<Vec<_>>()
    };
    let begun = |path| api.send(api.request("GET", path).body(Body::empty()).unwrap());
    let watching = (begun("logs?follow=true").await, begun("stats").await);
    assert_eq!((watching.0.status(), watching.1.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(activity().await, []);
    let using = begun("exec/hang/stdout").await;
    assert_eq!(activity().await, [ActivityKind::Command]);
    drop(using);
    assert_eq!(activity().await, []);
}

#[tokio::test]
async fn nobody_opens_so_many_calls_into_a_computer_that_others_find_none() {
    let api = Api::new().await;
    let log = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>()) };
    api.world.up("a").await.link(hands(Arc::default()).route("/logs", get(log))).await;
    let principal = Options::default().with_streams_per_principal(2);
    let computer = Options::default().with_calls_per_computer(2);
    for (options, wanted) in [(principal, "streams are open for user:admin"), (computer, "the computer of a are open")]
    {
        let router = api.world.api_with(options);
        let call = |path| {
            let request = api.request("GET", path).body(Body::empty()).unwrap();
            soon("an answer", router.clone().oneshot(request))
        };
        let open = [call("logs?follow=true").await.unwrap(), call("exec/hang/stdout").await.unwrap()];
        assert!(open.iter().all(|answer| answer.status() == StatusCode::OK));
        let refused = call("stats").await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let why = text(refused.into_body()).await;
        assert!(why.contains(wanted), "{why}");
        for (method, path, body) in [("DELETE", "exec/1", ""), ("POST", "exec/1/resize", r#"{"rows":1,"cols":1}"#)] {
            let request = api.request(method, path).body(Body::from(body)).unwrap();
            let answer = soon("an answer", router.clone().oneshot(request)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::NO_CONTENT, "what is open can be ended: {path}");
        }
        drop(open);
        assert_eq!(call("stats").await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn what_is_open_in_a_computer_ends_with_the_login_it_was_opened_with_and_with_the_server() {
    let api = Api::new().await;
    api.world.up("a").await.link(hands(Arc::default())).await;
    let options = Options::default();
    let router = api.world.api_with(options.clone());
    let call = |token: &str, method: &str, path: &str, body: Body| {
        let bearer = format!("Bearer {token}");
        let mut request = api.request(method, path).body(body).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, bearer.parse().unwrap());
        router.clone().oneshot(request)
    };
    let name = "admin".parse().unwrap();
    let principal = api.world.control.system().user_principal(&name).await.unwrap();
    let issue = |ttl| api.world.state.tokens.issue(&principal, ttl).unwrap();
    let (revoked, other) = (issue(Duration::from_secs(600)), issue(Duration::from_secs(600)));
    let upload = Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>());
    let upload = tokio::spawn(call(&revoked.token, "PUT", "exec/hang/stdin", upload));
    until("the upload", || async {
        let (admin, name) = (api.world.admin(), AgentName::new("a").unwrap());
        let why = api.world.control.explain(&admin, &TenantName::default(), &name).await.unwrap();
        why.activity.len() == 1
    })
    .await;
    let expiring = issue(Duration::from_secs(3));
    let mut open = Vec::new();
    for token in [&expiring, &revoked, &other] {
        let answer = soon("an answer", call(&token.token, "GET", "exec/hang/stdout", Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        open.push(answer.into_body());
    }
    assert!(soon("the end of the one that expires", open[0].frame()).await.unwrap().is_err());
    api.world.control.revoke(&Call::by(principal.clone()).with_token(revoked.record)).await.unwrap();
    assert!(soon("the end of the one that is revoked", open[1].frame()).await.unwrap().is_err());
    assert_eq!(soon("its upload's end", upload).await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
    let longer = tokio::time::timeout(Duration::from_millis(50), open[2].frame()).await;
    assert!(longer.is_err(), "another login of the same user goes on");
    options.closing.cancel();
    assert!(soon("the end with the server", open[2].frame()).await.unwrap().is_err());
}

#[tokio::test]
async fn who_does_not_read_keeps_nothing_of_a_computer_after_the_end_of_their_login() {
    let api = Api::new().await;
    let over = CancellationToken::new();
    let in_computer = over.clone();
    let stdout = move || {
        let held = in_computer.clone().drop_guard();
        async {
            Body::from_stream(futures::stream::pending::<Result<Bytes, axum::Error>>().map(move |never| {
                let _ = &held;
                never
            }))
        }
    };
    api.world.up("a").await.link(Router::new().route("/exec/{id}/stdout", get(stdout))).await;
    let answer = api.send(api.request("GET", "exec/1/stdout").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (admin, name) = (api.world.admin(), AgentName::new("a").unwrap());
    let reasons = || async {
        let why = api.world.control.explain(&admin, &TenantName::default(), &name).await.unwrap();
        why.activity.len()
    };
    assert_eq!(reasons().await, 1);
    let token = api.world.state.tokens.verify_user(&api.token).unwrap().record;
    api.world.control.revoke(&admin.clone().with_token(token)).await.unwrap();
    until("the end of the reason", || async { reasons().await == 0 }).await;
    soon("the end of the stream in the computer", over.cancelled()).await;
    let told = soon("the end", answer.into_body().frame()).await.unwrap().unwrap_err();
    assert!(told.to_string().contains("revoked"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_the_reason() {
    let api = Api::new().await;
    api.world.up("a").await.link(hands(Arc::default())).await;
    for (path, body) in [
        ("exec", json!({ "command": [] })),
        ("exec", json!({ "command": ["a\0b"] })),
        ("exec", json!({ "command": "ls" })),
        ("exec", json!({ "command": ["ls"], "unknown": 1 })),
        ("exec?wait=1s", json!({ "command": ["ls"], "stdin": true })),
        ("exec?wait=never", json!({ "command": ["ls"] })),
        ("exec?wake=perhaps", json!({ "command": ["ls"] })),
    ] {
        let (status, error) = api.call("POST", path, body.to_string()).await;
        assert_eq!(
            (status, &error["error"]["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid")),
            "{path} {body}: {error}"
        );
    }
    let request = api.request("POST", "exec").header("idempotency-key", "k").body(Body::from("{}")).unwrap();
    assert_eq!(api.send(request).await.status(), StatusCode::BAD_REQUEST);
    let mut nobody = api.request("GET", "stats").body(Body::empty()).unwrap();
    nobody.headers_mut().remove(header::AUTHORIZATION);
    assert_eq!(api.send(nobody).await.status(), StatusCode::UNAUTHORIZED);
    for path in ["files?path=", "files", "files?path=a%00b", "files?path=x&mode=999"] {
        assert_eq!(api.call("PUT", path, "").await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(api.call("GET", "exec/..%2Fcancel/stdout", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_slept_agent_is_not_woken_where_that_is_not_wanted() {
    let api = Api::new().await;
    let program = api.world.up("a").await;
    let control = &api.world.control;
    control.sleep(&api.world.admin(), &program.agent.tenant, &program.agent.name, SleepMode::Now).await.unwrap();
    // What the operator does next.
    use raworc_core::agent::AgentEvent;
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
    use raworc_core::store::{AgentChange, AgentOp, Check, Commit};
    let sleep = AgentOp::Transition {
        event: AgentEvent::SleepAsked,
        reason: "Asked".into(),
        message: "asked to sleep".into(),
        backoff: None,
    };
    let change = AgentChange { agent: program.agent.id, when: vec![Check::Alive], ops: vec![sleep] };
    let commit = Commit::of(SystemEntropy.commit_id(SystemClock.now()), change);
    control.system().store().commit(commit).await.unwrap();
    for (method, path) in [("POST", "exec?wake=false"), ("GET", "files?path=x&wake=false"), ("GET", "stats")] {
        let (status, error) = api.call(method, path, json!({ "command": ["ls"] }).to_string()).await;
        assert_eq!((status, &error["error"]["code"]), (StatusCode::CONFLICT, &json!("agent_asleep")), "{path}");
    }
}

#[tokio::test]
async fn the_log_of_a_start_that_died_is_there_after_it_and_after_the_next_start_began() {
    use raworc_core::agent::AgentEvent;
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
    use raworc_core::store::{
        AgentChange, AgentOp, Change, Check, Commit, RecordChange, RecordCheck, RecordKey, RecordKind,
    };
    let api = Api::new().await;
    let agent = api.world.up("a").await.agent;
    let (status, error) = api.call("GET", "logs?previous=true", "").await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    // What the operator does of a death.
    let died = AgentOp::Transition {
        event: AgentEvent::Lost,
        reason: "ProgramExited".into(),
        message: "exit code 1".into(),
        backoff: None,
    };
    let ops = vec![died, AgentOp::KeepLog { incarnation: agent.status.incarnation, bytes: 7, told: String::new() }];
    let change = AgentChange { agent: agent.id, when: vec![Check::Alive], ops };
    let name = agent.id.to_string();
    let key = RecordKey { kind: RecordKind::DeathLog, tenant: Some(agent.tenant.clone()), name };
    let body = json!({ "incarnation": agent.status.incarnation, "log": "one two" });
    let log = RecordChange { key, when: RecordCheck::Absent, body: Some(body), ttl: None };
    let mut commit = Commit::of(SystemEntropy.commit_id(SystemClock.now()), change);
    commit.changes.push(Change::Record(log));
    api.world.control.system().store().commit(commit).await.unwrap();

    assert_eq!(api.call("GET", "logs", "").await, (StatusCode::OK, json!("one two")));
    assert_eq!(api.call("GET", "logs?tail=3&follow=true", "").await, (StatusCode::OK, json!("two")));
    assert_eq!(api.call("GET", "logs?previous=true", "").await.0, StatusCode::NOT_FOUND, "it is the last one");
    api.world.begin(&api.world.agent("a").await).await;
    assert_eq!(api.call("GET", "logs?previous=true&tail=3", "").await, (StatusCode::OK, json!("two")));
    assert_eq!(api.call("GET", "logs", "").await, (StatusCode::OK, json!("one two")), "the newest that there is");
    for path in ["logs?previous=true&follow=true", "logs?previous=true&wake=true"] {
        assert_eq!(api.call("GET", path, "").await.0, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn an_agent_without_a_link_is_told_as_unreachable() {
    let api = Api::new().await;
    api.world.up("a").await;
    let (status, error) = api.call("GET", "stats", "").await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unreachable")));
}

#[tokio::test]
async fn a_stream_is_held_back_when_nobody_reads_and_is_never_kept_as_a_whole() {
    const SIZE: u64 = 64 << 20;
    let api = Api::new().await;
    let made = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&made);
    let stdout = move || async move {
        let chunk = Bytes::from(vec![7; 64 << 10]);
        let chunks = futures::stream::repeat(chunk).take(usize::try_from(SIZE).unwrap() / (64 << 10));
        Body::from_stream(chunks.map(move |chunk| {
            counter.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            Ok::<_, axum::Error>(chunk)
        }))
    };
    api.world.up("a").await.link(Router::new().route("/exec/{id}/stdout", get(stdout))).await;
    let answer = api.send(api.request("GET", "exec/1/stdout").body(Body::empty()).unwrap()).await;
    let mut body = answer.into_body();
    let mut read = 0;
    let mut largest = 0;
    while let Some(frame) = soon("a piece", body.frame()).await {
        let length = frame.unwrap().into_data().unwrap().len() as u64;
        read += length;
        largest = largest.max(made.load(Ordering::SeqCst) - read);
    }
    assert_eq!(read, SIZE);
    assert!(largest < 4 << 20, "{largest} bytes were on their way at once");
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let api = Api::new().await;
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let put = move |Query(query): Query<std::collections::HashMap<String, String>>, request: AxumRequest| async move {
        assert_eq!(query["path"], "a dir/ü&=?.txt");
        assert_eq!(query["mode"], "644");
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            counter.fetch_add(frame.unwrap().data_ref().unwrap().len() as u64, Ordering::SeqCst);
        }
        StatusCode::NO_CONTENT
    };
    api.world.up("a").await.link(Router::new().route("/files", axum::routing::put(put))).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, axum::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let path = "files?path=a+dir%2F%C3%BC%26%3D%3F.txt&mode=644";
    let request = api.request("PUT", path).body(body).unwrap();
    let call = tokio::spawn(api.world.api().oneshot(request));
    sender.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    until("the first piece", || async { seen.load(Ordering::SeqCst) == 5 }).await;
    sender.send(Ok(Bytes::from_static(b" second"))).await.unwrap();
    drop(sender);
    assert_eq!(soon("the answer", call).await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(seen.load(Ordering::SeqCst), 12);
}

#[tokio::test]
async fn a_program_that_goes_away_in_the_middle_breaks_the_stream_off() {
    let api = Api::new().await;
    let program = api.world.up("a").await;
    let stdout = || async {
        let first = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from_static(b"begun"))]);
        Body::from_stream(first.chain(futures::stream::pending()))
    };
    let stop = program.link(Router::new().route("/exec/{id}/stdout", get(stdout))).await;
    let answer = api.send(api.request("GET", "exec/1/stdout").body(Body::empty()).unwrap()).await;
    let mut body = answer.into_body();
    assert_eq!(soon("a piece", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "begun");
    stop.cancel();
    assert!(soon("the end", body.frame()).await.unwrap().is_err(), "an error, not an end that looks whole");
}

#[tokio::test]
async fn what_a_hostile_program_answers_is_not_passed_on_as_this_servers_own() {
    let api = Api::new().await;
    let router = Router::new()
        .route(
            "/files",
            get(|| async {
                let headers = [("content-type", "text/html"), ("set-cookie", "session=stolen"), ("x-other", "1")];
                (headers, "<script>alert(1)</script>")
            })
            .delete(|| async { (StatusCode::UNAUTHORIZED, "log in at http://elsewhere") })
            .put(|| async { (StatusCode::FOUND, [("location", "http://elsewhere")]).into_response() }),
        )
        .route(
            "/logs",
            get(|| async {
                (
                    StatusCode::NOT_FOUND,
                    Json(json!({ "error": { "code": "not_found", "message": "no log", "details": null } })),
                )
            }),
        );
    api.world.up("a").await.link(router).await;
    let answer = api.send(api.request("GET", "files?path=x").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert!(!answer.headers().contains_key("set-cookie") && !answer.headers().contains_key("x-other"));
    for method in ["DELETE", "PUT"] {
        let (status, error) = api.call(method, "files?path=x", "").await;
        assert_eq!((status, &error["error"]["code"]), (StatusCode::BAD_GATEWAY, &json!("program_failed")), "{method}");
    }
    let (status, error) = api.call("GET", "logs", "").await;
    assert_eq!((status, &error["error"]["message"]), (StatusCode::NOT_FOUND, &json!("no log")));
}
