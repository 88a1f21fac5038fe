//! How much of a model's window and of a message's limits is used.

use raworc_core::program::{ModelSpec, WorkLimits};

use crate::tools;

/// Tokens for a byte, unless the model counts more.
const TOKENS_PER_BYTE: f64 = 0.25;

/// Tokens that a model reads at least.
const LEAST: u32 = 512;

/// Bytes that a token stands for at most, on average: long words and deep indents.
const BYTES_PER_TOKEN: u64 = 16;

/// Tokens that one answer may take at most.
const ANSWER_LIMIT: u32 = 16_384;

/// What a model can read at once, in bytes.
#[derive(Debug)]
pub(super) struct Window {
    context: u32,
    tokens_per_byte: f64,
    asked: usize,
}

impl Window {
    pub(super) fn of(model: Option<&ModelSpec>) -> Self {
        let context = model.map_or(8192, |model| model.context.max(LEAST));
        Self { context, tokens_per_byte: TOKENS_PER_BYTE, asked: 0 }
    }

    /// Tokens that it reads at once.
    pub(super) const fn context(&self) -> u32 {
        self.context
    }

    /// The model cannot read what it was asked: it reads less than it is said to, or counts more tokens. From now on half
    /// of that is taken for all that it reads. Whether that is still something.
    pub(super) fn narrow(&mut self) -> bool {
        let asked = (self.asked as f64 * self.tokens_per_byte) as u32;
        self.context = self.context.min(asked) / 2;
        self.context >= LEAST
    }

    /// Tokens that are kept free for one answer.
    pub(super) fn answer_tokens(&self) -> u32 {
        (self.context / 4).min(ANSWER_LIMIT)
    }

    /// Bytes that instructions and conversation may take.
    pub(super) fn budget(&self) -> usize {
        let tools = tools::definitions().to_string().len();
        let tokens = f64::from(self.context - self.answer_tokens());
        // Never so few that nothing could be said at all.
        ((tokens / self.tokens_per_byte) as usize).saturating_sub(tools).max(512)
    }

    /// Bytes of one tool's output that the model is shown.
    pub(super) fn output_bytes(&self) -> usize {
        (self.budget() / 4).clamp(512, tools::OUTPUT_LIMIT)
    }

    /// So many bytes were sent.
    pub(super) const fn asked(&mut self, bytes: usize) {
        self.asked = bytes;
    }

    /// The model counted so many tokens in what was sent. Text in some scripts takes more than the estimate.
    pub(super) fn counted(&mut self, tokens: u64) {
        if self.asked > 2048 {
            let counted = tokens as f64 / self.asked as f64;
            self.tokens_per_byte = counted.clamp(TOKENS_PER_BYTE, 1.0);
        }
    }
}

/// What a message has used of its limits.
#[derive(Debug, Default)]
pub(super) struct Spent {
    rounds: u32,
    /// Tokens of the calls that have ended.
    tokens: u64,
    /// Bytes of the call that is open, or its tokens once they were counted.
    open_bytes: u64,
    open_tokens: Option<u64>,
}

impl Spent {
    pub(super) const fn begin_round(&mut self) {
        self.rounds += 1;
    }

    pub(super) const fn estimate(&mut self, bytes: usize) {
        self.open_bytes += bytes as u64;
    }

    pub(super) const fn counted(&mut self, tokens: u64) {
        self.open_tokens = Some(tokens);
    }

    pub(super) fn end_call(&mut self) {
        self.tokens = self.total();
        self.open_bytes = 0;
        self.open_tokens = None;
    }

    fn total(&self) -> u64 {
        self.tokens.saturating_add(self.open_tokens.unwrap_or(self.open_bytes / 4))
    }

    /// Tokens that may still be written.
    pub(super) fn left(&self, limits: &WorkLimits) -> u32 {
        u32::try_from(u64::from(limits.tokens).saturating_sub(self.total())).unwrap_or(u32::MAX)
    }

    /// Why the model is to be hung up on. It was told how much it may write, so until it has counted for itself only
    /// what is too much beyond doubt speaks against it.
    pub(super) fn over_tokens(&self, limits: &WorkLimits) -> Option<String> {
        let open = self.open_tokens.unwrap_or(self.open_bytes / BYTES_PER_TOKEN);
        (self.tokens.saturating_add(open) > u64::from(limits.tokens)).then(|| tokens_reason(limits))
    }

    /// Why no further call may be made.
    pub(super) fn over(&self, limits: &WorkLimits) -> Option<String> {
        if self.rounds >= limits.rounds {
            return Some(format!(
                "the model made {} calls, the limit of one message, without coming to an answer; \
                 send a message that says how to go on",
                limits.rounds
            ));
        }
        (self.left(limits) == 0).then(|| tokens_reason(limits))
    }
}

fn tokens_reason(limits: &WorkLimits) -> String {
    format!(
        "the model wrote more than {} tokens, the limit of one message; give it a smaller task, or send a message \
         that says how to go on",
        limits.tokens
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_impossible_is_over_every_limit_and_ends_nothing_else() {
        let limits = WorkLimits { tokens: 1000, ..WorkLimits::default() };
        let mut spent = Spent::default();
        for _ in 0..2 {
            spent.begin_round();
            spent.estimate(400);
            spent.counted(u64::MAX);
            assert!(spent.over_tokens(&limits).is_some());
            spent.end_call();
            assert!(spent.over(&limits).is_some());
            assert_eq!(spent.left(&limits), 0);
        }
    }
}
