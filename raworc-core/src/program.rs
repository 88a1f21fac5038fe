//! What a control plane and the program inside a computer say to each other.
//!
//! The program dials the agents' listener and calls it by plain HTTP under `/agent/v0`; the bodies are these types.
//! Over one connection that it dials and upgrades (`POST /agent/v0/link`) it serves HTTP/2 back: exec, files, logs,
//! stats and cancel are requests that the server opens.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, AgentName, CommitId, ComputerId, Incarnation, MessageId, TenantName};
use crate::message::{Message, Part};
use crate::step::{NewStep, Step};
use crate::store::Ending;

/// The version of this protocol that is spoken here. A server accepts programs two minors back.
pub const PROTOCOL: Protocol = Protocol { major: 1, minor: 1 };

/// Seconds between two heartbeats of a program.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// Percent of its limit that a full volume has to be down to before messages run again: a file that comes and goes at the limit
/// itself would start and stop them.
pub const DISK_ROOM_PERCENT: u64 = 95;

/// Whether messages run again on a volume that was full.
#[must_use]
pub const fn has_disk_room(used: u64, limit: u64) -> bool {
    used as u128 * 100 <= limit as u128 * DISK_ROOM_PERCENT as u128
}

/// A version of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Differs where nothing is understood any more.
    pub major: u16,
    /// Grows with each addition that the other side has to know. Reports and answers grow by fields without it: who does
    /// not know them leaves them out and passes them over.
    pub minor: u16,
}

impl Protocol {
    /// Whether a program that speaks `other` can be served.
    #[must_use]
    pub const fn accepts(self, other: Self) -> bool {
        self.major == other.major && other.minor <= self.minor && self.minor - other.minor <= 2
    }
}

/// `POST /agent/v0/boot`, without a token: trades the one-time key for a [`BootReply`]. Where no setup script has to run,
/// the program takes messages from then on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootRequest {
    /// From the boot line.
    pub computer: ComputerId,
    /// From the boot line.
    pub incarnation: Incarnation,
    /// From the boot line.
    pub key: String,
    /// What the program speaks.
    pub protocol: Protocol,
}

/// A token, good for this incarnation. `POST /agent/v0/token` renews it before it expires.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenReply {
    /// For `Authorization: Bearer`.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// What a program that booted has, and has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootReply {
    /// Its identity from now on.
    pub token: TokenReply,
    /// Who it is, and how it works.
    pub spec: ProgramSpec,
}

/// All that a program has to know before it works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramSpec {
    /// Its agent.
    pub agent: AgentId,
    /// Its agent's name.
    pub name: AgentName,
    /// Its tenant.
    pub tenant: TenantName,
    /// Its computer.
    pub computer: ComputerId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The setup script, where it has to run before anything else.
    pub setup: Option<SetupTask>,
    /// Whether its computer is closed: what it starts reaches the outside by its proxy alone, which opens a
    /// `POST /agent/v0/egress` for each connection.
    #[serde(default)]
    pub proxied: bool,
    /// Bytes that its volume may hold, where the program has to measure what it does: it reports that before it asks for
    /// its first message. Each heartbeat brings the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_limit: Option<u64>,
    /// How it works on messages. Each lease brings the newest.
    pub work: WorkSpec,
}

/// A setup script that has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupTask {
    /// A shell script.
    pub script: String,
    /// SHA-256 of its text in hexadecimal, for the report.
    pub hash: String,
    /// Seconds that it may take.
    pub limit: u64,
}

/// How a program works on messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkSpec {
    /// What the model is told before every conversation.
    pub instructions: Option<String>,
    /// Environment of the processes that it starts.
    pub env: BTreeMap<String, String>,
    /// The model, where the installation has one.
    pub model: Option<ModelSpec>,
    /// Limits of one message.
    pub limits: WorkLimits,
}

/// Which model, and how it is spoken to through the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Its name.
    pub name: String,
    /// What is spoken to it.
    pub wire: ModelWire,
    /// Tokens that it can read at once.
    pub context: u32,
    /// Whether it sees pictures.
    #[serde(default)]
    pub vision: bool,
}

/// What is spoken to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelWire {
    /// Ollama's own API: `POST /agent/v0/gateway/api/chat`.
    Ollama,
    /// An OpenAI-compatible one: `POST /agent/v0/gateway/v1/chat/completions`.
    Openai,
}

/// Limits of the work on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkLimits {
    /// Model calls.
    pub rounds: u32,
    /// Tokens that the model may write over all calls.
    pub tokens: u32,
    /// Seconds of one tool call, unless the call asks for fewer.
    pub tool_seconds: u64,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self { rounds: 50, tokens: 200_000, tool_seconds: 120 }
    }
}

/// `POST /agent/v0/setup`: how the setup script ended. The program takes messages from now on, unless it failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupReport {
    /// The hash from the task.
    pub hash: String,
    /// The last 4 KiB of its output and its exit, where it failed.
    pub failure: Option<String>,
}

/// `POST /agent/v0/lease?wait=SECONDS` answers this, or 204 where there is no message in that time.
///
/// Where the program holds a message already, because the first answer was lost, it gets the same again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseReply {
    /// The message.
    pub message: Message,
    /// What its predecessors did for it, where this is not the first attempt.
    pub earlier_steps: Vec<Step>,
    /// How to work on it.
    pub work: WorkSpec,
}

/// `POST /agent/v0/steps`: what the program did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepsReport {
    /// Made by the program, the same when it sends these steps again.
    pub commit: CommitId,
    /// For which message; for the setup where absent.
    pub message: Option<MessageId>,
    /// What it did.
    pub steps: Vec<NewStep>,
}

/// `POST /agent/v0/deltas`: words as the model writes them, best effort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaReport {
    /// For which message.
    pub message: MessageId,
    /// The words.
    pub text: String,
}

/// `POST /agent/v0/end`: the message in hand ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndReport {
    /// Made by the program, the same when it sends this again.
    pub commit: CommitId,
    /// Which message.
    pub message: MessageId,
    /// How it ends.
    pub ending: Ending,
    /// The answer.
    pub reply: Option<Vec<Part>>,
    /// The steps that were not reported yet.
    pub steps: Vec<NewStep>,
}

/// `POST /agent/v0/heartbeat`: the program lives. One that is older than this report says `null`.
///
/// A sign of life counts whatever else stands beside it, so fields that are not known are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatReport {
    /// Bytes that the files on its volume take there, as of the last time that it looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_used: Option<u64>,
}

/// `POST /agent/v0/heartbeat` answers this.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// A message that it holds and should give up.
    pub cancel: Option<MessageId>,
    /// Bytes that its volume may hold, where the program has to measure what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_limit: Option<u64>,
}

/// On the link, `POST /cancel`: give up this message and end its command.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Which message.
    pub message: MessageId,
}

/// On the link, `POST /exec`: run a command. Answers [`ExecStarted`]; then `GET /exec/{id}/stdout`,
/// `GET /exec/{id}/stderr`, `PUT /exec/{id}/stdin`, `POST /exec/{id}/resize` ([`TerminalSize`]),
/// `GET /exec/{id}/wait` ([`ExecStatus`]) and `DELETE /exec/{id}` (end it) are plain streams and calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The program and its arguments.
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub command: Vec<String>,
    /// Where; the agent's home, `/agent`, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment beside the agent's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A terminal of this size; stdout and stderr are one then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Whether something will be written to its standard input.
    #[serde(default)]
    pub stdin: bool,
}

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines.
    #[cfg_attr(feature = "openapi", schema(maximum = 65535))]
    pub rows: u16,
    /// Characters a line.
    #[cfg_attr(feature = "openapi", schema(maximum = 65535))]
    pub cols: u16,
}

/// A command that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecStarted {
    /// Its id, good until its end was asked for or a minute after.
    pub id: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecStatus {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub exit_code: i32,
}

/// On the link, `GET /files?path=` of a directory with `Accept: application/json`; of a file it is the bytes.
/// `PUT /files?path=` writes one, `DELETE /files?path=` takes one away, and `GET` or `PUT /archive?path=` moves a
/// whole tree as tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileEntry {
    /// Its name in its directory.
    pub name: String,
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was last written.
    pub modified_at: Option<Timestamp>,
}

/// On the link, `GET /stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComputerStats {
    /// Processes in the computer.
    pub processes: u64,
    /// Bytes of memory that they use.
    pub memory_bytes: u64,
    /// Seconds of processor time that they have used.
    pub cpu_seconds: f64,
    /// Bytes that the volume holds, as far as its file system tells.
    pub disk_bytes: Option<u64>,
}
