//! What is logged, as programs read it.

use std::path::Path;

use serde_json::{Value, json};

use crate::home::Home;
use crate::up::{Up, agent, until};

const SECRET: &str = "planted-and-to-be-found-nowhere";

/// The lines of all files of a log, which has only such.
fn lines(directory: &Path) -> Vec<Value> {
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("a directory").flatten().map(|file| file.path()).collect();
    files.sort();
    let is_named = |file: &std::path::PathBuf| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("raworc.2") && name.ends_with(".log")
    };
    assert!(!files.is_empty() && files.iter().all(is_named), "{files:?}");
    let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).expect("read")).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A field of a line, wherever in it: the event's own, or that of a span around it.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    let spans = line["spans"].as_array().into_iter().flatten();
    line["fields"].get(name).or_else(|| spans.rev().find_map(|span| span.get(name)))
}

fn find<'a>(lines: &'a [Value], says: &str, of: &[(&str, &Value)]) -> &'a Value {
    let is_it = |line: &&Value| {
        line["fields"]["message"] == says && of.iter().all(|(name, value)| field(line, name) == Some(value))
    };
    lines.iter().find(is_it).unwrap_or_else(|| panic!("no line {says:?} of {of:?}: {lines:#?}"))
}

#[test]
fn a_messages_way_is_logged_by_its_id_over_server_and_operator_and_no_secret_with_it() {
    let home = Home::new();
    let directory = home.path().join("a/log");
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "debug"]);
    command.env("RAWORC_LOG_DIR", &directory).env("RAWORC_LOG_FORMAT", "json");
    for (key, value) in [("URL", "http://127.0.0.1:1/v1"), ("WIRE", "openai"), ("NAME", "m"), ("KEY", SECRET)] {
        command.env(format!("RAWORC_MODEL__{key}"), value);
    }
    let errors = home.path().join("errors");
    command.stderr(std::fs::File::create(&errors).expect("made"));
    let up = Up::of(command);
    let variable = format!("TOKEN={SECRET}");
    home.run(&["agent", "create", "ada", "--wait", "-e", &variable]).ok();
    home.run(&["agent", "sleep", "ada"]).ok();
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("a session");
    let session: Value = serde_json::from_str(&session).expect("JSON");
    let login = session["logins"][&up.url]["token"].as_str().expect("a token").to_owned();
    let parts = json!({ "parts": [{ "type": "text", "text": format!("!echo $TOKEN {SECRET}") }] });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sent: Value = runtime.block_on(async {
        let call = reqwest::Client::new().post(format!("{}/api/v0/agents/ada/messages", up.url)).bearer_auth(&login);
        let answer = call.header("x-request-id", "follow-me-1").json(&parts).send().await.expect("an answer");
        assert_eq!(answer.headers()["x-request-id"], "follow-me-1");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
        answer.json().await.expect("JSON")
    });
    let message = &sent["id"];
    assert!(message.is_string(), "{sent:#}");
    until("its answer is there", || home.run(&["history", "ada"]).ok().matches(SECRET).count() >= 3);
    until("it is idle", || agent(&home, "ada")["status"]["state"] == "idle");
    let ada = agent(&home, "ada");
    home.run(&["agent", "delete", "ada", "--yes"]).ok();
    // A name is free before its computer is gone.
    let is_gone = |line: &Value| line["fields"]["message"] == "a computer is taken away";
    until("its computer is gone", || lines(&directory).iter().any(is_gone));
    assert_eq!(up.end(), Some(0));

    let lines = lines(&directory);
    let (tenant, name) = (&json!("default"), &json!("ada"));
    let start = json!(ada["status"]["incarnation"].to_string());
    let of_ada = [("agent", &ada["id"]), ("agent_name", name), ("tenant", tenant)];
    let accepted = find(&lines, "a message is accepted", &[&of_ada[..], &[("message_id", message)]].concat());
    assert_eq!(field(accepted, "request_id"), Some(&json!("follow-me-1")), "{accepted:#}");
    let run = [&of_ada[..], &[("incarnation", &start)]].concat();
    let computer = &ada["status"]["computer"];
    find(&lines, "a computer is started", &[&run[..], &[("computer", computer)]].concat());
    find(&lines, "a message is taken up", &[&run[..], &[("message_id", message)]].concat());
    let ended = find(&lines, "a message has ended", &[&run[..], &[("message_id", message)]].concat());
    assert_eq!(ended["fields"]["how"], "done");
    find(&lines, "an agent moves on", &[&of_ada[..], &[("computer", computer)]].concat());
    find(&lines, "a computer is taken away", &[("agent", &ada["id"]), ("tenant", tenant), ("computer", computer)]);
    let errors = std::fs::read_to_string(errors).expect("read");
    let shown = errors.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert!(shown >= lines.len(), "standard error has it too: {shown} of {}", lines.len());
    for text in [errors, json!(lines).to_string()] {
        assert!(!text.contains(SECRET) && !text.contains(&login), "a secret is in the log");
    }
}

#[test]
fn a_log_that_cannot_be_kept_is_said_at_once() {
    let home = Home::new();
    std::fs::write(home.path().join("file"), "").expect("written");
    let up = |directory: &str, files: &str| {
        let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0"]);
        command.env("RAWORC_LOG_DIR", home.path().join(directory)).env("RAWORC_LOG_FILES", files);
        crate::home::Ran::of(command.output().expect("raworc runs"))
    };
    let refused = up("file", "3");
    assert!(refused.code == 1 && refused.err.contains("the log cannot be kept in"), "{refused:#?}");
    let refused = up("log", "0");
    assert!(refused.code == 2 && refused.err.contains("log_files: 0"), "{refused:#?}");
}

#[test]
fn only_so_many_files_of_a_log_are_kept() {
    let home = Home::new();
    let directory = home.path().join("log");
    std::fs::create_dir(&directory).expect("made");
    for day in 1..=5 {
        std::fs::write(directory.join(format!("raworc.2020-01-0{day}.log")), "{}\n").expect("written");
    }
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "info"]);
    command.env("RAWORC_LOG_DIR", &directory).env("RAWORC_LOG_FILES", "3");
    let up = Up::of(command);
    home.run(&["agent", "list"]).ok();
    assert_eq!(up.end(), Some(0));
    let kept = std::fs::read_dir(&directory).expect("a directory").count();
    assert_eq!(kept, 3, "today's and the newest before it");
}
