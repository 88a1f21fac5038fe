//! What a served installation is told and asked, where it is slow, lost, or asked oddly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc;

use insta::assert_snapshot;
use rustix::process::{Pid, Signal};

use crate::home::{Home, Ran};
use crate::up::{Up, agent, processes_with, until};

/// The exit code of a child that ends by itself.
#[track_caller]
fn ended(child: &mut Child) -> Option<i32> {
    let mut status = None;
    until("it ends by itself", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    status.and_then(|status| status.code())
}

#[test]
fn a_text_is_sent_though_standard_input_stays_open_and_a_dash_reads_it() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let mut command = home.raworc(&["send", "ada", "--no-steps", "!echo", "heard"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("raworc runs");
    // As with cron and ssh: nobody writes, and nobody closes.
    let _open = child.stdin.take().expect("a pipe");
    assert_eq!(ended(&mut child), Some(0));
    let mut out = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("UTF-8");
    assert_eq!(out, "heard\n");
    let both = home.run_with_input(&["send", "ada", "--no-steps", "!echo of text and", "-"], "echo of a pipe\n").ok();
    assert_eq!(both, "of text and\nof a pipe\n");
    assert_eq!(home.run_with_input(&["send", "ada", "--no-steps", "-"], "!echo alone\n").ok(), "alone\n");
}

#[test]
fn a_name_is_free_once_its_agent_is_said_to_be_deleted() {
    let home = Home::new();
    let _up = Up::start(&home);
    for _ in 0..5 {
        home.run(&["agent", "create", "ada", "--wait"]).ok();
        assert_eq!(home.run(&["agent", "delete", "ada"]).ok(), "agent ada deleted\n");
    }
}

#[test]
fn a_delete_waits_unless_it_is_told_not_to() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = |args: &[&str]| {
        let mut command = home.raworc(&[&["agent", "delete", "ada", "--server", &server], args].concat());
        let mut child = command.env("RAWORC_TOKEN", "t").stderr(Stdio::null()).spawn().expect("raworc runs");
        let (near, _) = listener.accept().expect("a call");
        let mut line = String::new();
        BufReader::new(near).read_line(&mut line).expect("a request");
        child.kill().expect("killed");
        child.wait().expect("it is gone");
        line
    };
    assert_eq!(asked(&[]), "DELETE /api/v0/agents/ada?wait=120000ms HTTP/1.1\r\n");
    assert_eq!(asked(&["--no-wait"]), "DELETE /api/v0/agents/ada HTTP/1.1\r\n");
}

#[test]
fn a_directory_does_not_go_to_standard_output() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "!mkdir out; echo kept > out/note"]).ok();
    assert_snapshot!(home.run(&["agent", "cp", "ada:/agent/out", "-"]).shown(&home), @r"
    exit: 2
    -- out
    -- err
    error: ada:/agent/out is a directory, and standard output takes a file
    hint: copy it to a directory here: raworc agent cp ada:/agent/out DIRECTORY
    hint: or have it packed: raworc agent exec ada -- tar c -C /agent/out . > FILE.tar
    ");
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, signal).expect("signalled");
}

#[test]
fn a_message_that_is_taken_up_again_by_the_next_server_says_so() {
    let home = Home::new();
    let first = Up::start(&home);
    let address = first.url.trim_start_matches("http://").to_owned();
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    // The first attempt hangs in a sleep that nothing else on this machine sleeps; the second answers.
    let seconds = format!("7{:09}", std::process::id());
    let work = format!("!echo run >> runs; [ $(wc -l < runs) -gt 1 ] || sleep {seconds}; echo finished");
    let mut command = home.raworc(&["send", "ada", &work]);
    let sent = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs");
    until("the work has begun", || processes_with(&seconds) > 0);
    // It looks again only once all is over.
    signal(&sent, Signal::STOP);
    first.kill();
    let second = Up::of(home.raworc(&["up", "--listen", &address, "-o", "json", "--log", "warn"]));
    until("the message is done", || home.run(&["history", "ada"]).ok().contains("\nfinished"));
    signal(&sent, Signal::CONT);
    let sent = Ran::of(sent.wait_with_output().expect("it ends"));
    assert_eq!((sent.code, sent.out.as_str()), (0, "finished\n"), "{sent:#?}");
    let notes = sent.err.matches("# the computer was lost; the message is taken up again").count();
    assert_eq!(notes, 1, "{sent:#?}");
    assert_eq!(second.end(), Some(0));
}

/// What a shell would offer for the last of these words, but for options.
fn offered(home: &Home, words: &[&str]) -> String {
    let mut command = home.raworc(&[&["--"], words].concat());
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    let offered = Ran::of(command.output().expect("raworc runs")).ok();
    offered.lines().filter(|word| !word.starts_with("--")).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_shell_is_offered_the_names_of_the_agents_of_the_server_that_is_spoken_to() {
    let home = Home::new();
    let up = Up::start(&home);
    home.run(&["agent", "create", "ada"]).ok();
    home.run(&["agent", "create", "bob"]).ok();
    assert_eq!(offered(&home, &["raworc", "send", ""]), "ada bob");
    assert_eq!(offered(&home, &["raworc", "agent", "sleep", "b"]), "bob");
    // The latest login was elsewhere.
    let file = home.path().join(".config/raworc/session.json");
    let mut session: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("logged in")).expect("JSON");
    session["server"] = "http://127.0.0.1:1".into();
    std::fs::write(&file, session.to_string()).expect("written");
    assert_eq!(offered(&home, &["raworc", "history", "a"]), "");
    assert_eq!(offered(&home, &["raworc", "--server", &up.url, "history", "a"]), "ada");
    let assigned = format!("--server={}", up.url);
    assert_eq!(offered(&home, &["raworc", "agent", "get", &assigned, "b"]), "bob");
    // bash takes an address apart.
    let address = up.url.trim_start_matches("http://127.0.0.1:");
    assert_eq!(offered(&home, &["raworc", "--server", "http", ":", "//127.0.0.1", ":", address, "send", "a"]), "ada");
}

#[test]
fn whoever_waits_at_a_terminal_for_a_server_sees_for_what() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    // Accepts by itself, and never answers.
    let cases: [(&[&str], &str); 11] = [
        (&["status"], "asking"),
        (&["logout"], "logging out"),
        (&["history", "ada"], "reading"),
        (&["events"], "reading the log"),
        (&["agent", "get", "ada"], "asking for ada"),
        (&["agent", "explain", "ada"], "asking about ada"),
        (&["agent", "cancel", "ada"], "cancelling"),
        (&["agent", "keep-awake", "ada", "--for", "1h"], "keeping ada awake"),
        (&["agent", "edit", "ada", "--description", "x"], "changing ada"),
        (&["agent", "logs", "ada"], "reading the log of ada"),
        (&["agent", "delete", "ada", "--yes"], "deleting ada"),
    ];
    let config = home.path().join(".config/raworc");
    std::fs::create_dir_all(&config).expect("made");
    for (args, expected) in cases {
        let login = serde_json::json!({ "server": server, "logins": { &server: { "user": "ann", "token": "t" } } });
        std::fs::write(config.join("session.json"), login.to_string()).expect("written");
        let shown = shown_on_a_terminal(&home, args, expected);
        assert!(shown.contains(expected), "{args:?}: {shown:?}");
    }
}

/// What a command shows on a terminal, until it is what was expected, or for a time in which any spinner is there.
pub(crate) fn shown_on_a_terminal(home: &Home, args: &[&str], expected: &str) -> String {
    let words: Vec<_> = args.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("exec '{}' {}", env!("CARGO_BIN_EXE_raworc"), words.join(" "));
    let mut command = home.program("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    // Whatever runs these tests may have no terminal of its own.
    command.env("TERM", "xterm");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1) of util-linux is there");
    let mut keys = child.stdin.take().expect("a pipe");
    let mut out = child.stdout.take().expect("a pipe");
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut buffer) {
            let _ = tell.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
    });
    let mut shown = String::new();
    while !shown.contains(expected) {
        match told.recv_timeout(std::time::Duration::from_secs(10)) {
            Ok(text) => shown.push_str(&text),
            Err(_) => break,
        }
    }
    // Ctrl-C, as a person would.
    let _ = keys.write_all(b"\x03");
    drop(keys);
    let _ = child.wait();
    reader.join().expect("read to its end");
    shown
}

#[test]
fn a_message_that_is_sent_again_under_its_key_is_followed_to_the_same_end() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    for _ in 0..2 {
        let text = "!echo once >> log; cat log";
        let args = ["send", "ada", "--no-steps", "--timeout", "20s", "--idempotency-key", "k", text];
        assert_eq!(home.run(&args).ok(), "once\n");
    }
}

#[test]
fn an_option_after_the_text_is_an_option_and_a_text_that_begins_like_one_goes_after_two_dashes() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let ran = home.run(&["send", "ada", "!echo heard", "--no-steps"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "heard\n", ""));
    let mistaken = home.run(&["send", "ada", "!echo", "-n", "heard"]);
    assert!(mistaken.code == 2 && mistaken.err.contains("-- -n"), "{mistaken:#?}");
    assert_eq!(home.run(&["send", "ada", "--no-steps", "--", "!echo", "--no-wait"]).ok(), "--no-wait\n");
}

#[test]
fn a_log_that_is_followed_keeps_nobody_awake_and_ends_when_its_agent_sleeps() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait", "--idle-timeout", "15s"]).ok();
    let mut command = home.raworc(&["agent", "logs", "ada", "--follow"]);
    let followed = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("raworc runs");
    let ended = Ran::of(followed.wait_with_output().expect("it ends"));
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:#?}");
    assert_eq!(agent(&home, "ada")["status"]["state"], "slept");
}

#[test]
fn the_history_in_json_has_the_steps_that_were_asked_for() {
    let home = Home::new();
    let _up = Up::start(&home);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    home.run(&["send", "ada", "!seq 30"]).ok();
    let history = |args: &[&str]| -> Vec<serde_json::Value> {
        let out = home.run(&[&["history", "ada", "-o", "json"], args].concat()).ok();
        serde_json::from_str(&out).expect("JSON")
    };
    let with = history(&["--steps"]);
    let kinds: Vec<_> = with[0]["steps"].as_array().expect("steps").iter().map(|step| step["kind"].clone()).collect();
    assert_eq!(kinds, ["tool_call", "tool_result"]);
    assert!(with[0]["steps"][1]["text"].as_str().expect("text").starts_with("1\n2\n"), "whole: {with:#?}");
    assert!(with[1]["reply_to"] == with[0]["id"] && with[1].get("steps").is_none(), "{with:#?}");
    assert!(history(&[]).iter().all(|message| message.get("steps").is_none()));
}
