//! What models were used: calls and tokens, in all and for each agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raworc_core::ids::AgentId;
use raworc_core::trace;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::Span;

/// Calls that one agent may have open at once. Its program makes one after another.
const OPEN_LIMIT: u32 = 8;

/// What was used of models since this process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUsage {
    /// Calls that were made.
    pub calls: u64,
    /// Calls that did not end well.
    pub failed: u64,
    /// Tokens that models read.
    pub prompt_tokens: u64,
    /// Tokens that models wrote.
    pub completion_tokens: u64,
}

impl ModelUsage {
    const fn add(&mut self, tokens: Tokens, failed: bool) {
        self.calls += 1;
        self.failed += failed as u64;
        // These are numbers that providers say, whatever they are.
        self.prompt_tokens = self.prompt_tokens.saturating_add(tokens.prompt);
        self.completion_tokens = self.completion_tokens.saturating_add(tokens.completion);
    }
}

/// Tokens of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    pub(super) completion: u64,
}

#[derive(Debug, Default)]
struct Book {
    totals: ModelUsage,
    agents: HashMap<AgentId, ModelUsage>,
    open: HashMap<AgentId, u32>,
}

/// Counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Mutex<Book>>);

impl Meter {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn totals(&self) -> ModelUsage {
        self.book().totals
    }

    pub(super) fn of(&self, agent: AgentId) -> ModelUsage {
        self.book().agents.get(&agent).copied().unwrap_or_default()
    }

    /// Opens a call. None where the agent has too many open.
    pub(super) fn open(&self, agent: AgentId) -> Option<Open> {
        let mut book = self.book();
        let open = book.open.entry(agent).or_default();
        if *open >= OPEN_LIMIT {
            return None;
        }
        *open += 1;
        Some(Open { meter: self.clone(), agent })
    }

    /// Begins to count a call, and to trace it where the one that asks for it is.
    pub(super) fn begin(&self, open: Option<Open>, model: &str) -> Counter {
        let (meter, began, span) = (self.clone(), Instant::now(), trace::within("ask the model"));
        span.record("otel.kind", "client");
        span.record("raworc.model", model);
        Counter { meter, open, model: model.to_owned(), began, span, tokens: Tokens::default(), done: false }
    }
}

/// One of the calls that an agent has open.
#[derive(Debug)]
pub(super) struct Open {
    meter: Meter,
    agent: AgentId,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut book = self.meter.book();
        if let Some(open) = book.open.get_mut(&self.agent) {
            *open -= 1;
            if *open == 0 {
                book.open.remove(&self.agent);
            }
        }
    }
}

/// Counts one call, and writes it down when it is dropped.
#[derive(Debug)]
pub(super) struct Counter {
    meter: Meter,
    open: Option<Open>,
    model: String,
    began: Instant,
    /// As long as the answer comes.
    span: Span,
    pub(super) tokens: Tokens,
    /// Whether the answer came to its end.
    pub(super) done: bool,
}

impl Drop for Counter {
    fn drop(&mut self) {
        let outcome = if self.done { "done" } else { "failed" };
        match self.done {
            true => _ = self.span.record("raworc.outcome", outcome),
            false => trace::failed(&self.span, outcome),
        }
        let model = self.model.clone();
        metrics::counter!("raworc_model_calls_total", "model" => model.clone(), "outcome" => outcome).increment(1);
        metrics::counter!("raworc_model_tokens_total", "model" => model.clone(), "kind" => "prompt")
            .increment(self.tokens.prompt);
        metrics::counter!("raworc_model_tokens_total", "model" => model.clone(), "kind" => "completion")
            .increment(self.tokens.completion);
        metrics::histogram!("raworc_model_call_seconds", "model" => model).record(self.began.elapsed().as_secs_f64());
        let mut book = self.meter.book();
        book.totals.add(self.tokens, !self.done);
        if let Some(open) = &self.open {
            book.agents.entry(open.agent).or_default().add(self.tokens, !self.done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_provider_that_says_impossible_numbers_ends_no_count() {
        let meter = Meter::default();
        for _ in 0..2 {
            meter.begin(None, "m").tokens = Tokens { prompt: u64::MAX, completion: u64::MAX };
        }
        let totals = meter.totals();
        assert_eq!((totals.calls, totals.prompt_tokens, totals.completion_tokens), (2, u64::MAX, u64::MAX));
    }
}
