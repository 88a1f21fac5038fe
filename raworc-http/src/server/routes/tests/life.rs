//! Agents that live: waking, sleeping, working, and calls that wait for it.

use std::time::Duration;

use http::{Method, StatusCode};
use raworc_core::control::{Call, Settings};
use raworc_core::runtime::simulated::{Act, SimulatedAgent};
use serde_json::json;
use tokio::time::Instant;

use crate::api::WAIT_INTERRUPTED;
use crate::server::Tokens;
use crate::server::testing::{Api, Setting, said, user};

#[tokio::test]
async fn a_call_that_waits_answers_what_is_then() {
    let api = Api::working().await;
    let made = api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    assert_eq!((made.status, &made.body["status"]["state"]), (StatusCode::CREATED, &json!("idle")), "{made:?}");
    let done = api.post("ada", "/agents/one/messages?wait=30", &said("hello")).await;
    assert_eq!((done.status, &done.body["state"]), (StatusCode::ACCEPTED, &json!("done")), "{done:?}");
    let listed = api.get("ada", "/agents/one/messages").await;
    assert_eq!(listed.body["items"][1]["reply_to"], done.body["id"]);
    assert_eq!(listed.body["items"][1]["parts"], done.body["parts"]);
    let slept = api.post("ada", "/agents/one/sleep?wait=30s", &json!(null)).await;
    assert_eq!(slept.body["status"]["state"], "slept", "{slept:?}");
    assert_eq!(slept.body["status"]["run"], json!(null), "its computer has stopped: {slept:?}");
    let woken = api.post("ada", "/agents/one/wake?wait=30000ms", &json!(null)).await;
    assert_eq!(woken.body["status"]["state"], "idle", "{woken:?}");
    let deleted = api.call("ada", Method::DELETE, "/agents/one?wait=30s", None, &[]).await;
    assert_eq!(deleted.body["status"]["state"], "deleted", "{deleted:?}");
    assert_eq!(api.get("ada", "/agents/one").await.code(), "not_found");
    api.agent("ada", "one").await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_over_answers_the_state_and_no_error() {
    let agents = SimulatedAgent::new(|_| Act::Hang);
    let api = Api::with(Setting { agents: Some(agents), ..Setting::default() }).await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let began = tokio::time::Instant::now();
    let sent = api.post("ada", "/agents/one/messages?wait=2s", &said("hello")).await;
    assert_eq!((sent.status, &sent.body["state"]), (StatusCode::ACCEPTED, &json!("leased")), "{sent:?}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
    let id = sent.body["id"].as_str().expect("an id");
    let read = api.get("ada", &format!("/agents/one/messages/{id}?wait=1s")).await;
    assert_eq!((read.status, &read.body["state"]), (StatusCode::OK, &json!("leased")));
}

#[tokio::test]
async fn a_start_that_fails_ends_the_wait_and_is_explained() {
    let api = Api::working().await;
    api.engine.control().lose_image("ghost", "not found in any registry");
    let new = json!({ "name": "one", "spec": { "image": "ghost" } });
    let made = api.post("ada", "/agents?wait=60s", &new).await;
    assert_eq!((made.status, &made.body["status"]["state"]), (StatusCode::CREATED, &json!("init")), "{made:?}");
    let explained = api.get("ada", "/agents/one/explain").await;
    assert!(explained.text.contains("not found in any registry"), "{explained:?}");
}

#[tokio::test]
async fn a_message_that_is_cancelled_is_told_so() {
    let agents = SimulatedAgent::new(|_| Act::Work(std::time::Duration::from_secs(3600), "late".into()));
    let api = Api::with(Setting { agents: Some(agents), ..Setting::default() }).await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let held = api.post("ada", "/agents/one/messages", &said("work")).await;
    let queued = api.post("ada", "/agents/one/messages", &said("wait")).await;
    let path = |sent: &crate::server::testing::Answer, rest: &str| {
        format!("/agents/one/messages/{}{rest}", sent.body["id"].as_str().expect("an id"))
    };
    let cancelled = api.post("ada", &path(&queued, "/cancel"), &json!(null)).await;
    assert_eq!((cancelled.status, &cancelled.body["state"]), (StatusCode::OK, &json!("cancelled")));
    let again = api.post("ada", &path(&queued, "/cancel"), &json!(null)).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "message_state"));
    let mut changes = api.control.system().feed().subscribe();
    while api.get("ada", &path(&held, "")).await.body["state"] == "queued" {
        changes.recv().await.expect("an event");
    }
    assert_eq!(api.post("ada", "/agents/one/cancel", &json!(null)).await.status, StatusCode::OK);
    let ended = api.get("ada", &path(&held, "?wait=30s")).await;
    assert_eq!(ended.body["state"], "cancelled", "{ended:?}");
}

#[tokio::test]
async fn an_agent_is_kept_awake_for_a_time() {
    let api = Api::working().await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let put = async |body| api.call("ada", Method::PUT, "/agents/one/keep-awake", Some(&body), &[]).await;
    let kept = put(json!({ "for": 3600 })).await;
    assert!(kept.body["status"]["keep_awake_until"].is_string(), "{kept:?}");
    assert_eq!(put(json!({ "for": 0 })).await.code(), "invalid");
    assert_eq!(put(json!({ "for": 1, "x": 1 })).await.code(), "invalid");
    let released = api.call("ada", Method::DELETE, "/agents/one/keep-awake", None, &[]).await;
    assert_eq!(released.body["status"]["keep_awake_until"], json!(null), "{released:?}");
    api.post("ada", "/agents/one/sleep?wait=30s", &json!(null)).await;
    let asleep = put(json!({ "for": 60 })).await;
    assert_eq!((asleep.status, asleep.code()), (StatusCode::CONFLICT, "agent_asleep"));
}

#[tokio::test]
async fn an_inbox_that_is_full_says_when_to_come_again() {
    let mut settings = Settings::default();
    settings.inbox_limit = 2;
    let api = Api::with(Setting { settings, ..Setting::default() }).await;
    api.agent("ada", "one").await;
    for _ in 0..2 {
        assert_eq!(api.post("ada", "/agents/one/messages", &said("x")).await.status, StatusCode::ACCEPTED);
    }
    let full = api.post("ada", "/agents/one/messages", &said("x")).await;
    assert_eq!((full.status, full.code()), (StatusCode::TOO_MANY_REQUESTS, "inbox_full"));
    assert_eq!(full.body["error"]["details"], json!({ "name": "one", "limit": 2, "unit": "messages" }));
    assert!(full.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_inbox_is_full_by_the_size_of_its_messages_too() {
    let mut settings = Settings::default();
    settings.inbox_bytes = 10;
    let api = Api::with(Setting { settings, ..Setting::default() }).await;
    api.agent("ada", "one").await;
    assert_eq!(api.post("ada", "/agents/one/messages", &said("1234567890")).await.status, StatusCode::ACCEPTED);
    let full = api.post("ada", "/agents/one/messages", &said("x")).await;
    assert_eq!((full.status, full.code()), (StatusCode::TOO_MANY_REQUESTS, "inbox_full"));
    assert_eq!(full.body["error"]["details"], json!({ "name": "one", "limit": 10, "unit": "bytes" }));
}

#[tokio::test]
async fn waits_end_when_the_server_closes() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let closing = api.options.closing.clone();
    let sent = said("x");
    let waiting = api.post("ada", "/agents/one/messages?wait=600s", &sent);
    let (sent, ()) = tokio::join!(waiting, async { closing.cancel() });
    assert_eq!((sent.status, &sent.body["state"]), (StatusCode::ACCEPTED, &json!("queued")));
    assert_eq!(sent.headers[WAIT_INTERRUPTED], "true");
    let id = sent.body["id"].as_str().expect("an id");
    let read = api.get("ada", &format!("/agents/one/messages/{id}?wait=600s")).await;
    assert_eq!((read.status, read.headers.contains_key(WAIT_INTERRUPTED)), (StatusCode::OK, true), "{read:?}");
    let made = api.post("ada", "/agents?wait=600s", &json!({ "name": "two" })).await;
    assert_eq!((made.status, made.headers.contains_key(WAIT_INTERRUPTED)), (StatusCode::CREATED, true), "{made:?}");
    let read = api.get("ada", &format!("/agents/one/messages/{id}")).await;
    assert!(!read.headers.contains_key(WAIT_INTERRUPTED), "it did not wait: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_its_token_is_good() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let sent = api.post("ada", "/agents/one/messages", &said("x")).await;
    let path = format!("/agents/one/messages/{}?wait=600s", sent.body["id"].as_str().expect("an id"));
    let tokens = Tokens::new(&api.control);
    let bearer = |ttl| {
        let issued = tokens.issue(&user("ada"), Duration::from_secs(ttl)).expect("issued");
        (format!("Bearer {}", issued.token), issued.record)
    };
    let (expires, _) = bearer(5);
    let began = Instant::now();
    let refused = api.call("", Method::GET, &path, None, &[("authorization", &expires)]).await;
    assert_eq!(refused.code(), "unauthenticated");
    // Tokens count whole seconds.
    assert!((4..=5).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let (good, record) = bearer(600);
    let headers = [("authorization", good.as_str())];
    let waiting = api.call("", Method::GET, &path, None, &headers);
    let revoking = async {
        let call = Call::by(user("ada")).with_token(record);
        api.control.revoke(&call).await.expect("revoked");
    };
    let (refused, ()) = tokio::join!(waiting, revoking);
    assert_eq!(refused.code(), "unauthenticated");
    assert!(began.elapsed() < Duration::from_secs(60), "it was not waited any longer: {:?}", began.elapsed());
    // What was asked is done all the same.
    let (expires, _) = bearer(5);
    let headers = [("authorization", expires.as_str())];
    let path = "/agents/one/messages?wait=600s";
    let sent = api.call("", Method::POST, path, Some(&said("y")), &headers).await;
    assert_eq!((sent.status, sent.headers.contains_key(WAIT_INTERRUPTED)), (StatusCode::ACCEPTED, true), "{sent:?}");
}
