//! Steps: what an agent does on the way to an answer, or while its setup runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Incarnation, MessageId, TenantName};

/// Bytes that the text of one step may hold.
pub const STEP_LIMIT: usize = 64 << 10;

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
