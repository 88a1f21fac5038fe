//! The whole program against an agents' listener that fails as it is asked to.

mod fake;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake::{Answer, Fake, boot_line, lease};
use http::Request;
use http_body_util::{BodyExt, Full};
use raworc_agent::{Ended, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

struct Program(JoinHandle<Ended>);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Program {
    fn start(fake: &Fake) -> Self {
        Self::boot(fake, fake.boot_line())
    }

    fn boot(fake: &Fake, line: String) -> Self {
        Self::boot_in(&fake.home(), line)
    }

    fn boot_in(home: &Path, line: String) -> Self {
        let options = Options::default().with_home(home);
        Self(tokio::spawn(async move {
            let Err(ended) = raworc_agent::run(line.as_bytes(), options).await;
            ended
        }))
    }

    async fn ended(mut self) -> Ended {
        timeout(Duration::from_secs(20), &mut self.0).await.expect("an end").expect("no panic")
    }
}

fn says(text: &str) -> Value {
    json!({ "message": { "role": "assistant", "content": text }, "done": false })
}

fn calls(command: &str) -> Value {
    let function = json!({ "name": "shell", "arguments": { "command": command } });
    json!({ "message": { "role": "assistant", "content": "", "tool_calls": [{ "function": function }] }, "done": false })
}

fn done() -> Value {
    json!({ "message": { "role": "assistant", "content": "" }, "done": true, "done_reason": "stop" })
}

#[tokio::test]
async fn a_command_is_answered_in_one_call_with_its_steps() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!echo $AGENT_VAR; pwd", false));
    let end = fake.nth("end", 0).await;
    let output = format!("agent's\n{}\n", fake.home().display());
    assert_eq!(end["ending"], "done");
    assert_eq!(end["reply"][0]["text"], output);
    assert_eq!(end["steps"][0], json!({ "kind": "tool_call", "tool": "shell", "text": "echo $AGENT_VAR; pwd" }));
    assert_eq!(end["steps"][1], json!({ "kind": "tool_result", "tool": "shell", "text": output }));
    assert_eq!(fake.told("steps"), [] as [Value; 0]);
    let boot = &fake.told("boot")[0];
    assert_eq!((&boot["key"], &boot["incarnation"]), (&json!("once"), &json!(3)));
    assert_eq!(fake.told("setup"), [] as [Value; 0], "there was none");
}

#[tokio::test]
async fn what_is_done_for_a_message_belongs_to_its_trace_and_nothing_else_does() {
    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fake = Fake::start();
    let _program = Program::start(&fake);
    let mut traced = lease(1, "hello", true);
    traced["message"]["traceparent"] = GIVEN.into();
    fake.state().answers.extend([vec![calls("echo hi"), done()], vec![says("hi"), done()]].map(Answer::Lines));
    fake.queue(traced);
    fake.nth("end", 0).await;
    let told = fake.state().traced.clone();
    assert!(told.iter().all(|(_, parent)| parent == GIVEN), "{told:?}");
    let paths: Vec<_> = told.iter().map(|(path, _)| path.as_str()).filter(|path| *path != "steps").collect();
    assert_eq!(paths, ["gateway/api/chat", "gateway/api/chat", "end"]);
    // One that nobody traces does not go on in the trace of the one before.
    fake.queue(lease(2, "!true", false));
    fake.nth("end", 1).await;
    assert_eq!(fake.state().traced.len(), told.len());
}

/// What the program has said of its volume, in order, and when it asked for messages.
fn said_of_the_volume(fake: &Fake) -> Vec<Option<Value>> {
    let told = fake.state().told.clone();
    let of = |(path, body): (String, Value)| match path.as_str() {
        "heartbeat" => body.get("disk_used").cloned().map(Some),
        "lease" => Some(None),
        _ => None,
    };
    told.into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn what_the_volume_holds_is_told_before_the_first_message_is_asked_for_and_after_each() {
    let fake = Fake::start();
    std::fs::create_dir(fake.home()).expect("a home");
    std::fs::write(fake.home().join("large"), vec![7; 3 << 20]).expect("written");
    fake.state().disk_limit = Some(2 << 20);
    let _program = Program::start(&fake);
    fake.until("a lease", |state| state.told.iter().any(|(path, _)| path == "lease").then_some(())).await;
    let said = said_of_the_volume(&fake);
    assert!(said[0].as_ref().and_then(Value::as_u64).is_some_and(|used| used > 3 << 20), "{said:?}");
    fake.queue(lease(1, "!rm large", false));
    fake.nth("end", 0).await;
    let freed = |state: &fake::State| {
        let last = state
            .told
            .iter()
            .rev()
            .find_map(|(path, body)| Some(body.get("disk_used")?).filter(|_| path == "heartbeat"));
        last.and_then(Value::as_u64).is_some_and(|used| used < 2 << 20).then_some(())
    };
    fake.until("that there is room", freed).await;
}

#[tokio::test]
async fn a_server_that_asks_for_no_measure_is_told_none_and_messages_do_not_wait() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!true", false));
    fake.nth("end", 0).await;
    fake.nth("heartbeat", 1).await;
    assert!(fake.told("heartbeat").iter().all(|beat| *beat == json!({})), "{:?}", fake.told("heartbeat"));
}

#[tokio::test]
async fn a_limit_that_is_set_while_the_program_runs_is_learned_by_its_next_sign_of_life() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    fake.nth("heartbeat", 0).await;
    fake.state().disk_limit = Some(2 << 20);
    let told = |state: &fake::State| {
        state.told.iter().any(|(path, body)| path == "heartbeat" && body["disk_used"].is_u64()).then_some(())
    };
    fake.until("a measure", told).await;
}

#[tokio::test]
async fn a_report_whose_answer_was_lost_is_sent_again_under_the_same_id() {
    let fake = Fake::start();
    fake.state().lose.extend([("end".into(), 2), ("steps".into(), 1)]);
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!echo begun; until [ -e go ]; do sleep 0.01; done", false));
    fake.queue(lease(2, "!echo two", false));
    fake.nth("steps", 1).await;
    std::fs::write(fake.home().join("go"), "").expect("written");
    fake.nth("end", 3).await;
    let ends = fake.told("end");
    assert!(ends[0] == ends[1] && ends[1] == ends[2], "{ends:#?}");
    assert_ne!(ends[2]["commit"], ends[3]["commit"]);
    let steps = fake.told("steps");
    assert_eq!(steps.len(), 2, "{steps:#?}");
    assert_eq!(steps[0], steps[1]);
    assert_eq!(steps[0]["steps"][0]["kind"], "tool_call");
    assert_eq!(ends[0]["steps"].as_array().map(Vec::len), Some(1), "only the result was left: {ends:#?}");
}

/// A pipe in the agent's home, which can be read once a command has touched it or written to it.
fn pipe(fake: &Fake, name: &str) -> tokio::net::unix::pipe::Receiver {
    std::fs::create_dir_all(fake.home()).expect("a home");
    let path = fake.home().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("a pipe");
    tokio::net::unix::pipe::OpenOptions::new().open_receiver(&path).expect("a pipe")
}

#[tokio::test]
async fn work_goes_on_while_the_server_is_away_and_is_told_when_it_is_back() {
    let mut fake = Fake::start();
    let _program = Program::start(&fake);
    fake.until("the first link", |state| (state.links == 1).then_some(())).await;
    let (begun, ended) = (pipe(&fake, "begun"), pipe(&fake, "ended"));
    fake.queue(lease(1, "!touch begun; while [ ! -e go ]; do sleep 0.01; done; touch ended", false));
    let home = fake.home();
    begun.readable().await.expect("touched");
    let meanwhile = async {
        std::fs::write(home.join("go"), "").expect("written");
        ended.readable().await.expect("touched");
    };
    fake.restart(meanwhile).await;
    let back = Instant::now();
    assert_eq!(fake.nth("end", 0).await["ending"], "done");
    fake.until("the second link", |state| (state.links == 2).then_some(())).await;
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    fake.queue(lease(2, "!echo again", false));
    assert_eq!(fake.nth("end", 1).await["reply"][0]["text"], "again\n");
}

#[tokio::test]
async fn the_model_works_with_tools_and_the_conversation_outlives_the_program() {
    let fake = Fake::start();
    fake.state().answers.extend([
        Answer::Lines(vec![calls("echo 6 > n; cat n"), done()]),
        Answer::Lines(vec![says("It "), says("is 6."), done()]),
    ]);
    let program = Program::start(&fake);
    fake.queue(lease(1, "write six", true));
    assert_eq!(fake.nth("end", 0).await["reply"][0]["text"], "It is 6.");
    let words: String =
        fake.told("deltas").iter().map(|delta| delta["text"].as_str().expect("text").to_owned()).collect();
    assert!("It is 6.".starts_with(&words), "{words}");
    drop(program);

    fake.state().answers.push_back(Answer::Lines(vec![says("Six."), done()]));
    let _program = Program::start(&fake);
    fake.queue(lease(2, "what was it?", true));
    assert_eq!(fake.nth("end", 1).await["reply"][0]["text"], "Six.");
    let asked = fake.told("gateway/api/chat")[2]["messages"].clone();
    let said: Vec<&str> =
        asked.as_array().expect("messages").iter().filter_map(|turn| turn["content"].as_str()).collect();
    assert_eq!(said[1..], ["write six", "", "6\n", "It is 6.", "what was it?"]);
}

#[tokio::test]
async fn a_model_that_is_not_there_ends_the_message_with_the_reason() {
    let fake = Fake::start();
    let down = Answer::Error(503, json!({ "error": { "code": "upstream", "message": "ollama is down" } }));
    fake.state().answers.extend([down.clone(), down]);
    let _program = Program::start(&fake);
    fake.queue(lease(1, "hello", true));
    let reason = fake.nth("end", 0).await["ending"]["failed"]["reason"].clone();
    assert!(reason.as_str().expect("a reason").contains("ollama is down"), "{reason}");
}

#[tokio::test]
async fn a_cancel_over_the_link_ends_a_command_within_seconds() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    let mut link = fake.until("a link", |state| state.link.clone()).await;
    fake.queue(lease(1, "!touch begun; sleep 1000", false));
    fake.nth("steps", 0).await;
    let begun = Instant::now();
    let body = json!({ "message": lease(1, "", false)["message"]["id"] }).to_string();
    let request = Request::post("http://computer/cancel").body(Full::new(Bytes::from(body))).expect("a request");
    assert_eq!(link.send_request(request).await.expect("an answer").status(), 204);
    assert_eq!(fake.nth("end", 0).await["ending"], "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    fake.queue(lease(2, "!echo alive", false));
    assert_eq!(fake.nth("end", 1).await["reply"][0]["text"].as_str().expect("text").lines().next(), Some("alive"));
}

#[tokio::test]
async fn a_cancel_by_heartbeat_hangs_up_on_a_model_that_is_stuck() {
    let fake = Fake::start();
    fake.state().answers.push_back(Answer::Stuck(says("Well")));
    let _program = Program::start(&fake);
    fake.queue(lease(1, "hello", true));
    fake.nth("deltas", 0).await;
    fake.state().cancel = Some(lease(1, "", false)["message"]["id"].clone());
    assert_eq!(fake.nth("end", 0).await["ending"], "cancelled");
}

#[tokio::test]
async fn a_message_that_was_cancelled_before_it_is_leased_again_is_not_begun() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    let mut cancelled = lease(1, "!touch never; sleep 1000", false);
    cancelled["message"]["cancel_requested"] = json!(true);
    fake.queue(cancelled);
    assert_eq!(fake.nth("end", 0).await["ending"], "cancelled");
    // By now it would have been.
    fake.queue(lease(2, "!echo second; ls", false));
    assert_eq!(fake.nth("end", 1).await["reply"][0]["text"], "second\n");
}

#[tokio::test]
async fn commands_run_over_the_link() {
    let fake = Fake::start();
    let _program = Program::start(&fake);
    let mut link = fake.until("a link", |state| state.link.clone()).await;
    let mut ask = async |method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("http://computer{path}"));
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        link.ready().await.expect("a link");
        let answer = link.send_request(request).await.expect("an answer");
        answer.into_body().collect().await.expect("a whole answer").to_bytes()
    };
    let started = ask("POST", "/exec", json!({ "command": ["sh", "-c", "echo $AGENT_VAR"] })).await;
    let started: Value = serde_json::from_slice(&started).expect("JSON");
    let id = started["id"].as_str().expect("an id");
    assert_eq!(ask("GET", &format!("/exec/{id}/stdout"), Value::Null).await, "agent's\n");
    assert_eq!(ask("GET", &format!("/exec/{id}/wait"), Value::Null).await, r#"{"exit_code":0}"#);
}

#[tokio::test]
async fn the_program_ends_itself_when_a_newer_one_has_begun() {
    let fake = Fake::start();
    let program = Program::start(&fake);
    fake.nth("heartbeat", 0).await;
    fake.state().stale = true;
    assert!(matches!(program.ended().await, Ended::Stale));
}

#[tokio::test]
async fn a_program_does_not_begin_before_the_one_in_the_same_home_has_ended() {
    let (fake, next) = (Fake::start(), Fake::start());
    let program = Program::start(&fake);
    fake.nth("boot", 0).await;
    let _second = Program::boot_in(&fake.home(), next.boot_line());
    fake.nth("heartbeat", 1).await;
    assert_eq!(next.told("boot"), [] as [Value; 0]);
    fake.state().stale = true;
    assert!(matches!(program.ended().await, Ended::Stale));
    next.nth("boot", 0).await;
}

#[tokio::test]
async fn the_setup_runs_before_the_first_message_with_its_output_as_steps() {
    let fake = Fake::start();
    fake.state().setup = Some(json!({ "script": "echo one; echo two >&2; touch made", "hash": "h", "limit": 60 }));
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!ls", false));
    assert_eq!(fake.nth("end", 0).await["reply"][0]["text"], "made\n");
    let told: Vec<String> = fake.state().told.iter().map(|(path, _)| path.clone()).collect();
    let place = |wanted: &str| told.iter().position(|path| path == wanted).expect(wanted);
    assert!(place("steps") < place("setup") && place("setup") < place("end"), "{told:?}");
    assert_eq!(fake.told("setup"), [json!({ "hash": "h", "failure": null })]);
    let steps = &fake.told("steps")[0];
    assert_eq!((&steps["message"], &steps["steps"][0]["kind"]), (&Value::Null, &json!("log")));
    assert_eq!(steps["steps"][0]["text"], "one\ntwo\n");
}

#[tokio::test]
async fn a_setup_that_fails_tells_its_end_and_takes_no_message() {
    let fake = Fake::start();
    let script = "seq 100000; false; echo never";
    fake.state().setup = Some(json!({ "script": script, "hash": "h", "limit": 60 }));
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!ls", false));
    let setup = fake.nth("setup", 0).await;
    let failure = setup["failure"].as_str().expect("a failure");
    assert!(failure.ends_with("99999\n100000\n[setup failed: exit code 1]"), "{failure}");
    assert!((4000..4400).contains(&failure.len()), "{}", failure.len());
    fake.nth("heartbeat", 1).await;
    assert!(fake.state().held.is_none(), "a message was taken");
}

#[tokio::test]
async fn a_setup_over_its_time_is_ended_with_all_that_it_has_started() {
    let fake = Fake::start();
    fake.state().setup = Some(json!({ "script": "echo $$; sleep 1000 | sleep 1000", "hash": "h", "limit": 1 }));
    let _program = Program::start(&fake);
    let setup = fake.nth("setup", 0).await;
    let failure = setup["failure"].as_str().expect("a failure");
    assert!(failure.ends_with("[setup failed: it was ended after 1 s, its limit]"), "{failure}");
    let pid = failure.lines().next().expect("a pid");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_setup_that_prints_without_end_is_ended_at_its_limit() {
    let fake = Fake::start();
    fake.state().setup = Some(json!({ "script": "yes", "hash": "h", "limit": 1 }));
    let _program = Program::start(&fake);
    let setup = fake.nth("setup", 0).await;
    let failure = setup["failure"].as_str().expect("a failure");
    assert!(failure.ends_with("y\n[setup failed: it was ended after 1 s, its limit]"), "{failure}");
    let steps = fake.told("steps");
    let bytes: usize = steps.iter().map(|report| report.to_string().len()).sum();
    assert!(bytes < 3 << 20, "{bytes}");
}

#[tokio::test]
async fn the_listener_is_reached_over_tls_by_its_own_authority_alone() {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certified.cert.der().clone()], key).expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let fake = Fake::start();
    let socket = fake.socket();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut inner = tokio::net::UnixStream::connect(&socket).await.expect("the listener");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut inner).await });
        }
    });
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let elsewhere = fake.directory.path().join("elsewhere");
    let stranger = Program::boot_in(&elsewhere, boot_line(&url, Some(other.cert.pem())));
    let _program = Program::boot(&fake, boot_line(&url, Some(certified.cert.pem())));
    fake.queue(lease(1, "!echo over tls", false));
    assert_eq!(fake.nth("end", 0).await["reply"][0]["text"], "over tls\n");
    assert_eq!(fake.told("boot").len(), 1, "the other's certificate was believed");
    drop(stranger);
    serving.abort();
}

#[tokio::test]
async fn the_binary_ends_at_once_and_in_success_when_it_is_asked_to() {
    use tokio::io::AsyncWriteExt;
    let fake = Fake::start();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_raworc-agentd"))
        .env("RAWORC_HOME", fake.home())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(fake.boot_line().as_bytes()).await.expect("written");
    let mut told = BufReader::new(pipe(&fake, "pid"));
    fake.queue(lease(1, "!echo $$ >pid; sleep 1000", false));
    fake.nth("steps", 0).await;
    told.get_ref().readable().await.expect("a shell");
    let mut shell = String::new();
    told.read_line(&mut shell).await.expect("its pid");
    let shell = rustix::process::Pid::from_raw(shell.trim().parse().expect("a pid")).expect("a pid");
    let shell = rustix::process::pidfd_open(shell, rustix::process::PidfdFlags::empty()).expect("it runs");
    let program = rustix::process::Pid::from_raw(child.id().expect("a pid").try_into().expect("a pid"));
    rustix::process::kill_process(program.expect("a pid"), rustix::process::Signal::TERM).expect("a signal");
    let status = timeout(Duration::from_secs(5), child.wait()).await.expect("an end").expect("an end");
    assert_eq!(status.code(), Some(0));
    let mut ends = [rustix::event::PollFd::new(&shell, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut ends, Some(&limit)), Ok(1), "its shell lives on");
    assert_eq!(fake.told("end"), [] as [Value; 0]);
}

#[tokio::test]
async fn an_answer_that_is_refused_fails_its_message_instead_of_being_worked_on_again() {
    let fake = Fake::start();
    fake.state().refuse_end = 1;
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!echo x", false));
    let reason = fake.nth("end", 1).await["ending"]["failed"]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("could not be recorded: no")), "{reason}");
    fake.queue(lease(2, "!echo y", false));
    assert_eq!(fake.nth("end", 2).await["reply"][0]["text"], "y\n");
}

#[tokio::test]
async fn a_report_that_is_refused_fails_its_message_which_is_not_done_again() {
    let fake = Fake::start();
    fake.state().refuse_steps = 1;
    // Not even the failure is taken at first.
    fake.state().refuse_end = 3;
    let _program = Program::start(&fake);
    fake.queue(lease(1, "!echo run >>runs; sleep 1000", false));
    let end = fake.nth("end", 3).await;
    let reason = end["ending"]["failed"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("could not be recorded: no steps"), "{reason}");
    assert_eq!((&end["message"], &end["reply"]), (&lease(1, "", false)["message"]["id"], &Value::Null));
    fake.queue(lease(2, "!cat runs", false));
    assert_eq!(fake.nth("end", 4).await["reply"][0]["text"], "run\n");
    // What was running was ended.
    let processes = std::fs::read_dir("/proc").expect("a list").flatten();
    let cwd = processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    assert_eq!(cwd.filter(|cwd| *cwd == fake.home()).count(), 1, "only the shell is there");
}
