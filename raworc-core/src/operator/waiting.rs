//! What waits in an operator, for figures.

use super::Shared;
use super::gate::Gate;
use crate::ids::RuntimeName;

/// What waits in an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Agents that it has yet to look at, now or later.
    pub agents: usize,
    /// Those of them that are due.
    pub due: usize,
    /// What its engines do, and what waits for them.
    pub engines: Vec<EngineWaiting>,
}

/// What an engine does of one kind, and what waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineWaiting {
    /// The engine's runtime.
    pub runtime: RuntimeName,
    /// What of: `changes`, `looks`, `pulls`, `images`, `logs` or `orphans`.
    pub kind: &'static str,
    /// Under way.
    pub running: usize,
    /// Those that wait.
    pub waiting: usize,
}

impl Shared {
    pub(super) fn waiting(&self) -> Waiting {
        let engines = self.engines.iter().flat_map(|(runtime, engine)| {
            let of = |kind, gates: &[&Gate]| EngineWaiting {
                runtime: runtime.clone(),
                kind,
                running: gates.iter().map(|gate| gate.running()).sum(),
                waiting: gates.iter().map(|gate| gate.waiting()).sum(),
            };
            [
                of("changes", &[&engine.gate]),
                of("looks", &[&engine.looks]),
                of("pulls", &[&engine.pulls]),
                of("images", &[&engine.asks, &engine.had]),
                of("logs", &[&engine.logs]),
                of("orphans", &[&engine.orphans]),
            ]
        });
        let (agents, due) = self.queue.len();
        Waiting { agents, due, engines: engines.collect() }
    }
}
