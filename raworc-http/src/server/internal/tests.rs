//! Two servers and an operator of one installation in this process, over real sockets and real TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::{any, get};
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use raworc_core::control::{ControlPlane, Parts, Peer, Presence};
use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
use raworc_core::error::Error;
use raworc_core::program::DeltaReport;
use raworc_core::runtime::Runtimes;
use raworc_core::runtime::simulated::{SimulatedOptions, SimulatedRuntime};
use raworc_core::seal::MasterKey;
use raworc_core::store::MemoryStore;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::peers::{Away, request};
use super::{InternalListener, InternalState, InternalTls, Peers};
use crate::server::agents::gateway::Upstreams;
use crate::server::agents::testing::{Program, REDIAL, World, soon, text, until};
use crate::server::authority::{Authority, Trust};

/// An installation without processes yet.
fn parts() -> Parts {
    let runtime = Arc::new(SimulatedRuntime::new(SimulatedOptions::default()));
    let runtimes = Runtimes::new().with(runtime, "unix:/nowhere", None);
    Parts::new(Arc::new(MemoryStore::default()), runtimes, MasterKey::generate(&SystemEntropy))
}

/// A server whose programs other servers reach.
struct Server {
    world: World,
    address: String,
    closing: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl Server {
    async fn of(parts: &Parts) -> Self {
        let listener = InternalListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let parts = parts.clone().with_presence(Presence::default().at(&address));
        let world = World::of(parts, Upstreams::default(), |control, links| {
            links.with_peers(Peers::new(control, InternalTls::new(control).unwrap()))
        });
        let world = world.await;
        let state = InternalState { control: world.control.clone(), links: Some(world.state.links.clone()) };
        let (tls, closing) = (InternalTls::new(&world.control).unwrap(), CancellationToken::new());
        let serving = Some(tokio::spawn(listener.serve(tls, state, closing.clone())));
        Self { world, address, closing, serving }
    }

    /// What its API says to a `GET` for the computer of an agent.
    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.ask(Request::get(path), Body::empty()).await;
        (answer.status(), text(answer.into_body()).await)
    }

    async fn ask(&self, request: http::request::Builder, body: Body) -> axum::response::Response {
        let token = self.world.api_token().await;
        let request = request.header("authorization", format!("Bearer {token}")).body(body).unwrap();
        soon("an answer", self.world.api().oneshot(request)).await.unwrap()
    }

    /// Ends it as a machine that loses its power does: nobody is told.
    async fn fail(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Aborted, and so over.
            drop(serving.await);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// A program that is up at `server`, and linked there with `answers`.
async fn linked(server: &Server, name: &str, answers: Router) -> (Program, CancellationToken) {
    let program = server.world.up(name).await;
    let link = program.link(answers).await;
    until("the link", || async { server.world.state.links.is_linked(&program.agent) }).await;
    (program, link)
}

fn stats(says: &'static str) -> Router {
    Router::new().route("/stats", get(move || async move { says }))
}

/// Says what it was asked, and gives back what came with it.
fn echo() -> Router {
    Router::new().fallback(any(|request: Request| async move {
        let asked = format!("{} {}\n", request.method(), request.uri().path_and_query().unwrap());
        let first = futures::stream::once(async move { Ok::<_, axum::Error>(Bytes::from(asked)) });
        Body::from_stream(first.chain(request.into_body().into_data_stream()))
    }))
}

#[tokio::test]
async fn a_computer_is_reached_by_every_server_wherever_its_program_is_linked() {
    let parts = parts();
    let (first, second) = (Server::of(&parts).await, Server::of(&parts).await);
    let _linked = (linked(&first, "a", echo()).await, linked(&second, "b", echo()).await);
    for server in [&first, &second] {
        for name in ["a", "b"] {
            let path = format!("/agents/{name}/files?path=%2Fagent%2Fa%20b%3F");
            let here = server.get(&path).await;
            assert_eq!(here, (StatusCode::OK, "GET /files?path=%2Fagent%2Fa+b%3F\n".into()), "{}", server.address);
        }
    }
    // What is large goes through as it comes, in both directions.
    let content = vec![b'x'; 5 << 20];
    let put = Request::put("/agents/a/files?path=big");
    let answer = second.ask(put, Body::from(content.clone())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = soon("the body", answer.into_body().collect()).await.unwrap().to_bytes();
    let head = b"PUT /files?path=big\n";
    assert!(body.starts_with(head) && body[head.len()..] == content, "{} bytes", body.len());
}

#[tokio::test]
async fn what_a_program_says_is_passed_on_as_it_comes() {
    let parts = parts();
    let (first, second) = (Server::of(&parts).await, Server::of(&parts).await);
    let (say, said) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let said = Arc::new(tokio::sync::Mutex::new(Some(said)));
    let slowly = Router::new().route(
        "/stats",
        get(move || async move {
            let said = said.lock().await.take().expect("asked once");
            Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(said).map(Ok::<_, axum::Error>))
        }),
    );
    let (_program, link) = linked(&first, "a", slowly).await;
    say.send("one").unwrap();
    let mut body = second.ask(Request::get("/agents/a/stats"), Body::empty()).await.into_body().into_data_stream();
    assert_eq!(soon("the first word", body.next()).await.unwrap().unwrap(), "one");
    say.send("two").unwrap();
    assert_eq!(soon("the second word", body.next()).await.unwrap().unwrap(), "two");
    // The caller learns of the end of a link at another server, and does not wait for ever.
    link.cancel();
    let ended = soon("the end", body.next()).await;
    assert!(ended.is_some_and(|ended| ended.is_err()), "a body that broke off is not a whole one");
}

#[tokio::test]
async fn a_program_that_moves_to_another_server_is_found_there() {
    let parts = parts();
    let servers = [Server::of(&parts).await, Server::of(&parts).await, Server::of(&parts).await];
    let (program, link) = linked(&servers[0], "a", stats("first")).await;
    assert_eq!(servers[2].get("/agents/a/stats").await.1, "first");
    link.cancel();
    until("the end of the link", || async { !servers[0].world.state.links.is_linked(&program.agent) }).await;
    let asking = tokio::spawn({
        let links = servers[2].world.state.links.clone();
        let agent = program.agent.clone();
        async move {
            let request = http::Request::get("http://computer/stats").body(Body::empty()).unwrap();
            let answer = links.request(&agent, request).await?;
            Ok::<_, Error>(text(Body::new(answer.into_body())).await)
        }
    });
    // It asks before the program is there, and is answered once it is.
    let moved = Program { socket: servers[1].world.socket.clone(), ..program };
    moved.link(stats("second")).await;
    assert_eq!(soon("the answer", asking).await.unwrap().unwrap(), "second");
}

#[tokio::test]
async fn a_server_that_is_gone_holds_nobody_up() {
    let parts = parts();
    let mut servers = [Server::of(&parts).await, Server::of(&parts).await, Server::of(&parts).await];
    let (program, _link) = linked(&servers[1], "a", stats("here")).await;
    // It is dead, and its last sign of life is not over yet.
    servers[0].fail().await;
    assert_eq!(servers[2].get("/agents/a/stats").await, (StatusCode::OK, "here".into()));
    servers[1].fail().await;
    let began = tokio::time::Instant::now();
    let (status, said) = servers[2].get("/agents/a/stats").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
    assert!(said.contains("not connected to any server"), "{said}");
    assert!(began.elapsed() >= REDIAL, "it may come back in that time");
    drop(program);
}

#[tokio::test]
async fn a_connection_that_was_lost_is_made_anew() {
    let parts = parts();
    let (mut first, second) = (Server::of(&parts).await, Server::of(&parts).await);
    let _linked = linked(&first, "a", stats("here")).await;
    assert_eq!(second.get("/agents/a/stats").await.1, "here");
    first.closing.cancel();
    if let Some(serving) = first.serving.take() {
        soon("the end", serving).await.unwrap();
    }
    let listener = InternalListener::bind(first.address.parse().unwrap()).await.unwrap();
    let state = InternalState { control: first.world.control.clone(), links: Some(first.world.state.links.clone()) };
    first.closing = CancellationToken::new();
    let tls = InternalTls::new(&first.world.control).unwrap();
    first.serving = Some(tokio::spawn(listener.serve(tls, state, first.closing.clone())));
    assert_eq!(second.get("/agents/a/stats").await, (StatusCode::OK, "here".into()));
}

/// Dials with TLS, and asks whether a link is there.
async fn stranger(address: &str, config: Result<ClientConfig, rustls::Error>) -> std::io::Result<Vec<u8>> {
    let connector = TlsConnector::from(Arc::new(config.unwrap()));
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(ServerName::try_from("raworc.internal").unwrap(), stream).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut said = vec![0; 1024];
    let read = stream.read(&mut said).await?;
    said.truncate(read);
    Ok(said)
}

fn trusting(
    control: &ControlPlane,
    trust: Trust,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(Authority::of(control, trust).unwrap().der).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}

#[tokio::test]
async fn only_processes_of_the_same_installation_are_answered() {
    let (ours, theirs) = (parts(), parts());
    let server = Server::of(&ours).await;
    let (control, other) = (&server.world.control, ControlPlane::start(theirs).await.unwrap());
    let identity =
        |control: &ControlPlane, trust| Authority::of(control, trust).unwrap().issue(&["raworc.internal".into()]);
    let with = |who: &ControlPlane, trust| {
        let (chain, key) = identity(who, trust).unwrap();
        trusting(control, Trust::Processes).with_client_auth_cert(chain, key)
    };
    // One of ours is answered by the first frame of HTTP/2, which shows that the refusals below are none of the test's.
    let answered = soon("an answer", stranger(&server.address, with(control, Trust::Processes))).await.unwrap();
    assert!(answered.len() >= 9 && answered[3] == 4, "{answered:?}");
    let nobody = Ok(trusting(control, Trust::Processes).with_no_client_auth());
    for (who, config) in [
        ("a client without a certificate", nobody),
        ("what an authority of programs signed", with(control, Trust::Programs)),
        ("a process of another installation", with(&other, Trust::Processes)),
    ] {
        let refused = soon("a refusal", stranger(&server.address, config)).await;
        let error = refused.expect_err(who).to_string();
        assert!(error.contains("fatal alert"), "{who}: {error}");
    }
    // And what speaks no TLS at all is hung up on, while the listener goes on.
    let mut plain = TcpStream::connect(&server.address).await.unwrap();
    plain.write_all(b"GET /v0/links HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    soon("the end", plain.read_to_end(&mut said)).await.ok();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert!(stranger(&server.address, with(control, Trust::Processes)).await.is_ok());
}

#[tokio::test]
async fn a_server_is_not_taken_for_one_of_another_installation() {
    let (ours, theirs) = (parts(), parts());
    let (server, other, stranger) = (Server::of(&ours).await, Server::of(&ours).await, Server::of(&theirs).await);
    let control = &server.world.control;
    let peers = Peers::new(control, InternalTls::new(control).unwrap());
    let ask = async |address: &str| {
        let peer = Peer { process: SystemEntropy.process_id(SystemClock.now()), address: address.to_owned() };
        soon("an end", peers.send("links", &peer, request("/links").unwrap())).await
    };
    assert_eq!(ask(&other.address).await.unwrap().status(), StatusCode::NOT_FOUND, "one of ours answers");
    let refused = ask(&stranger.address).await.unwrap_err();
    assert!(matches!(refused, Away::Dial(_)) && refused.to_string().contains("certificate"), "{refused}");
}

#[tokio::test]
async fn words_of_a_model_are_heard_at_every_server_while_somebody_watches() {
    let parts = parts();
    let (first, second) = (Server::of(&parts).await, Server::of(&parts).await);
    let _following = [&first, &second].map(|server| {
        let control = &server.world.control;
        Peers::new(control, InternalTls::new(control).unwrap()).follow_deltas()
    });
    let program = first.world.up("a").await;
    let deltas = |server: &Server| server.world.control.system().feed().deltas().of(program.agent.id);
    // Both watch: each is told once, and nothing goes round between the two.
    let (mut here, mut there) = (deltas(&first), deltas(&second));
    let message = first.world.send("a", "hello").await;
    program.call(http::Method::POST, "lease?wait=5", &()).await;
    let mut said = 0;
    let mut say = async || {
        said += 1;
        let report = DeltaReport { message, text: format!("word {said}") };
        assert_eq!(program.call(http::Method::POST, "deltas", &report).await.0, StatusCode::NO_CONTENT);
        said
    };
    // What is said before the other server listens is lost to it: that is what best effort means.
    let heard = loop {
        say().await;
        if let Ok(delta) = tokio::time::timeout(Duration::from_millis(50), there.next()).await {
            break delta;
        }
    };
    let heard_at: usize = heard.text.trim_start_matches("word ").parse().unwrap();
    let last = say().await;
    for number in heard_at + 1..=last {
        assert_eq!(soon("a word", there.next()).await.text, format!("word {number}"));
    }
    for number in 1..=last {
        assert_eq!(soon("a word", here.next()).await.text, format!("word {number}"));
    }
    let again = tokio::time::timeout(Duration::from_millis(100), here.next()).await;
    assert!(again.is_err(), "told once more: {again:?}");
}

#[tokio::test]
async fn more_calls_than_a_link_has_streams_wait_their_turn() {
    let parts = parts();
    let server = Server::of(&parts).await;
    let (program, _link) = linked(
        &server,
        "a",
        Router::new().route(
            "/stats",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                "here"
            }),
        ),
    )
    .await;
    let calls = (0..1500).map(|_| {
        let (links, agent) = (server.world.state.links.clone(), program.agent.clone());
        async move {
            let request = http::Request::get("http://computer/stats").body(Body::empty()).unwrap();
            text(Body::new(links.request(&agent, request).await.unwrap().into_body())).await
        }
    });
    let answers = soon("all answers", futures::future::join_all(calls)).await;
    assert!(answers.iter().all(|answer| answer == "here"));
}
