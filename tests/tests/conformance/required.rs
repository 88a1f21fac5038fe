//! Which backends must be reached, and how a case is run.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

/// Backends that can be named. The model's tests are elsewhere.
const KNOWN: &[&str] = &["memory", "sqlite", "postgres", "pgbouncer", "mariadb", "mysql", "local", "docker", "model"];

/// How long a case may take; the suites have limits of their own, after which they clear up.
const LIMIT: Duration = Duration::from_secs(300);

/// The backends of `RAWORC_TEST_BACKENDS`.
pub(crate) struct Required(BTreeSet<String>);

impl Required {
    pub(crate) fn from_env() -> Self {
        let names = std::env::var("RAWORC_TEST_BACKENDS").unwrap_or_default();
        Self(names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Whether the run fails where this backend cannot be reached.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// A failing trial for every name that nobody knows.
    pub(crate) fn trials(&self) -> Vec<Trial> {
        let unknown = self.0.iter().filter(|name| !KNOWN.contains(&name.as_str()));
        unknown
            .map(|name| {
                let text = format!("RAWORC_TEST_BACKENDS names {name:?}, which is none of {}", KNOWN.join(", "));
                Trial::test(format!("{name}::is_known"), move || Err(Failed::from(text)))
            })
            .collect()
    }
}

/// Runs one case to its end or to its limit.
pub(crate) fn run(case: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, case).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended.map_err(|_| Failed::from(format!("not over after {LIMIT:?}")))
}
