//! Client and server over a loopback connection.

use std::time::Duration;

use futures::StreamExt;
use raworc_core::agent::State;
use raworc_core::control::{CreateAgent, History, SendMessage};
use raworc_core::event::EventKind;
use raworc_core::ids::{AgentName, Revision};
use raworc_core::message::MessageState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Ask, Client, Told};
use crate::server::serve;
use crate::server::testing::{Api, PASSWORD};

struct Served {
    api: Api,
    client: Client,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served() -> Served {
    let api = Api::working().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, api.router.clone(), shutdown.clone().cancelled_owned()));
    let client = Client::new(&format!("http://{address}/")).expect("an address");
    Served { api, client, shutdown, server }
}

/// A router on a port of its own, for as long as the test runs.
async fn answering(router: axum::Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = Client::new(&format!("http://{}", listener.local_addr().expect("an address"))).expect("an address");
    tokio::spawn(serve(listener, router, std::future::pending()));
    client
}

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn new(text: &str) -> CreateAgent {
    CreateAgent { name: name(text), spec: Default::default() }
}

#[tokio::test]
async fn the_whole_life_of_an_agent_goes_over_the_client() {
    let served = served().await;
    let client = &served.client;
    assert_eq!(client.version().await.expect("answers").api, "v0");
    assert!(client.ready().await.expect("answers").ready);
    let login = client.login("ada", &PASSWORD.into()).await.expect("logs in");
    let client = client.clone().with_token(login.token);
    assert_eq!(client.who_am_i().await.expect("known").user, login.user);
    let one = name("one");
    let agent = client.create_agent(&new("one"), Ask::new().wait_secs(30)).await.expect("made");
    assert_eq!(agent.status.state(), State::Idle);
    let done = client.send(&one, &SendMessage::text("hello"), Ask::new().wait_secs(30)).await.expect("accepted");
    assert_eq!(done.state, MessageState::Done);
    let reply = client.reply_to(&one, &done).await.expect("read").expect("there is one");
    assert_eq!((reply.text(), reply.reply_to), ("hello".into(), Some(done.id)));
    let history = client.messages(&one, History { newest_first: true, ..History::default() }).await.expect("read");
    assert_eq!(history.items, [reply, client.message(&one, done.id, None).await.expect("read")]);
    let slept = client.sleep(&one, false, Ask::new().wait_secs(30)).await.expect("sleeps");
    assert_eq!(slept.status.state(), State::Slept);
    let error = client.keep_awake(&one, Some(Duration::from_secs(60)), Ask::new()).await.expect_err("asleep");
    assert_eq!(error.code, "agent_asleep");
    let woken = client.wake(&one, false, Ask::new().wait_secs(30)).await.expect("wakes");
    assert!(woken.status.incarnation > agent.status.incarnation);
    assert_eq!(client.all_agents(None, &Default::default()).await.expect("read").len(), 1);
    client.delete_agent(&one, Ask::new().wait_secs(30)).await.expect("deleted");
    let error = client.agent(&one).await.expect_err("gone");
    assert_eq!((error.code.as_str(), error.is_retryable()), ("not_found", false));
    client.logout().await.expect("logged out");
    assert_eq!(client.who_am_i().await.expect_err("revoked").code, "unauthenticated");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_when_its_connection_breaks() {
    let served = served().await;
    let client = served.client.clone().with_token(served.api.token("ada"));
    client.create_agent(&new("one"), Ask::new().wait_secs(30)).await.expect("made");
    let mut proxy = Proxy::start(served.client.server().trim_start_matches("http://").to_owned()).await;
    let through = Client::new(&proxy.url()).expect("an address").with_token(served.api.token("ada"));
    let one = name("one");
    let mut stream = through.follow(Some(&one), Some(Revision(0))).await.expect("followed");
    let mut last = 0;
    for round in 0..3 {
        let done = client.send(&one, &SendMessage::text(round.to_string()), Ask::new().wait_secs(30)).await;
        let done = done.expect("accepted");
        loop {
            let told = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
            let Told::Event(event) = told.expect("goes on").expect("no error") else { continue };
            assert!(event.revision.0 > last, "in order, and once");
            last = event.revision.0;
            if event.kind == EventKind::MessageReply && event.summary["reply_to"] == done.id.to_string() {
                break;
            }
        }
        proxy.cut();
    }
}

#[tokio::test]
async fn a_stream_from_now_on_misses_nothing_where_its_connection_breaks_before_it_is_read() {
    let served = served().await;
    let client = served.client.clone().with_token(served.api.token("ada"));
    let mut proxy = Proxy::start(served.client.server().trim_start_matches("http://").to_owned()).await;
    let through = Client::new(&proxy.url()).expect("an address").with_token(served.api.token("ada"));
    let mut stream = through.follow(None, None).await.expect("followed");
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    proxy.cut();
    let told = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
    let Told::Event(event) = told.expect("goes on").expect("no error") else { panic!("it is an event") };
    assert_eq!((event.kind, event.name), (EventKind::AgentCreated, Some(name("one"))));
}

#[tokio::test]
async fn who_was_away_for_longer_than_the_log_goes_back_is_told_and_goes_on_after_reading_anew() {
    let served = served().await;
    let client = served.client.clone().with_token(served.api.token("ada"));
    client.create_agent(&new("one"), Ask::new().wait_secs(30)).await.expect("made");
    let one = name("one");
    let mut proxy = Proxy::start(served.client.server().trim_start_matches("http://").to_owned()).await;
    let through = Client::new(&proxy.url()).expect("an address").with_token(served.api.token("ada"));
    let mut stream = through.follow(Some(&one), None).await.expect("followed");
    proxy.cut();
    // What was told over the connection that broke may still be read.
    let done = client.send(&one, &SendMessage::text("missed"), Ask::new().wait_secs(30)).await.expect("accepted");
    let head = served.api.store_head().await;
    served.api.store.forget_log(Revision(head));
    let gone = loop {
        let told = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
        if let Err(error) = told.expect("says why it ends") {
            break error;
        }
    };
    assert_eq!((gone.code.as_str(), gone.is_retryable()), ("gone", false));
    let oldest = gone.details["oldest"].as_u64().expect("says where the log begins");
    assert!(oldest > head, "{oldest}");
    let mut stream = through.follow(Some(&one), Some(Revision(oldest - 1))).await.expect("followed");
    let reply = client.reply_to(&one, &done).await.expect("read").expect("is there");
    assert_eq!(reply.text(), "missed", "rows tell what the log does not");
    let again = client.send(&one, &SendMessage::text("again"), Ask::new()).await.expect("accepted");
    loop {
        let told = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("in time");
        let Told::Event(event) = told.expect("goes on").expect("no error") else { continue };
        if event.message == Some(again.id) {
            break;
        }
    }
}

#[tokio::test]
async fn errors_say_what_the_server_said_or_why_it_was_not_asked() {
    let served = served().await;
    let error = served.client.who_am_i().await.expect_err("nobody");
    assert_eq!((error.code.as_str(), error.status.map(|s| s.as_u16())), ("unauthenticated", Some(401)));
    let adas = served.client.clone().with_token(served.api.token("ada"));
    let one = name("one");
    assert_eq!(adas.follow(Some(&one), None).await.expect_err("no agent").code, "not_found");
    for server in ["", "127.0.0.1:9000", "ftp://host", "http://", "http://user:word@host"] {
        let error = Client::new(server).expect_err(server);
        assert_eq!((error.code.as_str(), &error.details["field"]), ("invalid", &"server".into()));
    }
    let error = adas.cancel(&one, Ask::new().with_key("a\nb")).await.expect_err("no key");
    assert_eq!((error.code.as_str(), &error.details["field"]), ("invalid", &"Idempotency-Key".into()));
    served.shutdown.cancel();
    served.server.await.expect("no panic").expect("ends well");
    let error = adas.login("ada", &PASSWORD.into()).await.expect_err("closed");
    assert_eq!((error.code.as_str(), error.status), ("unreachable_server", None));
    assert!(error.is_retryable());
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_its_streams_and_its_waits() {
    let served = served().await;
    let client = served.client.clone().with_token(served.api.token("ada"));
    let _stream = client.follow(None, None).await.expect("followed");
    served.api.options.closing.cancel();
    served.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), served.server).await;
    ended.expect("at once").expect("no panic").expect("ends well");
}

#[tokio::test]
async fn a_body_that_is_refused_is_answered_and_not_cut_off() {
    let served = served().await;
    let client = served.client.clone().with_token(served.api.token("ada"));
    client.create_agent(&new("one"), Ask::new()).await.expect("made");
    let huge = SendMessage::text("x".repeat(10 << 20));
    let error = client.send(&name("one"), &huge, Ask::new()).await.expect_err("too large");
    assert_eq!(error.code, "too_large");
    // Nor where nobody has begun to read it, and the caller looks for an answer only once all of it is sent, as many do.
    let address = client.server().trim_start_matches("http://").to_owned();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        let head = format!(
            "POST /api/v0/agents/one/messages HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n",
            10 << 20
        );
        stream.write_all(head.as_bytes()).await.expect("is taken");
        stream.write_all(&vec![b' '; 10 << 20]).await.expect("is taken to its end");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, *b"HTTP/1.1 401");
    }
}

mod again;
mod health;
mod proxy;
mod waits;
use proxy::Proxy;
