//! What a server and its clients say to each other beside the types of `raworc-core`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use raworc_core::ids::{MessageId, TenantName, TokenId, UserName};
use serde::{Deserialize, Serialize};

/// Where the API begins.
pub const BASE: &str = "/api/v0";

/// The media type of the log's stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The header by which a request that is sent again has no second effect.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Tells that an answer is the one to an earlier request with the same key.
pub const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// Tells that the answer came before what the call waits for, and before its time was over: since the server closes, and another
/// one goes on where it is asked again; or since the caller's token is no longer good.
pub const WAIT_INTERRUPTED: &str = "wait-interrupted";

/// The header that names a request, in both directions.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest that a call waits for something to happen.
pub const WAIT_LIMIT: Duration = Duration::from_secs(600);

/// What every error looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorInfo,
}

/// An error, for programs and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ErrorInfo {
    /// A word for programs, the same in every release.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The things that the sentence speaks of, by name.
    #[serde(default)]
    #[cfg_attr(feature = "server", schema(value_type = Object))]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// Some of many things, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The things.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; null on the last.
    pub next: Option<String>,
}

/// A token, and whose it is.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct LoginReply {
    /// For `Authorization: Bearer`.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Who logged in.
    pub user: UserName,
    /// Their home tenant.
    pub tenant: TenantName,
    /// Whether they administer the installation.
    pub admin: bool,
}

impl fmt::Debug for LoginReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginReply")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Who a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The user.
    pub user: UserName,
    /// Their home tenant.
    pub tenant: TenantName,
    /// Whether they administer the installation.
    pub admin: bool,
    /// The token's id.
    pub token: TokenId,
    /// When the token expires.
    pub expires_at: Timestamp,
}

/// What an agent's computers did with one host and port of the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct EgressCount {
    /// Which, as `host:port`; `others` for what came after the first 256, or after 128 that were only refused.
    pub target: String,
    /// Connections that were made.
    pub connections: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
    /// Bytes that came back.
    pub received_bytes: u64,
}

/// For how long an agent is to be kept awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepAwake {
    /// Seconds from now.
    #[serde(rename = "for")]
    #[cfg_attr(feature = "server", schema(minimum = 1))]
    pub seconds: u64,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct VersionReply {
    /// The server's version.
    pub version: String,
    /// The version of this API.
    pub api: String,
}

/// Whether a server can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ReadyReply {
    /// Whether all of it is well.
    pub ready: bool,
    /// What was looked at: `ok`, or what is the matter.
    pub checks: BTreeMap<String, String>,
}

/// Words that a model writes just now: the data of a `delta` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct DeltaData {
    /// For which message.
    pub message: MessageId,
    /// The words.
    pub text: String,
}

/// How a command ended that was waited for, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
pub struct ExecResult {
    /// Its exit code; 128 and the signal's number where a signal ended it; null where it took too long.
    pub exit_code: Option<i32>,
    /// What it wrote to its standard output, the first MiB at most.
    pub stdout: String,
    /// What it wrote to its standard error, the first MiB at most.
    pub stderr: String,
    /// Whether there was more than that.
    pub truncated: bool,
    /// Whether it took longer than was waited for, and was ended.
    pub timed_out: bool,
}

/// How long a call waits: `30s`, `500ms`, `2m`, or seconds as a plain number; at most [`WAIT_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait(pub Duration);

/// A text that is no time to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use up to 600 seconds, such as 30s, 500ms, 2m or 30")]
pub struct InvalidWait;

impl FromStr for Wait {
    type Err = InvalidWait;

    fn from_str(text: &str) -> Result<Self, InvalidWait> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidWait)?;
        let millis = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            _ => return Err(InvalidWait),
        };
        let wait = Duration::from_millis(number.checked_mul(millis).ok_or(InvalidWait)?);
        if wait > WAIT_LIMIT { Err(InvalidWait) } else { Ok(Self(wait)) }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.min(WAIT_LIMIT).as_millis())
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_each_of_its_forms() {
        for (text, millis) in [("30s", 30_000), ("5", 5_000), ("500ms", 500), ("2m", 120_000), ("0", 0)] {
            assert_eq!(text.parse::<Wait>(), Ok(Wait(Duration::from_millis(millis))), "{text}");
        }
    }

    #[test]
    fn a_wait_that_is_none_is_refused() {
        for text in ["", "s", "-1", "1h", "601", "1.5s", " 5", "99999999999999999999"] {
            assert_eq!(text.parse::<Wait>(), Err(InvalidWait), "{text}");
        }
    }
}
