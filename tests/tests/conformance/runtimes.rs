//! The runtimes.

mod docker;
mod local;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use libtest_mimic::{Failed, Trial};
use raworc_core::runtime::Capabilities;
use raworc_core::runtime::conformance::{RuntimeUnderTest, cases, why_ignored};

use self::docker::{Docker, ELSEWHERE, HERE};
use self::local::Local;
use crate::required::{Required, run};

/// A runtime that the suite can have on this machine.
#[async_trait]
trait Subject: RuntimeUnderTest + Sized + 'static {
    /// As what it is required.
    const NAME: &'static str;

    /// What the names of its cases begin with, where it is one of several of its name.
    const KIND: &'static str = "";

    /// One of its own for each case; the reason where this machine does not have it.
    async fn new() -> Result<Self, String>;

    /// What it declares, once it is seen to work.
    async fn capabilities(&self) -> Result<Capabilities, String> {
        Ok(self.runtime().capabilities())
    }

    /// Leaves nothing behind.
    async fn close(&self);
}

/// Every case against every runtime.
pub(crate) fn trials(required: &Required) -> Vec<Trial> {
    let mut trials = trials_of::<Local>(required);
    trials.extend(trials_of::<Docker<HERE>>(required));
    trials.extend(trials_of::<Docker<ELSEWHERE>>(required));
    trials
}

/// Every case against one. Where this machine does not have it and it is required, every case fails with the reason.
fn trials_of<S: Subject>(required: &Required) -> Vec<Trial> {
    let reached = Mutex::new(Err("not tried".to_owned()));
    let tried = run(async {
        let outcome = match S::new().await {
            Ok(subject) => {
                let capabilities = subject.capabilities().await;
                // One that is not seen to work has made nothing, and could not take it away.
                if capabilities.is_ok() {
                    subject.close().await;
                }
                capabilities
            }
            Err(reason) => Err(reason),
        };
        *reached.lock().expect("nobody panics while holding this") = outcome;
    });
    let reached = match tried {
        Ok(()) => reached.into_inner().expect("nobody panics while holding this"),
        Err(_) => Err("the probe does not end".to_owned()),
    };
    let is_required = required.contains(S::NAME);
    let trial = |case: raworc_core::conformance::Case<dyn RuntimeUnderTest>| {
        let name = format!("{}::{}{}", S::NAME, S::KIND, case.name);
        match &reached {
            Ok(capabilities) => {
                let is_ignored = why_ignored(&case, capabilities).is_some();
                let test = move || {
                    run(async {
                        let subject = Arc::new(S::new().await.unwrap_or_else(|reason| panic!("{reason}")));
                        let ran = case.run(Arc::clone(&subject) as Arc<dyn RuntimeUnderTest>);
                        let ran = AssertUnwindSafe(ran).catch_unwind().await;
                        // Also where the case fails.
                        subject.close().await;
                        if let Err(panic) = ran {
                            resume_unwind(panic);
                        }
                    })
                };
                Trial::test(name, test).with_ignored_flag(is_ignored)
            }
            Err(reason) => {
                let reason = reason.clone();
                Trial::test(name, move || Err(Failed::from(reason))).with_ignored_flag(!is_required)
            }
        }
    };
    cases().into_iter().map(trial).collect()
}
