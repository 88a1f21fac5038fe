//! What every caller relies on.

use std::sync::Arc;

use http::{Method, StatusCode};
use raworc_core::runtime::Runtimes;
use serde_json::json;

use crate::server::testing::{Api, PASSWORD, Setting, said};
use crate::server::{Options, metrics};

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
    let sent = api.post("ada", "/agents/one/messages", &said("hello")).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{sent:?}");
    assert_eq!((&sent.body["seq"], &sent.body["author"]), (&json!(1), &json!("user:ada")));
    let id = sent.body["id"].as_str().expect("an id");
    assert_eq!(sent.headers["location"], format!("/api/v0/tenants/default/agents/one/messages/{id}"));
    let read = api.get("ada", &format!("/agents/one/messages/{id}")).await;
    assert_eq!(read.body, sent.body);
    let listed = api.get("ada", "/agents/one/messages").await;
    assert_eq!(listed.body["items"], json!([sent.body]));
}

#[tokio::test]
async fn pages_follow_each_other_by_their_cursors() {
    let api = Api::start().await;
    for name in ["a", "b", "c"] {
        api.agent("ada", name).await;
        api.post("ada", "/agents/a/messages", &said("hello")).await;
    }
    let first = api.get("ada", "/agents?limit=2").await;
    let next = first.body["next"].as_str().expect("there is more");
    let second = api.get("ada", &format!("/agents?limit=2&after={next}")).await;
    assert_eq!((&second.body["items"][0]["name"], &second.body["next"]), (&json!("c"), &json!(null)));
    let newest = api.get("ada", "/agents/a/messages?newest_first=true&limit=1").await;
    assert_eq!(newest.body["items"][0]["seq"], 3);
    let next = newest.body["next"].as_str().expect("there is more");
    let rest = api.get("ada", &format!("/agents/a/messages?newest_first=true&after={next}")).await;
    assert_eq!((&rest.body["items"][0]["seq"], &rest.body["items"][1]["seq"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn agents_are_listed_by_state_and_by_labels() {
    let api = Api::start().await;
    api.agent("ada", "plain").await;
    let labelled = json!({ "name": "web", "spec": { "labels": { "app": "web" } } });
    assert_eq!(api.post("ada", "/agents", &labelled).await.status, StatusCode::CREATED);
    for (query, names) in [
        ("selector=app%3Dweb", vec!["web"]),
        ("selector=!app", vec!["plain"]),
        ("state=init", vec!["plain", "web"]),
        ("state=idle", vec![]),
    ] {
        let listed = api.get("ada", &format!("/agents?{query}")).await;
        let found: Vec<_> = listed.body["items"].as_array().expect("items").iter().map(|a| &a["name"]).collect();
        assert_eq!(found, names, "{query}");
    }
}

#[tokio::test]
async fn a_change_is_for_the_generation_that_its_caller_saw() {
    let api = Api::start().await;
    api.agent("ada", "one").await;
    let change = json!({ "spec": { "idle_timeout": 60 } });
    let patch =
        async |tag: &str| api.call("ada", Method::PATCH, "/agents/one", Some(&change), &[("if-match", tag)]).await;
    let edited = patch("\"1\"").await;
    assert_eq!((edited.status, &edited.body["spec"]["idle_timeout"]), (StatusCode::OK, &json!(60)), "{edited:?}");
    assert_eq!(edited.headers["etag"], "\"2\"");
    let stale = patch("\"1\"").await;
    assert_eq!((stale.status, stale.code()), (StatusCode::PRECONDITION_FAILED, "generation_mismatch"));
    assert_eq!(stale.body["error"]["details"], json!({ "wanted": 1, "found": 2 }));
    assert_eq!(patch("\"x\"").await.code(), "invalid");
    assert_eq!(patch("*").await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_logs_in_gets_a_token_that_is_good_until_they_log_out() {
    let api = Api::start().await;
    let login = api.post("", "/auth/login", &json!({ "name": "ada", "password": PASSWORD })).await;
    assert_eq!(login.status, StatusCode::OK, "{login:?}");
    let token = format!("Bearer {}", login.body["token"].as_str().expect("a token"));
    let call = async |method, path: &str| api.call("", method, path, None, &[("authorization", &token)]).await;
    let who = call(Method::GET, "/auth").await;
    assert_eq!((&who.body["user"], &who.body["admin"]), (&json!("ada"), &json!(false)));
    assert_eq!(call(Method::POST, "/auth/logout").await.status, StatusCode::NO_CONTENT);
    let refused = call(Method::GET, "/auth").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    assert!(refused.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_user_are_told_alike() {
    let api = Api::start().await;
    let wrong = api.post("", "/auth/login", &json!({ "name": "ada", "password": "not the password" })).await;
    let nobody = api.post("", "/auth/login", &json!({ "name": "zoe", "password": "not the password" })).await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    assert_eq!(wrong.body, nobody.body);
}

#[tokio::test]
async fn an_admin_makes_users_who_can_log_in() {
    let api = Api::start().await;
    let new = json!({ "name": "zoe", "password": "a good long one", "tenant": "other" });
    let made = api.post("root", "/users", &new).await;
    assert_eq!((made.status, &made.body["tenant"]), (StatusCode::CREATED, &json!("other")), "{made:?}");
    assert!(!made.text.contains("a good long one"));
    let login = api.post("", "/auth/login", &json!({ "name": "zoe", "password": "a good long one" })).await;
    assert_eq!(login.status, StatusCode::OK);
    let short = api.post("root", "/users", &json!({ "name": "joe", "password": "short" })).await;
    assert_eq!((short.status, short.code()), (StatusCode::BAD_REQUEST, "invalid"));
}

#[tokio::test]
async fn health_is_told_to_everybody_and_figures_to_admins() {
    let handle = metrics::install().expect("the only one in this process");
    let options = Options::default().with_metrics(handle, false);
    let options = options.with_check("operator", || std::future::ready(Err("has stopped".into())));
    let api = Api::with(Setting { options, ..Setting::default() }).await;
    let root = async |who, path| api.send(api.request(who, Method::GET, path, None)).await;
    assert_eq!(root("", "/livez").await.text, "ok");
    assert_eq!(root("", "/version").await.body["version"], env!("CARGO_PKG_VERSION"));
    let ready = root("", "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let checks = json!({ "store": "ok", "server": "ok", "operator": "has stopped" });
    assert_eq!(ready.body, json!({ "ready": false, "checks": checks }));
    assert_eq!(root("", "/metrics").await.code(), "unauthenticated");
    assert_eq!(root("ada", "/metrics").await.code(), "forbidden");
    api.agent("ada", "one").await;
    api.get("ada", "/agents/one").await;
    let figures = root("root", "/metrics").await;
    let line = r#"raworc_http_requests_total{method="GET",route="/api/v0/agents/{name}",status="200"}"#;
    assert!(figures.text.contains(line), "{}", figures.text);
    assert!(figures.text.contains("raworc_http_request_seconds_bucket"), "{}", figures.text);
}

#[tokio::test]
async fn a_server_is_ready_while_an_operator_lives_for_each_runtime() {
    use raworc_core::operator::{Operator, OperatorSettings};
    let mut api = Api::start().await;
    let options = Options::default().with_operator_check(&api.control);
    api.router = crate::server::router(api.control.clone(), options);
    let ready = async || {
        let answer = api.send(api.request("", Method::GET, "/readyz", None)).await;
        (answer.status, answer.body["checks"]["operator"].as_str().unwrap_or_default().to_owned())
    };
    let missing =
        (StatusCode::SERVICE_UNAVAILABLE, "no operator looks after the agents of runtime simulated".to_owned());
    assert_eq!(ready().await, missing);
    let runtimes = Runtimes::default().with(Arc::new(api.engine.clone()), "http://127.0.0.1:9", None);
    let operator = Operator::start(&api.control, runtimes, OperatorSettings::default()).await.expect("starts");
    assert_eq!(ready().await, (StatusCode::OK, "ok".to_owned()));
    operator.shutdown().await;
    assert_eq!(ready().await, missing);
}

#[tokio::test]
async fn a_request_keeps_its_id_and_the_audit_knows_it() {
    use raworc_core::store::{AuditQuery, Store};
    let api = Api::start().await;
    let new = json!({ "name": "one" });
    let named = api.call("ada", Method::POST, "/agents", Some(&new), &[("x-request-id", "mine-1")]).await;
    assert_eq!(named.headers["x-request-id"], "mine-1");
    let unnamed = api.call("ada", Method::GET, "/agents", None, &[("x-request-id", "not a good one")]).await;
    assert_eq!(unnamed.headers["x-request-id"].len(), 36);
    let rows = api.store.audit(&AuditQuery { tenant: None, after: None, limit: 100 }).await.expect("read").items;
    let row = rows.iter().find(|row| row.entry.verb == "agents.create").expect("a row");
    assert_eq!(row.entry.request.as_deref(), Some("mine-1"));
}
