//! Requests that are sent again under their key.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::testing::{Answer, Api, PASSWORD, said};

const KEY: &str = "idempotency-key";

async fn keyed(api: &Api, method: Method, path: &str, body: Option<&Value>, key: &str) -> Answer {
    api.call("ada", method, path, body, &[(KEY, key)]).await
}

fn replays(first: &Answer, second: &Answer) {
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    assert!(!first.headers.contains_key("idempotent-replayed"), "{first:?}");
    assert_eq!(second.headers["idempotent-replayed"], "true", "{second:?}");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_and_that_is_sent_again_makes_one_agent() {
    let api = Api::start().await;
    let new = json!({ "name": "one" });
    let first = keyed(&api, Method::POST, "/agents", Some(&new), "k1").await;
    let second = keyed(&api, Method::POST, "/agents", Some(&new), "k1").await;
    replays(&first, &second);
    let other = keyed(&api, Method::POST, "/agents", Some(&json!({ "name": "two" })), "k1").await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_mismatch"));
    let taken = keyed(&api, Method::POST, "/agents", Some(&new), "k2").await;
    assert_eq!((taken.status, taken.code()), (StatusCode::CONFLICT, "name_taken"));
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_one_message() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let body = said("hello");
    let first = keyed(&api, Method::POST, "/agents/one/messages", Some(&body), "k").await;
    let second = keyed(&api, Method::POST, "/agents/one/messages", Some(&body), "k").await;
    replays(&first, &second);
    let other = keyed(&api, Method::POST, "/agents/one/messages", Some(&said("bye")), "k").await;
    assert_eq!(other.code(), "idempotency_mismatch");
    assert_eq!(api.get("ada", "/agents/one").await.body["inbox"]["queued"], 1);
    api.call("ada", Method::DELETE, "/agents/one", None, &[]).await;
}

#[tokio::test]
async fn verbs_that_are_sent_again_answer_as_they_did_first() {
    let api = Api::working().await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let change = json!({ "spec": { "idle_timeout": 60 } });
    let keep = json!({ "for": 60 });
    for (method, path, body) in [
        (Method::PATCH, "/agents/one", Some(&change)),
        (Method::PUT, "/agents/one/keep-awake", Some(&keep)),
        (Method::POST, "/agents/one/sleep", None),
        (Method::POST, "/agents/one/wake", None),
        (Method::DELETE, "/agents/one", None),
    ] {
        let key = format!("{method} {path}");
        let first = keyed(&api, method.clone(), path, body, &key).await;
        assert_eq!(first.status, StatusCode::OK, "{key}: {first:?}");
        let second = keyed(&api, method, path, body, &key).await;
        replays(&first, &second);
    }
}

#[tokio::test]
async fn a_delete_that_is_sent_again_after_the_agent_is_gone_answers_as_it_did() {
    let api = Api::working().await;
    api.post("ada", "/agents?wait=30s", &json!({ "name": "one" })).await;
    let first = keyed(&api, Method::DELETE, "/agents/one", None, "k").await;
    let mut changes = api.control.system().feed().subscribe();
    while api.get("ada", "/agents/one").await.status == StatusCode::OK {
        changes.recv().await.expect("an event");
    }
    replays(&first, &keyed(&api, Method::DELETE, "/agents/one", None, "k").await);
}

#[tokio::test]
async fn sleep_and_sleep_now_are_two_requests() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    assert_eq!(keyed(&api, Method::POST, "/agents/one/sleep", None, "k").await.status, StatusCode::OK);
    assert_eq!(keyed(&api, Method::POST, "/agents/one/sleep?now=true", None, "k").await.code(), "idempotency_mismatch");
}

#[tokio::test]
async fn keys_of_two_users_are_two_keys() {
    let api = Api::start().await;
    let body = json!({ "name": "one" });
    assert_eq!(keyed(&api, Method::POST, "/agents", Some(&body), "k").await.status, StatusCode::CREATED);
    let other = json!({ "name": "two" });
    let bobs = api.call("bob", Method::POST, "/agents", Some(&other), &[(KEY, "k")]).await;
    assert_eq!(bobs.status, StatusCode::CREATED, "{bobs:?}");
}

#[tokio::test]
async fn calls_whose_answer_is_given_once_take_no_key() {
    let api = Api::start().await;
    let login = json!({ "name": "ada", "password": PASSWORD });
    for (path, body) in [("/auth/login", &login), ("/auth/logout", &json!(null)), ("/users", &login)] {
        let refused = keyed(&api, Method::POST, path, Some(body), "k").await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "invalid"), "{path}");
    }
    let empty = keyed(&api, Method::POST, "/agents", Some(&json!({ "name": "one" })), "").await;
    assert_eq!(empty.code(), "invalid");
    let long = keyed(&api, Method::POST, "/agents", Some(&json!({ "name": "one" })), &"k".repeat(256)).await;
    assert_eq!(long.code(), "invalid");
}
