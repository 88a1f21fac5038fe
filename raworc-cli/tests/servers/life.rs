//! The life of an agent whose callers and whose program are at different servers.

use crate::balancer::Balancer;
use crate::up::{Up, until};
use crate::{At, Installation};

/// Two servers and an operator, and an agent that is up.
fn with_agent(installation: &Installation) -> ([Up; 2], Up) {
    // At once, on an empty database.
    let [first, second] = std::thread::scope(|scope| {
        ["first", "second"]
            .map(|data| scope.spawn(move || installation.server(data)))
            .map(|starting| starting.join().expect("a server"))
    });
    let operator = installation.operator("operator");
    let at = installation.at(&first);
    // The servers learn of the runtime by the database.
    until("the runtime is known", || at.run(&["agent", "create", "ada", "--wait"]).code == 0);
    installation.at(&second);
    ([first, second], operator)
}

pub(crate) fn with_two_servers(installation: &Installation) {
    let (servers, operator) = with_agent(installation);
    let both = servers.each_ref().map(|server| At { installation, url: &server.url });
    for (n, at) in both.iter().enumerate() {
        assert_eq!(
            at.ok(&["send", "ada", &format!("!echo {n} >> lines; wc -l < lines"), "--no-steps"]).trim(),
            (n + 1).to_string()
        );
        assert_eq!(at.ok(&["agent", "exec", "ada", "--", "cat", "lines"]).lines().count(), n + 1);
    }
    // What is large goes over both, and comes back by the other.
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| [n as u8, (n >> 8) as u8, (n >> 16) as u8]).collect();
    let here = installation.home.path();
    std::fs::write(here.join("there"), &content).expect("written");
    for (n, at) in both.iter().enumerate() {
        at.ok(&["agent", "cp", "there", &format!("ada:file-{n}")]);
        both[1 - n].ok(&["agent", "cp", &format!("ada:file-{n}"), "back"]);
        assert_eq!(std::fs::read(here.join("back")).expect("there"), content);
        std::fs::remove_file(here.join("back")).expect("removed");
    }
    // Put to sleep by one, woken by a message at the other, with its files.
    both[0].ok(&["agent", "sleep", "ada"]);
    assert_eq!(both[1].json(&["agent", "get", "ada"])["status"]["state"], "slept");
    assert_eq!(both[1].ok(&["send", "ada", "!cat lines", "--no-steps"]).lines().count(), 2);
    for at in &both {
        let log = at.ok(&["agent", "logs", "ada"]);
        assert!(log.contains("the link is up"), "{log}");
    }
    both[0].ok(&["agent", "delete", "ada"]);
    assert_eq!(both[1].run(&["agent", "get", "ada"]).code, 3, "it is gone at both");
    assert_eq!(operator.end(), Some(0));
    for server in servers {
        assert_eq!(server.end(), Some(0));
    }
    let left: Vec<_> = std::fs::read_dir(here.join("sockets")).expect("there").collect();
    assert!(left.is_empty(), "{left:?}");
}

pub(crate) fn a_server_is_killed(installation: &Installation) {
    let (servers, _operator) = with_agent(installation);
    let url = servers[1].url.clone();
    let at = At { installation, url: &url };
    let slow = ["send", "ada", "!echo begun; sleep 2; echo ended", "--no-steps"];
    let waiting = at.command(&slow).stdout(std::process::Stdio::piped()).spawn().expect("raworc runs");
    until("the agent is busy", || at.json(&["agent", "get", "ada"])["status"]["state"] == "busy");
    let incarnation = at.json(&["agent", "get", "ada"])["status"]["incarnation"].clone();
    let [first, second] = servers;
    first.kill();
    // It is in the middle of its work, and goes on at the other server.
    let ended = waiting.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "begun\nended\n", "{ended:?}");
    assert_eq!(at.ok(&["agent", "exec", "ada", "--", "echo", "linked"]), "linked\n");
    assert_eq!(at.json(&["agent", "get", "ada"])["status"]["incarnation"], incarnation, "the same start");
    // Another one takes its place, and programs find it: it takes the dead one's socket away.
    let third = installation.server("third");
    let sockets = std::fs::read_dir(installation.home.path().join("sockets")).expect("there").count();
    assert_eq!(sockets, 2);
    second.kill();
    let at = installation.at(&third);
    assert_eq!(at.ok(&["send", "ada", "!echo still here", "--no-steps"]), "still here\n");
    assert_eq!(at.ok(&["agent", "exec", "ada", "--", "echo", "linked"]), "linked\n");
}

pub(crate) fn behind_a_balancer(installation: &Installation) {
    let (servers, _operator) = with_agent(installation);
    let balancer = Balancer::before(&servers);
    let at = At { installation, url: balancer.url() };
    at.ok(&["login", "admin", "--password-file", "password"]);
    let told = installation.home.path().join("told");
    let file = std::fs::File::create(&told).expect("made");
    let follow = ["events", "--since", "0", "--follow", "-o", "json"];
    let mut following = at.command(&follow).stdout(file).spawn().expect("raworc runs");
    let slow = ["send", "ada", "!echo begun; sleep 2; echo ended", "--no-steps"];
    let waiting = at.command(&slow).stdout(std::process::Stdio::piped()).spawn().expect("raworc runs");
    let [first, second] = servers;
    let at_second = At { installation, url: &second.url };
    until("the agent is busy", || at_second.json(&["agent", "get", "ada"])["status"]["state"] == "busy");
    // All who came by the balancer were at this one.
    first.kill();
    let ended = waiting.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "begun\nended\n", "{ended:?}");
    assert_eq!(at.ok(&["send", "ada", "!echo after", "--no-steps"]), "after\n");
    // Who follows the log goes on where it was, with nothing twice and nothing left out.
    let log = || at_second.ok(&["events", "--since", "0", "-o", "json"]);
    until("all is told", || std::fs::read_to_string(&told).expect("readable") == log());
    following.kill().expect("it goes on until it is ended");
    following.wait().expect("it is gone");
}

pub(crate) fn told_to_one(installation: &Installation) {
    let (servers, _operator) = with_agent(installation);
    let both = servers.each_ref().map(|server| At { installation, url: &server.url });
    // A key of idempotency stands for one message, whichever server is asked.
    let sent = both
        .each_ref()
        .map(|at| at.json(&["send", "ada", "!echo once >> lines", "--no-wait", "--idempotency-key", "the-key"]));
    assert_eq!(sent[0]["id"], sent[1]["id"], "{sent:?}");
    assert_eq!(both[1].ok(&["send", "ada", "!cat lines", "--no-steps"]), "once\n");
    // A log that is read here goes on there, without a gap.
    let events = |at: &At<'_>, since: &str| at.ok(&["events", "--since", since, "-o", "json"]);
    let all = events(&both[0], "0");
    let lines: Vec<_> = all.lines().collect();
    let (read, rest) = lines.split_at(lines.len() / 2);
    let last: serde_json::Value = serde_json::from_str(read.last().expect("some")).expect("JSON");
    assert_eq!(events(&both[1], &last["revision"].to_string()).lines().collect::<Vec<_>>(), rest);
    // Who has logged out at one is nobody at the other.
    let session =
        std::fs::read_to_string(installation.home.path().join(".config/raworc/session.json")).expect("logged in");
    let session: serde_json::Value = serde_json::from_str(&session).expect("JSON");
    let token = session["logins"][both[0].url]["token"].as_str().expect("a token").to_owned();
    let as_it = |at: &At<'_>| at.command(&["agent", "list"]).env("RAWORC_TOKEN", &token).output().expect("runs").status;
    assert!(as_it(&both[1]).success(), "a login is good at every server");
    both[0].ok(&["logout"]);
    until("the token is refused", || as_it(&both[1]).code() == Some(4));
}
