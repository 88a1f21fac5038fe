//! What every caller relies on.

use http::{Method, StatusCode};
use serde_json::json;

use super::support::{Api, PASSWORD};

#[tokio::test]
async fn an_agent_is_made_read_listed_and_deleted() {
    let api = Api::start().await;
    let made = api.agent("ada", "one").await;
    assert_eq!(made["status"]["state"], "init");
    let read = api.get("ada", "/agents/one").await;
    assert_eq!((read.status, &read.body["id"]), (StatusCode::OK, &made["id"]));
    assert_eq!(read.headers["etag"], "\"1\"");
    let listed = api.get("ada", "/agents").await;
    assert_eq!(listed.body["items"][0]["id"], made["id"]);
    let deleted = api.send(api.request("ada", Method::DELETE, "/api/v0/agents/one", None)).await;
    assert_eq!((deleted.status, &deleted.body["desired"]), (StatusCode::OK, &json!("deleted")));
}

#[tokio::test]
async fn a_message_is_accepted_and_found_again() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let said = json!({ "parts": [{ "type": "text", "text": "hello" }] });
    let sent = api.post("ada", "/agents/one/messages", &said).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    assert_eq!((&sent.body["seq"], &sent.body["author"]), (&json!(1), &json!("user:ada")));
    let id = sent.body["id"].as_str().expect("an id");
    let read = api.get("ada", &format!("/agents/one/messages/{id}")).await;
    assert_eq!(read.body, sent.body);
    let listed = api.get("ada", "/agents/one/messages").await;
    assert_eq!(listed.body["items"], json!([sent.body]));
}

#[tokio::test]
async fn who_logs_in_gets_a_token_that_is_good_until_they_log_out() {
    let api = Api::start().await;
    let login = api.post("", "/auth/login", &json!({ "name": "ada", "password": PASSWORD })).await;
    assert_eq!(login.status, StatusCode::OK, "{login:?}");
    let token = login.body["token"].as_str().expect("a token").to_owned();
    let call = async |method, path: &str| {
        let request =
            http::Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        api.send(request.body(axum::body::Body::empty()).expect("a request")).await
    };
    let who = call(Method::GET, "/api/v0/auth").await;
    assert_eq!((&who.body["user"], &who.body["admin"]), (&json!("ada"), &json!(false)));
    assert_eq!(call(Method::POST, "/api/v0/auth/logout").await.status, StatusCode::NO_CONTENT);
    let refused = call(Method::GET, "/api/v0/auth").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    assert!(refused.headers.contains_key("www-authenticate"));
}
