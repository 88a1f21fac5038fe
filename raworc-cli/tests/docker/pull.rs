//! An image that is pulled while an agent waits for it, from a registry of a few lines that the engine reaches as one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::home::Home;
use crate::images::{DEBIAN, json as as_json, static_program, up};
use crate::up::{Up, condition, until};
use crate::{Cleared, dockerd, host, run};

/// Bytes of the layer, half of which come before somebody lets the rest go.
const SIZE: usize = 8 << 20;

/// A registry with one image, and what it holds back.
struct Registry {
    port: u16,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

/// What it serves: by the last part of a path, with its media type.
type Content = Vec<(String, &'static str, Vec<u8>)>;

fn digest(bytes: &[u8]) -> String {
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils");
    sum.stdin.take().expect("a pipe").write_all(bytes).expect("written");
    let out = sum.wait_with_output().expect("it ends").stdout;
    let text = String::from_utf8(out).expect("UTF-8");
    format!("sha256:{}", text.split(' ').next().expect("a sum"))
}

/// One whose layer is full of this byte, and no other one's.
fn content(byte: u8) -> Content {
    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(SIZE as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "filled", vec![byte; SIZE].as_slice()).expect("packed");
    let layer = archive.into_inner().expect("packed");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    })
    .to_string()
    .into_bytes();
    let part = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config), "layers": [part(LAYER, &layer)],
    })
    .to_string()
    .into_bytes();
    vec![
        ("1".into(), MANIFEST, manifest.clone()),
        (digest(&manifest), MANIFEST, manifest),
        (digest(&config), CONFIG, config),
        (digest(&layer), LAYER, layer),
    ]
}

impl Registry {
    fn start(byte: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (content, gate) = (Arc::new(content(byte)), Arc::new((Mutex::new(false), Condvar::new())));
        let held = Arc::clone(&gate);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (content, held) = (Arc::clone(&content), Arc::clone(&held));
                std::thread::spawn(move || answer(stream, &content, &held));
            }
        });
        Self { port, gate }
    }

    fn image(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/slow:{tag}", self.port)
    }

    fn let_go(&self) {
        *self.gate.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.gate.1.notify_all();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.let_go();
        let _removed = Command::new("docker").args(["--host", &host(), "image", "rm", "-f", &self.image("1")]).output();
    }
}

fn answer(stream: TcpStream, content: &Content, gate: &(Mutex<bool>, Condvar)) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        // The engine tries TLS first.
        if stream.by_ref().take(16 << 10).read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    let wanted = path.rsplit('/').next().unwrap_or_default();
    let found = content.iter().find(|(name, ..)| name == wanted);
    let (status, kind, body) = match found {
        _ if path == "/v2/" => ("200 OK", "application/json", &b"{}"[..]),
        Some((_, kind, body)) => ("200 OK", *kind, body.as_slice()),
        None => ("404 Not Found", "application/json", &br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#[..]),
    };
    let head_alone = head.starts_with("HEAD");
    let digest = found.map(|(.., body)| format!("docker-content-digest: {}\r\n", digest(body))).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{digest}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(answer.as_bytes())?;
    if head_alone {
        return Ok(());
    }
    let (first, rest) = body.split_at(if body.len() > SIZE { SIZE / 2 } else { body.len() });
    stream.write_all(first)?;
    if !rest.is_empty() {
        let open = gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate.1.wait_while(open, |open| !*open));
    }
    stream.write_all(rest)
}

/// Who runs a command on a terminal, and reads what it shows.
fn on_a_terminal(home: &Home, command: &str) -> Child {
    let mut script = home.program("script");
    let command = format!("stty cols 200; {} {command}", env!("CARGO_BIN_EXE_raworc"));
    script.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
    script.stdout(Stdio::piped()).spawn().expect("a terminal")
}

/// Reads until it shows how far a pull came.
fn reads_how_far(shown: &mut impl Read) {
    let (mut text, mut part) = (String::new(), [0; 1024]);
    while !(text.contains("downloading (") && text.contains(" %)")) {
        let read = shown.read(&mut part).expect("read");
        assert_ne!(read, 0, "it ended without a word of it: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
}

/// Whoever waits, and waits for a message, is shown on a terminal what the agent waits for; whoever starts a server is told.
pub(crate) fn who_waits_is_shown() {
    let (home, registry) = (Home::new(), Registry::start(8));
    let _cleared = Cleared(&home);
    let mut starting = up(&home, Some(static_program()), "docker", &registry.image("1"));
    let mut starting = starting.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("raworc starts");
    reads_how_far(starting.stderr.as_mut().expect("a pipe"));
    starting.kill().expect("killed");
    starting.wait().expect("it is gone");
    if home.program("script").arg("--version").output().is_err() {
        dockerd::is_untested("what is shown on a terminal", Some("`script` is missing"));
        return;
    }
    let _up = Up::of(as_json(up(&home, Some(static_program()), "docker", DEBIAN)));
    let image = registry.image("1");
    let mut creating = on_a_terminal(&home, &format!("agent create ada --image {image} --wait"));
    reads_how_far(creating.stdout.as_mut().expect("a pipe"));
    let mut sending = on_a_terminal(&home, "send ada '!true'");
    reads_how_far(sending.stdout.as_mut().expect("a pipe"));
    registry.let_go();
    for (what, mut child) in [("create", creating), ("send", sending)] {
        let mut rest = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("read");
        child.wait().expect("it ends");
        assert!(rest.contains("ada"), "{what}: {rest}");
    }
}

pub(crate) fn an_image_is_pulled() {
    let (home, registry) = (Home::new(), Registry::start(7));
    let _cleared = Cleared(&home);
    let _up = Up::of(as_json(up(&home, Some(static_program()), "docker", DEBIAN)));
    run(&home, &["agent", "create", "ada", "--image", &registry.image("1")]).ok();
    let ready = || condition(&home, "ada", "Ready").unwrap_or(Value::Null);
    let mut told = String::new();
    until("how far it came is told", || {
        let ready = ready();
        ready["message"].as_str().unwrap_or_default().clone_into(&mut told);
        ready["reason"] == "ImagePulling" && told.contains("downloading (") && told.contains('%')
    });
    let explained = run(&home, &["agent", "explain", "ada"]).ok();
    assert!(explained.contains("ImagePulling"), "{told}: {explained}");
    registry.let_go();
    until("it is up", || crate::up::agent(&home, "ada")["status"]["state"] == "idle");

    run(&home, &["agent", "create", "bob", "--image", &registry.image("absent")]).ok();
    until("what is not there is told", || {
        condition(&home, "bob", "Ready").is_some_and(|ready| ready["reason"] == "ImageMissing")
    });
    let explained = run(&home, &["agent", "explain", "bob"]).ok();
    assert!(explained.contains(&registry.image("absent")), "{explained}");
}
