//! What a served installation tells of itself to those who watch over it.

use serde_json::{Value, json};

use crate::home::Home;
use crate::serving::Up;

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
