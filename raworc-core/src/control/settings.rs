//! Limits and defaults of an installation.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::RuntimeName;
use crate::program::{ModelSpec, WorkLimits};
use crate::store::Retention;

/// Limits and defaults of an installation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Messages that may wait for one agent.
    pub inbox_limit: u64,
    /// Bytes of text in the messages that may wait for one agent: no further message is accepted once they are reached.
    pub inbox_bytes: u64,
    /// Agents that a tenant may have; any number where absent.
    pub agents_per_tenant: Option<u64>,
    /// How long a key of idempotency is remembered.
    pub idempotency_ttl: Duration,
    /// How long a program has to obey a cancel.
    pub cancel_grace: Duration,
    /// How long a setup script may run.
    pub setup_limit: Duration,
    /// The longest that an agent can be kept awake by one ask.
    pub keep_awake_limit: Duration,
    /// The runtime of an agent whose spec names none; the first that this process reaches where absent, or the one that
    /// operators elsewhere tell of as theirs.
    pub default_runtime: Option<RuntimeName>,
    /// How long what is old is kept, where a [`Retainer`](super::Retainer) runs.
    pub retention: Retention,
    /// The models that agents may use.
    pub models: Models,
    /// Limits of the work on one message.
    pub work: WorkLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inbox_limit: 10_000,
            inbox_bytes: 64 << 20,
            agents_per_tenant: None,
            idempotency_ttl: Duration::from_secs(24 * 3600),
            cancel_grace: Duration::from_secs(10),
            setup_limit: Duration::from_secs(600),
            keep_awake_limit: Duration::from_secs(7 * 24 * 3600),
            default_runtime: None,
            retention: Retention::default(),
            models: Models::default(),
            work: WorkLimits::default(),
        }
    }
}

/// The models of an installation, by name.
#[derive(Debug, Clone, Default)]
pub struct Models {
    known: BTreeMap<String, ModelSpec>,
    default: Option<String>,
}

impl Models {
    /// Adds a model. The first that is added is the default.
    #[must_use]
    pub fn with(mut self, model: ModelSpec) -> Self {
        self.default.get_or_insert_with(|| model.name.clone());
        self.known.insert(model.name.clone(), model);
        self
    }

    /// The model of this name, or the default.
    #[must_use]
    pub fn get(&self, name: Option<&str>) -> Option<&ModelSpec> {
        self.known.get(name.or(self.default.as_deref())?)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }
}
