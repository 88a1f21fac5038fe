//! What must not break it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::server::Options;
use crate::server::testing::{Answer, Api, Setting, said};

async fn raw(api: &Api, path: &str, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request: Request<Body> = api.request("ada", Method::POST, &format!("/api/v0{path}"), None);
    *request.body_mut() = body.into();
    if let Some(content_type) = content_type {
        request.headers_mut().insert("content-type", content_type.parse().expect("a value"));
    }
    api.send(request).await
}

const JSON: Option<&str> = Some("application/json");

#[tokio::test]
async fn names_that_equal_route_words_work() {
    let api = Api::start().await;
    for name in ["login", "logout", "messages", "version", "events", "agents", "tenants", "auth", "explain", "wake"] {
        api.agent("ada", name).await;
        assert_eq!(api.get("ada", &format!("/agents/{name}")).await.body["name"], name);
        assert_eq!(api.get("ada", &format!("/tenants/default/agents/{name}")).await.body["name"], name);
        let sent = api.post("ada", &format!("/agents/{name}/messages"), &said("hello")).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{name}");
        let listed = api.get("ada", &format!("/agents/{name}/messages")).await;
        assert_eq!(listed.body["items"][0]["id"], sent.body["id"]);
    }
    let new = json!({ "name": "agents", "tenant": "agents", "password": "a good long one" });
    assert_eq!(api.post("root", "/users", &new).await.status, StatusCode::CREATED);
    let made = api.post("root", "/tenants/agents/agents", &json!({ "name": "agents" })).await;
    assert_eq!((made.status, &made.body["tenant"]), (StatusCode::CREATED, &json!("agents")));
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be_are_refused_with_the_reason() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    for (path, body, code) in [
        ("/agents", &b"{"[..], "malformed"),
        ("/agents", b"", "malformed"),
        ("/agents", b"name=one", "malformed"),
        ("/agents", b"null", "invalid"),
        ("/agents", b"[]", "invalid"),
        ("/agents", br#"{"name": 5}"#, "invalid"),
        ("/agents", br#"{"name": "One"}"#, "invalid"),
        ("/agents", br#"{"name": "two", "nmae": 1}"#, "invalid"),
        ("/agents", br#"{"name": "two", "spec": {"imgae": "x"}}"#, "invalid"),
        ("/agents", br#"{"name": "two", "spec": {"idle_timeout": -1}}"#, "invalid"),
        ("/agents", br#"{"name": "two", "spec": {"runtime": "none"}}"#, "invalid"),
        ("/agents", br#"{"name": "two", "name": "three"}"#, "invalid"),
        ("/agents", b"{\"name\": \"\xff\xfe\"}", "malformed"),
        ("/agents", b"{\"name\": \"two\"} x", "malformed"),
        ("/agents/one/messages", br#"{"parts": []}"#, "invalid"),
        ("/agents/one/messages", br#"{"parts": [{"type": "text"}]}"#, "invalid"),
        ("/agents/one/messages", br#"{"parts": [{"type": "text", "text": "  "}]}"#, "invalid"),
        ("/agents/one/messages", br#"{"parts": [{"type": "text", "text": "a\u0000b"}]}"#, "invalid"),
        ("/agents/one/messages", br#"{"role": "agent", "parts": [{"type": "text", "text": "x"}]}"#, "invalid"),
        ("/agents/one/messages", b"{\"parts\": [{\"type\": \"text\", \"text\": \"\xc3\x28\"}]}", "malformed"),
        ("/agents/one/messages", br#"{"parts": [{"type": "text", "text": "\ud800"}]}"#, "malformed"),
    ] {
        let shown = String::from_utf8_lossy(body).into_owned();
        let refused = raw(&api, path, JSON, body.to_vec()).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, code), "{shown}: {refused:?}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(raw(&api, "/agents", JSON, deep).await.status, StatusCode::BAD_REQUEST);
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let refused = raw(&api, "/agents", kind, r#"{"name": "two"}"#).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"));
    }
    let charset = raw(&api, "/agents", Some("application/json; charset=utf-8"), r#"{"name": "two"}"#).await;
    assert_eq!(charset.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_body_of_10_mb_is_refused_and_a_message_of_100_000_characters_is_taken() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(10 << 20));
    let refused = raw(&api, "/agents", JSON, large).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    let text = "ä🦀x\n".repeat(25_000);
    let sent = api.post("ada", "/agents/one/messages", &said(&text)).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    let path = format!("/agents/one/messages/{}", sent.body["id"].as_str().expect("an id"));
    assert_eq!(api.get("ada", &path).await.body["parts"][0]["text"], text);
    let too_long = api.post("ada", "/agents/one/messages", &said(&"x".repeat((1 << 20) + 1))).await;
    assert_eq!((too_long.status, too_long.code()), (StatusCode::BAD_REQUEST, "invalid"));
}

#[tokio::test]
async fn addresses_that_are_none_are_refused_in_json() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    for (method, path, status, code) in [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND, "not_found"),
        (Method::GET, "/agents/", StatusCode::NOT_FOUND, "not_found"),
        (Method::GET, "/agents/one/nothing", StatusCode::NOT_FOUND, "not_found"),
        (Method::PUT, "/agents", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::POST, "/agents/one", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::DELETE, "/tenants/default/agents", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::GET, "/agents/one/exec", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        (Method::GET, "/agents/One", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/a%00b", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/%ff", StatusCode::BAD_REQUEST, "malformed"),
        (Method::GET, "/agents/..%2fusers", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/none", StatusCode::NOT_FOUND, "not_found"),
        (Method::GET, "/tenants/A/agents", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/one/messages/x", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/one/messages/018f0000-0000-7000-8000-000000000000", StatusCode::NOT_FOUND, "not_found"),
        (Method::GET, "/agents?after=!!", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?after=QUFB", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?limit=x", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?limit=-1", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?state=asleep", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?selector=a%20b", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents?color=red", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/one/messages?after=x", StatusCode::BAD_REQUEST, "invalid"),
        (Method::GET, "/agents/one/steps?after=-1", StatusCode::BAD_REQUEST, "invalid"),
        (Method::POST, "/agents/one/wake?wait=1h", StatusCode::BAD_REQUEST, "invalid"),
        (Method::POST, "/agents/one/wake?retry=maybe", StatusCode::BAD_REQUEST, "invalid"),
    ] {
        let refused = api.call("ada", method.clone(), path, None, &[]).await;
        assert_eq!((refused.status, refused.code()), (status, code), "{method} {path}: {refused:?}");
        assert_eq!(status == StatusCode::METHOD_NOT_ALLOWED, refused.headers.contains_key("allow"), "{path}");
        assert_eq!(refused.headers["x-request-id"].len(), 36);
    }
}

#[tokio::test]
async fn extreme_numbers_are_bounded() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    for path in ["/agents?limit=1", "/agents?limit=99999999", "/agents/one/messages?after=18446744073709551615"] {
        assert_eq!(api.get("ada", path).await.status, StatusCode::OK, "{path}");
    }
    let keep = json!({ "for": u64::MAX });
    let refused = api.call("ada", Method::PUT, "/agents/one/keep-awake", Some(&keep), &[]).await;
    assert_eq!(refused.code(), "invalid");
}

#[tokio::test]
async fn a_panic_is_an_error_like_any_other() {
    let panics = axum::Router::new()
        .route("/", axum::routing::get(async || -> &'static str { panic!("of no concern to callers") }))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(crate::server::layers::panicked));
    let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
    let response = tower::ServiceExt::oneshot(panics, request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    assert!(text.contains("\"internal\"") && !text.contains("concern"), "{text}");
}

#[tokio::test]
async fn a_parameter_that_the_description_does_not_allow_is_refused() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    for path in [
        "/agents?limit=0",
        "/agents/one/messages?limit=0",
        "/agents/one/steps?limit=0",
        "/agents/one/steps?limit=-1",
        "/agents/one/steps?after=18446744073709551616",
    ] {
        let answer = api.get("ada", path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid"), "{path}");
    }
    for id in ["x", "+1", "-1", "1 2"] {
        let answer = api.call("ada", Method::GET, "/events", None, &[("last-event-id", id)]).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid"), "{id}");
    }
    // What cannot be read is not as if it were absent: who resumes there would miss events.
    let mut request = api.request("ada", Method::GET, "/api/v0/events", None);
    let unreadable = http::HeaderValue::from_bytes(b"\xc2\x84").expect("a value");
    request.headers_mut().insert("last-event-id", unreadable);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), api.send(request)).await;
    assert_eq!(answer.expect("no stream").code(), "invalid");
    for (name, value) in [("idempotency-key", "a\tkey"), ("idempotency-key", ""), ("if-match", "+1"), ("if-match", "x")]
    {
        let answer =
            api.call("ada", Method::PATCH, "/agents/one", Some(&json!({ "spec": {} })), &[(name, value)]).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid"), "{name}: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_bodies_take_room_of_which_a_caller_has_a_part_and_who_gets_none_is_told_to_come_again() {
    let mut options = Options::default();
    // Room for two of the largest bodies, and for one of each caller.
    options.bytes_in_bodies = 2 * options.body_limit;
    let api = Arc::new(Api::with(Setting { options, ..Setting::default() }).await);
    let people = ["ada", "bob", "eve"];
    for who in people {
        api.agent(who, who).await;
    }
    let messages = |who: &str| format!("/agents/{who}/messages");
    // Of no length that is told, so it counts as the longest, and it never comes to its end.
    let stalls = |who: &'static str| {
        let mut request = api.request(who, Method::POST, &format!("/api/v0{}", messages(who)), Some(&json!({})));
        let (begun, heard) = oneshot::channel();
        let mut begun = Some(begun);
        *request.body_mut() = Body::from_stream(futures::stream::poll_fn(move |_| {
            begun.take().map(|begun| begun.send(()));
            Poll::<Option<Result<Bytes, std::io::Error>>>::Pending
        }));
        let api = Arc::clone(&api);
        (tokio::spawn(async move { api.send(request).await }), heard)
    };
    let (of_ada, is_read) = stalls("ada");
    is_read.await.expect("it has room");
    let large = said(&"x".repeat(300 << 10));
    let began = Instant::now();
    let refused = api.post("ada", &messages("ada"), &large).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "busy"), "{refused:?}");
    assert!(refused.text.contains("user:ada") && refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(began.elapsed().as_secs(), 5, "it waits for a while");
    assert_eq!(api.post("ada", &messages("ada"), &said("small")).await.status, StatusCode::ACCEPTED);
    assert_eq!(api.post("bob", &messages("bob"), &large).await.status, StatusCode::ACCEPTED, "others have room");

    let (of_bob, is_read) = stalls("bob");
    is_read.await.expect("it has room");
    let refused = api.post("eve", &messages("eve"), &large).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "busy"), "{refused:?}");
    assert!(refused.text.contains("all callers"), "{refused:?}");
    // What can only be refused waits for no room.
    let too_long = raw(&api, &messages("ada"), JSON, " ".repeat(3 << 20)).await;
    assert_eq!((too_long.status, too_long.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
    let began = Instant::now();
    let mut request = api.request("eve", Method::POST, &format!("/api/v0{}", messages("eve")), Some(&large));
    *request.version_mut() = Version::HTTP_2;
    let refused = api.send(request).await;
    assert_eq!(
        (refused.code(), began.elapsed().as_secs()),
        ("busy", 0),
        "it would keep others on its connection waiting"
    );

    // Nobody has it for good.
    for stalled in [of_ada, of_bob] {
        let ended = stalled.await.expect("it ends");
        assert_eq!((ended.status, ended.code()), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
    }
    for who in people {
        assert_eq!(api.post(who, &messages(who), &large).await.status, StatusCode::ACCEPTED, "there is room again");
    }
}

/// What never stands still for long and never ends.
fn drips() -> Body {
    Body::from_stream(futures::stream::unfold((), |()| async {
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;
        Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b" ")), ()))
    }))
}

/// The same with a length, which is told.
struct Told(Body, u64);

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_body_that_drips_is_given_up_after_a_minute() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let path = "/api/v0/agents/one/messages";
    let mut request = api.request("ada", Method::POST, path, Some(&json!({})));
    *request.body_mut() = Body::new(Told(drips(), 1000));
    let began = Instant::now();
    let dripped = api.send(request).await;
    assert_eq!((dripped.status, dripped.code()), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_login_has_to_come_at_once_and_to_be_small() {
    let api = Api::start().await;
    let login = |body: Body| {
        let request = Request::post("/api/v0/auth/login").header("content-type", "application/json").body(body);
        api.send(request.expect("a request"))
    };
    let began = tokio::time::Instant::now();
    let dripped = login(drips()).await;
    assert_eq!((dripped.status, dripped.code()), (StatusCode::REQUEST_TIMEOUT, "request_timeout"));
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    let large = login(Body::from(format!("{}{{}}", " ".repeat(100 << 10)))).await;
    assert_eq!((large.status, large.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"));
}
