//! The log's streams.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use raworc_core::ids::Revision;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::server::Options;
use crate::server::testing::{Api, Setting, said};

/// One block of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
struct Block {
    id: Option<u64>,
    event: Option<String>,
    data: Value,
}

/// A stream that is being read.
struct Listening {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    text: String,
}

impl Listening {
    async fn open(api: &Api, who: &str, path: &str, last: Option<u64>) -> Self {
        let mut request: Request<Body> = api.request(who, Method::GET, &format!("/api/v0{path}"), None);
        if let Some(last) = last {
            request.headers_mut().insert("last-event-id", last.into());
        }
        Self::of(api, request).await
    }

    async fn of(api: &Api, request: Request<Body>) -> Self {
        let response = api.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body, text: String::new() }
    }

    /// The next block; none at the end.
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut parsed = Block::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => parsed.id = Some(id.parse().expect("a number")),
                        Some(("event", kind)) => parsed.event = Some(kind.into()),
                        Some(("data", data)) => parsed.data = serde_json::from_str(data).expect("JSON"),
                        _ => assert!(line.starts_with(':'), "{line}"),
                    }
                }
                self.text = rest.to_owned();
                return Some(parsed);
            }
            let frame = self.body.frame().await?.expect("no error");
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8"));
        }
    }

    /// The next event, whatever comes between.
    async fn event(&mut self) -> Block {
        loop {
            let block = tokio::time::timeout(Duration::from_secs(20), self.block()).await.expect("in time");
            let block = block.expect("the stream goes on");
            if block.event.is_some() {
                return block;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_tells_each_event_once_and_resumes_after_the_last() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let mut all = Listening::open(&api, "ada", "/events?since=0", None).await;
    assert_eq!(all.headers["content-type"], "text/event-stream");
    let created = all.event().await;
    assert_eq!(created.event.as_deref(), Some("agent.created"));
    assert_eq!((created.id, &created.data["name"]), (created.data["revision"].as_u64(), &json!("one")));
    api.post("ada", "/agents/one/messages", &said("hello")).await;
    let accepted = all.event().await;
    assert_eq!(accepted.event.as_deref(), Some("message.accepted"));
    let mut resumed = Listening::open(&api, "ada", "/events?since=0", created.id).await;
    assert_eq!(resumed.event().await, accepted, "Last-Event-ID goes before since");
    let mut fresh = Listening::open(&api, "ada", "/agents/one/events", None).await;
    let position = fresh.block().await.expect("a block");
    assert_eq!(position.id, Some(api.store_head().await), "it knows where to resume before anything happens");
    api.post("ada", "/agents/one/messages", &said("again")).await;
    assert_eq!(fresh.event().await, all.event().await);
}

#[tokio::test]
async fn a_listener_hears_of_their_own_agents_alone() {
    let api = Api::start().await;
    let mut adas = Listening::open(&api, "ada", "/events?since=0", None).await;
    let mut roots = Listening::open(&api, "root", "/events?since=0", None).await;
    let mut others = Listening::open(&api, "root", "/tenants/other/events?since=0", None).await;
    api.agent("bob", "bobs").await;
    api.agent("eve", "eves").await;
    api.agent("ada", "adas").await;
    assert_eq!(adas.event().await.data["name"], "adas");
    assert_eq!(roots.event().await.data["name"], "bobs");
    assert_eq!(roots.event().await.data["name"], "adas");
    assert_eq!(others.event().await.data["name"], "eves");
}

#[tokio::test]
async fn words_of_a_model_come_along_with_the_agents_own_events() {
    use raworc_core::control::Call;
    use raworc_core::program::DeltaReport;
    let api = Api::working().await;
    let made = api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let sent = api.post("ada", "/agents/one/messages?wait=30s", &said("hello")).await;
    let mut stream = Listening::open(&api, "ada", "/agents/one/events", None).await;
    stream.block().await.expect("a block");
    let principal = raworc_core::principal::Principal::Agent {
        tenant: "default".parse().expect("valid"),
        agent: made.body["id"].as_str().expect("an id").parse().expect("valid"),
        computer: made.body["status"]["computer"].as_str().expect("an id").parse().expect("valid"),
        incarnation: serde_json::from_value(made.body["status"]["incarnation"].clone()).expect("a number"),
    };
    let message = sent.body["id"].as_str().expect("an id").parse().expect("valid");
    let report = DeltaReport { message, text: "wor".into() };
    api.control.add_delta(&Call::by(principal), report).await.expect("told");
    let delta = stream.event().await;
    assert_eq!((delta.event.as_deref(), delta.id), (Some("delta"), None));
    assert_eq!(delta.data, json!({ "message": sent.body["id"], "text": "wor" }));
}

#[tokio::test]
async fn a_log_that_no_longer_goes_back_that_far_is_gone_before_the_stream_begins() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    api.store.forget_log(Revision(api.store_head().await));
    let gone = api.get("ada", "/events?since=1").await;
    assert_eq!((gone.status, gone.code()), (StatusCode::GONE, "gone"));
    let text = gone.body["error"]["message"].to_string();
    assert!(text.contains("the log goes on at revision"), "{text}");
    let seen = api.call("ada", Method::GET, "/events", None, &[("last-event-id", "1")]).await;
    assert_eq!((seen.status, seen.code()), (StatusCode::GONE, "gone"));
    let oldest = seen.body["error"]["details"]["oldest"].as_u64().expect("says where the log begins");
    let mut stream = Listening::open(&api, "ada", "/events", Some(oldest - 1)).await;
    assert_eq!(stream.status, StatusCode::OK);
    api.agent("ada", "two").await;
    assert_eq!(stream.event().await.data["name"], "two", "it goes on from there");
    // As the log of a database is that has lost the last of it.
    let head = api.store_head().await;
    let beyond = api.get("ada", "/events?since=100000").await;
    assert_eq!((beyond.status, beyond.code()), (StatusCode::GONE, "gone"));
    assert_eq!(beyond.body["error"]["details"]["oldest"], head + 1);
    let seen = api.call("ada", Method::GET, "/events", None, &[("last-event-id", "100000")]).await;
    assert_eq!((seen.status, seen.code()), (StatusCode::GONE, "gone"));
    let nonsense = api.call("ada", Method::GET, "/events", None, &[("last-event-id", "x")]).await;
    assert_eq!(nonsense.code(), "invalid");
}

#[tokio::test]
async fn a_principal_has_so_many_streams_and_no_more() {
    let options = Options::default().with_streams_per_principal(2);
    let api = Api::with(Setting { options, ..Setting::default() }).await;
    let first = Listening::open(&api, "ada", "/events", None).await;
    let second = Listening::open(&api, "ada", "/events", None).await;
    let refused = api.get("ada", "/events").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(Listening::open(&api, "bob", "/events", None).await.status, StatusCode::OK);
    drop((first, second));
    assert_eq!(Listening::open(&api, "ada", "/events", None).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_life_and_how_far_the_log_is() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let mut stream = Listening::open(&api, "ada", "/agents/one/events", None).await;
    let start = stream.block().await.expect("a block");
    api.agent("ada", "two").await;
    let alive = stream.block().await.expect("a block");
    assert_eq!(alive, Block { id: Some(api.store_head().await), ..Block::default() });
    assert!(alive.id > start.id);
    assert_eq!(stream.block().await, Some(Block::default()), "a comment alone");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_good_no_longer_than_its_token() {
    let options = Options::default().with_token_ttl(Duration::from_secs(5));
    let api = Api::with(Setting { options, ..Setting::default() }).await;
    let mut stream = Listening::open(&api, "ada", "/events", None).await;
    stream.block().await.expect("a block");
    assert_eq!(stream.block().await, None);
}

#[tokio::test]
async fn a_quiet_stream_ends_when_its_caller_logs_out() {
    let api = Api::start().await;
    let bearer = format!("Bearer {}", api.token("ada"));
    let mut request: Request<Body> = api.request("", Method::GET, "/api/v0/events", None);
    request.headers_mut().insert("authorization", bearer.parse().expect("a value"));
    let mut stream = Listening::of(&api, request).await;
    stream.block().await.expect("a block");
    let logout = api.call("", Method::POST, "/auth/logout", None, &[("authorization", &bearer)]).await;
    assert_eq!(logout.status, StatusCode::NO_CONTENT);
    // She sees nothing of the log that would tell her.
    assert_eq!(stream.block().await, None);
}

#[tokio::test]
async fn streams_end_when_the_server_closes() {
    let api = Api::start().await;
    let mut stream = Listening::open(&api, "ada", "/events", None).await;
    stream.block().await.expect("a block");
    api.options.closing.cancel();
    assert_eq!(stream.block().await, None);
}

#[tokio::test]
async fn a_listener_who_is_far_behind_misses_nothing() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let mut stream = Listening::open(&api, "ada", "/agents/one/events", None).await;
    stream.block().await.expect("a block");
    let first = api.store_head().await + 1;
    let call = raworc_core::control::Call::by(crate::server::testing::user("ada"));
    let (tenant, name) = ("default".parse().expect("valid"), "one".parse().expect("valid"));
    // More than the feed keeps for a slow listener.
    for _ in 0..4500 {
        let said = raworc_core::control::SendMessage::text("x");
        api.control.send(&call, &tenant, &name, said).await.expect("accepted");
        api.control.edit_agent(&call, &tenant, &name, &spec(), None).await.expect("edited");
    }
    let last = api.store_head().await;
    for revision in first..=last {
        assert_eq!(stream.event().await.id, Some(revision));
    }
}

fn spec() -> raworc_core::control::EditAgent {
    serde_json::from_value(json!({ "spec": { "description": "x" } })).expect("valid")
}

#[tokio::test]
async fn five_hundred_watchers_do_not_delay_a_message() {
    let options = Options::default().with_streams_per_principal(1000);
    let agents = Some(raworc_core::runtime::simulated::SimulatedAgent::echo());
    let api = Api::with(Setting { options, agents, ..Setting::default() }).await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let mut watchers = Vec::new();
    for _ in 0..500 {
        let watcher = Listening::open(&api, "ada", "/agents/one/events", None).await;
        assert_eq!(watcher.status, StatusCode::OK);
        watchers.push(watcher);
    }
    let begun = tokio::time::Instant::now();
    for n in 0..10 {
        let sent = api.post("ada", "/agents/one/messages?wait=30s", &said(&format!("m{n}"))).await;
        assert_eq!(sent.body["state"], "done", "{sent:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "ten messages took {:?}", begun.elapsed());
    // Nobody read meanwhile, and nobody missed anything.
    for watcher in &mut watchers {
        let mut replies = 0;
        while replies < 10 {
            replies += usize::from(watcher.event().await.event.as_deref() == Some("message.reply"));
        }
    }
}

/// The revisions that a stream tells until it ends by itself.
async fn told(api: &Api, who: &str, path: &str) -> Vec<u64> {
    let mut stream = Listening::open(api, who, path, None).await;
    assert_eq!(stream.status, StatusCode::OK, "{path}");
    let mut told = Vec::new();
    loop {
        let block = tokio::time::timeout(Duration::from_secs(20), stream.block()).await.expect("in time");
        let block = block.expect("it says that it ends");
        match block.event.as_deref() {
            Some("end") => break,
            Some(_) => told.extend(block.id),
            None => {}
        }
    }
    assert_eq!(stream.block().await, None, "nothing comes after the end");
    told
}

#[tokio::test]
async fn the_log_is_read_to_its_end_from_the_latest_so_many_that_are_there() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    api.agent("bob", "two").await;
    for n in 0..20 {
        api.post("bob", "/agents/two/messages", &said(&format!("m{n}"))).await;
    }
    let all = told(&api, "root", "/events?since=0&follow=false").await;
    assert_eq!(all.last(), Some(&api.store_head().await));
    let five = told(&api, "root", "/events?last=5&follow=false").await;
    assert_eq!(five, all[all.len() - 5..]);
    let adas = told(&api, "ada", "/events?since=0&follow=false").await;
    assert!(!adas.is_empty() && adas.iter().all(|revision| *revision < five[0]), "{adas:?}");
    // However much of the log is about others.
    assert_eq!(told(&api, "ada", "/events?last=1&follow=false").await, adas[adas.len() - 1..]);
    assert_eq!(told(&api, "ada", "/agents/one/events?last=500&follow=false").await, adas);
    let mut goes_on = Listening::open(&api, "root", "/events?last=1", None).await;
    assert_eq!(goes_on.event().await.id, all.last().copied());
    api.agent("ada", "three").await;
    assert_eq!(goes_on.event().await.data["name"], "three");
    api.store.forget_log(Revision(five[0]));
    let kept = told(&api, "root", "/events?last=500&follow=false").await;
    assert_eq!(kept.first(), Some(&five[1]));
    assert_eq!(told(&api, "ada", "/events?last=5&follow=false").await.first(), Some(&(api.store_head().await)));
    assert_eq!(api.get("ada", "/events?since=1&last=5").await.code(), "invalid");
}
