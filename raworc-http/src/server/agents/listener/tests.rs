//! The listener from the side of a computer that is out of its mind, and of its neighbours.

use std::time::Duration;

use raworc_core::program::ModelWire;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::gateway::{GatewayLimits, UpstreamConfig, UpstreamModel, Upstreams};
use super::super::testing::{Placed, Program, World, boot_request, soon, until};
use super::ListenerLimits;

const CHAT: &str = "gateway/api/chat";

/// A connection that the test writes to byte by byte.
struct Wire(UnixStream);

impl Wire {
    async fn dial(world: &World) -> Self {
        Self(soon("a connection", UnixStream::connect(&world.socket)).await.unwrap())
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) {
        soon("a write", self.0.write_all(text.as_ref())).await.unwrap();
    }

    /// Begins a call of a program whose body is announced to have so many bytes.
    async fn begin(&mut self, program: &Program, path: &str, length: usize) {
        let token = &program.token;
        let head = format!(
            "POST /agent/v0/{path} HTTP/1.1\r\nhost: raworc\r\nauthorization: Bearer {token}\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.write(head).await;
    }

    /// The status and the error's code of the next answer.
    async fn answer(&mut self) -> (u16, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon("an answer", self.0.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        soon("its body", self.0.read_exact(&mut body)).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn heartbeat(&mut self, program: &Program) -> u16 {
        self.begin(program, "heartbeat", 0).await;
        self.answer().await.0
    }

    /// Waits until the server has hung up.
    async fn hung_up(&mut self) {
        // A reset is an end too.
        while soon("the end", self.0.read_u8()).await.is_ok() {}
    }
}

/// Boots as a program does.
async fn boot(world: &World, placed: &Placed) -> u16 {
    let body = serde_json::to_string(&boot_request(placed)).unwrap();
    let mut wire = Wire::dial(world).await;
    let length = body.len();
    wire.write(format!("POST /agent/v0/boot HTTP/1.1\r\nhost: raworc\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    wire.answer().await.0
}

/// Whether a call is refused within `limit`, before any of its body was sent.
async fn refused(world: &World, program: &Program, path: &str, length: usize, limit: Duration) -> bool {
    let mut wire = Wire::dial(world).await;
    wire.begin(program, path, length).await;
    let mut first = [0; 12];
    let read = tokio::time::timeout(limit, wire.0.read_exact(&mut first)).await;
    read.is_ok_and(|read| read.is_ok()) && &first == b"HTTP/1.1 429"
}

async fn within(limits: ListenerLimits) -> World {
    let model = UpstreamModel { name: "fake".into(), context: 4096, vision: false };
    let url = "http://127.0.0.1:9".to_owned();
    let config = UpstreamConfig { name: "none".into(), kind: ModelWire::Ollama, url, key: None, models: vec![model] };
    let mut world = World::with(Upstreams::new(vec![config], GatewayLimits::default()).unwrap()).await;
    world.listen_within(limits).await;
    world
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let world = within(ListenerLimits::default().with_connections(1)).await;
    let (a, b) = (world.up("a").await, world.place("b").await);
    let mut holding = Wire::dial(&world).await;
    assert_eq!(holding.heartbeat(&a).await, 200);
    let mut booting = std::pin::pin!(boot(&world, &b));
    // The first connection has the only place for as long as it is open.
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut booting).await.is_err());
    assert_eq!(holding.heartbeat(&a).await, 200);
    drop(holding);
    assert_eq!(booting.await, 200);
}

#[tokio::test]
async fn a_listener_says_whether_it_accepts() {
    let mut world = within(ListenerLimits::default().with_connections(1)).await;
    let listening = world.listening.clone();
    until("its serving", || async { listening.check().is_ok() }).await;
    let a = world.up("a").await;
    let mut holding = Wire::dial(&world).await;
    assert_eq!(holding.heartbeat(&a).await, 200);
    let waiting = Wire::dial(&world).await;
    until("all places to be taken", || async { listening.check().is_err_and(|why| why.contains("all places")) }).await;
    drop(holding);
    until("a place", || async { listening.check().is_ok() }).await;
    drop(waiting);
    std::fs::remove_file(&world.socket).unwrap();
    assert!(listening.check().unwrap_err().contains("socket is gone"));
    world.hang_up().await;
    assert_eq!(listening.check(), Err("has stopped".to_owned()));
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_other_program_out() {
    let limits = ListenerLimits { strangers: 3, ..ListenerLimits::default() };
    let world = within(limits).await;
    let (a, b) = (world.up("a").await, world.place("b").await);
    let mut first = Wire::dial(&world).await;
    first.write("POST /agent/v0/he").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Wire::dial(&world).await);
        assert_eq!(Wire::dial(&world).await.heartbeat(&a).await, 200);
    }
    assert_eq!(boot(&world, &b).await, 200);
    first.hung_up().await;
    silent[0].hung_up().await;
}

#[tokio::test]
async fn a_stranger_who_drips_is_hung_up_on() {
    let limits = ListenerLimits { introduction: Duration::from_secs(2), ..ListenerLimits::default() };
    let world = within(limits).await;
    let a = world.up("a").await;
    let mut known = Wire::dial(&world).await;
    assert_eq!(known.heartbeat(&a).await, 200);
    let mut wire = Wire::dial(&world).await;
    wire.write("POST /agent/v0/boot HTTP/1.1\r\nhost: raworc\r\ncontent-length: 9000\r\n\r\n").await;
    let dripping = async {
        while wire.0.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the end", dripping).await;
    assert_eq!(known.heartbeat(&a).await, 200, "who has said so in time may stay");
}

#[tokio::test]
async fn a_computer_takes_its_own_connections_and_no_others() {
    let limits = ListenerLimits { connections_per_computer: 3, ..ListenerLimits::default() };
    let world = within(limits).await;
    let (hostile, other) = (world.up("hostile").await, world.up("other").await);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::dial(&world).await;
        assert_eq!(wire.heartbeat(&hostile).await, 200);
        held.push(wire);
    }
    let mut fourth = Wire::dial(&world).await;
    fourth.begin(&hostile, "heartbeat", 0).await;
    assert_eq!(fourth.answer().await, (429, "too_many_requests".to_owned()));
    assert_eq!(held[0].heartbeat(&hostile).await, 200, "what it has it may use");
    assert_eq!(Wire::dial(&world).await.heartbeat(&other).await, 200);
    held.clear();
    // The server notices the end of a connection in its own time.
    until("a place", || async { Wire::dial(&world).await.heartbeat(&hostile).await == 200 }).await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let limits = ListenerLimits { body_idle: Duration::from_millis(100), ..ListenerLimits::default() };
    let world = within(limits).await;
    let a = world.up("a").await;
    for path in ["steps", "end", "setup", "deltas", CHAT] {
        for length in [100, 300 << 10] {
            let mut wire = Wire::dial(&world).await;
            wire.begin(&a, path, length).await;
            wire.write("{").await;
            // What is too long by its own length need not come.
            let is_short = ["setup", "deltas"].contains(&path) && length > 256 << 10;
            let told = if is_short { (413, "too_large") } else { (408, "request_timeout") };
            assert_eq!(wire.answer().await, (told.0, told.1.to_owned()), "{path} of {length}");
        }
    }
}

#[tokio::test]
async fn a_large_body_that_drips_is_given_up() {
    let limits = ListenerLimits { body_total: Duration::from_millis(200), ..ListenerLimits::default() };
    let world = within(limits).await;
    let a = world.up("a").await;
    let mut wire = Wire::dial(&world).await;
    wire.begin(&a, CHAT, 10 << 20).await;
    let (mut reading, mut writing) = wire.0.split();
    let dripping = async {
        loop {
            let _ = writing.write_all(b" ").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut first = [0; 12];
    tokio::select! {
        () = dripping => {}
        read = soon("an answer", reading.read_exact(&mut first)) => { read.unwrap(); }
    }
    assert_eq!(&first, b"HTTP/1.1 408");
}

#[tokio::test]
async fn bodies_of_one_computer_leave_room_for_those_of_others() {
    let mut limits = ListenerLimits::default();
    (limits.bytes, limits.bytes_per_computer) = (2 << 20, 1 << 20);
    let world = within(limits).await;
    let (hostile, other) = (world.up("hostile").await, world.up("other").await);
    let mut first = Wire::dial(&world).await;
    first.begin(&hostile, CHAT, 600 << 10).await;
    // The first takes its room in its own time.
    until("a refusal", || refused(&world, &hostile, "steps", 500 << 10, Duration::from_millis(20))).await;
    let body = format!("{}{{}}", " ".repeat(900 << 10));
    let mut wire = Wire::dial(&world).await;
    wire.begin(&other, CHAT, body.len()).await;
    wire.write(&body).await;
    assert_eq!(wire.answer().await, (403, "model_forbidden".to_owned()), "it was read to its end");
    assert_eq!(Wire::dial(&world).await.heartbeat(&hostile).await, 200);
}

#[tokio::test]
async fn bodies_beyond_the_room_of_all_wait_for_it() {
    let mut limits = ListenerLimits::default();
    (limits.bytes, limits.bytes_per_computer) = (1 << 20, 1 << 20);
    limits.room_wait = Duration::from_secs(1);
    let world = within(limits).await;
    let (a, b) = (world.up("a").await, world.up("b").await);
    let mut first = Wire::dial(&world).await;
    first.begin(&a, CHAT, 900 << 10).await;
    let body = format!("{}{{}}", " ".repeat(600 << 10));
    until("a refusal", || refused(&world, &b, CHAT, body.len(), Duration::from_secs(5))).await;
    let mut second = Wire::dial(&world).await;
    second.begin(&b, CHAT, body.len()).await;
    drop(first);
    second.write(&body).await;
    assert_eq!(second.answer().await, (403, "model_forbidden".to_owned()));
}

#[tokio::test]
async fn a_ninth_model_call_is_refused_before_its_body_is_read() {
    let world = within(ListenerLimits::default()).await;
    let a = world.up("a").await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::dial(&world).await;
        wire.begin(&a, CHAT, 100).await;
        held.push(wire);
    }
    until("a refusal", || refused(&world, &a, CHAT, 100, Duration::from_millis(20))).await;
}
