use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::runtime::simulated::{Profile, SimulatedOptions, SimulatedRuntime};

struct Subject(SimulatedRuntime);

#[async_trait]
impl RuntimeUnderTest for Subject {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    async fn another_handle(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    async fn another_installation(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.for_installation("neighbour"))
    }
}

fn subject(profile: Profile, capabilities: Capabilities) -> Arc<Subject> {
    let options = SimulatedOptions::new(profile).with_capabilities(capabilities).with_program(ScriptProgram);
    let runtime = SimulatedRuntime::new(options);
    let subject = Subject(runtime.clone());
    runtime.control().lose_image(&subject.missing_image(), "nobody has it");
    Arc::new(subject)
}

#[tokio::test(start_paused = true)]
async fn the_simulated_runtime_passes_in_both_profiles() {
    for profile in [Profile::Container, Profile::Pod] {
        let capabilities = profile.capabilities();
        for case in cases() {
            if why_ignored(&case, &capabilities).is_none() {
                let subject = subject(profile, capabilities);
                case.run(subject).await;
            }
        }
    }
}

#[test]
fn every_sentence_of_the_contract_has_a_case_and_every_case_a_sentence() {
    let source = include_str!("../../runtime.rs");
    let sentences: BTreeSet<&str> = source.lines().filter_map(sentence).collect();
    let shown: BTreeSet<&str> = cases().iter().flat_map(|case| case.shows.iter().copied()).collect();
    assert!(sentences.len() >= 23, "the contract is not where this test looks for it: {sentences:?}");
    assert_eq!(sentences, shown);
}

/// The id in a line such as "/// - `R1` `prepare` of ...".
fn sentence(line: &str) -> Option<&str> {
    line.trim().strip_prefix("/// - `")?.split_once('`').map(|(id, _)| id).filter(|id| id.starts_with('R'))
}
