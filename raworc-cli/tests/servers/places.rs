//! Operators and the places where computers are.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Installation;
use crate::home::Ran;
use crate::up::{Up, until};

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
    command.env("RAWORC_OPERATOR__LISTEN", "127.0.0.1:0");
    let operator = Up::of(command);
    let address = operator.started["health"].as_str().and_then(|url| url.strip_prefix("http://")).expect("an address");
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: raworc\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    let ready = get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains(r#""operator":"ok""#), "{ready}");
    assert!(get("/metrics").starts_with("HTTP/1.1 401"), "figures are for admins");
    assert!(get("/api/v0/agents").starts_with("HTTP/1.1 404"), "it serves no API");
}
