//! What of a call into a computer stands in the audit.

use axum::routing::{any, delete, put};
use raworc_core::control::Call;
use raworc_core::control::ControlPlane;
use raworc_core::ids::UserName;
use raworc_core::principal::Principal;
use raworc_core::store::{AuditEntry, AuditQuery};

use super::*;
use crate::server::Tokens;

async fn rows(control: &ControlPlane) -> Vec<AuditEntry> {
    let query = AuditQuery { tenant: None, after: None, limit: 500 };
    let page = control.system().store().audit(&query).await.unwrap();
    page.items.into_iter().map(|row| row.entry).collect()
}

/// What changes a computer, and what the audit calls it.
const CHANGES: [(&str, &str, &str); 6] = [
    ("POST", "exec", "agents.exec"),
    ("PUT", "exec/1/stdin", "exec.input"),
    ("DELETE", "exec/1", "exec.end"),
    ("PUT", "files?path=x", "files.write"),
    ("DELETE", "files?path=x", "files.remove"),
    ("PUT", "archive?path=x", "files.unpack"),
];

const LOOKS: [(&str, &str); 7] = [
    ("GET", "exec/1/stdout"),
    ("GET", "exec/1/stderr"),
    ("GET", "exec/1/wait"),
    ("POST", "exec/1/resize"),
    ("GET", "files?path=x"),
    ("GET", "archive?path=x"),
    ("GET", "stats"),
];

fn body(path: &str) -> String {
    match path {
        "exec" => json!({ "command": ["deploy", "--token=hunter2"] }).to_string(),
        "exec/1/resize" => json!({ "rows": 24, "cols": 80 }).to_string(),
        _ => String::new(),
    }
}

/// A program that does all it is asked, and tells how many rows there were by then.
fn observed(control: &ControlPlane, seen: &Arc<AtomicU64>) -> Router {
    let (control, seen) = (control.clone(), Arc::clone(seen));
    let act = move || {
        let (control, seen) = (control.clone(), Arc::clone(&seen));
        async move {
            seen.store(rows(&control).await.len() as u64, Ordering::SeqCst);
            Json(json!({ "id": "1" }))
        }
    };
    Router::new()
        .route("/exec", post(act.clone()))
        .route("/exec/{id}", delete(act.clone()))
        .route("/exec/{id}/stdin", put(act.clone()))
        .route("/files", put(act.clone()).delete(act.clone()).get(act.clone()))
        .route("/archive", put(act.clone()).get(act.clone()))
        .fallback(any(act))
}

#[tokio::test]
async fn what_changes_a_computer_is_one_row_before_it_happens_and_a_look_is_none() {
    let api = Api::new().await;
    let control = &api.world.control;
    let seen = Arc::new(AtomicU64::new(0));
    api.world.up("a").await.link(observed(control, &seen)).await;
    for (method, path, verb) in CHANGES {
        let before = rows(control).await.len();
        let mut request = api.request(method, path).body(Body::from(body(path))).unwrap();
        request.extensions_mut().insert(crate::server::layers::RequestId("r-1".into()));
        let answer = api.send(request).await;
        assert!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        let written = rows(control).await.split_off(before);
        let wanted = AuditEntry {
            tenant: Some(TenantName::default()),
            principal: "user:admin".into(),
            verb: verb.into(),
            resource: "a".into(),
            allowed: true,
            request: Some("r-1".into()),
        };
        assert_eq!(written, [wanted], "{method} {path}");
        assert_eq!(seen.load(Ordering::SeqCst), before as u64 + 1, "{method} {path}: before it happens");
    }
    let before = rows(control).await;
    for (method, path) in LOOKS {
        let (status, answer) = api.call(method, path, body(path)).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
    }
    assert_eq!(rows(control).await, before);
    let kept = serde_json::to_string(&before).unwrap();
    assert!(!kept.contains("hunter2") && !kept.contains("deploy"), "{kept}");
}

#[tokio::test]
async fn what_is_refused_in_a_computer_is_one_row_by_the_same_verb() {
    let mut api = Api::new().await;
    api.world.up("a").await;
    let principal = Principal::user(UserName::new("bob").unwrap(), TenantName::default());
    let new = raworc_core::control::NewUser {
        name: UserName::new("bob").unwrap(),
        tenant: TenantName::default(),
        admin: false,
        password: "a good long password".into(),
    };
    api.world.control.create_user(&api.world.admin(), new).await.unwrap();
    let tokens = Tokens::new(&api.world.control);
    api.token = tokens.issue(&principal, std::time::Duration::from_secs(60)).unwrap().token;
    for (method, path, verb) in CHANGES {
        let before = rows(&api.world.control).await.len();
        assert_eq!(api.call(method, path, body(path)).await.0, StatusCode::NOT_FOUND, "{method} {path}");
        let written = rows(&api.world.control).await.split_off(before);
        let written: Vec<_> = written.iter().map(|row| (row.verb.as_str(), row.allowed)).collect();
        assert_eq!(written, [(verb, false)], "{method} {path}");
    }
}

#[tokio::test]
async fn whoever_is_refused_what_is_not_about_one_agent_is_a_row_too() {
    let world = World::new().await;
    let control = &world.control;
    let bob = Call::by(Principal::user(UserName::new("bob").unwrap(), TenantName::default()));
    let elsewhere = TenantName::new("elsewhere").unwrap();
    let before = rows(control).await.len();
    let request = raworc_core::control::CreateAgent::named(AgentName::new("mine").unwrap());
    assert!(control.create_agent(&bob, &elsewhere, request).await.is_err());
    let new = raworc_core::control::NewUser {
        name: UserName::new("zoe").unwrap(),
        tenant: TenantName::default(),
        admin: true,
        password: "a good long password".into(),
    };
    assert!(control.create_user(&bob, new).await.is_err());
    assert!(control.list_agents(&bob, &elsewhere, Default::default()).await.is_err());
    assert!(control.check_installation(&bob).await.is_err());
    let written = rows(control).await.split_off(before);
    let written: Vec<_> = written.iter().map(|row| (row.verb.as_str(), row.allowed)).collect();
    assert_eq!(written, [("agents.create", false), ("users.create", false)], "and a look is none");
}
