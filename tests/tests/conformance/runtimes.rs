//! The runtimes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use libtest_mimic::{Failed, Trial};
use raworc_backends::local::{LocalOptions, LocalRuntime};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::Runtime;
use raworc_core::runtime::conformance::{RuntimeUnderTest, SHELL_PROGRAM, cases, why_ignored};
use tempfile::TempDir;

use crate::required::{Required, run};

/// Every case against every runtime. The local one runs isolated; where this machine does not let it and it is
/// required, every case fails with the reason.
pub(crate) fn trials(required: &Required) -> Vec<Trial> {
    let reached = Mutex::new(Err("not tried".to_owned()));
    let tried = run(async {
        let subject = Local::new().await;
        let outcome = subject.runtime.probe().await.map(|_| subject.runtime.capabilities());
        *reached.lock().expect("nobody panics while holding this") = outcome.map_err(|error| error.to_string());
        subject.close().await;
    });
    let reached = match tried {
        Ok(()) => reached.into_inner().expect("nobody panics while holding this"),
        Err(_) => Err("the probe does not end".to_owned()),
    };
    let is_required = required.contains("local");
    cases()
        .into_iter()
        .map(|case| {
            let name = format!("local::{}", case.name);
            match &reached {
                Ok(capabilities) => {
                    let is_ignored = why_ignored(&case, capabilities).is_some();
                    Trial::test(name, move || {
                        run(async {
                            let subject = Arc::new(Local::new().await);
                            case.run(Arc::clone(&subject) as Arc<dyn RuntimeUnderTest>).await;
                            subject.close().await;
                        })
                    })
                    .with_ignored_flag(is_ignored)
                }
                Err(reason) => {
                    let reason = reason.clone();
                    Trial::test(name, move || Err(Failed::from(reason))).with_ignored_flag(!is_required)
                }
            }
        })
        .collect()
}

/// The local runtime on a directory of its own.
struct Local {
    runtime: LocalRuntime,
    neighbour: LocalRuntime,
    _directory: TempDir,
}

impl Local {
    async fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let open =
            async |installation: &str| {
                let name = RuntimeName::new("local").expect("a name");
                // Control groups stand side by side for the whole machine, so the name has to be this case's own.
                let own = directory.path().file_name().unwrap_or_default().to_string_lossy().replace('.', "");
                let options = LocalOptions::new(name, format!("{installation}-{own}"), directory.path())
                    .with_program(["/bin/sh", "-c", SHELL_PROGRAM]);
                LocalRuntime::open(options).await.unwrap_or_else(|error| panic!("the runtime does not open: {error}"))
            };
        let (runtime, neighbour) = (open("own").await, open("neighbour").await);
        Self { runtime, neighbour, _directory: directory }
    }

    async fn close(&self) {
        self.runtime.clone().close().await;
        self.neighbour.clone().close().await;
    }
}

#[async_trait]
impl RuntimeUnderTest for Local {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.neighbour.clone())
    }
}
