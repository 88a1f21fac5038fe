//! What was refused, as steps of the agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use raworc_core::control::{Call, ControlPlane};
use raworc_core::ids::AgentId;
use raworc_core::step::{NewStep, StepKind};
use tokio_util::sync::CancellationToken;

/// How long remarks are gathered after some were written down: four times a second at most.
const GATHER: Duration = Duration::from_millis(250);

/// How long anybody waits for the store to take them.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Remarks that are told apart in that time.
const APART: usize = 100;

/// Remarks that are not written down yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Remarks(Arc<Mutex<HashMap<AgentId, Gathered>>>);

#[derive(Debug, Default)]
struct Gathered {
    /// In the order in which they came, and how often.
    texts: Vec<(String, u32)>,
    more: u32,
    /// Cancelled once they are written down.
    written: CancellationToken,
}

impl Gathered {
    fn add(&mut self, text: String) {
        if let Some((_, times)) = self.texts.iter_mut().find(|(known, _)| *known == text) {
            *times += 1;
        } else if self.texts.len() < APART {
            self.texts.push((text, 1));
        } else {
            self.more += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn steps(&self) -> Vec<NewStep> {
        let step = |text| NewStep { kind: StepKind::Log, tool: None, text };
        let told = self.texts.iter().map(|(text, times)| match times {
            1 => text.clone(),
            times => format!("{text} ({times} times)"),
        });
        let more = (self.more > 0).then(|| format!("egress refused {} more connections", self.more));
        told.chain(more).map(step).collect()
    }
}

impl Remarks {
    /// Writes a remark down, with what else is remarked of this agent in that moment, and waits for it: so it stands with
    /// the message for which it was worked.
    pub(super) async fn add(&self, control: &ControlPlane, call: &Call, agent: AgentId, text: String) {
        let written = {
            let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = !gathered.contains_key(&agent);
            let own = gathered.entry(agent).or_default();
            own.add(text);
            if is_first {
                tokio::spawn(self.clone().write(control.clone(), call.clone(), agent));
            }
            own.written.clone()
        };
        let _ = tokio::time::timeout(WRITE_LIMIT, written.cancelled()).await;
    }

    /// Writes down what there is of an agent, and what comes meanwhile, until nothing comes any more.
    async fn write(self, control: ControlPlane, call: Call, agent: AgentId) {
        while let Some(gathered) = self.take(agent) {
            if let Err(error) = control.add_remarks(&call, gathered.steps()).await {
                tracing::warn!(%agent, %error, "what was refused is not among the agent's steps");
            }
            gathered.written.cancel();
            tokio::time::sleep(GATHER).await;
        }
    }

    fn take(&self, agent: AgentId) -> Option<Gathered> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.get_mut(&agent)?;
        if own.is_empty() {
            all.remove(&agent);
            return None;
        }
        Some(std::mem::take(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_told_once_and_what_is_too_much_is_counted() {
        let mut gathered = Gathered::default();
        for _ in 0..3 {
            gathered.add("a".into());
        }
        for number in 0..150 {
            gathered.add(number.to_string());
        }
        let steps = gathered.steps();
        assert_eq!(steps.len(), APART + 1);
        assert_eq!(steps[0].text, "a (3 times)");
        assert_eq!(steps[1].text, "0");
        assert_eq!(steps[APART].text, "egress refused 51 more connections");
    }
}
