//! Messages: a durable inbox for each agent, and the replies from it.

mod state;

pub use state::{MAX_ATTEMPTS, MessageDecision, MessageEvent, MessageState};

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::blob::BlobId;
use crate::ids::{AgentId, Incarnation, MessageId, TenantName};
use crate::trace::TraceParent;

/// Bytes of text that one message may hold, over all its parts.
pub const MESSAGE_LIMIT: usize = 1 << 20;

/// Parts that one message may hold.
pub const PARTS_LIMIT: usize = 64;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A person or a service that uses the agent.
    #[default]
    User,
    /// The agent's program.
    Agent,
    /// Its owner, about how to behave.
    System,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Part {
    /// Text.
    Text {
        /// The text, in UTF-8.
        text: String,
    },
    /// A file that is kept apart.
    Blob {
        /// Which one.
        blob: BlobId,
        /// Its media type, such as `image/png`.
        media_type: String,
    },
}

impl Part {
    /// A part of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }

    /// The text of this part; empty for a blob.
    #[must_use]
    pub fn as_text(&self) -> &str {
        match self {
            Self::Text { text } => text,
            Self::Blob { .. } => "",
        }
    }
}

/// A message in an agent's inbox, or a reply from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The tenant of its agent.
    pub tenant: TenantName,
    /// Its agent.
    pub agent: AgentId,
    /// Its number among the agent's messages, from 1.
    pub seq: u64,
    /// Who speaks.
    pub role: Role,
    /// Who wrote it: a principal, as `user:NAME` or `agent:NAME`.
    pub author: String,
    /// What it says.
    pub parts: Vec<Part>,
    /// The message that this one answers.
    pub reply_to: Option<MessageId>,
    /// How far it is. A reply is done from the start.
    pub state: MessageState,
    /// How often it was taken up.
    pub attempt: u32,
    /// The incarnation that holds it, or held it last.
    pub incarnation: Option<Incarnation>,
    /// Whether somebody asked to cancel it while it was held.
    pub cancel_requested: bool,
    /// Why it failed or was cancelled.
    pub reason: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was last taken up.
    pub leased_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Where in which trace what is done for it goes on, where somebody traces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub traceparent: Option<TraceParent>,
}

impl Message {
    /// Bytes of its text: what it takes of its agent's inbox.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.parts.iter().map(|part| part.as_text().len() as u64).sum()
    }

    /// All its text, parts joined by a line break.
    #[must_use]
    pub fn text(&self) -> String {
        let texts: Vec<_> = self.parts.iter().map(Part::as_text).filter(|t| !t.is_empty()).collect();
        texts.join("\n")
    }

    /// What it refers to that is kept apart, each once.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<BlobId> {
        let blob = |part: &Part| match part {
            Part::Blob { blob, .. } => Some(*blob),
            Part::Text { .. } => None,
        };
        self.parts.iter().filter_map(blob).collect()
    }

    /// The shell command that it asks for: a message that begins with `!` is run without a model.
    #[must_use]
    pub fn command(parts: &[Part]) -> Option<&str> {
        match parts {
            [Part::Text { text }] => text.strip_prefix('!').map(str::trim).filter(|c| !c.is_empty()),
            _ => None,
        }
    }
}
