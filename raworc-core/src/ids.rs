//! Identifiers: UUIDv7 newtypes, and names that people type.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was made elsewhere.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

id! {
    /// An agent, for as long as anything of it is remembered.
    AgentId,
    /// A message in an agent's inbox or a reply from it.
    MessageId,
    /// A computer: a container, a pod or a directory with namespaces.
    ComputerId,
    /// A computer's volume, which outlives the computer.
    VolumeId,
    /// One call of [`Store::commit`](crate::store::Store::commit), the same for every resend of it.
    CommitId,
    /// A server or operator process, from its start to its end.
    ProcessId,
    /// A token that was handed out, so that it can be revoked.
    TokenId,
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct InvalidName {
    /// What was to be named.
    pub what: &'static str,
    /// The text that was given, cut to 80 characters.
    pub text: String,
    /// The rule that it broke.
    pub rule: &'static str,
}

const LABEL_RULE: &str = "use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends";

fn is_dns_label(text: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    matches!(bytes.len(), 1..=63)
        && bytes.iter().all(|&c| edge(c) || c == b'-')
        && bytes.first().is_some_and(|&c| edge(c))
        && bytes.last().is_some_and(|&c| edge(c))
}

macro_rules! label {
    ($($(#[$doc:meta])* $name:ident = $what:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks that `text` is a DNS label.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                if is_dns_label(&text) {
                    Ok(Self(text))
                } else {
                    Err(InvalidName {
                        what: $what,
                        text: text.chars().take(80).collect(),
                        rule: LABEL_RULE,
                    })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )+};
}

label! {
    /// An agent's name: a DNS label, unique among the living agents of its tenant.
    AgentName = "agent name",
    /// A tenant's name: the boundary of what a principal can see.
    TenantName = "tenant name",
    /// The name of a user.
    UserName = "user name",
    /// The name under which a runtime is configured, such as `docker` or `local`.
    RuntimeName = "runtime name",
    /// The name of a sealed secret.
    SecretName = "secret name",
}

impl TenantName {
    /// The tenant that exists before any other is made.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

impl RuntimeName {
    /// The name of a simulated runtime that was given no other.
    #[must_use]
    pub fn simulated() -> Self {
        Self("simulated".into())
    }
}

impl Default for TenantName {
    fn default() -> Self {
        Self::default_tenant()
    }
}

/// The fencing number of a computer's start: 0 before the first, then 1, 2, ...
///
/// What bears an older number than the agent's row is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The number of the start after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number of the start before this one; 0 where this is the first.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the one log of an installation: dense, from 1 on, in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The next place in the log.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_words_are_ordinary_names() {
        for name in ["login", "messages", "version", "events", "a", "0", "x-1"] {
            assert!(AgentName::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_not_a_dns_label_is_refused_with_the_rule() {
        for name in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a\0", &"a".repeat(64)] {
            let error = AgentName::new(name).expect_err(name);
            assert!(error.to_string().contains("1 to 63"), "{error}");
        }
    }
}
