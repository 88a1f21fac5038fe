//! Steps: what an agent does on the way to an answer, or while its setup runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Incarnation, MessageId, TenantName};

/// Bytes that the text of one step may hold.
pub const STEP_LIMIT: usize = 64 << 10;

/// Bytes that the steps of one message may hold in all, in one attempt at it, or those before the first message of a
/// start. Each counts for its text and tool, and 1 KiB that it costs besides. A program is not trusted to end.
pub const STEPS_TOTAL: u64 = 64 << 20;

/// What a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// What the model thought.
    Thought,
    /// A tool that is called, with its arguments.
    ToolCall,
    /// What the tool answered.
    ToolResult,
    /// A picture of the desktop.
    Screenshot,
    /// Output of the setup script, or a remark of the program.
    Log,
}

/// A step as the program reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewStep {
    /// What it is.
    pub kind: StepKind,
    /// The tool, for calls and results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What it says.
    pub text: String,
}

impl Step {
    /// Bytes of its text.
    pub(crate) fn weight(&self) -> u64 {
        self.text.len() as u64
    }
}

impl NewStep {
    /// What it counts for in [`STEPS_TOTAL`].
    pub(crate) fn weight(&self) -> u64 {
        (self.text.len() + self.tool.as_ref().map_or(0, String::len)) as u64 + 1024
    }

    /// What stands in the place of all that there is no room for.
    pub(crate) fn no_room() -> Self {
        let text = "further steps are not kept: they take more than 64 MiB in all; write to a file instead";
        Self { kind: StepKind::Log, tool: None, text: text.into() }
    }
}

/// A step as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// The tenant of its agent.
    pub tenant: TenantName,
    /// Its agent.
    pub agent: AgentId,
    /// Its number among the agent's steps, from 1.
    pub seq: u64,
    /// The message that it was taken for; none for steps of the setup script.
    pub message: Option<MessageId>,
    /// Which attempt at that message.
    pub attempt: u32,
    /// The incarnation that took it.
    pub incarnation: Incarnation,
    /// What it is.
    pub kind: StepKind,
    /// The tool, for calls and results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// What it says.
    pub text: String,
    /// When it was recorded.
    pub at: Timestamp,
}
