//! The models that cases speak to.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A model that is served somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Where its server listens.
    pub(crate) address: SocketAddr,
    pub(crate) name: String,
    /// The key that its server asks for; one that asks for none gets it too.
    pub(crate) key: String,
}

impl Model {
    /// The one that all cases share.
    pub(crate) fn from_env() -> Result<Self, String> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let missing = |name: &str| format!("{name} is not set; run this as scripts/model COMMAND..");
        let url = read("RAWORC_TEST_MODEL_URL").ok_or_else(|| missing("RAWORC_TEST_MODEL_URL"))?;
        let name = read("RAWORC_TEST_MODEL_NAME").ok_or_else(|| missing("RAWORC_TEST_MODEL_NAME"))?;
        let key = read("RAWORC_TEST_MODEL_KEY").unwrap_or_else(|| "a-key-of-tests".to_owned());
        Ok(Self { address: address_of(&url)?, name, key })
    }
}

fn address_of(url: &str) -> Result<SocketAddr, String> {
    let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/v1"));
    let address = address.and_then(|address| address.replace("localhost", "127.0.0.1").parse().ok());
    address.ok_or_else(|| format!("RAWORC_TEST_MODEL_URL: {url:?} is not http://ADDRESS:PORT/v1"))
}

/// A model of one case's own, until it is dropped or killed.
pub(crate) struct OwnModel {
    script: Child,
    pub(crate) model: Model,
}

impl OwnModel {
    /// Brings up another one like `model`.
    pub(crate) fn start(model: &Model) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/model");
        let mut command = Command::new(script);
        command.env_remove("RAWORC_TEST_MODEL_URL").env("RAWORC_TEST_MODEL_KEY", &model.key);
        let mut script = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("scripts/model starts");
        let mut url = String::new();
        let out = script.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut url).expect("its output can be read");
        match address_of(url.trim()) {
            Ok(address) => Self { script, model: Model { address, ..model.clone() } },
            Err(_) => {
                let said = script.wait_with_output().expect("it ends");
                panic!("no model comes up: {}", String::from_utf8_lossy(&said.stderr));
            }
        }
    }

    /// Whether it writes an answer just now.
    pub(crate) async fn is_writing(&self) -> bool {
        let slots = reqwest::Client::new().get(format!("http://{}/slots", self.model.address));
        let slots = slots.bearer_auth(&self.model.key).send().await.expect("an answer");
        let slots: Vec<serde_json::Value> = slots.json().await.expect("slots");
        slots.iter().any(|slot| slot["is_processing"] == true)
    }

    /// Ends it as `kill -9` does: the kernel sends the same to the server when the script is gone.
    pub(crate) fn kill(&mut self) {
        self.script.kill().expect("killed");
        self.script.wait().expect("it is gone");
    }
}

impl Drop for OwnModel {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
