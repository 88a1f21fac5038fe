use raworc_core::program::{ExecRequest, ExecStatus, TerminalSize};

use super::*;
use crate::processes;

impl Linked {
    async fn exec(&self, request: ExecRequest) -> String {
        self.json::<ExecStarted>("POST", "/exec", &request).await.id
    }

    async fn wait(&self, id: &str) -> i32 {
        let path = format!("/exec/{id}/wait");
        let waited = self.json::<ExecStatus>("GET", &path, &());
        timeout(Duration::from_secs(20), waited).await.expect("an end").exit_code
    }

    async fn open(&self, id: &str, name: &str) -> Incoming {
        self.send("GET", &format!("/exec/{id}/{name}"), reply::full("")).await.into_body()
    }

    async fn output(&self, id: &str, name: &str) -> String {
        let path = format!("/exec/{id}/{name}");
        let read = self.bytes("GET", &path, Bytes::new());
        let (status, bytes) = timeout(Duration::from_secs(20), read).await.expect("an end of the stream");
        assert_eq!(status, 200, "{bytes:?}");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn sh(script: &str) -> ExecRequest {
    ExecRequest { command: vec!["sh".into(), "-c".into(), script.into()], ..ExecRequest::default() }
}

/// A body that is sent piece by piece.
fn piecewise() -> (mpsc::UnboundedSender<Bytes>, Sent) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(|bytes| Ok(Frame::data(bytes)));
    (sender, StreamBody::new(stream).boxed_unsync())
}

fn pid_in(bytes: &[u8]) -> i32 {
    String::from_utf8_lossy(bytes).trim().parse().expect("a pid")
}

fn lives(pid: i32) -> bool {
    processes::all().iter().any(|process| process.pid == pid && process.state != 'Z')
}

/// Waits until a process has ended, of which the kernel tells.
async fn ended(what: &str, pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(process) => {
            let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
            let wait = move || {
                let mut ends = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut ends, Some(&limit))
            };
            assert_eq!(tokio::task::spawn_blocking(wait).await.expect("no panic"), Ok(1), "{what}");
        }
        Err(error) => assert_eq!(error, rustix::io::Errno::SRCH, "{what}"),
    }
}

/// For what `/proc` shows and nobody tells of.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), met).await.expect(what);
}

#[tokio::test]
async fn a_command_has_its_own_streams_environment_and_exit_code() {
    let linked = Linked::new().await;
    let mut request = sh("echo $AGENT_VAR $OWN; pwd; echo err >&2; exit 7");
    request.env.insert("OWN".into(), "mine".into());
    let id = linked.exec(request).await;
    let home = linked.home.path().canonicalize().expect("a directory");
    assert_eq!(linked.output(&id, "stdout").await, format!("agent's mine\n{}\n", home.display()));
    assert_eq!(linked.output(&id, "stderr").await, "err\n");
    assert_eq!(linked.wait(&id).await, 7);
    assert_eq!(linked.refused("GET", &format!("/exec/{id}/stdout"), "").await, (409, "conflict".into()));
}

#[tokio::test]
async fn input_goes_to_the_command_as_it_comes() {
    let linked = Linked::new().await;
    let script = "while read line; do echo \"<$line>\"; done; echo end";
    let id = linked.exec(ExecRequest { stdin: true, ..sh(script) }).await;
    let (input, body) = piecewise();
    let path = format!("/exec/{id}/stdin");
    let written = linked.send("PUT", &path, body);
    let output = async {
        let mut output = linked.open(&id, "stdout").await;
        input.send("one\n".into()).expect("open");
        assert_eq!(piece(&mut output).await, "<one>\n");
        drop(input);
        output.collect().await.expect("an end").to_bytes()
    };
    let (written, rest) = futures::join!(written, output);
    assert_eq!((written.status(), rest), (StatusCode::NO_CONTENT, "end\n".into()));
    assert_eq!(linked.wait(&id).await, 0);
}

#[tokio::test]
async fn a_command_on_a_terminal_sees_its_size_and_its_changes() {
    let linked = Linked::new().await;
    let terminal = Some(TerminalSize { rows: 30, cols: 100 });
    let script = "stty size; read x; stty size; echo got $x; [ -t 0 ]";
    let id = linked.exec(ExecRequest { terminal, stdin: true, ..sh(script) }).await;
    let mut output = linked.open(&id, "stdout").await;
    let mut seen = String::new();
    while !seen.contains("30 100") {
        seen.push_str(&String::from_utf8_lossy(&piece(&mut output).await));
    }
    let size = serde_json::to_vec(&TerminalSize { rows: 5, cols: 6 }).expect("JSON");
    assert_eq!(linked.bytes("POST", &format!("/exec/{id}/resize"), size).await.0, 204);
    assert_eq!(linked.bytes("PUT", &format!("/exec/{id}/stdin"), "hello\r").await.0, 204);
    seen.push_str(&String::from_utf8_lossy(&output.collect().await.expect("an end").to_bytes()));
    assert!(seen.contains("5 6") && seen.contains("got hello"), "{seen:?}");
    assert_eq!(linked.wait(&id).await, 0);
}

#[tokio::test]
async fn an_ended_command_is_gone_with_all_its_children() {
    let linked = Linked::new().await;
    let id = linked.exec(sh("sleep 1000 & echo $!; wait")).await;
    let mut output = linked.open(&id, "stdout").await;
    let pid = pid_in(&piece(&mut output).await);
    assert_eq!(linked.bytes("DELETE", &format!("/exec/{id}"), "").await.0, 204);
    ended("sleep lives on", pid).await;
    assert!(output.collect().await.is_ok(), "the stream comes to its end");
    assert_eq!(linked.refused("DELETE", &format!("/exec/{id}"), "").await, (404, "not_found".into()));
}

#[tokio::test]
async fn a_command_whose_output_nobody_reads_waits_in_a_bounded_space() {
    let linked = Linked::new().await;
    let id = linked.exec(sh("echo $$ >&2; exec head -c 1000000000 /dev/zero")).await;
    let pid = pid_in(&piece(&mut linked.open(&id, "stderr").await).await);
    let mut output = linked.open(&id, "stdout").await;
    piece(&mut output).await;
    // Asleep in the middle of its output: the stream's window and the pipe are full.
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut before = 0;
    until("head never waits", || {
        let (last, now) = (before, written());
        before = now;
        now > 0 && now == last && processes::all().iter().any(|p| p.pid == pid && p.state == 'S')
    })
    .await;
    assert!(before < 16 << 20, "{before}");
    assert_eq!(linked.bytes("DELETE", &format!("/exec/{id}"), "").await.0, 204);
    ended("head lives on", pid).await;
}

#[tokio::test]
async fn a_background_job_does_not_hold_the_streams_of_its_command() {
    let linked = Linked::new().await;
    let id = linked.exec(sh("sleep 1000 & echo $!")).await;
    let pid = pid_in(linked.output(&id, "stdout").await.as_bytes());
    assert_eq!(linked.wait(&id).await, 0);
    assert_eq!(linked.bytes("DELETE", &format!("/exec/{id}"), "").await.0, 204);
    assert!(lives(pid), "the job was ended");
    let id = linked.exec(sh(&format!("kill {pid}"))).await;
    assert_eq!(linked.wait(&id).await, 0);
    ended("the job lives on", pid).await;
}

#[tokio::test]
async fn commands_end_with_the_link_that_they_were_started_over() {
    let linked = Linked::new().await;
    let id = linked.exec(sh("echo $$; exec sleep 1000")).await;
    let mut output = linked.open(&id, "stdout").await;
    let pid = pid_in(&piece(&mut output).await);
    drop((linked, output));
    ended("sleep lives on", pid).await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let linked = Linked::new().await;
    let start = |request: ExecRequest| serde_json::to_vec(&request).expect("JSON");
    let missing = ExecRequest { command: vec!["no-such-program".into()], ..ExecRequest::default() };
    assert_eq!(linked.refused("POST", "/exec", start(missing)).await, (404, "command_not_found".into()));
    let nowhere = ExecRequest { cwd: Some("no/where".into()), ..sh("true") };
    assert_eq!(linked.refused("POST", "/exec", start(nowhere)).await, (404, "not_found".into()));
    assert_eq!(linked.refused("POST", "/exec", start(ExecRequest::default())).await, (400, "invalid".into()));
    assert_eq!(linked.refused("POST", "/exec", "{").await, (400, "invalid".into()));
    assert_eq!(linked.refused("GET", "/exec/0/wait", "").await, (404, "not_found".into()));
}
