//! What the agent remembers of its conversation, and how that fits into what its model can read at once.

mod file;
#[cfg(test)]
mod tests;

use raworc_core::ids::MessageId;
use serde::{Deserialize, Serialize};

use crate::model::Turn;
use crate::truncate::{beginning, cut};

/// Exchanges that are kept at most, whether a model ever reads them or not.
const EXCHANGES_LIMIT: usize = 200;

/// Bytes of turns that are kept at most.
const BYTES_LIMIT: usize = 1 << 20;

/// Bytes that a tool's output is shortened to where the exchange in hand alone is too long.
const SHORTENED: usize = 400;

/// Bytes that each turn costs beside its text.
const TURN_OVERHEAD: usize = 32;

/// What was said in one agent's conversation, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conversation {
    /// What stands for the exchanges that are no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    exchanges: Vec<Exchange>,
}

/// A message and all that was said and done for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Exchange {
    message: MessageId,
    turns: Vec<Turn>,
}

impl Conversation {
    /// Begins the exchange about this message. What an earlier attempt at it left is taken out.
    pub(crate) fn begin(&mut self, message: MessageId, text: String) {
        self.exchanges.retain(|exchange| exchange.message != message);
        self.exchanges.push(Exchange { message, turns: vec![Turn::User { text }] });
    }

    /// Adds to the exchange in hand.
    pub(crate) fn push(&mut self, turn: Turn) {
        if let Some(exchange) = self.exchanges.last_mut() {
            exchange.turns.push(turn);
        }
    }

    /// Drops what goes beyond the bounds of what is kept.
    pub(crate) fn prune(&mut self) {
        let mut bytes = self.bytes();
        let mut surplus = 0;
        while surplus + 1 < self.exchanges.len()
            && (self.exchanges.len() - surplus > EXCHANGES_LIMIT || bytes > BYTES_LIMIT)
        {
            bytes -= self.exchanges[surplus].bytes();
            surplus += 1;
        }
        if surplus > 0 {
            self.forget(surplus);
        }
        if bytes > BYTES_LIMIT {
            self.shorten(BYTES_LIMIT);
        }
    }

    /// All turns as the model reads them.
    pub(crate) fn turns(&self, instructions: &str) -> Vec<Turn> {
        let mut turns = vec![Turn::System { text: instructions.to_owned() }];
        if let Some(summary) = &self.summary {
            let text = format!("What was said before, in short:\n{summary}");
            turns.push(Turn::User { text });
            turns.push(Turn::Assistant { text: "I keep that in mind.".into(), calls: Vec::new() });
        }
        turns.extend(self.exchanges.iter().flat_map(|exchange| exchange.turns.iter().cloned()));
        turns
    }

    /// Bytes of all turns.
    pub(crate) fn bytes(&self) -> usize {
        self.summary.as_ref().map_or(0, String::len) + self.exchanges.iter().map(Exchange::bytes).sum::<usize>()
    }

    /// How many of the oldest exchanges have to go, so that the others take at most half of `budget` bytes. The one
    /// in hand stays.
    pub(crate) fn surplus(&self, budget: usize) -> usize {
        let mut left = self.bytes();
        let mut count = 0;
        while left > budget / 2 && count + 1 < self.exchanges.len() {
            left -= self.exchanges[count].bytes();
            count += 1;
        }
        count
    }

    /// The oldest `count` exchanges and the summary before them, as a text of at most `limit` bytes.
    pub(crate) fn transcript(&self, count: usize, limit: usize) -> String {
        let turns: Vec<_> = self.exchanges.iter().take(count).flat_map(|exchange| &exchange.turns).collect();
        let each = (limit / (turns.len() + 1).max(1)).max(64);
        let mut text = String::new();
        if let Some(summary) = &self.summary {
            text.push_str(&format!("Earlier: {}\n", cut(summary, limit / 4)));
        }
        for turn in turns {
            let (who, said) = match turn {
                Turn::System { text } => ("Owner", text.clone()),
                Turn::User { text } => ("User", text.clone()),
                Turn::Assistant { text, calls } => {
                    let calls: Vec<_> =
                        calls.iter().map(|call| format!("[calls {} {}]", call.name, call.arguments)).collect();
                    ("Assistant", format!("{text} {}", calls.join(" ")))
                }
                Turn::Tool { name, output, .. } => (name.as_str(), output.clone()),
            };
            text.push_str(&format!("{who}: {}\n", cut(said.trim(), each)));
        }
        cut(&text, limit)
    }

    /// Puts a summary in place of the oldest `count` exchanges and the summary before them.
    pub(crate) fn summarise(&mut self, count: usize, summary: String) {
        self.exchanges.drain(..count.min(self.exchanges.len()));
        self.summary = Some(summary);
    }

    /// Drops the oldest `count` exchanges and notes that.
    pub(crate) fn forget(&mut self, count: usize) {
        const NOTE: &str = "(Older parts of this conversation were left out for want of room.)";
        let before = self.summary.take().unwrap_or_default();
        let before = before.strip_suffix(NOTE).map_or(before.as_str(), str::trim_end).to_owned();
        let summary = if before.is_empty() { NOTE.to_owned() } else { format!("{before}\n{NOTE}") };
        self.summarise(count, summary);
    }

    /// Shortens the exchange in hand, oldest tool outputs first, until all turns take at most `budget` bytes.
    /// Whether that succeeded.
    pub(crate) fn shorten(&mut self, budget: usize) -> bool {
        if let Some(summary) = &self.summary
            && summary.len() > budget / 4
        {
            self.summary = Some(cut(summary, budget / 4));
        }
        let others: usize = self.bytes() - self.exchanges.last().map_or(0, Exchange::bytes);
        let Some(exchange) = self.exchanges.last_mut() else { return true };
        let room = budget.saturating_sub(others);
        for limit in [SHORTENED, 64] {
            for n in 0..exchange.turns.len() {
                if exchange.bytes() <= room {
                    return true;
                }
                exchange.turns[n].shorten(limit, budget / 4);
            }
        }
        // What is left is many small rounds: the oldest go, with their calls and results together.
        while exchange.bytes() > room {
            let rounds = exchange.turns.iter().skip(1).position(|turn| matches!(turn, Turn::Assistant { .. }));
            let Some(first) = rounds.map(|n| n + 1) else { break };
            let next = exchange.turns[first + 1..].iter().position(|turn| matches!(turn, Turn::Assistant { .. }));
            let Some(next) = next.map(|n| first + 1 + n) else { break };
            exchange.turns.drain(first..next);
        }
        exchange.bytes() <= room
    }
}

impl Exchange {
    fn bytes(&self) -> usize {
        self.turns.iter().map(Turn::bytes).sum()
    }
}

impl Turn {
    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        TURN_OVERHEAD
            + match self {
                Self::System { text } | Self::User { text } => text.len(),
                Self::Assistant { text, calls } => {
                    let calls = calls.iter().map(|call| call.name.len() + call.arguments.to_string().len());
                    text.len() + calls.sum::<usize>()
                }
                Self::Tool { output, name, .. } => output.len() + name.len(),
            }
    }

    fn shorten(&mut self, output_limit: usize, asked_limit: usize) {
        match self {
            Self::System { text } | Self::User { text } => *text = cut(text, asked_limit),
            Self::Assistant { text, calls } => {
                *text = cut(text, output_limit);
                for call in calls {
                    let written = call.arguments.to_string();
                    if written.len() > output_limit {
                        let note = format!("{} [cut]", beginning(&written, output_limit));
                        call.arguments = serde_json::json!({ "shortened": note });
                    }
                }
            }
            Self::Tool { output, .. } => *output = cut(output, output_limit),
        }
    }
}
