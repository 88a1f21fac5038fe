//! Who may call what: every operation of the description has a row here.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use raworc_core::control::Call;
use raworc_core::principal::Principal;
use serde_json::{Value, json};

use crate::server::Tokens;
use crate::server::routes::document;
use crate::server::testing::{Answer, Api, PASSWORD, said, user};

/// Whose thing an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// Nobody's: everybody may call it, without a token.
    Public,
    /// The caller's own.
    Caller,
    /// The installation's: admins alone.
    Installation,
    /// A tenant's: its users see their own part of it.
    Tenant,
    /// One agent's: its owner and admins.
    Agent,
}
use About::{Agent, Caller, Installation, Public, Tenant};

struct Row {
    name: &'static str,
    about: About,
    method: &'static str,
    /// After `/api/v0`, or after `/api/v0/tenants/default`; `MESSAGE` stands for a message's id.
    path: &'static str,
    body: Option<Value>,
    /// What an admin is answered.
    admin: u16,
}

fn rows() -> Vec<Row> {
    let row = |name, about, method, path, body, admin| Row { name, about, method, path, body, admin };
    let spec = json!({ "spec": { "idle_timeout": 60 } });
    let exec = json!({ "command": ["true"] });
    let size = json!({ "rows": 24, "cols": 80 });
    vec![
        row("version", Public, "GET", "//version", None, 200),
        row("api_version", Public, "GET", "/version", None, 200),
        row("live", Public, "GET", "//livez", None, 200),
        row("ready", Public, "GET", "//readyz", None, 200),
        row("login", Public, "POST", "/auth/login", Some(json!({ "name": "ada", "password": PASSWORD })), 200),
        row("metrics", Installation, "GET", "//metrics", None, 404),
        row("create_user", Installation, "POST", "/users", Some(json!({ "name": "zoe", "password": PASSWORD })), 201),
        row("who_am_i", Caller, "GET", "/auth", None, 200),
        row("list_agents", Tenant, "GET", "/agents", None, 200),
        row("create_agent", Tenant, "POST", "/agents", Some(json!({ "name": "new" })), 201),
        row("follow_events", Tenant, "GET", "/events", None, 200),
        row("get_agent", Agent, "GET", "/agents/one", None, 200),
        row("edit_agent", Agent, "PATCH", "/agents/one", Some(spec), 200),
        row("explain_agent", Agent, "GET", "/agents/one/explain", None, 200),
        row("agent_egress", Agent, "GET", "/agents/one/egress", None, 200),
        row("wake_agent", Agent, "POST", "/agents/one/wake", None, 200),
        row("keep_agent_awake", Agent, "PUT", "/agents/one/keep-awake", Some(json!({ "for": 60 })), 200),
        row("let_agent_sleep", Agent, "DELETE", "/agents/one/keep-awake", None, 200),
        row("cancel_agent", Agent, "POST", "/agents/one/cancel", None, 200),
        row("follow_agent", Agent, "GET", "/agents/one/events", None, 200),
        row("send_message", Agent, "POST", "/agents/one/messages", Some(said("x")), 202),
        row("list_messages", Agent, "GET", "/agents/one/messages", None, 200),
        row("get_message", Agent, "GET", "/agents/one/messages/MESSAGE", None, 200),
        row("list_message_steps", Agent, "GET", "/agents/one/messages/MESSAGE/steps", None, 200),
        row("cancel_message", Agent, "POST", "/agents/one/messages/MESSAGE/cancel", None, 200),
        row("list_steps", Agent, "GET", "/agents/one/steps", None, 200),
        row("sleep_agent", Agent, "POST", "/agents/one/sleep", None, 200),
        // Its computer is not up, and is not to be started: what is refused here was allowed before.
        row("computer_start", Agent, "POST", "/agents/one/exec?wake=false", Some(exec), 409),
        row("computer_stdout", Agent, "GET", "/agents/one/exec/x/stdout", None, 409),
        row("computer_stderr", Agent, "GET", "/agents/one/exec/x/stderr", None, 409),
        row("computer_stdin", Agent, "PUT", "/agents/one/exec/x/stdin", None, 409),
        row("computer_resize", Agent, "POST", "/agents/one/exec/x/resize", Some(size), 409),
        row("computer_wait", Agent, "GET", "/agents/one/exec/x/wait", None, 409),
        row("computer_end", Agent, "DELETE", "/agents/one/exec/x", None, 409),
        row("computer_read", Agent, "GET", "/agents/one/files?path=/agent/x&wake=false", None, 409),
        row("computer_write", Agent, "PUT", "/agents/one/files?path=/agent/x&wake=false", None, 409),
        row("computer_remove", Agent, "DELETE", "/agents/one/files?path=/agent/x&wake=false", None, 409),
        row("computer_pack", Agent, "GET", "/agents/one/archive?path=/agent&wake=false", None, 409),
        row("computer_unpack", Agent, "PUT", "/agents/one/archive?path=/agent&wake=false", None, 409),
        row("computer_logs", Agent, "GET", "/agents/one/logs?wake=false", None, 404),
        row("computer_stats", Agent, "GET", "/agents/one/stats", None, 409),
        row("delete_agent", Agent, "DELETE", "/agents/one", None, 200),
        row("logout", Caller, "POST", "/auth/logout", None, 204),
    ]
}

/// An API with an agent of ada's that has a message.
struct World {
    api: Api,
    message: String,
}

impl World {
    async fn new() -> Self {
        let api = Api::start().await;
        api.agent("ada", "one").await;
        let sent = api.post("ada", "/agents/one/messages", &said("hello")).await;
        let message = sent.body["id"].as_str().expect("an id").to_owned();
        Self { api, message }
    }

    /// Calls with this value of the Authorization header; of a stream only the head is read.
    async fn call(&self, token: Option<&str>, row: &Row, prefix: &str) -> (StatusCode, Option<Answer>) {
        let path = row.path.replace("MESSAGE", &self.message);
        let path = match path.strip_prefix('/') {
            Some(root) if root.starts_with('/') => root.to_owned(),
            _ => format!("/api/v0{prefix}{path}"),
        };
        let method: Method = row.method.parse().expect("a method");
        let mut request = self.api.request("", method, &path, row.body.as_ref());
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.parse().expect("a value"));
        }
        let response = tower::ServiceExt::oneshot(self.api.router.clone(), request).await.expect("infallible");
        let status = response.status();
        if status.is_success() {
            return (status, None);
        }
        let headers = response.headers().clone();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        (status, Some(Answer { status, headers, body, text }))
    }

    async fn refused(&self, token: Option<&str>, row: &Row, prefix: &str, status: u16, code: &str) {
        let before = self.api.store_head().await;
        let (found, answer) = self.call(token, row, prefix).await;
        let what = format!("{} at {prefix:?} by {token:?}: {answer:?}", row.name);
        assert_eq!(found.as_u16(), status, "{what}");
        assert_eq!(answer.expect("an error").code(), code, "{what}");
        assert_eq!(self.api.store_head().await, before, "nothing happened: {what}");
    }

    fn bearer(&self, name: &str) -> String {
        format!("Bearer {}", self.api.token(name))
    }

    /// The token of ada's agent's own program.
    async fn of_program(&self) -> String {
        let agent = self.api.get("ada", "/agents/one").await.body;
        let principal = Principal::Agent {
            tenant: "default".parse().expect("valid"),
            agent: agent["id"].as_str().expect("an id").parse().expect("valid"),
            computer: agent["id"].as_str().expect("an id").parse().expect("valid"),
            incarnation: serde_json::from_value(agent["status"]["incarnation"].clone()).expect("a number"),
        };
        let tokens = Tokens::new(&self.api.control);
        format!("Bearer {}", tokens.issue(&principal, Duration::from_secs(60)).expect("issued").token)
    }
}

/// The tenants' part of the API is served twice.
fn prefixes(row: &Row) -> &'static [&'static str] {
    match row.about {
        Tenant | Agent => &["", "/tenants/default"],
        Public | Caller | Installation => &[""],
    }
}

#[test]
fn every_operation_has_a_row() {
    let document = serde_json::to_value(document()).expect("serializes");
    let paths = document["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|item| item.as_object().expect("an item").values());
    let described: BTreeSet<_> =
        operations.map(|operation| operation["operationId"].as_str().expect("a name").to_owned()).collect();
    let tested: BTreeSet<_> = rows()
        .iter()
        .flat_map(|row| {
            let nested = prefixes(row).len() == 2;
            [Some(row.name.to_owned()), nested.then(|| format!("{}_in_tenant", row.name))].into_iter().flatten()
        })
        .collect();
    assert_eq!(described, tested);
}

#[tokio::test]
async fn without_a_good_token_nothing_happens() {
    let world = World::new().await;
    let expired = {
        let tokens = Tokens::new(&world.api.control);
        format!("Bearer {}", tokens.issue(&user("ada"), Duration::ZERO).expect("issued").token)
    };
    let revoked = {
        let tokens = Tokens::new(&world.api.control);
        let issued = tokens.issue(&user("ada"), Duration::from_secs(60)).expect("issued");
        world.api.control.revoke(&Call::by(user("ada")).with_token(issued.record)).await.expect("revoked");
        format!("Bearer {}", issued.token)
    };
    let ghost = {
        let tokens = Tokens::new(&world.api.control);
        let nobody = Principal::User {
            name: "ghost".parse().expect("valid"),
            tenant: "default".parse().expect("valid"),
            admin: true,
        };
        format!("Bearer {}", tokens.issue(&nobody, Duration::from_secs(60)).expect("issued").token)
    };
    let good = world.bearer("root");
    let (cut, basic) = (good[..good.len() - 2].to_owned(), format!("Basic {}", &good[7..]));
    let program = world.of_program().await;
    let bad = [&expired, &revoked, &ghost, &cut, &basic, &program];
    for row in rows().iter().filter(|row| row.about != Public) {
        for prefix in prefixes(row) {
            world.refused(None, row, prefix, 401, "unauthenticated").await;
            for token in bad {
                world.refused(Some(token), row, prefix, 401, "unauthenticated").await;
            }
        }
    }
}

#[tokio::test]
async fn nobody_reaches_what_belongs_to_others_by_any_route() {
    let world = World::new().await;
    let (bob, eve) = (world.bearer("bob"), world.bearer("eve"));
    for row in rows() {
        match row.about {
            Public | Caller => {}
            Installation => world.refused(Some(&bob), &row, "", 403, "forbidden").await,
            Tenant => world.refused(Some(&eve), &row, "/tenants/default", 404, "not_found").await,
            Agent => {
                let before = world.api.get("ada", "/agents/one").await.body;
                for (token, prefix) in [(&bob, ""), (&bob, "/tenants/default"), (&eve, ""), (&eve, "/tenants/default")]
                {
                    let (status, answer) = world.call(Some(token), &row, prefix).await;
                    assert_eq!(status, StatusCode::NOT_FOUND, "{} at {prefix:?}", row.name);
                    assert_eq!(answer.expect("an error").code(), "not_found", "{}", row.name);
                }
                assert_eq!(world.api.get("ada", "/agents/one").await.body, before, "{}", row.name);
            }
        }
    }
}

#[tokio::test]
async fn an_admin_may_call_everything_in_each_tenant() {
    for nested in [false, true] {
        let world = World::new().await;
        for row in rows() {
            let token = (row.about != Public).then(|| world.bearer("root"));
            let prefix = prefixes(&row).iter().copied().nth(usize::from(nested)).unwrap_or_default();
            let (status, answer) = world.call(token.as_deref(), &row, prefix).await;
            assert_eq!(status.as_u16(), row.admin, "{} at {prefix:?}: {answer:?}", row.name);
        }
    }
}

#[tokio::test]
async fn what_is_hidden_and_what_is_not_there_are_told_alike() {
    let world = World::new().await;
    let hidden = world.api.get("bob", "/agents/one").await;
    let absent = world.api.get("bob", "/agents/two").await;
    assert_eq!(hidden.text.replace("one", "NAME"), absent.text.replace("two", "NAME"));
    let strange = world.api.get("eve", "/tenants/default/agents").await;
    let nowhere = world.api.get("eve", "/tenants/nowhere/agents").await;
    assert_eq!(strange.text.replace("default", "NAME"), nowhere.text.replace("nowhere", "NAME"));
    let listed = world.api.get("bob", "/agents").await;
    assert_eq!(listed.body["items"], json!([]));
}

#[tokio::test]
async fn what_is_not_there_costs_as_much_as_what_is_somebody_elses() {
    use raworc_core::store::{AuditQuery, Store};
    let api = Api::start().await;
    api.agent("ada", "hers").await;
    let rows = async || {
        let query = AuditQuery { tenant: None, after: None, limit: 500 };
        api.store.audit(&query).await.expect("read").items.into_iter().map(|row| row.entry).collect::<Vec<_>>()
    };
    for who in ["bob", "eve"] {
        let verbs = [(Method::DELETE, ""), (Method::POST, "/wake"), (Method::POST, "/cancel"), (Method::GET, "")];
        for (method, rest) in verbs {
            let mut told = Vec::new();
            for name in ["hers", "none"] {
                let before = rows().await.len();
                let path = format!("/tenants/default/agents/{name}{rest}");
                let answer = api.call(who, method.clone(), &path, None, &[]).await;
                let mut written = rows().await.split_off(before);
                for row in &mut written {
                    row.request = None;
                    row.resource = row.resource.replace(name, "it");
                }
                told.push((answer.status, answer.text.replace(name, "it"), written));
            }
            assert_eq!(told[0], told[1], "{who} {method} {rest}");
            assert_eq!(told[0].0, StatusCode::NOT_FOUND);
            assert_eq!(told[0].2.len(), usize::from(method != Method::GET), "{who} {method} {rest}");
        }
    }
    let before = rows().await.len();
    let answer = api.call("root", Method::DELETE, "/agents/none", None, &[]).await;
    assert_eq!((answer.status, rows().await.len()), (StatusCode::NOT_FOUND, before), "an admin may know of everything");
}
