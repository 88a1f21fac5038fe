//! What a collector of OpenTelemetry is told of a message's way.

#[path = "traces/collector.rs"]
mod collector;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use self::collector::{Collector, Span};
use crate::home::Home;
use crate::up::{Up, agent, until};

const SECRET: &str = "planted-and-to-be-found-in-no-span";

/// What a caller is at work on: the trace, and its own span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn up(home: &Home, collector: &str, set: &[(&str, &str)]) -> Up {
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]);
    command.env("RAWORC_TRACING__OTLP", collector);
    // What was told is looked at once the process has ended; nothing has to wait for a batch to be full.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    set.iter().for_each(|(name, value)| _ = command.env(name, value));
    Up::of(command)
}

fn token(home: &Home, up: &Up) -> String {
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("a session");
    let session: Value = serde_json::from_str(&session).expect("JSON");
    session["logins"][&up.url]["token"].as_str().expect("a token").to_owned()
}

/// Says something to ada, and waits until that is done.
fn send(home: &Home, up: &Up, text: &str, traceparent: Option<&str>) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let parts = json!({ "parts": [{ "type": "text", "text": text }] });
    let url = format!("{}/api/v0/agents/ada/messages?wait=60s", up.url);
    runtime.block_on(async {
        let mut call = reqwest::Client::new().post(url).bearer_auth(token(home, up));
        if let Some(parent) = traceparent {
            call = call.header("traceparent", parent);
        }
        let answer = call.json(&parts).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
        answer.json().await.expect("JSON")
    })
}

fn asleep(home: &Home) {
    home.run(&["agent", "create", "ada", "--wait", "-e", &format!("TOKEN={SECRET}")]).ok();
    home.run(&["agent", "sleep", "ada"]).ok();
    until("it sleeps", || agent(home, "ada")["status"]["state"] == "slept");
}

#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str, parent: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.parent == parent).collect();
    assert!(!found.is_empty(), "there is no {name:?} below {parent}: {spans:#?}");
    found[0]
}

#[track_caller]
fn commit<'a>(spans: &'a [Span], acts: &str, below: &Span) -> &'a Span {
    let is_it = |span: &&Span| {
        span.name == "commit"
            && span.parent == below.id
            && span.attribute("raworc.acts").is_some_and(|all| all.split(',').any(|act| act == acts))
    };
    spans.iter().find(is_it).unwrap_or_else(|| panic!("no commit of {acts} below {below:?}: {spans:#?}"))
}

#[test]
fn a_message_that_wakes_its_agent_is_one_trace_from_its_callers_span_to_the_reply_and_holds_no_secret() {
    let (home, collector) = (Home::new(), Collector::start());
    let up = up(&home, &collector.url, &[]);
    asleep(&home);
    let login = token(&home, &up);
    let sent = send(&home, &up, &format!("!echo $TOKEN {SECRET}"), Some(&format!("00-{TRACE}-{CALLER}-01")));
    assert_eq!(sent["state"], "done", "{sent:#}");
    assert_eq!(up.end(), Some(0));

    let spans = collector.spans();
    let all: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let accept = one(&all, "POST /api/v0/agents/{name}/messages", CALLER);
    assert_eq!(accept.attribute("http.response.status_code").as_deref(), Some("202"));
    commit(&all, "accept", accept);
    assert_eq!(sent["traceparent"], format!("00-{TRACE}-{}-01", accept.id), "what is done for it goes on from there");
    // The operator wakes its agent.
    let begun = one(&all, "begin a start", &accept.id);
    commit(&all, "begin", begun);
    let started = one(&all, "start a computer", &accept.id);
    assert_eq!(started.attribute("raworc.message").as_deref(), sent["id"].as_str());
    for call in ["engine prepare", "engine ensure", "engine start"] {
        assert_eq!(one(&all, call, &started.id).attribute("raworc.outcome").as_deref(), Some("done"));
    }
    commit(&all, "started", started);
    commit(&all, "boot", one(&all, "boot", &accept.id));
    // Its program does what was asked for.
    commit(&all, "lease", one(&all, "lease", &accept.id));
    commit(&all, "reply", one(&all, "POST /agent/v0/end", &accept.id));
    let ids: BTreeSet<_> = all.iter().map(|span| span.id.as_str()).chain([CALLER]).collect();
    assert!(all.iter().all(|span| ids.contains(span.parent.as_str())), "each is below another: {all:#?}");
    let of_process = |span: &Span| (span.service.clone(), span.role.clone(), span.instance.clone());
    let processes: BTreeSet<_> = all.iter().map(of_process).collect();
    let [(service, role, instance)] = &Vec::from_iter(processes)[..] else { panic!("one process: {all:#?}") };
    assert_eq!((service.as_str(), role.as_str(), instance.is_empty()), ("raworc", "up", false));
    let told = collector.text();
    assert!(told.contains(TRACE), "what is looked for would be found: {told}");
    for secret in [SECRET, &login, "echo"] {
        assert!(!told.contains(secret), "{secret:?} is in a span");
    }
}

#[test]
fn a_models_answer_is_within_the_call_of_the_program_that_asked_for_it() {
    let (home, collector) = (Home::new(), Collector::start());
    let model =
        [("RAWORC_MODEL__URL", collector.url.as_str()), ("RAWORC_MODEL__NAME", "m"), ("RAWORC_MODEL__WIRE", "ollama")];
    let up = up(&home, &collector.url, &model);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let sent = send(&home, &up, "nor-is-this", Some(&format!("00-{TRACE}-{CALLER}-01")));
    assert_eq!(sent["state"], "done", "{sent:#}");
    let ada = agent(&home, "ada");
    assert_eq!(up.end(), Some(0));
    let spans = collector.spans();
    let accept = one(&spans, "POST /api/v0/agents/{name}/messages", CALLER);
    let asked = one(&spans, "POST /agent/v0/gateway/api/chat", &accept.id);
    assert_eq!(asked.attribute("raworc.agent").as_deref(), ada["id"].as_str());
    let model = one(&spans, "ask the model", &asked.id);
    assert_eq!(model.attribute("raworc.model").as_deref(), Some("m"));
    assert_eq!(model.attribute("raworc.outcome").as_deref(), Some("done"));
    let told = collector.text();
    assert!(!told.contains("never-in-a-span") && !told.contains("nor-is-this"), "{told}");
}

#[test]
fn what_is_no_traceparent_is_ignored_and_the_message_has_a_trace_of_its_own() {
    let (home, collector) = (Home::new(), Collector::start());
    let up = up(&home, &collector.url, &[]);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let sent = send(&home, &up, "!true", Some(&format!("00-{TRACE}-{CALLER}-zz")));
    assert_eq!(sent["state"], "done", "{sent:#}");
    let given = sent["traceparent"].as_str().expect("it has one").to_owned();
    assert!(given.starts_with("00-") && given.ends_with("-01") && !given.contains(TRACE), "{given}");
    assert_eq!(up.end(), Some(0));
    let spans = collector.spans();
    let root = spans.iter().find(|span| given.contains(&span.id)).expect("its span is told");
    assert!(given.contains(&root.trace) && root.parent.is_empty(), "{root:#?}");
    assert_eq!(root.name, "POST /api/v0/agents/{name}/messages");
}

#[test]
fn of_a_caller_who_tells_nothing_and_of_what_is_no_sample_nothing_is_told() {
    let (home, collector) = (Home::new(), Collector::start());
    let up = up(&home, &collector.url, &[("RAWORC_TRACING__SAMPLE", "0")]);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    assert!(send(&home, &up, "!true", None)["traceparent"].as_str().expect("it has one").ends_with("-00"));
    let quiet = send(&home, &up, "!true", Some(&format!("00-{TRACE}-{CALLER}-00")));
    assert!(quiet["traceparent"].as_str().expect("it has one").starts_with(&format!("00-{TRACE}-")));
    let other = TRACE.replace('a', "b");
    send(&home, &up, "!true", Some(&format!("00-{other}-{CALLER}-01")));
    assert_eq!(up.end(), Some(0));
    let traces: BTreeSet<_> = collector.spans().into_iter().map(|span| span.trace).collect();
    assert_eq!(traces, BTreeSet::from([other]), "a caller's own choice goes first");
}

#[test]
fn a_collector_that_is_away_or_never_answers_holds_nothing_up() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    // It takes connections into its backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = format!("http://{}", silent.local_addr().expect("an address"));
    for (collector, why) in [(gone, "refused"), (mute, "timed out")] {
        let home = Home::new();
        let errors = home.path().join("errors");
        let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]);
        command.env("RAWORC_TRACING__OTLP", &collector).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        command.stderr(std::fs::File::create(&errors).expect("made"));
        let up = Up::of(command);
        asleep(&home);
        assert_eq!(send(&home, &up, "!true", None)["state"], "done");
        let said = || std::fs::read_to_string(&errors).expect("read").matches("takes no spans").count();
        until("it is said", || said() > 0);
        let ending = tokio::time::Instant::now();
        assert_eq!(up.end(), Some(0));
        assert!(ending.elapsed() < Duration::from_secs(20), "{:?}", ending.elapsed());
        assert_eq!(said(), 1, "it is said once");
        let log = std::fs::read_to_string(&errors).expect("read");
        assert!(log.contains(why), "{log}");
    }
}

#[test]
fn an_address_that_is_none_is_refused_at_the_start() {
    let home = Home::new();
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0"]);
    command.env("RAWORC_TRACING__OTLP", "collector:4318");
    let refused = crate::home::Ran::of(command.output().expect("raworc runs"));
    assert!(refused.code == 2 && refused.err.contains("tracing.otlp"), "{refused:#?}");
}
