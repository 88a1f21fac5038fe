//! The API's listener from the side of strangers, and of those whom they would keep out.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::server::testing::{Api, PASSWORD};

/// An API on a port of its own.
struct Served {
    api: Api,
    address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Served {
    async fn within(limits: ConnectionLimits) -> Self {
        let api = Api::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let router = api.router.clone();
        let server = tokio::spawn(serve_within(listener, router, limits, shutdown.clone().cancelled_owned()));
        Self { api, address, shutdown, server }
    }

    async fn dial(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.expect("a connection"))
    }

    /// The head of a request, as a user or as nobody.
    fn head(&self, who: &str, path: &str) -> String {
        let token =
            if who.is_empty() { String::new() } else { format!("authorization: Bearer {}\r\n", self.api.token(who)) };
        format!("GET {path} HTTP/1.1\r\nhost: raworc\r\n{token}\r\n")
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.server.await.expect("no panic").expect("served");
    }
}

#[tokio::test]
async fn a_connection_of_http_2_is_told_how_many_requests_it_may_have_under_way() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let served = Served::within(ConnectionLimits::default()).await;
    let mut wire = served.dial().await;
    wire.write(PREFACE).await;
    let mut head = [0; 9];
    soon(wire.0.read_exact(&mut head)).await.expect("settings");
    assert_eq!(head[3], 4, "{head:?}");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    soon(wire.0.read_exact(&mut settings)).await.expect("settings");
    let told = settings.chunks(6).find(|one| u16::from_be_bytes([one[0], one[1]]) == MAX_CONCURRENT_STREAMS);
    let told = told.expect("it is among them");
    assert_eq!(u32::from_be_bytes([told[2], told[3], told[4], told[5]]), 64);
    drop(wire);
    served.end().await;
}

/// A connection that is written to byte by byte.
struct Wire(TcpStream);

impl Wire {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.expect("written");
    }

    /// The status of the next answer, which is read to the end of its body.
    async fn answer(&mut self) -> StatusCode {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.0.read_u8()).await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().expect("a number")];
        soon(self.0.read_exact(&mut body)).await.expect("its body");
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// Waits until the server has hung up.
    async fn hung_up(&mut self) {
        let mut rest = [0; 1024];
        // A reset is an end too.
        while soon(self.0.read(&mut rest)).await.is_ok_and(|count| count > 0) {}
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
}

/// The preface of HTTP/2, and settings that change nothing.
const IDLE_H2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_ended() {
    let limits = ConnectionLimits { idle: Duration::from_secs(2), ..ConnectionLimits::default() };
    let served = Served::within(limits).await;
    let mut wires = Vec::new();
    for begun in [b"".as_slice(), b"P", b"PRI * HTTP/2", IDLE_H2, b"GET /livez HTTP/1.1\r\nhost:"] {
        let mut wire = served.dial().await;
        wire.write(begun).await;
        wires.push(wire);
    }
    let (head, mut wire) = (served.head("ada", "/api/v0/agents"), served.dial().await);
    wire.write(head).await;
    assert_eq!(wire.answer().await, StatusCode::OK);
    wires.push(wire);
    for wire in &mut wires {
        wire.hung_up().await;
    }
    served.end().await;
}

#[tokio::test]
async fn a_client_of_http_2_that_does_not_answer_is_not_there() {
    // With nothing but this to end it in time.
    let limits = ConnectionLimits { silence: Duration::from_millis(100), ..ConnectionLimits::default() };
    let served = Served::within(limits).await;
    let mut wire = served.dial().await;
    wire.write(IDLE_H2).await;
    let began = tokio::time::Instant::now();
    wire.hung_up().await;
    assert!(began.elapsed() < ConnectionLimits::default().idle);
    served.end().await;
}

#[tokio::test]
async fn a_call_that_takes_its_time_is_no_connection_at_rest() {
    let limits = ConnectionLimits { idle: Duration::from_secs(2), ..ConnectionLimits::default() };
    let served = Served::within(limits).await;
    let agent = served.api.agent("ada", "one").await;
    let (head, mut stream) = (served.head("ada", "/api/v0/events"), served.dial().await);
    stream.write(head).await;
    // Without an operator it never wakes.
    let (head, mut wire) = (served.head("ada", "/api/v0/agents/one?wait=4s"), served.dial().await);
    wire.write(head).await;
    assert_eq!(stream.answer().await, StatusCode::OK);
    assert_eq!(wire.answer().await, StatusCode::OK, "{agent}");
    // By now the stream would have been ended.
    let longer =
        tokio::time::timeout(Duration::from_millis(500), async { while soon(stream.0.read_u8()).await.is_ok() {} });
    assert!(longer.await.is_err(), "a stream of events is open for as long as it is wanted");
    drop(stream);
    served.end().await;
}

#[tokio::test]
async fn strangers_give_way_to_newcomers_and_those_who_are_known_do_not() {
    let served = Served::within(ConnectionLimits::default().with_connections(8)).await;
    let mut known = served.dial().await;
    known.write(served.head("ada", "/api/v0/agents")).await;
    assert_eq!(known.answer().await, StatusCode::OK);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(served.dial().await);
        let mut newcomer = served.dial().await;
        newcomer.write(served.head("", "/livez")).await;
        assert_eq!(newcomer.answer().await, StatusCode::OK);
    }
    silent[0].hung_up().await;
    known.write(served.head("ada", "/api/v0/agents")).await;
    assert_eq!(known.answer().await, StatusCode::OK);
    served.end().await;
}

#[tokio::test]
async fn nobody_has_more_connections_than_their_share() {
    let served = Served::within(ConnectionLimits::default().with_connections(16)).await;
    let mut held = Vec::new();
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let mut wire = served.dial().await;
        wire.write(served.head("ada", "/api/v0/agents")).await;
        assert_eq!(wire.answer().await, expected);
        held.push(wire);
    }
    let mut other = served.dial().await;
    other.write(served.head("bob", "/api/v0/agents")).await;
    assert_eq!(other.answer().await, StatusCode::OK);
    served.end().await;
}

#[tokio::test]
async fn users_do_not_take_the_places_of_strangers() {
    let limits = ConnectionLimits { connections: 4, strangers: 1, connections_per_user: 2, ..Default::default() };
    let served = Served::within(limits).await;
    let mut held = Vec::new();
    for (who, expected) in [
        ("ada", StatusCode::OK),
        ("ada", StatusCode::OK),
        ("bob", StatusCode::OK),
        ("bob", StatusCode::TOO_MANY_REQUESTS),
    ] {
        let mut wire = served.dial().await;
        wire.write(served.head(who, "/api/v0/agents")).await;
        assert_eq!(wire.answer().await, expected);
        held.push(wire);
    }
    let mut stranger = served.dial().await;
    stranger.write(served.head("", "/livez")).await;
    assert_eq!(stranger.answer().await, StatusCode::OK);
    held[0].write(served.head("ada", "/api/v0/agents")).await;
    assert_eq!(held[0].answer().await, StatusCode::OK);
    served.end().await;
}

#[tokio::test]
async fn the_connections_of_a_proxy_are_not_the_first_users_alone() {
    // Half of them may be shared, and one is one user's.
    let served = Served::within(ConnectionLimits::default().with_connections(8)).await;
    let mut held = Vec::new();
    for number in 0..6 {
        let mut wire = served.dial().await;
        wire.write(served.head("ada", "/api/v0/agents")).await;
        let expected = if number < 5 { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(wire.answer().await, expected, "{number}");
        if number < 5 {
            wire.write(served.head("bob", "/api/v0/agents")).await;
            assert_eq!(wire.answer().await, StatusCode::OK);
        }
        held.push(wire);
    }
    // What is shared is given back when it ends.
    drop(held);
    let again = async {
        loop {
            let mut wire = served.dial().await;
            wire.write(served.head("ada", "/api/v0/agents")).await;
            if wire.answer().await == StatusCode::OK {
                return;
            }
        }
    };
    soon(again).await;
    served.end().await;
}

#[tokio::test]
async fn a_stranger_who_goes_on_asking_does_not_stay() {
    let limits = ConnectionLimits { introduction: Duration::from_secs(2), ..ConnectionLimits::default() };
    let served = Served::within(limits).await;
    let mut known = served.dial().await;
    known.write(served.head("ada", "/api/v0/agents")).await;
    assert_eq!(known.answer().await, StatusCode::OK);
    let (head, mut wire) = (served.head("", "/livez"), served.dial().await);
    let asking = async {
        let mut answer = [0; 4096];
        while wire.0.write_all(head.as_bytes()).await.is_ok() && wire.0.read(&mut answer).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(asking).await;
    known.write(served.head("ada", "/api/v0/agents")).await;
    assert_eq!(known.answer().await, StatusCode::OK, "who is known may stay");
    served.end().await;
}

#[tokio::test]
async fn a_call_of_a_stranger_whose_time_is_over_is_answered_first() {
    let limits = ConnectionLimits { introduction: Duration::from_secs(2), ..ConnectionLimits::default() };
    let served = Served::within(limits).await;
    let body = format!(r#"{{"name":"ada","password":"{PASSWORD}"}}"#);
    let length = body.len();
    let mut wire = served.dial().await;
    wire.write(format!(
        "POST /api/v0/auth/login HTTP/1.1\r\nhost: raworc\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    ))
    .await;
    // One that came later has had its time.
    served.dial().await.hung_up().await;
    wire.write(body).await;
    assert_eq!(wire.answer().await, StatusCode::OK);
    wire.hung_up().await;
    served.end().await;
}
