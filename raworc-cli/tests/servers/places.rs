//! Operators and the places where computers are.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::home::Ran;
use crate::up::{Up, until};
use crate::{Installation, away};

pub(crate) fn each_engine_has_its_name(installation: &Installation) {
    let server = installation.server("server");
    let here = installation.operator("here");
    let mut elsewhere = installation.command("operator", "elsewhere");
    let refused = Ran::of(elsewhere.output().expect("raworc runs"));
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(
        refused.err.contains("local is the name of another engine") && refused.err.contains("local.name"),
        "{refused:#?}"
    );

    let there = Up::of({
        let mut command = installation.command("operator", "elsewhere");
        command.env("RAWORC_LOCAL__NAME", "elsewhere");
        command
    });
    let at = installation.at(&server);
    for (name, runtime) in [("ada", "local"), ("bob", "elsewhere")] {
        until("it is made", || at.run(&["agent", "create", name, "--runtime", runtime, "--wait"]).code == 0);
        assert_eq!(at.ok(&["send", name, "!pwd", "--no-steps"]), "/agent\n");
    }
    // One operator leaves: its agents say so, and those of the other go on.
    assert_eq!(there.end(), Some(0));
    until("it is told", || {
        at.ok(&["agent", "explain", "bob"]).contains("no operator looks after the runtime elsewhere")
    });
    assert!(!at.ok(&["agent", "explain", "ada"]).contains("no operator"));
    assert_eq!(at.ok(&["send", "ada", "!pwd", "--no-steps"]), "/agent\n");
    assert_eq!(here.end(), Some(0));
}

pub(crate) fn an_operator_says_how_it_is(installation: &Installation) {
    let mut command = installation.command("operator", "operator");
    command.args(["--listen", "127.0.0.1:0"]);
    let operator = Up::of(command);
    let address = operator.started["health"].as_str().and_then(|url| url.strip_prefix("http://")).expect("an address");
    let get_with = |path: &str, header: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: raworc\r\n{header}Connection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let get = |path: &str| get_with(path, "");
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    let ready = get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""operator":"ok""#), "{ready}");
    assert!(get("/metrics").starts_with("HTTP/1.1 401"), "figures are for admins");
    assert!(get("/api/v0/agents").starts_with("HTTP/1.1 404"), "it serves no API");

    let server = installation.server("server");
    let at = installation.at(&server);
    until("it is made", || at.run(&["agent", "create", "ada", "--wait"]).code == 0);
    at.ok(&["agent", "sleep", "ada"]);
    let token = away::token(installation, &server.url);
    let figures = get_with("/metrics", &format!("Authorization: Bearer {token}\r\n"));
    assert!(figures.starts_with("HTTP/1.1 200"), "{figures}");
    let call = |call: &str| {
        let name = format!(r#"raworc_engine_call_seconds_count{{runtime="local",call="{call}",outcome="done"}} "#);
        figures.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    };
    assert_eq!(call("start"), Some("1".into()), "{figures}");
    // Once more where a look read the agent before its end was written, and asked what is under way after that.
    assert!(["1", "2"].map(|count| Some(count.to_owned())).contains(&call("stop")), "{figures}");
    for name in
        ["raworc_operator_queue", "raworc_operator_due", "raworc_engine_waiting", "raworc_store_commit_seconds_count"]
    {
        assert!(figures.lines().any(|line| line.starts_with(name)), "{name}: {figures}");
    }
}
