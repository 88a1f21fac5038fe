//! What is secret stays where it belongs.

use std::path::Path;

use crate::home::{Home, Ran};
use crate::up::Up;

const MODEL_KEY: &str = "sk-the-key-of-the-model-provider";

/// Files below `directory` that hold one of these texts.
fn files_with(directory: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![directory.to_path_buf()];
    while let Some(directory) = next.pop() {
        for entry in std::fs::read_dir(directory).expect("read").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                next.push(path);
            } else if kind.is_file() {
                let bytes = std::fs::read(&path).expect("read");
                let holds = |text: &&&str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                found.extend(texts.iter().find(holds).map(|text| format!("{} holds {text}", path.display())));
            }
        }
    }
    found
}

#[test]
fn keys_passwords_and_tokens_are_nowhere_in_the_data_directory_or_the_log() {
    let home = Home::new();
    let data = home.path().join("data");
    let password = "a long password of the admin";
    std::fs::write(home.path().join("password"), password).expect("written");
    let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0", "-o", "json", "--log", "debug"]);
    command.arg("--data").arg(&data);
    command.arg("--admin-password-file").arg(home.path().join("password"));
    // A provider that does not answer: its key is used all the same.
    for (key, value) in [("URL", "http://127.0.0.1:1/v1"), ("WIRE", "openai"), ("NAME", "m"), ("KEY", MODEL_KEY)] {
        command.env(format!("RAWORC_MODEL__{key}"), value);
    }
    let log = home.path().join("log");
    command.stderr(std::fs::File::create(&log).expect("made"));
    let up = Up::of(command);
    home.run(&["agent", "create", "ada", "--wait"]).ok();
    let seen = home.run(&["send", "ada", "--no-steps", "!env; cat /proc/self/environ; ls -R /run/raworc"]).ok();
    assert!(!seen.contains(MODEL_KEY), "{seen}");
    home.run(&["send", "ada", "words for the model"]);
    let session = std::fs::read_to_string(home.path().join(".config/raworc/session.json")).expect("a session");
    let session: serde_json::Value = serde_json::from_str(&session).expect("JSON");
    let login = session["logins"].as_object().expect("logins").values().next().expect("a login");
    let token = login["token"].as_str().expect("a token").to_owned();
    let secrets = [MODEL_KEY, password, token.as_str()];
    assert_eq!(files_with(&data, &secrets), Vec::<String>::new());
    assert_eq!(up.end(), Some(0));
    assert_eq!(files_with(&data, &secrets), Vec::<String>::new());
    let log = std::fs::read_to_string(log).expect("read");
    assert!(!log.is_empty() && secrets.iter().all(|secret| !log.contains(secret)), "{log}");
}

#[test]
fn what_is_private_may_not_lie_where_computers_are_shown_it() {
    let home = Home::new();
    // Neither is made or changed: one is there on every machine, the other one nowhere.
    for (variable, path) in [("RAWORC_CONFIG_DIR", "/usr/share"), ("RAWORC_MODEL__KEY_FILE", "/usr/no-such/model.key")]
    {
        let mut command = home.raworc(&["up", "--listen", "127.0.0.1:0"]);
        let ran = Ran::of(command.env(variable, path).output().expect("raworc runs"));
        assert_eq!(ran.code, 1, "{ran:#?}");
        let why = format!("{path} lies below /usr, which every computer is shown");
        assert!(ran.err.contains(&why) && ran.err.contains("choose a place elsewhere"), "{ran:#?}");
    }
}
