//! What an agent's owner writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EgressRule;
use crate::ids::{RuntimeName, SecretName};
use crate::labels::{InvalidLabel, LABELS_LIMIT, Labels, check_labels};
use crate::quantity::{Bytes, Cpu};
use crate::runtime::Capabilities;

/// Seconds without activity after which an agent is put to sleep, unless its spec says otherwise.
pub const DEFAULT_IDLE_TIMEOUT: u32 = 300;

/// Seconds that one message may take, unless the spec says otherwise.
pub const DEFAULT_BUSY_TIMEOUT: u32 = 3600;

/// What an agent's owner asks for. Every field has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AgentSpec {
    /// The runtime that makes its computer; the installation's default where absent. Cannot be changed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// The image of its computer, up to 512 bytes; the runtime's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The model that it thinks with; the installation's default where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it is told before every conversation, up to 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// A shell script that prepares its computer, up to 64 KiB. Runs once for each computer and text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// Environment variables of the processes that it starts: up to 1000, and 64 KiB in all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of the secrets that it may use. This release keeps none yet: to be left empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// Limits of its computer.
    pub resources: Resources,
    /// Whether it is root inside its computer.
    pub root: bool,
    /// Seconds without activity after which it is put to sleep; 0 for never.
    pub idle_timeout: u32,
    /// Seconds that one message may take.
    pub busy_timeout: u32,
    /// What it can reach.
    pub network: Network,
    /// Ports of its computer that are served to people. This release serves none yet: to be left empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Labels to select it by, up to 64.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// A sentence for people, up to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whatever its owner wants to keep with it, up to 16 KiB of JSON.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            runtime: None,
            image: None,
            model: None,
            instructions: None,
            setup: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            resources: Resources::default(),
            root: false,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            network: Network::default(),
            ports: Vec::new(),
            labels: Labels::new(),
            description: None,
            metadata: serde_json::Map::new(),
        }
    }
}

/// Limits of a computer. What is absent is the runtime's default. Less than the least that is given for each would not
/// hold the program itself, which would be started again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Processor time, in cores: `2`, `0.5` or `500m`; `50m` at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory: `512Mi`, `2Gi` or bytes; `64Mi` at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Disk of its volume: `10Gi` or bytes; `16Mi` at least. Where the runtime cannot limit it, its use is measured, and
    /// new messages wait while it is above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// Processes and threads at one time; 32 at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Resources {
    fn check(&self) -> Result<(), InvalidSpec> {
        let refuse = |field, reason: String| Err(InvalidSpec { field, reason });
        if self.cpu.is_some_and(|cpu| cpu < MIN_CPU) {
            return refuse(
                "resources.cpu",
                format!("too little for the computer's own program; use {MIN_CPU} or more"),
            );
        }
        if self.memory.is_some_and(|memory| memory < MIN_MEMORY) {
            return refuse(
                "resources.memory",
                format!("too little for the computer's own program; use {MIN_MEMORY} or more"),
            );
        }
        if self.pids.is_some_and(|pids| pids < MIN_PIDS) {
            return refuse("resources.pids", format!("too few for the computer's own program; use {MIN_PIDS} or more"));
        }
        if self.disk.is_some_and(|disk| disk < MIN_DISK) {
            return refuse(
                "resources.disk",
                format!("too little for what the computer's own program keeps; use {MIN_DISK} or more"),
            );
        }
        Ok(())
    }

    /// What an engine is asked for. What it cannot limit is not its business.
    pub(crate) fn of_engine(mut self, disk_limit: bool) -> Self {
        self.disk = self.disk.filter(|_| disk_limit);
        self
    }
}

/// What a computer can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `closed`, the default, or `open`.
    pub mode: NetworkMode,
    /// What a closed computer may reach by HTTP(S) all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
}

/// How far a computer's network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// No interface but loopback: the model gateway, and what the egress list names.
    #[default]
    Closed,
    /// The engine's network, cut off from neighbours and private addresses.
    Open,
}

/// A port of a computer that is served to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name in addresses.
    pub name: String,
    /// The port inside the computer.
    pub port: u16,
}

/// A spec that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {reason}")]
pub struct InvalidSpec {
    /// The field at fault, such as `resources.memory`.
    pub field: &'static str,
    /// What is wrong with it and what would be taken.
    pub reason: String,
}

impl From<InvalidLabel> for InvalidSpec {
    fn from(error: InvalidLabel) -> Self {
        Self { field: "labels", reason: error.to_string() }
    }
}

const TEXT_LIMIT: usize = 64 << 10;
const METADATA_LIMIT: usize = 16 << 10;
const DESCRIPTION_LIMIT: usize = 1 << 10;
const ENV_LIMIT: usize = 64 << 10;
const ENV_NAMES: usize = 1000;
const IMAGE_LIMIT: usize = 512;
const MODEL_LIMIT: usize = 256;
const YEAR: u32 = 365 * 24 * 3600;
const MIN_CPU: Cpu = Cpu::from_millis(50);
const MIN_MEMORY: Bytes = Bytes::new(64 << 20);
const MIN_PIDS: u32 = 32;
const MIN_DISK: Bytes = Bytes::new(16 << 20);

impl AgentSpec {
    /// Checks the spec against its own limits and what `runtime` can do.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the first field that cannot be had, and why.
    pub fn check(&self, runtime: &Capabilities) -> Result<(), InvalidSpec> {
        let refuse = |field, reason: &str| Err(InvalidSpec { field, reason: reason.into() });
        let too_long = |text: &Option<String>, limit| text.as_ref().is_some_and(|t| t.len() > limit);
        if too_long(&self.image, IMAGE_LIMIT) {
            return refuse("image", "longer than 512 bytes");
        }
        if too_long(&self.model, MODEL_LIMIT) {
            return refuse("model", "longer than 256 bytes");
        }
        if too_long(&self.instructions, TEXT_LIMIT) {
            return refuse("instructions", "longer than 64 KiB");
        }
        if too_long(&self.setup, TEXT_LIMIT) {
            return refuse("setup", "longer than 64 KiB");
        }
        if too_long(&self.description, DESCRIPTION_LIMIT) {
            return refuse("description", "longer than 1 KiB");
        }
        if serde_json::to_vec(&self.metadata).map_or(usize::MAX, |json| json.len()) > METADATA_LIMIT {
            return refuse("metadata", "longer than 16 KiB of JSON");
        }
        if self.labels.len() > LABELS_LIMIT {
            return refuse("labels", "use up to 64 labels; take some away with null");
        }
        check_labels(&self.labels)?;
        self.check_env()?;
        if self.idle_timeout > YEAR {
            return refuse("idle_timeout", "use seconds up to a year (31536000), or 0 for never");
        }
        if self.busy_timeout == 0 || self.busy_timeout > YEAR {
            return refuse("busy_timeout", "use 1 second up to a year (31536000)");
        }
        self.resources.check()?;
        if !self.secrets.is_empty() {
            return refuse("secrets", "this release keeps no secrets yet; leave the list empty");
        }
        if !self.ports.is_empty() {
            return refuse("ports", "this release serves no ports of a computer yet; leave the list empty");
        }
        self.network.check()?;
        self.check_capabilities(runtime)
    }

    fn check_env(&self) -> Result<(), InvalidSpec> {
        let name = |key: &str| {
            !key.is_empty()
                && !key.starts_with(|c: char| c.is_ascii_digit())
                && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        };
        let size: usize = self.env.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > ENV_LIMIT {
            return Err(InvalidSpec { field: "env", reason: "longer than 64 KiB in all".into() });
        }
        if self.env.len() > ENV_NAMES {
            return Err(InvalidSpec { field: "env", reason: "use up to 1000 variables".into() });
        }
        match self.env.iter().find(|(key, value)| !name(key) || value.contains('\0')) {
            None => Ok(()),
            Some((key, _)) => Err(InvalidSpec {
                field: "env",
                reason: format!("{key:?}: names are letters, digits and '_', and values hold no NUL"),
            }),
        }
    }

    fn check_capabilities(&self, runtime: &Capabilities) -> Result<(), InvalidSpec> {
        let wants = [
            ("image", self.image.is_some(), runtime.images, "has no images: it uses the host's own system"),
            ("root", self.root, runtime.root, "gives no root inside its computers"),
            (
                "network.mode",
                self.network.mode == NetworkMode::Open,
                runtime.open_network,
                "offers closed networks only",
            ),
            (
                "network.mode",
                self.network.mode == NetworkMode::Closed,
                runtime.closed_network,
                "cannot close a computer's network, since its link goes over it: use the mode open, or run raworc on the engine's machine",
            ),
        ];
        match wants.into_iter().find(|&(_, wanted, offered, _)| wanted && !offered) {
            None => Ok(()),
            Some((field, _, _, reason)) => {
                let name = self.runtime.as_ref().map_or("default", RuntimeName::as_str);
                Err(InvalidSpec { field, reason: format!("the runtime {name:?} {reason}") })
            }
        }
    }
}

/// A change of a spec: what is absent stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = Object))]
#[serde(transparent)]
pub struct SpecChange(
    /// A JSON merge patch (RFC 7396) of the spec.
    pub serde_json::Map<String, serde_json::Value>,
);

impl SpecChange {
    /// The spec after this change.
    ///
    /// # Errors
    /// [`InvalidSpec`] where the result is not a spec, or the change would move the agent to another runtime.
    pub fn apply(&self, spec: &AgentSpec) -> Result<AgentSpec, InvalidSpec> {
        let invalid = |error: serde_json::Error| InvalidSpec { field: "change", reason: error.to_string() };
        let mut whole = serde_json::to_value(spec).map_err(invalid)?;
        merge(&mut whole, &serde_json::Value::Object(self.0.clone()));
        let changed: AgentSpec = serde_json::from_value(whole).map_err(invalid)?;
        if changed.runtime != spec.runtime {
            return Err(InvalidSpec { field: "runtime", reason: "cannot be changed; make another agent".into() });
        }
        Ok(changed)
    }
}

fn merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let serde_json::Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(serde_json::Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(json: &str) -> SpecChange {
        serde_json::from_str(json).expect("an object")
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let spec = AgentSpec { model: Some("m".into()), ..AgentSpec::default() };
        let changed = change(r#"{"idle_timeout": 5, "resources": {"memory": "1Gi"}}"#).apply(&spec).expect("valid");
        assert_eq!(changed.model, spec.model);
        assert_eq!(changed.idle_timeout, 5);
        assert_eq!(changed.resources.memory, Some(Bytes::new(1 << 30)));
    }

    #[test]
    fn null_takes_a_field_back_to_its_default() {
        let spec = AgentSpec { idle_timeout: 5, ..AgentSpec::default() };
        let changed = change(r#"{"idle_timeout": null}"#).apply(&spec).expect("valid");
        assert_eq!(changed.idle_timeout, DEFAULT_IDLE_TIMEOUT);
    }

    #[test]
    fn unknown_fields_and_another_runtime_are_refused() {
        let spec = AgentSpec::default();
        assert!(change(r#"{"idle_timeuot": 5}"#).apply(&spec).is_err());
        assert!(change(r#"{"runtime": "docker"}"#).apply(&spec).is_err());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_the_name_of_its_field_and_the_least_is_taken() {
        let refused = |json: &str| {
            let spec = change(json).apply(&AgentSpec::default()).expect("a spec");
            spec.check(&Capabilities::default()).expect_err(json).field
        };
        assert_eq!(refused(r#"{"idle_timeout": 31536001}"#), "idle_timeout");
        assert_eq!(refused(r#"{"busy_timeout": 31536001}"#), "busy_timeout");
        assert_eq!(refused(r#"{"busy_timeout": 0}"#), "busy_timeout");
        assert_eq!(refused(r#"{"resources": {"pids": 0}}"#), "resources.pids");
        assert_eq!(refused(r#"{"resources": {"pids": 31}}"#), "resources.pids");
        assert_eq!(refused(r#"{"resources": {"memory": "67108863"}}"#), "resources.memory");
        assert_eq!(refused(r#"{"resources": {"cpu": "49m"}}"#), "resources.cpu");
        assert_eq!(refused(r#"{"resources": {"disk": "16777215"}}"#), "resources.disk");
        let least = change(r#"{"resources": {"pids": 32, "memory": "64Mi", "cpu": "50m", "disk": "16Mi"}}"#);
        assert!(least.apply(&AgentSpec::default()).expect("a spec").check(&Capabilities::default()).is_ok());
    }

    #[test]
    fn lists_and_texts_have_an_end_and_labels_do_not_pile_up_over_edits() {
        let able = Capabilities { images: true, ..Capabilities::default() };
        let label = |n: usize| change(&format!(r#"{{"labels": {{"key-{n}": "value"}}}}"#));
        let mut spec = AgentSpec { image: Some("i".repeat(512)), ..AgentSpec::default() };
        for n in 0..LABELS_LIMIT {
            spec = label(n).apply(&spec).expect("a spec");
        }
        spec.env = (0..1000).map(|n| (format!("K{n}"), String::new())).collect();
        spec.check(&able).expect("as much as there may be");
        let refused = |spec: AgentSpec| spec.check(&able).expect_err("too much").field;
        assert_eq!(refused(label(LABELS_LIMIT).apply(&spec).expect("a spec")), "labels");
        assert_eq!(refused(AgentSpec { image: Some("i".repeat(513)), ..spec.clone() }), "image");
        assert_eq!(refused(AgentSpec { model: Some("m".repeat(257)), ..spec.clone() }), "model");
        spec.env.insert("ONE_MORE".into(), String::new());
        assert_eq!(refused(spec), "env");
    }

    #[test]
    fn what_a_runtime_cannot_do_is_refused_by_the_name_of_the_field() {
        let bare = Capabilities::default();
        let spec = AgentSpec { root: true, ..AgentSpec::default() };
        assert_eq!(spec.check(&bare).expect_err("no root").field, "root");
        assert!(AgentSpec::default().check(&bare).is_ok());
        let open_alone = Capabilities { open_network: true, closed_network: false, ..bare };
        let refused = AgentSpec::default().check(&open_alone).expect_err("no closed network");
        assert_eq!(refused.field, "network.mode");
        assert!(refused.reason.contains("use the mode open"), "{refused}");
        let mut spec = AgentSpec::default();
        spec.network.mode = NetworkMode::Open;
        assert!(spec.check(&open_alone).is_ok());
        assert_eq!(spec.check(&bare).expect_err("no open network").field, "network.mode");
    }
}
