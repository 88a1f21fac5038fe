//! What a served installation tells of itself to those who watch over it, and of what it may not do.

use serde_json::{Value, json};

use crate::home::Home;
use crate::up::Up;

/// What a GET answers: the status and the text.
fn get(up: &Up, path: &str, token: Option<&str>) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut request = client.get(format!("{}{path}", up.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    })
}

/// The token that `up` leaves for its user.
fn token(home: &Home, up: &Up) -> String {
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("a session");
    let session: Value = serde_json::from_str(&session).expect("JSON");
    session["logins"][&up.url]["token"].as_str().expect("a token").to_owned()
}

#[test]
fn what_may_not_be_read_in_a_computer_is_refused_and_not_cut_off() {
    let home = Home::new();
    let up = Up::start(&home);
    let token = token(&home, &up);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["agent", "exec", "ada", "--", "sh", "-c", "echo closed > closed; chmod 0 closed"]).ok();
    for route in ["files", "archive"] {
        let (status, body) = get(&up, &format!("/api/v0/agents/ada/{route}?path=closed"), Some(&token));
        assert_eq!(status, 403, "{route}: {body}");
        assert!(body.contains("permission_denied"), "{route}: {body}");
    }
}

#[test]
fn a_served_installation_is_ready_and_says_of_each_part_that_it_is() {
    let home = Home::new();
    let up = Up::start(&home);
    assert_eq!(get(&up, "/livez", None), (200, "ok".to_owned()));
    let (status, body) = get(&up, "/readyz", None);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let checks = json!({ "agents_listener": "ok", "operator": "ok", "server": "ok", "store": "ok" });
    assert_eq!((status, body), (200, json!({ "ready": true, "checks": checks })));
    let socket = home.path().join(".local/share/raworc/link/agents.sock");
    std::fs::remove_file(socket).expect("removed");
    let (status, body) = get(&up, "/readyz", None);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["ready"], &body["checks"]["store"]), (503, &json!(false), &json!("ok")));
    assert_eq!(body["checks"]["agents_listener"], "its socket is gone; start the server again");
}

/// The value of a figure, zero where it is not there.
fn figure(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn figures_follow_what_happens() {
    let home = Home::new();
    let up = Up::start(&home);
    assert_eq!(get(&up, "/metrics", None).0, 401);
    let token = token(&home, &up);
    let figures = || {
        let (status, text) = get(&up, "/metrics", Some(&token));
        assert_eq!(status, 200, "{text}");
        text
    };
    let before = figures();
    assert!(before.contains("# HELP raworc_store_commit_seconds Time of a commit"), "{before}");
    for name in ["ada", "bob"] {
        home.run(&["agent", "create", name, "--wait"]).ok();
    }
    home.run(&["send", "ada", "!echo done"]).ok();
    home.run(&["agent", "sleep", "ada"]).ok();
    home.run(&["agent", "wake", "ada"]).ok();
    home.run(&["agent", "sleep", "bob"]).ok();
    let grown: &[(&str, f64)] = &[
        (r#"raworc_http_requests_total{method="POST",route="/api/v0/agents",status="201"}"#, 2.0),
        (r#"raworc_store_commits_total{outcome="done"}"#, 10.0),
        ("raworc_store_commit_seconds_count", 10.0),
        ("raworc_messages_accepted_total", 1.0),
        (r#"raworc_messages_ended_total{state="done"}"#, 1.0),
        (r#"raworc_agents{state="idle"}"#, 1.0),
        (r#"raworc_agents{state="slept"}"#, 1.0),
        (r#"raworc_agent_start_seconds_count{of="create"}"#, 2.0),
        (r#"raworc_agent_start_seconds_count{of="wake"}"#, 1.0),
        (r#"raworc_engine_call_seconds_count{runtime="local",call="start",outcome="done"}"#, 3.0),
        (r#"raworc_engine_call_seconds_count{runtime="local",call="stop",outcome="done"}"#, 2.0),
        ("raworc_links", 1.0),
    ];
    let missing = |text: &str| {
        let short = grown.iter().filter(|(name, by)| figure(text, name) < figure(&before, name) + by);
        short.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    // The log is read, and an engine's answer is noted, a moment after a command has returned.
    let mut last = figures();
    for _ in 0..200 {
        if missing(&last).is_empty() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
        last = figures();
    }
    assert_eq!(missing(&last), Vec::<&str>::new(), "{last}");
    assert_eq!(figure(&last, "raworc_messages_queued"), 0.0);
}
