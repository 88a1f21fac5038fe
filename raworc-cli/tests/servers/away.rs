//! Databases that are slow, that stand still, that are killed, and that a pooler stands before.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use raworc_core::message::MESSAGE_LIMIT;

use crate::own::Own;
use crate::relay::Relay;
use crate::up::{Up, until};
use crate::{At, Installation};

/// Calls that are made at once.
const CALLS: usize = 64;

/// Within which each of them is answered: fifteen seconds for a read that has a connection, and some for a slow machine.
const ANSWERED: Duration = Duration::from_secs(90);

/// How much later a slow database has, and answers, what it is asked.
const SLOW: Duration = Duration::from_millis(50);

/// What a server may take beside what it had.
const MEMORY: u64 = 64 << 20;

/// Who send a message of the greatest length each, at once.
const SENDERS: usize = 300;

/// What a server may take of them beside what it had: some times what it has room for.
const HELD: u64 = 128 << 20;

/// The status of an answer, and whether it says when to ask again.
type Told = (u16, bool);

/// Calls as a client does that knows nothing of us.
fn call(url: &str, token: &str, method: &str, path: &str, key: &str, body: &str) -> (Told, String) {
    asked(url, token, method, path, key, body).expect("is answered in time")
}

/// The same where it may be hung up.
fn asked(url: &str, token: &str, method: &str, path: &str, key: &str, body: &str) -> io::Result<(Told, String)> {
    let address = url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERED))?;
    stream.set_write_timeout(Some(ANSWERED))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: raworc\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let says_when = head.to_ascii_lowercase().contains("\r\nretry-after: ");
    Ok(((status, says_when), body.to_owned()))
}

fn memory(server: &Up) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

pub(crate) fn token(installation: &Installation, url: &str) -> String {
    let session = installation.home.path().join(".config/raworc/session.json");
    let session: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(session).expect("logged in")).expect("JSON");
    session["logins"][url]["token"].as_str().expect("a token").to_owned()
}

/// A server and an operator with an agent, `ada`, whose database is behind a relay.
struct Relayed {
    server: Up,
    _operator: Up,
    token: String,
    installation: Installation,
    // They end before the way to their database does.
    relay: Relay,
}

impl Relayed {
    fn before(installation: &Installation) -> Self {
        let relay = Relay::before(&installation.store);
        let installation = Installation::with(relay.url());
        let server = installation.server("server");
        let operator = installation.operator("operator");
        let at = installation.at(&server);
        until("it is made", || at.run(&["agent", "create", "ada", "--wait"]).code == 0);
        let token = token(&installation, &server.url);
        Self { server, _operator: operator, token, installation, relay }
    }

    fn at(&self) -> At<'_> {
        At { installation: &self.installation, url: &self.server.url }
    }

    fn get(&self, path: &str) -> Told {
        call(&self.server.url, &self.token, "GET", path, "none", "").0
    }

    /// Has the agent add a line to a file, and `padding` beside it. Of one number it does so once.
    fn send(&self, n: usize, padding: &str) -> Told {
        self.have(&format!("echo once >> lines #{padding}"), &format!("key-{n}"), "")
    }

    /// Has the agent run a command.
    fn have(&self, command: &str, key: &str, query: &str) -> Told {
        self.asked_to_have(command, key, query).expect("is answered in time")
    }

    /// The same where it may be hung up.
    fn asked_to_have(&self, command: &str, key: &str, query: &str) -> io::Result<Told> {
        let message = format!(r#"{{"parts":[{{"type":"text","text":"!{command}"}}]}}"#);
        let path = format!("/api/v0/agents/ada/messages{query}");
        Ok(asked(&self.server.url, &self.token, "POST", &path, key, &message)?.0)
    }
}

pub(crate) fn stands_still(installation: &Installation) {
    let relayed = Relayed::before(installation);
    let server = &relayed.server;
    let read = || relayed.get("/api/v0/agents/ada");
    let send = |n| relayed.send(n, "");
    // What is asked for as it should be, so that only the database is in its way.
    assert_eq!(read(), (200, false));
    assert_eq!(send(0).0, 202);
    let before = memory(server);

    let (told, waited): (Vec<Told>, _) = std::thread::scope(|scope| {
        const WAITS: &str = "touch here; until [ -e go ]; do sleep 0.1; done";
        let waits = scope.spawn(|| relayed.have(WAITS, "waits", "?wait=10s"));
        until("it is at work", || relayed.at().run(&["agent", "exec", "ada", "--", "ls", "here"]).code == 0);
        relayed.relay.stand_still();
        let ask = |n| scope.spawn(move || if n % 2 == 0 { read() } else { send(n) });
        let asked: Vec<_> = (0..CALLS).map(ask).collect();
        let told = asked.into_iter().map(|call| call.join().expect("is answered")).collect();
        (told, waits.join().expect("is answered"))
    });
    assert!(told.iter().all(|told| *told == (503, true)), "{told:?}");
    assert_eq!(waited.0, 202, "what was accepted before is not refused for being waited for");
    // It lives, and says what is the matter.
    assert_eq!(relayed.get("/livez").0, 200);
    assert_eq!(relayed.get("/readyz").0, 503);
    let more = memory(server).saturating_sub(before);
    assert!(more < MEMORY, "{more} bytes more than before");

    relayed.relay.go_on_after(Duration::ZERO);
    until("it is served again", || read() == (200, false));
    relayed.at().ok(&["agent", "exec", "ada", "--", "touch", "go"]);
    // Sent again under their keys they are there once each.
    for n in (1..CALLS).step_by(2) {
        until("it is taken", || send(n).0 == 202);
        assert_eq!(send(n).0, 202);
    }
    let lines = || relayed.at().ok(&["send", "ada", "!wc -l < lines", "--no-steps"]).trim().to_owned();
    assert_eq!(lines(), (1 + CALLS / 2).to_string());
}

/// Far more than a server is to hold, of which its database takes nothing.
pub(crate) fn much_is_sent(installation: &Installation) {
    let relayed = Relayed::before(installation);
    // As long as a message may be, with the command around it.
    let padding = "x".repeat(MESSAGE_LIMIT - 64);
    let command = format!("echo once >> lines #{padding}");
    let send = |n| relayed.asked_to_have(&command, &format!("key-{n}"), "");
    assert_eq!(send(0).expect("is answered").0, 202);
    let before = memory(&relayed.server);

    relayed.relay.stand_still();
    let (answered, told, mut most) = (AtomicUsize::new(0), Mutex::new(Vec::new()), 0);
    std::thread::scope(|scope| {
        for n in 1..=SENDERS {
            let (answered, told, send) = (&answered, &told, &send);
            scope.spawn(move || {
                let answer = send(n);
                told.lock().expect("nobody fails").push(answer);
                answered.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("all are answered", || {
            most = most.max(memory(&relayed.server).saturating_sub(before));
            assert_eq!(relayed.get("/livez").0, 200);
            answered.load(Ordering::SeqCst) == SENDERS
        });
    });
    let told = told.into_inner().expect("nobody failed");
    let is_hung_up = |error: &io::Error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    // Of whom it cannot know any more who they are it does not read what they send.
    let (hung_up, told): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.as_ref().is_err_and(is_hung_up));
    assert!(told.iter().all(|told| matches!(told, Ok((503, true)))), "{told:?}");
    assert!(told.len() >= SENDERS / 10, "{} were hung up", hung_up.len());
    assert!(most < HELD, "{most} bytes more than before, of {} that were sent", SENDERS * MESSAGE_LIMIT);

    relayed.relay.go_on_after(Duration::ZERO);
    until("it is served again", || relayed.get("/api/v0/agents/ada") == (200, false));
    until("it is taken", || send(1).is_ok_and(|told| told.0 == 202));
}

pub(crate) fn is_slow(installation: &Installation) {
    let relayed = Relayed::before(installation);
    let (server, at) = (&relayed.server, relayed.at());
    let padding = "x".repeat(16 << 10);
    let send = |n| relayed.send(n, &padding);
    let before = memory(server);

    relayed.relay.go_on_after(SLOW);
    let (taken, told, mut most) = (AtomicUsize::new(0), Mutex::new(Vec::new()), 0);
    std::thread::scope(|scope| {
        for n in 0..CALLS {
            let (taken, told, send) = (&taken, &told, &send);
            scope.spawn(move || {
                until("it is taken", || {
                    let answer = send(n);
                    told.lock().expect("nobody fails").push(answer);
                    answer.0 == 202
                });
                taken.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("all are taken", || {
            most = most.max(memory(server).saturating_sub(before));
            assert_eq!(relayed.get("/livez").0, 200, "it says that it lives, whatever its database does");
            taken.load(Ordering::SeqCst) == CALLS
        });
    });
    let told = told.into_inner().expect("nobody failed");
    assert!(told.iter().all(|told| matches!(told, (202, _) | (503, true))), "{told:?}");
    assert!(most < MEMORY, "{most} bytes more than before");
    // The agent's own work goes the same slow way.
    let lines = || at.run(&["agent", "exec", "ada", "--", "sh", "-c", "wc -l < lines"]).out.trim().to_owned();
    until("some are done", || lines().parse::<usize>().is_ok_and(|lines| lines > 0));

    relayed.relay.go_on_after(Duration::ZERO);
    until("all are done", || lines().parse::<usize>().is_ok_and(|lines| lines >= CALLS));
    assert_eq!(at.ok(&["send", "ada", "!wc -l < lines", "--no-steps"]).trim(), CALLS.to_string(), "each is done once");
}

pub(crate) fn is_killed(kind: &str) {
    let database = Own::start(kind, &["--own"]);
    let installation = &Installation::with(database.url());
    let servers = ["first", "second"].map(|data| installation.server(data));
    let _operator = installation.operator("operator");
    let both = servers.each_ref().map(|server| {
        installation.at(server);
        At { installation, url: &server.url }
    });
    until("it is made", || both[0].run(&["agent", "create", "ada", "--wait"]).code == 0);
    let send = |n: usize| {
        let key = format!("key-{n}");
        let args = ["send", "ada", "!echo once >> lines", "--no-wait", "--idempotency-key", &key];
        until("it is taken", || both[n % 2].run(&args).code == 0);
    };
    for n in 0..12 {
        if n % 4 == 2 {
            database.kill();
        }
        send(n);
    }
    // Whoever has it twice has it once.
    send(0);
    let lines = || both[1].run(&["send", "ada", "!wc -l < lines", "--no-steps"]).out.trim().to_owned();
    until("all is done", || lines().parse::<u32>().is_ok_and(|lines| lines >= 12));
    assert_eq!(lines(), "12", "each is done once");
    for server in servers {
        assert_eq!(server.end(), Some(0));
    }
}
