use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use raworc_core::control::ActivityKind;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::super::testing::{LIMIT, Program, World, soon, until};
use super::*;

const KEY: &str = "sk-this-must-never-be-seen-0123456789";

/// A fake provider on a port of its own.
async fn provider(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn upstreams(kind: ModelWire, url: String, limits: GatewayLimits) -> Upstreams {
    let model = UpstreamModel { name: "fake".into(), context: 4096, vision: false };
    let config = UpstreamConfig { name: "provider".into(), kind, url, key: Some(KEY.into()), models: vec![model] };
    Upstreams::new(vec![config], limits).unwrap()
}

/// A provider that answers every chat with what `answer` makes of its request.
fn chats<F, A>(answer: F) -> Router
where
    F: Fn(HeaderMap, Value) -> A + Clone + Send + Sync + 'static,
    A: IntoResponse + 'static,
{
    let handler = move |headers: HeaderMap, axum::Json(body): axum::Json<Value>| {
        let answer = answer.clone();
        async move { answer(headers, body).into_response() }
    };
    Router::new().route("/api/chat", post(handler.clone())).route("/chat/completions", post(handler))
}

const PATHS: [(ModelWire, &str); 2] =
    [(ModelWire::Ollama, "gateway/api/chat"), (ModelWire::Openai, "gateway/v1/chat/completions")];

async fn ask(program: &Program, path: &str, body: Value) -> (StatusCode, String) {
    let answer = program.send(Method::POST, path, Full::from(body.to_string()), HeaderMap::new()).await;
    let (parts, mut body) = answer.into_parts();
    assert!(!format!("{parts:?}").contains(KEY));
    let mut text = Vec::new();
    while let Some(frame) = soon("a piece", body.frame()).await {
        match frame {
            Ok(frame) => text.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => text.extend_from_slice(b"<cut>"),
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(KEY), "the key is in {text}");
    (parts.status, text)
}

fn question() -> Value {
    json!({ "model": "fake", "messages": [{ "role": "user", "content": "hello" }], "stream": true })
}

/// A body that is written piece by piece by the test.
fn piecewise() -> (mpsc::UnboundedSender<&'static str>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pieces = UnboundedReceiverStream::new(receiver).map(Ok::<&'static str, Infallible>);
    (sender, Body::from_stream(pieces))
}

/// What Ollama's documentation shows of a stream.
const OLLAMA: &str = concat!(
    r#"{"model":"fake","created_at":"2026-11-01T12:00:00Z","message":{"role":"assistant","content":"The"},"done":false}"#,
    "\n",
    r#"{"model":"fake","created_at":"2026-11-01T12:00:00Z","message":{"role":"assistant","content":" sky"},"done":false}"#,
    "\n",
    r#"{"model":"fake","created_at":"2026-11-01T12:00:01Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":1,"prompt_eval_count":26,"eval_count":2}"#,
    "\n",
);

const OPENAI: &str = concat!(
    ": a remark\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"The"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":" sky"},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":2,"total_tokens":28}}"#,
    "\n\ndata: [DONE]\n\n",
);

#[tokio::test]
async fn an_answer_is_passed_on_with_the_key_added_and_its_tokens_counted() {
    for (kind, path) in PATHS {
        let body = if kind == ModelWire::Ollama { OLLAMA } else { OPENAI };
        let url = provider(chats(move |headers, request| {
            assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
            assert_eq!(request["messages"][0]["content"], "hello");
            let usage = request["stream_options"]["include_usage"] == true;
            assert_eq!(usage, kind == ModelWire::Openai);
            body
        }))
        .await;
        let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
        let program = world.up("a").await;
        let (status, answer) = ask(&program, path, question()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer, body);
        let used = ModelUsage { calls: 1, failed: 0, prompt_tokens: 26, completion_tokens: 2 };
        until("the count", || async { world.state.upstreams.usage(program.agent.id) == used }).await;
        assert_eq!(world.state.upstreams.totals(), used);
    }
}

#[tokio::test]
async fn words_are_passed_on_as_they_come_and_the_agent_is_kept_awake_meanwhile() {
    let (write, body) = piecewise();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let url = provider(chats(move |_, _| Response::new(body.lock().unwrap().take().unwrap()))).await;
    let world = World::with(upstreams(ModelWire::Ollama, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    let mut lines = OLLAMA.split_inclusive('\n');
    write.send(lines.next().unwrap()).unwrap();
    let asked = Full::from(question().to_string());
    let mut answer = program.send(Method::POST, "gateway/api/chat", asked, HeaderMap::new()).await.into_body();
    let first = soon("the first piece", answer.frame()).await.unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"{\"model\""), "before the second one was written");
    let name = program.agent.name.clone();
    let admin = world.admin();
    let explain = || world.control.explain(&admin, &program.agent.tenant, &name);
    let held = explain().await.unwrap().activity;
    assert!(held.iter().any(|reason| reason.kind == ActivityKind::ModelCall), "{held:?}");
    lines.for_each(|line| write.send(line).unwrap());
    drop(write);
    while soon("the rest", answer.frame()).await.is_some() {}
    until("the end of the reason", || async { explain().await.unwrap().activity.is_empty() }).await;
}

#[tokio::test]
async fn a_provider_is_hung_up_on_when_the_program_hangs_up() {
    struct Gone(Option<oneshot::Sender<()>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    for early in [true, false] {
        let (tell, gone) = oneshot::channel();
        let (came, coming) = oneshot::channel();
        let gone_guard = Arc::new(std::sync::Mutex::new(Some((Gone(Some(tell)), came))));
        let handler = move || {
            let (guard, came) = gone_guard.lock().unwrap().take().unwrap();
            async move {
                came.send(()).unwrap();
                if early {
                    // The connection's end drops this future.
                    let _held = guard;
                    std::future::pending::<()>().await;
                    return Response::new(Body::empty());
                }
                let line = OLLAMA.split_inclusive('\n').next().unwrap();
                let first = futures::stream::iter([Ok::<_, Infallible>(line)]);
                Response::new(Body::from_stream(
                    first.chain(futures::stream::unfold(guard, |_held| async { std::future::pending().await })),
                ))
            }
        };
        let url = provider(Router::new().route("/api/chat", post(handler))).await;
        let world = World::with(upstreams(ModelWire::Ollama, url, GatewayLimits::default())).await;
        let program = world.up("a").await;
        let asking = tokio::spawn(async move {
            let asked = Full::from(question().to_string());
            let answer = program.send(Method::POST, "gateway/api/chat", asked, HeaderMap::new()).await;
            let mut body = answer.into_body();
            body.frame().await.unwrap().unwrap();
        });
        soon("the call", coming).await.unwrap();
        if early {
            asking.abort();
        } else {
            soon("the first words", asking).await.unwrap();
        }
        soon("the end of the provider's work", gone).await.unwrap();
        until("the count", || async { world.state.upstreams.totals().failed == 1 }).await;
    }
}

#[tokio::test]
async fn faults_of_providers_are_told_clearly_and_never_with_the_key() {
    type Case = (&'static str, fn() -> Response, StatusCode, &'static str);
    let cases: [Case; 11] = [
        (
            "key",
            || (StatusCode::UNAUTHORIZED, format!("bad key {KEY}")).into_response(),
            StatusCode::FAILED_DEPENDENCY,
            "model_refused",
        ),
        (
            "busy",
            || (StatusCode::TOO_MANY_REQUESTS, r#"{"error":{"message":"slow down"}}"#).into_response(),
            StatusCode::TOO_MANY_REQUESTS,
            "model_busy",
        ),
        (
            "bad",
            || (StatusCode::BAD_REQUEST, format!(r#"{{"error":"bad request with {KEY}"}}"#)).into_response(),
            StatusCode::BAD_REQUEST,
            "model_rejected",
        ),
        (
            "long for OpenAI",
            || {
                (StatusCode::BAD_REQUEST, r#"{"error":{"message":"too much","code":"context_length_exceeded"}}"#)
                    .into_response()
            },
            StatusCode::BAD_REQUEST,
            "model_too_long",
        ),
        (
            "long for llama.cpp",
            || {
                let said =
                    r#"{"error":{"code":400,"message":"too much","type":"exceed_context_size_error","n_ctx":8192}}"#;
                (StatusCode::BAD_REQUEST, said).into_response()
            },
            StatusCode::BAD_REQUEST,
            "model_too_long",
        ),
        (
            "broken",
            || (StatusCode::INTERNAL_SERVER_ERROR, "<html>oops").into_response(),
            StatusCode::BAD_GATEWAY,
            "model_unavailable",
        ),
        (
            "moved",
            || (StatusCode::FOUND, [("location", "http://127.0.0.1:1/elsewhere")]).into_response(),
            StatusCode::BAD_GATEWAY,
            "model_unavailable",
        ),
        ("page", || format!("<html>welcome {KEY}\n").into_response(), StatusCode::BAD_GATEWAY, "model_unavailable"),
        ("binary", || vec![0xff_u8, 0, 10, 200].into_response(), StatusCode::BAD_GATEWAY, "model_unavailable"),
        ("empty", || "".into_response(), StatusCode::BAD_GATEWAY, "model_unavailable"),
        ("scalar", || "42\n".into_response(), StatusCode::BAD_GATEWAY, "model_unavailable"),
    ];
    for (kind, path) in PATHS {
        for (name, answer, wanted, code) in cases {
            let url = provider(chats(move |_, _| answer())).await;
            let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
            let program = world.up("a").await;
            let (status, body) = ask(&program, path, question()).await;
            assert_eq!(status, wanted, "{name} on {kind:?}: {body}");
            let error: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(error["error"]["code"], code, "{name} on {kind:?}: {body}");
        }
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_told_with_the_way_out() {
    for ((kind, path), way) in PATHS.into_iter().zip(["ollama pull", "up to and with the version"]) {
        let url = provider(Router::new()).await;
        let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
        let (status, body) = ask(&world.up("a").await, path, question()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(body.contains(way), "{body}");
    }
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_as_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let world = World::with(upstreams(ModelWire::Ollama, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    let (status, body) = ask(&program, "gateway/api/chat", question()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(body.contains("model_unavailable") && body.contains("provider"), "{body}");
    let faults = world.state.upstreams.probe(LIMIT).await;
    assert!(matches!(faults[0].fault, Some(ModelFault::Unavailable(_))), "{faults:?}");
}

#[tokio::test]
async fn a_provider_that_says_nothing_is_given_up() {
    // Before its first words.
    let limits = GatewayLimits::default().with_silence(Duration::from_millis(150));
    let url = provider(Router::new().route("/api/chat", post(std::future::pending::<()>))).await;
    let world = World::with(upstreams(ModelWire::Ollama, url, limits)).await;
    let program = world.up("a").await;
    let (status, body) = ask(&program, "gateway/api/chat", question()).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("model_timeout"), "{body}");
    // In the middle, with time enough for the first ones.
    let limits = GatewayLimits::default().with_silence(Duration::from_secs(2));
    for (kind, path) in PATHS {
        let text = if kind == ModelWire::Ollama { OLLAMA } else { OPENAI };
        let url = provider(chats(move |_, _| {
            let line = text.split_inclusive('\n').find(|line| line.contains("The")).unwrap();
            let first = futures::stream::iter([Ok::<_, Infallible>(line)]);
            Response::new(Body::from_stream(first.chain(futures::stream::pending())))
        }))
        .await;
        let world = World::with(upstreams(kind, url, limits.clone())).await;
        let program = world.up("a").await;
        let (status, body) = ask(&program, path, question()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("The") && body.contains("model_timeout"), "{body}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_ended() {
    let limits = GatewayLimits::default().with_total(Duration::from_secs(2));
    let url = provider(chats(move |_, _| {
        let line = OLLAMA.split_inclusive('\n').next().unwrap();
        let endless = futures::stream::repeat(line).then(|line| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(line)
        });
        Response::new(Body::from_stream(endless))
    }))
    .await;
    let world = World::with(upstreams(ModelWire::Ollama, url, limits)).await;
    let program = world.up("a").await;
    let (_, body) = ask(&program, "gateway/api/chat", question()).await;
    assert!(body.ends_with("}\n") && body.contains("model_timeout"), "{body}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_reaches_the_program_as_a_cut() {
    for (kind, path) in PATHS {
        let text = if kind == ModelWire::Ollama { OLLAMA } else { OPENAI };
        for clean in [true, false] {
            let url = provider(chats(move |_, _| {
                let half: String =
                    text.split_inclusive('\n').take(1 + 2 * usize::from(kind == ModelWire::Openai)).collect();
                let half = futures::stream::iter([Ok(half)]);
                let end = futures::stream::iter((!clean).then(|| Err(std::io::Error::other("cut"))));
                Response::new(Body::from_stream(half.chain(end)))
            }))
            .await;
            let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
            let program = world.up("a").await;
            let (status, body) = ask(&program, path, question()).await;
            if status == StatusCode::OK {
                assert!(body.contains("The") && body.ends_with("<cut>"), "{kind:?}, {clean}: {body}");
            } else {
                assert!(body.contains("model_unavailable"), "{kind:?}, {clean}: {body}");
            }
            until("the count", || async { world.state.upstreams.totals().failed == 1 }).await;
        }
    }
}

#[tokio::test]
async fn garbage_in_the_middle_is_told_in_the_words_of_the_wire() {
    for (kind, path) in PATHS {
        let text = if kind == ModelWire::Ollama { OLLAMA } else { OPENAI };
        let url = provider(chats(move |_, _| {
            let line = text.split_inclusive('\n').find(|line| line.contains("The")).unwrap();
            format!("{line}garbage and {KEY}\n")
        }))
        .await;
        let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
        let program = world.up("a").await;
        let (_, body) = ask(&program, path, question()).await;
        // The event is one of its own, also where it comes in the middle of another.
        let end = if kind == ModelWire::Ollama { "\n" } else { "\n\n" };
        let last = body.trim_end().rsplit(end).next().unwrap().trim_start_matches("data: ");
        let error: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert!(error["error"].to_string().contains("no answer: it wrote"), "{body}");
    }
}

#[tokio::test]
async fn garbage_is_told_at_once_though_nothing_more_comes() {
    for (kind, path) in PATHS {
        let text = if kind == ModelWire::Ollama { OLLAMA } else { OPENAI };
        let url = provider(chats(move |_, _| {
            let line = text.split_inclusive('\n').find(|line| line.contains("The")).unwrap();
            let piece = Bytes::from(format!("{line}garbage\n"));
            let pieces = futures::stream::iter([Ok::<_, std::io::Error>(piece)]);
            Body::from_stream(pieces.chain(futures::stream::pending()))
        }))
        .await;
        let world = World::with(upstreams(kind, url, GatewayLimits::default())).await;
        let program = world.up("a").await;
        let (_, body) = soon("the end of the answer", ask(&program, path, question())).await;
        assert!(body.contains("The") && body.contains("no answer: it wrote"), "{body}");
    }
}

#[tokio::test]
async fn a_key_in_an_answer_is_concealed() {
    let url = provider(chats(move |_, _| OLLAMA.replace("sky", KEY))).await;
    let world = World::with(upstreams(ModelWire::Ollama, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    let (_, body) = ask(&program, "gateway/api/chat", question()).await;
    assert!(body.contains("[key]"), "{body}");
    let debug = format!("{:?}", world.state.upstreams);
    assert!(!debug.contains(KEY), "{debug}");
}

#[tokio::test]
async fn an_answer_in_one_piece_is_passed_on_and_counted() {
    let whole = json!({ "choices": [{ "message": { "content": "hi" } }], "usage": { "prompt_tokens": 3, "completion_tokens": 1 } });
    let answer = whole.clone();
    let url = provider(chats(move |_, _| axum::Json(answer.clone()))).await;
    let world = World::with(upstreams(ModelWire::Openai, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    let body = json!({ "model": "fake", "messages": [] });
    let (status, answer) = ask(&program, "gateway/v1/chat/completions", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), whole);
    assert_eq!(world.state.upstreams.totals().prompt_tokens, 3);
}

#[tokio::test]
async fn only_the_agents_own_model_is_served_on_its_own_wire() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let url = provider(chats(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        OLLAMA
    }))
    .await;
    let world = World::with(upstreams(ModelWire::Ollama, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    for (path, body, code) in [
        ("gateway/api/chat", json!({ "model": "dearer", "messages": [] }), "model_forbidden"),
        ("gateway/api/chat", json!({ "messages": [] }), "model_forbidden"),
        ("gateway/api/chat", json!([1]), "invalid"),
        ("gateway/v1/chat/completions", question(), "invalid"),
    ] {
        let (_, answer) = ask(&program, path, body).await;
        assert!(answer.contains(&format!("{code:?}")), "{answer}");
    }
    let (status, _) = ask(&program, "gateway/api/chat", json!("x".repeat(33 << 20))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing of this reached the provider");
    let none = World::new().await;
    let program = none.up("a").await;
    let (status, answer) = ask(&program, "gateway/api/chat", question()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(answer.contains("has no model"), "{answer}");
}

#[tokio::test]
async fn stream_options_that_leave_tokens_uncounted_are_refused() {
    let url = provider(chats(move |_, request| {
        assert_eq!(request["stream_options"]["include_usage"], true);
        OPENAI
    }))
    .await;
    let world = World::with(upstreams(ModelWire::Openai, url, GatewayLimits::default())).await;
    let program = world.up("a").await;
    for (options, wanted) in [
        (json!("odd"), StatusCode::BAD_REQUEST),
        (json!(null), StatusCode::BAD_REQUEST),
        (json!({ "include_usage": false }), StatusCode::BAD_REQUEST),
        (json!({ "include_usage": true }), StatusCode::OK),
    ] {
        let mut body = question();
        body["stream_options"] = options;
        let (status, answer) = ask(&program, "gateway/v1/chat/completions", body).await;
        assert_eq!(status, wanted, "{answer}");
    }
}

#[tokio::test]
async fn an_ollama_is_discovered_with_its_models() {
    let tags =
        get(|| async { axum::Json(json!({ "models": [{ "name": "gpt-oss:20b", "size": 13_780_173_839_u64 }] })) });
    let show = post(|| async {
        axum::Json(
            json!({ "capabilities": ["completion", "tools"], "model_info": { "gptoss.context_length": 131_072 } }),
        )
    });
    let url =
        provider(Router::new().route("/api/tags", tags).route("/api/show", show).merge(chats(|_, _| OLLAMA))).await;
    let found = discover_ollama(Some(&url)).await.unwrap();
    let wanted = DiscoveredModel {
        name: "gpt-oss:20b".into(),
        bytes: 13_780_173_839,
        context: Some(131_072),
        tools: true,
        vision: false,
    };
    assert_eq!(found, [wanted]);
    let all = upstreams(ModelWire::Ollama, url, GatewayLimits::default());
    assert!(all.probe(LIMIT).await[0].fault.is_none());
}

#[test]
fn a_wrong_configuration_is_refused_with_the_reason() {
    let model = |name: &str| UpstreamModel { name: name.into(), context: 4096, vision: false };
    let config = |url: &str, key: &str, models: Vec<UpstreamModel>| UpstreamConfig {
        name: "mine".into(),
        kind: ModelWire::Openai,
        url: url.into(),
        key: Some(key.into()),
        models,
    };
    for (config, reason) in [
        (config("nowhere", KEY, vec![]), "no address"),
        (config("file:///etc/passwd", KEY, vec![]), "no address"),
        (config("http://me:secret@host/v1", KEY, vec![]), "write the key"),
        (config("http://host/v1", "two words\n", vec![]), "blanks"),
        (config("http://host/v1", KEY, vec![model("a"), model("a")]), "twice"),
        (config("http://host/v1", KEY, vec![model("")]), "needs a name"),
    ] {
        let error = Upstreams::new(vec![config], GatewayLimits::default()).unwrap_err().to_string();
        assert!(error.contains(reason) && !error.contains(KEY), "{error}");
    }
}
