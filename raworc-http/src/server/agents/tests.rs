mod others;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::routing::{get, post};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use raworc_core::agent::{ConditionKind, State};
use raworc_core::control::EditAgent;
use raworc_core::error::Error;
use raworc_core::ids::{AgentName, TenantName};
use raworc_core::message::MessageState;
use raworc_core::program::{CancelRequest, DeltaReport, EndReport, LeaseReply, SetupReport, StepsReport, TokenReply};
use raworc_core::step::{NewStep, StepKind};
use raworc_core::store::Ending;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::testing::*;
use super::*;

fn commit() -> raworc_core::ids::CommitId {
    use raworc_core::entropy::{Clock, EntropyExt, SystemClock, SystemEntropy};
    SystemEntropy.commit_id(SystemClock.now())
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_program_that_waits_for_work_is_let_go_when_the_server_closes() {
    let world = World::new().await;
    let program = world.up("a").await;
    let waiting = tokio::spawn(async move { program.call(Method::POST, "lease?wait=30", &()).await });
    tokio::task::yield_now().await;
    world.state.closing.cancel();
    let (status, _) = soon("an answer", waiting).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_program_boots_takes_a_message_and_answers_it() {
    let world = World::new().await;
    let program = world.up("a").await;
    let (status, _) = program.call(Method::POST, "lease?wait=0", &()).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "there is no message yet");
    let leasing = tokio::spawn({
        let program = program.clone();
        async move { program.call(Method::POST, "lease?wait=20", &()).await }
    });
    let id = world.send("a", "hello").await;
    let (status, lease) = soon("a message", leasing).await.unwrap();
    assert_eq!(status, StatusCode::OK, "{lease}");
    let lease: LeaseReply = serde_json::from_value(lease).unwrap();
    assert_eq!(lease.message.id, id);
    let (_, again) = program.call(Method::POST, "lease?wait=0", &()).await;
    assert_eq!(serde_json::from_value::<LeaseReply>(again).unwrap().message.id, id, "the same again");

    let (status, _) = program.call(Method::POST, "heartbeat", &()).await;
    assert_eq!(status, StatusCode::OK);
    let mut deltas = world.control.system().feed().deltas().of(program.agent.id);
    let delta = DeltaReport { message: id, text: "wor".into() };
    assert_eq!(program.call(Method::POST, "deltas", &delta).await.0, StatusCode::NO_CONTENT);
    assert_eq!(soon("a delta", deltas.next()).await.text, "wor");

    let steps = json!({ "commit": commit(), "message": id, "steps": [{ "kind": "log", "text": "did it" }] });
    let (status, body) = program.call(Method::POST, "steps", &steps).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    assert_eq!(program.call(Method::POST, "steps", &steps).await.0, StatusCode::NO_CONTENT, "sent again");
    let name = AgentName::new("a").unwrap();
    let tenant = TenantName::default();
    let found = world.control.steps(&world.admin(), &tenant, &name, Some(id), 0, None).await.unwrap();
    assert_eq!(found.items.len(), 1, "what was sent twice is there once");

    let end = EndReport { commit: commit(), message: id, ending: Ending::Done, reply: None, steps: Vec::new() };
    assert_eq!(program.call(Method::POST, "end", &end).await.0, StatusCode::NO_CONTENT);
    let message = world.control.get_message(&world.admin(), &tenant, &name, id).await.unwrap();
    assert_eq!(message.state, MessageState::Done);
    assert_eq!(world.agent("a").await.status.state(), State::Idle);
}

#[tokio::test]
async fn a_boot_key_is_good_once_and_for_its_own_start() {
    let world = World::new().await;
    let placed = world.place("a").await;
    let mut wrong = boot_request(&placed);
    wrong.key = "guessed".into();
    let nobody = Program { socket: world.socket.clone(), token: String::new(), agent: placed.agent.clone() };
    let (status, body) = nobody.call(Method::POST, "boot", &wrong).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"));

    Program::boot(&world, &placed).await;
    let (status, body) = nobody.call(Method::POST, "boot", &boot_request(&placed)).await;
    assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"));

    world.begin(&world.agent("a").await).await;
    let (status, body) = nobody.call(Method::POST, "boot", &boot_request(&placed)).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "stale_incarnation"));
}

#[tokio::test]
async fn a_program_of_an_older_start_is_told_so_everywhere() {
    let world = World::new().await;
    let program = world.up("a").await;
    let id = world.send("a", "hello").await;
    assert_eq!(program.call(Method::POST, "lease?wait=5", &()).await.0, StatusCode::OK);
    world.begin(&program.agent).await;
    let end = |how: &str| json!({ "commit": commit(), "message": id, "ending": how, "reply": null, "steps": [] });
    let setup = serde_json::to_value(SetupReport { hash: "hash".into(), failure: None }).unwrap();
    for (method, path, body) in [
        (Method::POST, "token", Value::Null),
        (Method::POST, "setup", setup),
        (Method::POST, "lease?wait=1", Value::Null),
        (Method::POST, "heartbeat", Value::Null),
        (Method::POST, "link", Value::Null),
        (Method::POST, "steps", json!({ "commit": commit(), "message": null, "steps": [] })),
        (Method::POST, "deltas", json!({ "message": id, "text": "late" })),
        (Method::POST, "end", end("done")),
        (Method::POST, "end", end("cancelled")),
        (Method::POST, "gateway/api/chat", json!({ "model": "m", "messages": [] })),
        (Method::POST, "gateway/v1/chat/completions", json!({ "model": "m", "messages": [] })),
    ] {
        let (status, body) = program.call(method, path, &body).await;
        assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "stale_incarnation"), "{path}: {body}");
    }
}

#[tokio::test]
async fn without_a_good_token_nothing_is_served_and_errors_are_json() {
    let world = World::new().await;
    let program = world.up("a").await;
    let people = world.api_token().await;
    for token in ["", "nonsense", people.as_str()] {
        let stranger = Program { token: token.to_owned(), ..program.clone() };
        for path in ["token", "setup", "lease", "steps", "deltas", "end", "heartbeat", "link", "egress"] {
            let (status, body) = stranger.call(Method::POST, path, &json!({})).await;
            assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"), "{path}");
        }
        let (status, body) = stranger.call(Method::POST, "gateway/api/chat", &json!({})).await;
        assert_eq!((status, code(&body)), (StatusCode::UNAUTHORIZED, "unauthenticated"));
    }
    for (method, path, body, wanted) in [
        (Method::GET, "nothing", Value::Null, "not_found"),
        (Method::GET, "../../api/v0/agents", Value::Null, "not_found"),
        (Method::GET, "heartbeat", Value::Null, "method_not_allowed"),
        (Method::POST, "deltas", json!({ "wrong": 1 }), "invalid"),
        (Method::POST, "deltas", json!("x".repeat(300 << 10)), "too_large"),
        (Method::POST, "lease?wait=soon", Value::Null, "invalid"),
        (Method::POST, "link", Value::Null, "upgrade_required"),
    ] {
        let (_, body) = program.call(method, path, &body).await;
        assert_eq!(code(&body), wanted, "{path}: {body}");
    }
}

#[tokio::test]
async fn a_sign_of_life_of_any_age_counts_and_what_a_newer_one_says_of_its_volume_too() {
    let world = World::new().await;
    let program = world.up("a").await;
    let edit = serde_json::from_value(json!({ "resources": { "disk": "16Mi" } })).unwrap();
    let (name, tenant) = (program.agent.name.clone(), TenantName::default());
    world.control.edit_agent(&world.admin(), &tenant, &name, &EditAgent { spec: edit }, None).await.unwrap();
    let is_full = async || world.agent("a").await.status.conditions.holds(ConditionKind::DiskFull);
    let beat = async |body: Value| program.call(Method::POST, "heartbeat", &body).await;
    for (body, full) in [
        (Value::Null, false),
        (json!({}), false),
        (json!({ "disk_used": 1 }), false),
        (json!({ "disk_used": 17 << 20, "of_a_later_release": [1] }), true),
        (json!({ "of_a_later_release": true }), true),
        (json!({ "disk_used": u64::MAX }), true),
        (json!({ "disk_used": 16 << 20 }), true),
        (Value::Null, true),
    ] {
        let (status, answer) = beat(body.clone()).await;
        assert_eq!((status, &answer["disk_limit"]), (StatusCode::OK, &json!(16 << 20)), "{body}: {answer}");
        assert_eq!(is_full().await, full, "{body}");
    }
    let large = json!({ "of_a_later_release": "x".repeat(8 << 10) });
    for (body, refused) in [
        (json!({ "disk_used": -1 }), StatusCode::BAD_REQUEST),
        (json!({ "disk_used": "much" }), StatusCode::BAD_REQUEST),
        (large, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(beat(body.clone()).await.0, refused, "{body}");
    }
}

#[tokio::test]
async fn a_token_is_renewed() {
    let world = World::new().await;
    let mut program = world.up("a").await;
    let (status, body) = program.call(Method::POST, "token", &()).await;
    assert_eq!(status, StatusCode::OK);
    program.token = serde_json::from_value::<TokenReply>(body).unwrap().token;
    assert_eq!(program.call(Method::POST, "heartbeat", &()).await.0, StatusCode::OK);
}

/// Says which link answered.
fn named(name: &'static str) -> Router {
    Router::new().route("/stats", get(move || async move { name }))
}

async fn asked(links: &Links, agent: &raworc_core::agent::Agent) -> Result<String, Error> {
    let request = Request::get("http://computer/stats").body(Body::empty()).unwrap();
    let answer = soon("an answer over the link", links.request(agent, request)).await?;
    Ok(text(Body::new(answer.into_body())).await)
}

#[tokio::test]
async fn a_linked_program_is_called_back_and_a_later_link_takes_its_place() {
    let world = World::new().await;
    let program = world.up("a").await;
    let links = &world.state.links;
    let unreachable = asked(links, &program.agent).await.unwrap_err();
    assert_eq!(unreachable.code(), "unreachable");

    let first = program.link(named("first")).await;
    assert_eq!(asked(links, &program.agent).await.unwrap(), "first");
    program.link(named("second")).await;
    until("the second link", || async { asked(links, &program.agent).await.unwrap() == "second" }).await;
    first.cancel();
    assert_eq!(asked(links, &program.agent).await.unwrap(), "second");
    assert_eq!(links.len(), 1);

    let placed = world.begin(&program.agent).await;
    let newer = Program::boot(&world, &placed).await;
    newer.link(named("newer")).await;
    until("the newer link", || async { links.is_linked(&newer.agent) }).await;
    assert_eq!(asked(links, &newer.agent).await.unwrap(), "newer");
    assert_eq!(asked(links, &program.agent).await.unwrap_err().code(), "unreachable", "an older start has no link");
}

#[tokio::test]
async fn a_call_waits_for_a_program_that_dials_anew() {
    let world = World::new().await;
    let program = world.up("a").await;
    let links = Links::start(&world.control);
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let first = serve_link(TokioIo::new(theirs), named("first"));
    let serving = tokio::spawn({
        let (links, control, agent) = (links.clone(), world.control.clone(), program.agent.clone());
        async move { links.serve(&control, &agent, TokioIo::new(ours)).await }
    });
    assert_eq!(asked(&links, &program.agent).await.unwrap(), "first");
    first.cancel();
    soon("the end of the link", serving).await.unwrap();
    assert!(links.is_empty(), "a lost link is removed");

    let asking = tokio::spawn({
        let (links, agent) = (links.clone(), program.agent.clone());
        async move { asked(&links, &agent).await }
    });
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    serve_link(TokioIo::new(theirs), named("again"));
    let (control, agent) = (world.control.clone(), program.agent.clone());
    let again = links.clone();
    tokio::spawn(async move { again.serve(&control, &agent, TokioIo::new(ours)).await });
    assert_eq!(soon("the answer", asking).await.unwrap().unwrap(), "again");
}

#[tokio::test]
async fn a_program_whose_server_goes_and_comes_is_linked_again_and_no_step_is_lost_or_doubled() {
    let mut world = World::new().await;
    let program = world.up("a").await;
    program.link(named("before")).await;
    let id = world.send("a", "hello").await;
    program.call(Method::POST, "lease?wait=5", &()).await;
    let report = |text: &str| {
        let step = NewStep { kind: StepKind::Thought, tool: None, text: text.into() };
        StepsReport { commit: commit(), message: Some(id), steps: vec![step] }
    };
    let (first, second) = (report("before"), report("after"));
    assert_eq!(program.call(Method::POST, "steps", &first).await.0, StatusCode::NO_CONTENT);
    world.hang_up().await;
    assert!(!world.socket.exists(), "a listener takes its socket with it");
    world.listen().await;
    // The first again, as if its answer had been lost with the server.
    for report in [&first, &second] {
        assert_eq!(program.call(Method::POST, "steps", report).await.0, StatusCode::NO_CONTENT);
    }
    program.link(named("after")).await;
    until("the new link", || async { asked(&world.state.links, &program.agent).await.unwrap() == "after" }).await;
    let (name, tenant) = (AgentName::new("a").unwrap(), TenantName::default());
    let steps = world.control.steps(&world.admin(), &tenant, &name, Some(id), 0, None).await.unwrap();
    let texts: Vec<_> = steps.items.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["before", "after"]);
}

/// Tells what it is asked to cancel.
fn cancels() -> (Router, mpsc::UnboundedReceiver<CancelRequest>) {
    let (told, cancels) = mpsc::unbounded_channel();
    let router = Router::new().route(
        "/cancel",
        post(move |Json(request): Json<CancelRequest>| async move {
            told.send(request).unwrap();
            StatusCode::NO_CONTENT
        }),
    );
    (router, cancels)
}

#[tokio::test]
async fn a_cancel_reaches_a_busy_program_within_a_second() {
    let world = World::new().await;
    let program = world.up("a").await;
    let (router, mut cancels) = cancels();
    program.link(router).await;
    let id = world.send("a", "work").await;
    program.call(Method::POST, "lease?wait=5", &()).await;
    let began = tokio::time::Instant::now();
    let name = AgentName::new("a").unwrap();
    world.control.cancel(&world.admin(), &TenantName::default(), &name).await.unwrap();
    let told = soon("the cancel", cancels.recv()).await.unwrap();
    assert_eq!(told.message, id);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let (_, beat) = program.call(Method::POST, "heartbeat", &()).await;
    assert_eq!(beat["cancel"], json!(id), "a heartbeat tells it too");
}

#[tokio::test]
async fn a_cancel_that_came_while_no_link_was_there_is_told_with_the_next_link() {
    let world = World::new().await;
    let program = world.up("a").await;
    let id = world.send("a", "work").await;
    program.call(Method::POST, "lease?wait=5", &()).await;
    let name = AgentName::new("a").unwrap();
    world.control.cancel(&world.admin(), &TenantName::default(), &name).await.unwrap();
    let (router, mut cancels) = cancels();
    program.link(router).await;
    assert_eq!(soon("the cancel", cancels.recv()).await.unwrap().message, id);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let world = World::new().await;
    let program = world.up("a").await;
    let endless = |Path(_): Path<String>| async {
        let chunk = Bytes::from(vec![7; 64 << 10]);
        Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone())))
    };
    let router = named("still here").route("/endless/{n}", get(endless));
    program.link(router).await;
    let links = &world.state.links;
    let mut unread = Vec::new();
    for n in 0..20 {
        let request = Request::get(format!("http://computer/endless/{n}")).body(Body::empty()).unwrap();
        let mut body = links.request(&program.agent, request).await.unwrap().into_body();
        soon("a first piece", body.frame()).await.unwrap().unwrap();
        unread.push(body);
    }
    assert_eq!(asked(links, &program.agent).await.unwrap(), "still here");
}

#[tokio::test]
async fn programs_are_served_over_tls_by_the_installations_own_authority() {
    let world = World::new().await;
    let program = world.up("a").await;
    let names = ["127.0.0.1".to_owned(), "raworc.test".to_owned()];
    let tls = AgentsTls::new(&world.control, &names).unwrap();
    assert_eq!(tls.ca_pem, AgentsTls::new(&world.control, &[]).unwrap().ca_pem, "the same in every process");
    let ca = tls.ca_pem.clone();
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = AgentsListener::tcp(address, tls, ListenerLimits::default()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(listener.serve(agents_router(world.state.clone()), std::future::pending()));

    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(ca.as_bytes()).unwrap()])
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://127.0.0.1:{port}/agent/v0/heartbeat");
    let answer = client.post(&url).bearer_auth(&program.token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let stranger = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
    assert!(stranger.post(&url).send().await.is_err(), "no other authority is trusted");

    // The link, over TLS too.
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::post("/agent/v0/link")
        .header(header::HOST, "raworc")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "raworc-link")
        .header(header::AUTHORIZATION, format!("Bearer {}", program.token))
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    serve_link(hyper::upgrade::on(answer).await.unwrap(), named("over tls"));
    until("the link", || async { world.state.links.is_linked(&program.agent) }).await;
    assert_eq!(asked(&world.state.links, &program.agent).await.unwrap(), "over tls");
    serving.abort();
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_one_left_behind_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run").join("socket");
    let limits = ListenerLimits::default();
    let first = AgentsListener::unix(&path, limits.clone()).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o666);
    assert_eq!(mode(path.parent().unwrap()), 0o755);
    let refused = AgentsListener::unix(&path, limits.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("another process"), "{refused}");
    drop(first);
    assert!(!path.exists());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a process that was killed leaves its socket behind");
    drop(AgentsListener::unix(&path, limits.clone()).await.unwrap());

    std::fs::write(&path, "mine").unwrap();
    let refused = AgentsListener::unix(&path, limits.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let long = directory.path().join("x".repeat(120));
    assert!(AgentsListener::unix(&long, limits).await.unwrap_err().to_string().contains("107"));
}
