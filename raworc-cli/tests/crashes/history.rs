//! What clients did and what came of it, and what was there at the end: all that the checker judges by.

use std::collections::BTreeMap;
use std::fmt;

/// A call of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// When it was begun, and when its answer was there, on one clock of all clients that counts what happens.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// The name of the agent that it is about.
    pub(crate) agent: String,
    pub(crate) act: Act,
    pub(crate) outcome: Outcome,
}

/// What a call asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Create {
        key: String,
    },
    /// A message with a label of its own; two calls with the same key bear the same label.
    Send {
        label: String,
        key: Option<String>,
    },
    Get,
    Sleep {
        now: bool,
    },
    Wake,
    Cancel,
    CancelMessage {
        message: String,
    },
    Delete,
}

/// Stands for the code of a refusal that has none.
pub(crate) const NO_CODE: &str = "no code";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was acknowledged, with the agent as it is.
    Agent { id: String },
    /// It was read, and is about to be deleted: that was acknowledged, and the operator has not come to it yet.
    Going,
    /// It was acknowledged, with a message.
    Message { id: String, agent: String, seq: u64 },
    /// It had no effect, and the server says why.
    Refused { code: String },
    /// It may have been done or not.
    Unknown { why: String },
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) revision: u64,
    pub(crate) kind: String,
    pub(crate) agent: String,
    pub(crate) message: String,
    /// The state that was entered, where one was.
    pub(crate) to: String,
    /// The number of the message, where it is about one.
    pub(crate) seq: u64,
}

/// A message as it is at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) label: String,
    pub(crate) state: String,
    pub(crate) attempt: u32,
    /// What the replies say that name it.
    pub(crate) replies: Vec<String>,
}

/// An agent as it is at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AgentAtEnd {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What it was asked to be last, what it wants to be, and what it is.
    pub(crate) asked: String,
    pub(crate) desired: String,
    pub(crate) state: String,
    /// Whether a start of its computer has not ended.
    pub(crate) runs: bool,
    /// What users said to it, by number.
    pub(crate) messages: Vec<Kept>,
    /// The lines that its work left on its volume, in order.
    pub(crate) trace: Vec<String>,
    /// The labels of work whose file is whole, byte by byte, and `damaged` with that of another one.
    pub(crate) intact: Vec<String>,
}

/// What the machine showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// Volumes that two computers had at once.
    pub(crate) twice: Vec<String>,
    /// Volumes for which an engine was asked to make a second computer.
    pub(crate) second_computers: Vec<String>,
    /// Computers that ran when every agent had come to rest.
    pub(crate) computers_at_rest: usize,
    /// Volumes that were kept then.
    pub(crate) volumes_at_rest: usize,
    /// What the store said then was wrong with itself.
    pub(crate) unsound: Vec<String>,
    /// What was left of computers and volumes when every agent was deleted.
    pub(crate) left_of_deleted: Vec<String>,
    /// Processes and control groups that were left when the server had ended.
    pub(crate) left_of_server: Vec<String>,
    /// What a server said that did not start or did not end as it should.
    pub(crate) troubles: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) calls: Vec<Call>,
    /// The whole log, read at the end.
    pub(crate) log: Vec<Logged>,
    /// Entries of it that nobody in the tenant is told, at most: of an operator that leaves.
    pub(crate) untold: u64,
    /// The revisions that each reader was told, by its name, in the order in which it was.
    pub(crate) readers: BTreeMap<String, Vec<u64>>,
    pub(crate) agents: Vec<AgentAtEnd>,
    /// Agents that were deleted, as they were just before.
    pub(crate) past: Vec<AgentAtEnd>,
    pub(crate) machine: Machine,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in &self.calls {
            writeln!(f, "{}..{} {} {:?} -> {:?}", call.begun, call.ended, call.agent, call.act, call.outcome)?;
        }
        for entry in &self.log {
            writeln!(f, "{entry:?}")?;
        }
        for agent in self.agents.iter().chain(&self.past) {
            writeln!(f, "{agent:#?}")?;
        }
        writeln!(f, "{:#?}", self.machine)
    }
}
