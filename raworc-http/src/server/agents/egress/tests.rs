use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use raworc_core::agent::{AgentSpec, EgressRule, Network, NetworkMode, SpecChange};
use raworc_core::control::EditAgent;
use raworc_core::ids::{AgentName, TenantName};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::server::agents::ListenerLimits;
use crate::server::agents::testing::{Program, World, soon, until};

/// A host of the outside, which says what it was asked, or writes back what it reads.
struct Outside {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Outside {
    /// Answers one request of HTTP on each connection, and ends it.
    async fn http() -> Self {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        Self::serving(heads, move |stream| {
            let kept = Arc::clone(&kept);
            async move {
                let mut stream = BufReader::new(stream);
                let head = read_head(&mut stream).await;
                kept.lock().unwrap().push(head);
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close, x-hop\r\nx-hop: 1\r\nx-end: 1\r\n\r\nhello";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await
    }

    /// Writes back what it reads.
    async fn echo() -> Self {
        Self::serving(Arc::default(), |mut stream: TcpStream| async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await
    }

    async fn serving<F: Future<Output = ()> + Send + 'static>(
        heads: Arc<Mutex<Vec<String>>>,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, heads, serving }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn read_head(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = soon("a head", stream.read_line(&mut head)).await.unwrap();
        assert!(read > 0, "the connection ended after {head:?}");
    }
    head
}

/// A world whose configuration lets `localhost` be on this machine.
async fn world() -> World {
    with(EgressOptions::default().with_private([here()])).await
}

fn here() -> PrivateHost {
    PrivateHost { host: "localhost".into(), ranges: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()] }
}

async fn with(options: EgressOptions) -> World {
    let mut world = World::new().await;
    world.state.egress = Egress::new(options);
    world.listen().await;
    world
}

fn reaching(rules: &[(&str, u16)]) -> AgentSpec {
    let rule = |&(host, port): &(&str, u16)| EgressRule { host: host.into(), ports: vec![port] };
    let network = Network { egress: rules.iter().map(rule).collect(), ..Network::default() };
    AgentSpec { network, ..AgentSpec::default() }
}

async fn up(world: &World, name: &str, spec: AgentSpec) -> Program {
    let placed = world.place_as(name, spec).await;
    Program::boot(world, &placed).await
}

/// What was opened, or the status of the answer that refused it.
async fn try_open(program: &Program) -> Result<BufReader<TokioIo<Upgraded>>, StatusCode> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, "Upgrade".parse().unwrap());
    headers.insert(header::UPGRADE, EGRESS_PROTOCOL.parse().unwrap());
    let answer = program.send(Method::POST, "egress", Full::default(), headers).await;
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => Ok(BufReader::new(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()))),
        status => Err(status),
    }
}

async fn open(program: &Program) -> BufReader<TokioIo<Upgraded>> {
    try_open(program).await.expect("a way out")
}

/// Asks, and reads the head of the answer and as much of a body as it announces.
async fn ask(way: &mut BufReader<TokioIo<Upgraded>>, request: &str) -> (String, String) {
    way.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(way).await;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    soon("a body", way.read_exact(&mut body)).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn connect(program: &Program, target: &str) -> (BufReader<TokioIo<Upgraded>>, String, String) {
    let mut way = open(program).await;
    let (head, body) = ask(&mut way, &format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n")).await;
    (way, head, body)
}

fn refused(world: &World, program: &Program, target: &str) -> u64 {
    let counts = world.state.egress.counts(program.agent.id);
    counts.iter().find(|count| count.target == target).map_or(0, |count| count.refused)
}

async fn steps(world: &World, name: &str) -> Vec<String> {
    let name = AgentName::new(name).unwrap();
    let steps = world.control.steps(&world.admin(), &TenantName::default(), &name, None, 0, None).await.unwrap();
    steps.items.into_iter().map(|step| step.text).collect()
}

#[tokio::test]
async fn a_listed_host_is_reached_by_a_tunnel_and_its_bytes_are_counted_by_name() {
    let (world, outside) = (world().await, Outside::echo().await);
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let target = format!("localhost:{}", outside.port());
    let (mut way, head, _) = connect(&program, &target).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let sent = vec![7; 1 << 20];
    let (mut read, mut write) = tokio::io::split(way.get_mut());
    let mut back = vec![0; sent.len()];
    let (wrote, got) = tokio::join!(write.write_all(&sent), soon("an echo", read.read_exact(&mut back)));
    wrote.unwrap();
    got.unwrap();
    assert_eq!(back, sent);
    let counts = world.state.egress.counts(program.agent.id);
    let (sent_bytes, received_bytes) = (1 << 20, 1 << 20);
    assert_eq!(counts, [EgressCount { target, connections: 1, refused: 0, sent_bytes, received_bytes }]);
    drop(way);
    until("the connection to be given back", || async { world.state.egress.0.computers.lock().unwrap().is_empty() })
        .await;
    assert!(steps(&world, "a").await.is_empty(), "nothing was refused");
}

#[tokio::test]
async fn a_plain_request_goes_to_the_host_that_was_checked_without_what_is_the_proxys_own() {
    let (world, outside) = (world().await, Outside::http().await);
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let mut way = open(&program).await;
    let port = outside.port();
    let request = format!(
        "GET http://LOCALHOST:{port}/a?b=c HTTP/1.1\r\nhost: another.example\r\nproxy-authorization: secret\r\nproxy-connection: keep-alive\r\nconnection: x-mine\r\nx-mine: 1\r\nx-kept: 1\r\n\r\n"
    );
    for _ in 0..2 {
        let (head, body) = ask(&mut way, &request).await;
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("x-end: 1") && !head.contains("x-hop"), "{head}");
        assert_eq!(body, "hello");
    }
    let bare = format!("GET http://localhost:{port}?c HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(ask(&mut way, &bare).await.0.starts_with("HTTP/1.1 200 "));
    let mut heads = outside.heads.lock().unwrap().clone();
    assert!(heads.pop().is_some_and(|head| head.starts_with("GET /?c HTTP/1.1\r\n")));
    assert_eq!(heads.len(), 2, "one connection may carry several requests");
    let head = heads[0].to_ascii_lowercase();
    assert!(
        head.starts_with("get /a?b=c http/1.1\r\n") && head.contains(&format!("host: localhost:{port}\r\n")),
        "{head}"
    );
    assert!(head.contains("x-kept: 1"), "{head}");
    for absent in ["another.example", "secret", "proxy-connection", "x-mine"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
}

#[tokio::test]
async fn what_is_not_listed_is_refused_on_a_page_and_each_refusal_is_a_step() {
    let (world, outside) = (world().await, Outside::echo().await);
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let (_, head, page) = connect(&program, "elsewhere.example:443").await;
    assert!(head.starts_with("HTTP/1.1 403 Not on the agent's egress list\r\n"), "{head}");
    assert!(page.starts_with("elsewhere.example:443: ") && page.contains("spec.network.egress"), "{page}");
    let (_, head, _) = connect(&program, "localhost:1").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "another port is another rule: {head}");
    let (head, _) =
        ask(&mut open(&program).await, "GET http://elsewhere.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "the host of the address counts: {head}");
    let told = steps(&world, "a").await.join("\n");
    for target in ["elsewhere.example:443", "localhost:1", "elsewhere.example:80"] {
        assert!(told.contains(&format!("egress refused: {target}: none of the 1 rules")), "{target} in {told}");
        assert_eq!(refused(&world, &program, target), 1);
    }
}

#[tokio::test]
async fn a_listed_name_that_leads_to_an_address_which_is_not_public_is_refused_unless_the_configuration_has_it() {
    let outside = Outside::echo().await;
    let world = with(EgressOptions::default()).await;
    let port = outside.port();
    let names = ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "127.1", "0.0.0.0"];
    let program = up(&world, "a", reaching(&names.map(|name| (name, port)))).await;
    for name in names {
        let target = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
        let (_, head, page) = connect(&program, &target).await;
        assert!(head.starts_with("HTTP/1.1 403 Not a public address\r\n"), "{target}: {head}");
        assert!(page.contains("egress.private"), "{page}");
    }
    assert_eq!(steps(&world, "a").await.len(), names.len(), "each refusal is a step before it is told");
    // For another name, and for another range.
    let listed = |host: &str, range: &str| PrivateHost { host: host.into(), ranges: vec![range.parse().unwrap()] };
    let private = [listed("other.example", "127.0.0.0/8"), listed("localhost", "10.0.0.0/8")];
    let world = with(EgressOptions::default().with_private(private)).await;
    let program = up(&world, "a", reaching(&[("localhost", port)])).await;
    let (_, head, _) = connect(&program, &format!("localhost:{port}")).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn the_list_is_asked_at_each_request_and_an_open_network_needs_no_proxy() {
    let (world, outside) = (world().await, Outside::http().await);
    let port = outside.port();
    let program = up(&world, "a", AgentSpec::default()).await;
    let mut way = open(&program).await;
    let request = format!("GET http://localhost:{port}/ HTTP/1.1\r\nhost: a\r\n\r\n");
    let (head, page) = ask(&mut way, &request).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && page.contains("its egress list is empty"), "{head}{page}");
    let edit = async |network: serde_json::Value| {
        let serde_json::Value::Object(change) = json!({ "network": network }) else { unreachable!() };
        let (name, edit) = (AgentName::new("a").unwrap(), EditAgent { spec: SpecChange(change) });
        world.control.edit_agent(&world.admin(), &TenantName::default(), &name, &edit, None).await.unwrap();
    };
    edit(json!({ "egress": [{ "host": "localhost", "ports": [port] }] })).await;
    let (head, _) = ask(&mut way, &request).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let waits = world
        .agent("a")
        .await
        .status
        .conditions
        .iter()
        .any(|condition| condition.kind == raworc_core::agent::ConditionKind::RestartNeeded);
    assert!(!waits, "a list needs no new computer");
    edit(json!({ "egress": null, "mode": "open" })).await;
    let (head, page) = ask(&mut way, &request).await;
    assert!(head.starts_with("HTTP/1.1 403 ") && page.contains("without a proxy"), "{head}{page}");
    assert_eq!(NetworkMode::Open, world.agent("a").await.spec.network.mode);
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy_or_leads_nowhere_is_told_apart() {
    let world = world().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let program = up(&world, "a", reaching(&[("localhost", free), ("no.such.name.invalid", 443)])).await;
    for (request, status) in [
        ("GET /path HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        ("GET https://localhost/ HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        ("CONNECT localhost HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        (format!("CONNECT localhost:{free} HTTP/1.1\r\nhost: localhost\r\n\r\n"), "502"),
        ("CONNECT no.such.name.invalid:443 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "502"),
        (format!("CONNECT {}:443 HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(60_000)), "400"),
        ("CONNECT *.example:443 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
        ("\u{0}\u{1} nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let (head, _) = ask(&mut open(&program).await, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
    }
    let known = world.state.egress.counts(program.agent.id);
    assert!(known.iter().all(|count| count.target.len() < 300), "what is no name is not remembered");
    let outside = Outside::echo().await;
    let program = up(&world, "b", reaching(&[("localhost", outside.port())])).await;
    let request = format!("GET http://localhost:{}/ HTTP/1.1\r\nhost: a\r\n\r\n", outside.port());
    let (head, page) = ask(&mut open(&program).await, &request).await;
    assert!(head.starts_with("HTTP/1.1 502 ") && page.contains("cannot be read"), "{head}{page}");
    assert!(steps(&world, "a").await.is_empty() && steps(&world, "b").await.is_empty(), "nobody refused anything");
}

#[tokio::test]
async fn a_program_of_a_start_that_is_over_has_no_way_out() {
    let (world, outside) = (world().await, Outside::http().await);
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let mut way = open(&program).await;
    world.begin(&program.agent).await;
    let request = format!("GET http://localhost:{}/ HTTP/1.1\r\nhost: a\r\n\r\n", outside.port());
    let (head, _) = ask(&mut way, &request).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(try_open(&program).await.err(), Some(StatusCode::CONFLICT));
    assert!(outside.heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_computer_has_so_many_ways_out_and_they_take_none_of_its_calls_places() {
    let mut world = world().await;
    let outside = Outside::echo().await;
    let options = world.state.egress.0.options.clone().with_connections_per_computer(5);
    world.state.egress = Egress::new(options);
    let limits = ListenerLimits { connections_per_computer: 2, ..ListenerLimits::default() };
    world.listen_within(limits).await;
    let target = format!("localhost:{}", outside.port());
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let mut ways = Vec::new();
    for _ in 0..5 {
        ways.push(open(&program).await);
    }
    assert_eq!(try_open(&program).await.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    until("a heartbeat", || async { program.call(Method::POST, "heartbeat", &()).await.0 == StatusCode::OK }).await;
    let other = up(&world, "b", reaching(&[("localhost", outside.port())])).await;
    let (_, head, _) = connect(&other, &target).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "what one computer takes, another has all the same: {head}");
    ways.pop();
    until("another way out", || async { try_open(&program).await.is_ok() }).await;
}

#[tokio::test]
async fn a_host_that_says_nothing_and_never_leaves_does_not_keep_the_way_of_a_computer_that_left() {
    let outside = Outside::serving(Arc::default(), |stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut options = EgressOptions::default().with_private([here()]);
    options.linger = std::time::Duration::from_millis(100);
    let world = with(options).await;
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let (way, head, _) = connect(&program, &format!("localhost:{}", outside.port())).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let is_open = || world.state.egress.0.computers.lock().unwrap().len() == 1;
    assert!(is_open());
    drop(way);
    until("the way to be given back", || async { !is_open() }).await;
}

#[tokio::test]
async fn ways_out_of_all_computers_together_leave_half_of_the_places_to_calls() {
    let mut world = world().await;
    world.listen_within(ListenerLimits::default().with_connections(8)).await;
    let one = up(&world, "a", AgentSpec::default()).await;
    let mut ways = Vec::new();
    for _ in 0..4 {
        ways.push(open(&one).await);
    }
    assert_eq!(try_open(&one).await.err(), Some(StatusCode::TOO_MANY_REQUESTS));
    let other = up(&world, "b", AgentSpec::default()).await;
    assert_eq!(other.call(Method::POST, "heartbeat", &()).await.0, StatusCode::OK);
    ways.pop();
    until("another way out", || async { try_open(&other).await.is_ok() }).await;
}

#[tokio::test]
async fn tunnels_end_with_the_server() {
    let (world, outside) = (world().await, Outside::echo().await);
    let program = up(&world, "a", reaching(&[("localhost", outside.port())])).await;
    let (mut way, head, _) = connect(&program, &format!("localhost:{}", outside.port())).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    world.state.closing.cancel();
    let end = soon("the end", way.read_u8()).await;
    end.expect_err("the tunnel has ended");
}

#[tokio::test]
async fn a_program_that_knocks_without_end_fills_no_log() {
    let world = world().await;
    let program = up(&world, "a", AgentSpec::default()).await;
    let begin = tokio::time::Instant::now();
    let knock = async |mut way: BufReader<TokioIo<Upgraded>>| {
        for _ in 0..5 {
            let (head, _) = ask(&mut way, "GET http://elsewhere.example/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        }
    };
    let mut ways = Vec::new();
    for _ in 0..30 {
        ways.push(open(&program).await);
    }
    futures::future::join_all(ways.into_iter().map(knock)).await;
    let most = begin.elapsed().as_millis() / 250 + 2;
    let told = steps(&world, "a").await;
    assert!((1..=most).contains(&(told.len() as u128)), "{} steps", told.len());
    assert!(told.iter().any(|text| text.ends_with(" times)")), "{told:?}");
    assert_eq!(refused(&world, &program, "elsewhere.example:80"), 150);
}

#[tokio::test]
async fn a_stranger_has_no_way_out() {
    let world = world().await;
    let mut program = up(&world, "a", AgentSpec::default()).await;
    program.token = "nonsense".into();
    assert_eq!(try_open(&program).await.err(), Some(StatusCode::UNAUTHORIZED));
    program.token = world.api_token().await;
    assert_eq!(try_open(&program).await.err(), Some(StatusCode::UNAUTHORIZED), "people have none either");
}
