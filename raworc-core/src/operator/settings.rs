//! Limits and intervals of an operator.

use std::time::Duration;

/// Limits and intervals of an operator.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OperatorSettings {
    /// Calls that one engine gets at a time.
    pub engine_calls: usize,
    /// Agents that are looked at at a time.
    pub looks: usize,
    /// How long a program has to be ready, from its image being there.
    pub start_limit: Duration,
    /// How long an image may take to be had.
    pub prepare_limit: Duration,
    /// How long one call of an engine may take.
    pub call_limit: Duration,
    /// How long a program has to end by itself.
    pub stop_grace: Duration,
    /// How often what is due is looked for.
    pub scan_every: Duration,
    /// How often the reclaim list is gone through.
    pub reclaim_every: Duration,
    /// How often an engine is asked for all its computers.
    pub resync_every: Duration,
    /// The longest wait between two starts of a failing computer.
    pub backoff_limit: Duration,
}

impl Default for OperatorSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            engine_calls: (8 * cores).max(16),
            looks: 64,
            start_limit: Duration::from_secs(120),
            prepare_limit: Duration::from_secs(1800),
            call_limit: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
            scan_every: Duration::from_secs(1),
            reclaim_every: Duration::from_secs(30),
            resync_every: Duration::from_secs(300),
            backoff_limit: Duration::from_secs(300),
        }
    }
}
