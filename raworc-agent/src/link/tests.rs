//! The link as its server uses it, over a connection in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper_util::rt::TokioIo;
use raworc_core::ids::MessageId;
use raworc_core::program::{CancelRequest, ComputerStats, ExecStarted};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

mod exec;
mod files;

type Sent = Body;

struct Linked {
    home: tempfile::TempDir,
    shared: Arc<Shared>,
    log: Log,
    sender: SendRequest<Sent>,
}

impl Linked {
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let (shared, log) = (Arc::new(Shared::default()), Log::default());
        shared.set_env(&BTreeMap::from([("AGENT_VAR".into(), "agent's".into())]));
        let hands = Arc::new(Hands::new(home.path(), Arc::clone(&shared), log.clone()));
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(serve(TokioIo::new(far), hands));
        let (sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(near)).await.expect("a connection");
        tokio::spawn(connection);
        Self { home, shared, log, sender }
    }

    async fn send(&self, method: &str, path: &str, body: Sent) -> Response<Incoming> {
        let uri = format!("http://computer{path}");
        let request = Request::builder().method(method).uri(uri).body(body).expect("a request");
        self.sender.clone().send_request(request).await.expect("an answer")
    }

    async fn bytes(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
        let response = self.send(method, path, reply::full(body)).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("a whole answer").to_bytes())
    }

    async fn json<T: DeserializeOwned>(&self, method: &str, path: &str, body: &impl Serialize) -> T {
        let (status, bytes) = self.bytes(method, path, serde_json::to_vec(body).expect("JSON")).await;
        assert!(status < 300, "{method} {path}: {status} {bytes:?}");
        serde_json::from_slice(&bytes).expect("an answer in JSON")
    }

    /// The status and the code of the error that this must end in.
    async fn refused(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, String) {
        let (status, bytes) = self.bytes(method, path, body).await;
        let error: Value = serde_json::from_slice(&bytes).expect("an error in JSON");
        (status, error["error"]["code"].as_str().expect("a code").to_owned())
    }
}

async fn piece(body: &mut Incoming) -> Bytes {
    let frame = timeout(Duration::from_secs(20), body.frame()).await.expect("a piece in time");
    frame.expect("a piece").expect("unbroken").into_data().expect("data")
}

#[tokio::test]
async fn the_log_is_read_and_followed() {
    let linked = Linked::new().await;
    linked.log.push(b"first\nsecond\n");
    assert_eq!(linked.bytes("GET", "/logs?tail=7", "").await, (200, "second\n".into()));
    let mut followed = linked.send("GET", "/logs?tail=7&follow=true", reply::full("")).await.into_body();
    assert_eq!(piece(&mut followed).await, "second\n");
    linked.log.push(b"third\n");
    assert_eq!(piece(&mut followed).await, "third\n");
}

#[tokio::test]
async fn the_computer_tells_what_it_uses() {
    let linked = Linked::new().await;
    let stats: ComputerStats = linked.json("GET", "/stats", &()).await;
    assert!(stats.processes > 0 && stats.memory_bytes > 0 && stats.cpu_seconds > 0.0, "{stats:?}");
    assert!(stats.disk_bytes.is_some_and(|bytes| bytes > 0));
}

#[tokio::test]
async fn a_cancel_reaches_whoever_works_on_the_message() {
    let linked = Linked::new().await;
    let message: MessageId = "01890000-0000-7000-8000-000000000001".parse().expect("an id");
    let body = serde_json::to_vec(&CancelRequest { message }).expect("JSON");
    assert_eq!(linked.bytes("POST", "/cancel", body).await.0, 204);
    timeout(Duration::from_secs(5), linked.shared.cancelled(message)).await.expect("cancelled");
    assert_eq!(linked.refused("POST", "/cancel", json!({}).to_string()).await, (400, "invalid".into()));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let linked = Linked::new().await;
    assert_eq!(linked.refused("GET", "/exec", "").await, (405, "method_not_allowed".into()));
    assert_eq!(linked.refused("GET", "/else", "").await, (404, "not_found".into()));
    assert_eq!(linked.refused("GET", "/logs?tail=x", "").await, (400, "invalid".into()));
}
